"""`update_nic`, `update_sg` and `vnet_delete` on a VM that runs, with real packets.

OpenNebula sends the NICs as they are now, and in VNET_UPDATE the values that were before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lxml import etree

from tests.lab.support import checks, promise
from tests.lab.support.alive import Neighbours, remains, unhealthy
from tests.lab.support.promise import text
from tests.lab.test_operations import internet_pings, last, nic, set_value
from tests.world.guests import document
from tests.world.lab import DriverError, Lab
from tests.world.recording import Recording, Step, load
from tests.world.vpc.vpc import SERVER

BEFORE = last("vnet-update")
A, A_EIP = "192.168.0.10", "192.168.0.250"
pytestmark = pytest.mark.xdist_group("update_nic")  # one VM is for all
Values = dict[str, str | None]


def update(values: Values, nics: tuple[int, ...] = (1,), xml: bytes = BEFORE, vnet_id: str = "0") -> Recording:
    """The recorded update of a network, but of other attributes; None removes one."""

    def change(root: etree._Element) -> None:
        (old,) = root.findall("TEMPLATE/VNET_UPDATE")
        for child in list(old):
            old.remove(child)
        for number in nics:
            for key, value in values.items():
                set_value(old, key, text(nic(root, number), key))
                set_value(nic(root, number), key, value)
            if "GATEWAY" in values:
                (entry,) = root.findall(f"TEMPLATE/CONTEXT/ETH{number}_GATEWAY")
                entry.text = values["GATEWAY"]

    (step,) = load("vnet-update").steps
    step = step._replace(argv=(f"one-{promise.vm_id(xml)}", vnet_id), xml=promise.changed(xml, change))
    return Recording("vnet-update", (step,))


def after(recording: Recording) -> bytes:
    """The VM as an update leaves it."""
    return recording.steps[-1].xml or b""


class Running:
    """VM 1 on h2 as the recorded update left it, among its neighbours."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.neighbours = lab, Neighbours(lab)
        lab.play(promise.deploy(BEFORE, "h2"))

    def play(self, recording: Recording) -> None:
        """Carry out an update; the guest adopts what is its own business, as after a renewal of its lease."""
        self.lab.play(recording)
        self.lab.guest(1).reconfigure(document.parse(after(recording)).cards)


@pytest.fixture(scope="module")
def started(lab: Lab) -> Running:
    """The VM, for all tests here."""
    lab.reset()
    return Running(lab)


@pytest.fixture
def running(started: Running) -> Iterator[Running]:
    """The VM; its networks become again what they were."""
    yield started
    started.play(update({}))
    assert unhealthy(started.lab) == []


def test_the_recorded_update_and_one_without_a_change_disturb_nothing(running: Running) -> None:
    lab = running.lab
    steady = [
        lab.guest(1).spawn(["ping", "-n", "-i", "0.05", "-c", "40", "-I", source, target])
        for source, target in ((A, "192.168.0.1"), (A_EIP, SERVER), (A, "192.168.0.103"))
    ]
    for recording in (load("vnet-update"), update({}), load("sg-update"), load("vnet-update")):
        lab.play(recording)
    for ping in steady:
        assert " 40 received" in ping.communicate(timeout=30)[0]
    assert running.neighbours.alive(BEFORE) == []


def test_a_gateway_that_moves(running: Running) -> None:
    recording = update({"GATEWAY": "192.168.0.254"})
    running.play(recording)
    assert running.neighbours.alive(after(recording)) == []
    guest = running.lab.guest(1)
    assert checks.ping(guest, A_EIP, "192.168.0.1", count=1) == "no answer"
    assert checks.reaches(checks.ping(guest, A, "192.168.0.1"))  # the other network's


def test_a_network_that_loses_its_gateway_has_no_way_out(running: Running) -> None:
    recording = update({"GATEWAY": None, "AWS_PRIVATE_IP": None, "EXTERNAL_IP": None})
    running.lab.play(recording)
    guest = running.lab.guest(1)  # which still has its old route
    for target in ("192.168.0.1", SERVER):
        assert checks.ping(guest, A_EIP, target, count=1) == "no answer"
    assert not internet_pings(running.lab, "54.10.20.41")
    assert running.neighbours.alive(after(recording)) == []


