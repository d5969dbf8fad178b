"""The main job in one go, short enough to be tried on the kernel datapath whenever all tests are run."""

from __future__ import annotations

import pytest

from tests.lab.frames import FAR, FILTERED, NEAR
from tests.lab.support import checks, promise
from tests.lab.support.alive import Neighbours, remains
from tests.lab.test_frames import astray
from tests.lab.test_operations import last
from tests.world.hosts.host import ENI, ENI_MTU
from tests.world.lab import Lab
from tests.world.recording import load

DOCUMENT = last("deploy")
A_EIP = "192.168.0.250"


def test_a_vm_lives(fresh_lab: Lab) -> None:
    """Deployed, migrated, its host's Open vSwitch started anew: each time all that its document promises is so.

    That is: it reaches its gateways and the VMs of its networks on two hosts, and they reach it; not those of other
    networks; its Elastic IP leads to it, and what it sends leaves by that or by its host's address.
    """
    lab = fresh_lab
    neighbours = Neighbours(lab)
    lab.play(load("deploy"))
    assert neighbours.alive(DOCUMENT) == []
    lab.play(load("live-migrate"))
    assert neighbours.alive(promise.on_host(DOCUMENT, "h2")) == []
    lab.hosts["h2"].restart_ovs()
    lab.hosts["h2"].run(["aws-ovs", "restore"])
    assert neighbours.alive(promise.on_host(DOCUMENT, "h2")) == []
    lab.play(promise.terminate(DOCUMENT, "h2"))
    assert remains(lab, DOCUMENT) == []


def test_what_a_usual_guest_sends_arrives_where_it_may_and_nowhere_else(fresh_lab: Lab) -> None:
    wrong = astray(fresh_lab, (FILTERED,), (NEAR, FAR))
    assert not wrong, "\n".join(wrong)


@pytest.mark.only_on("kernel", reason="the userspace datapath drops what is too big and says nothing")
def test_a_guest_that_does_not_know_the_mtu_is_told(fresh_lab: Lab) -> None:
    """On a network whose packets have 1500 bytes, between two VMs one of which ignores its context."""
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    lab.play(load("deploy"))
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 2, "192.168.0.252"), "h2"))
    guest = lab.guest(1)
    card = next(card for card in guest.cards if card.nic_id == 1)
    guest.network(["ip", "link", "set", card.device, "mtu", "1500"])
    host.run(["ip", "link", "set", ENI, "mtu", "1500"])
    try:
        assert checks.ping(guest, A_EIP, "192.168.0.252", size=1472) == "refused: message too long"
        assert checks.reaches(checks.ping(guest, A_EIP, "192.168.0.252", size=1422))
    finally:
        host.run(["ip", "link", "set", ENI, "mtu", str(ENI_MTU)])