@pytest.mark.parametrize("mtu", ["1300", None])
def test_an_mtu_that_fits(running: Running, mtu: str | None) -> None:
    recording = update({"MTU": mtu}, nics=(0, 2, 3), vnet_id="1")
    running.play(recording)
    assert running.neighbours.alive(after(recording)) == []


def test_an_mtu_that_does_not_fit_changes_nothing(running: Running) -> None:
    before = running.lab.dump("h2")
    with pytest.raises(DriverError, match=r"MTU 9000 does not fit.*9001, which leaves 1450"):
        running.lab.play(update({"MTU": "9000", "GATEWAY": "192.168.0.254"}, nics=(0, 2, 3), vnet_id="1"))
    assert running.lab.dump("h2") == before
    assert running.neighbours.alive(BEFORE) == []


def test_a_vni_that_changes_takes_the_port_to_the_other_network(running: Running) -> None:
    lab = running.lab
    recording = update({"VLAN_ID": "4242"})
    running.play(recording)
    guest = lab.guest(1)
    assert unhealthy(lab) == []
    assert checks.ping(guest, A_EIP, "192.168.0.203", count=1) == "no answer"
    assert checks.ping(lab.guest(3), "192.168.0.203", A_EIP, count=1) == "no answer"
    assert checks.reaches(checks.ping(guest, A_EIP, "192.168.0.1"))
    assert internet_pings(lab, "54.10.20.41")
    friend = promise.other_vm(after(recording), 1, 7, "192.168.0.70")
    lab.play(promise.deploy(friend, "h3"))
    assert checks.reaches(checks.ping(guest, A_EIP, "192.168.0.70"))
    assert checks.reaches(checks.ping(lab.guest(7), "192.168.0.70", A_EIP))
    lab.play(promise.terminate(friend, "h3"))
    assert remains(lab, friend) == []


def test_a_vni_of_another_network_is_refused(running: Running) -> None:
    """Else `onevnet update` of one network would let its VMs into another."""
    lab = running.lab
    other = promise.other_vm(BEFORE, 1, 7, "192.168.0.70", vlan_id="4242")
    other = promise.changed(other, lambda root: set_value(nic(root, 0), "NETWORK_ID", "9"))
    lab.play(promise.deploy(other, "h2"))
    before = lab.dump("h2")
    with pytest.raises(
        DriverError, match=r"NIC 1: VNI 4242 of network 0 is that of network 9 on this node, where VM 7"
    ):
        lab.play(update({"VLAN_ID": "4242"}))
    assert lab.dump("h2") == before
    assert checks.ping(lab.guest(7), "192.168.0.70", A_EIP, count=1) == "no answer"
    elsewhere = promise.changed(
        promise.other_vm(BEFORE, 1, 8, "192.168.0.80", vlan_id="4242"),
        lambda root: set_value(nic(root, 0), "BRIDGE", "ovsbr9"),
    )
    with pytest.raises(DriverError, match="VNI 4242 of network 0 is that of network 9"):
        lab.play(promise.deploy(elsewhere, "h2"))
    reservation = promise.changed(elsewhere, lambda root: set_value(nic(root, 0), "BRIDGE", "ovsbr0"))
    lab.play(promise.deploy(reservation, "h2"))
    assert checks.reaches(checks.ping(lab.guest(7), "192.168.0.70", "192.168.0.80"))
    for xml in (other, reservation):
        lab.play(promise.terminate(xml, "h2"))
    assert running.neighbours.alive(BEFORE) == []


def test_filters_that_are_switched_off_and_on(running: Running) -> None:
    lab, guest = running.lab, running.lab.guest(1)
    guest.run(["ip", "address", "add", "192.168.0.77/24", "dev", "eth1"])
    guest.run(["ip", "rule", "add", "from", "192.168.0.77", "lookup", "101"])  # as the NIC's own address
    try:
        for values, passes in (
            ({}, False),
            ({"FILTER_IP_SPOOFING": "NO"}, True),
            ({"FILTER_IP_SPOOFING": "YES", "FILTER_MAC_SPOOFING": "NO"}, False),
            ({"FILTER_IP_SPOOFING": None, "FILTER_MAC_SPOOFING": None}, False),
        ):
            lab.play(update(dict(values)))
            seen = checks.ping(guest, "192.168.0.77", "192.168.0.203", count=2)
            assert checks.reaches(seen) == passes, (values, seen)
            assert unhealthy(lab) == []
    finally:
        guest.run(["ip", "rule", "del", "from", "192.168.0.77", "lookup", "101"])
        guest.run(["ip", "address", "del", "192.168.0.77/24", "dev", "eth1"])


def test_an_elastic_ip_that_is_exchanged_removed_and_given(running: Running) -> None:
    lab = running.lab
    other: Values = {"AWS_PRIVATE_IP": "10.0.0.43", "EXTERNAL_IP": "54.10.20.43", "AWS_ALLOCATION_ID": "eipalloc-0a3"}
    none: Values = dict.fromkeys(other)
    for recording in (update(other), update(none), update(other, nics=(2,), vnet_id="1")):
        running.play(recording)
        assert running.neighbours.alive(after(recording)) == []
        has = [reach.public_ip for card in promise.cards(after(recording)) for reach in card.reaches]
        for address in ("54.10.20.41", "54.10.20.43"):
            if address not in has:
                assert not internet_pings(lab, address)


def test_an_update_to_an_address_of_another_vm_is_refused(running: Running) -> None:
    lab = running.lab
    other = promise.other_vm(BEFORE, 1, 7, "192.168.0.70")
    lab.play(
        promise.deploy(
            promise.changed(other, lambda root: set_value(nic(root, 0), "AWS_PRIVATE_IP", "10.0.0.43")), "h2"
        )
    )
    before = lab.dump("h2")
    with pytest.raises(DriverError, match=r"10\.0\.0\.43 is in use on this node by VM 7"):
        lab.play(update({"AWS_PRIVATE_IP": "10.0.0.43"}))
    assert lab.dump("h2") == before
    lab.play(promise.terminate(other, "h2"))
    assert running.neighbours.alive(BEFORE) == []


def test_deleting_networks_changes_nothing_on_the_nodes(running: Running) -> None:
    lab = running.lab
    before = {name: lab.dump(name) for name in lab.hosts}
    lab.play(load("vnet-delete"))
    for xml in (b"<VNET><ID>2</ID></VNET>", b"not XML"):
        lab.play(Recording("vnet-delete", (Step("vnet_delete", "frontend", ("2",), xml),)))
    assert {name: lab.dump(name) for name in lab.hosts} == before
    shown = json.loads(lab.hosts["h2"].run(["aws-ovs", "show", "--json"]).stdout)
    assert [port["nic_id"] for port in shown["ports"] if port["vm_id"] == 1] == [0, 1, 2, 3]


def test_shared_ports_that_change(fresh_lab: Lab) -> None:
    lab = fresh_lab
    xml = last("deploy-ports")
    lab.play(promise.deploy(xml, "h2"))
    (shaped,) = promise.parse(BEFORE).findall("TEMPLATE/VNET_UPDATE")
    whole = promise.changed(xml, lambda root: etree.SubElement(root, "TEMPLATE").append(shaped))
    new: Values = {"EXTERNAL_PORT_RANGE": "9101:9104", "INTERNAL_PORT_RANGE": "21-24/9101"}
    with checks.Web() as web:
        web.guest(lab.guest(5), {1, 4, 21, 24})
        assert checks.fetch_in(lab, "54.10.20.45", 9004) == "203.0.113.10"
        lab.play(update(new, nics=(0,), xml=whole, vnet_id="11"))
        for port, answers in ((9101, True), (9104, True), (9001, False), (9105, False)):
            assert (checks.fetch_in(lab, "54.10.20.45", port) == "203.0.113.10") == answers, port
    assert unhealthy(lab) == []
