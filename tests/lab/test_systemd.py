"""A host with systemd: install.sh, the units that it brings, and what VMs see of restarts, crashes and reboots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lab.support import promise
from tests.lab.support.alive import Neighbours, unhealthy
from tests.lab.support.checks import Check, Report
from tests.lab.support.pings import Ping, pinging, recovered
from tests.lab.test_operations import last
from tests.world.hosts.datapath import UnavailableError
from tests.world.hosts.disk import FROM_WHEELS
from tests.world.hosts.host import Host
from tests.world.hosts.host_kernel import SystemdHost
from tests.world.hosts.image import CHECKOUT
from tests.world.lab import Lab
from tests.world.recording import load

pytestmark = [
    pytest.mark.only_on("kernel", reason="a namespace has no systemd"),
    pytest.mark.xdist_group("systemd"),
]

DOCUMENT = last("deploy")
RESTORE, VSWITCHD = "aws_ovs-restore.service", "ovs-vswitchd.service"
UNITS = "/usr/lib/systemd/system"

_NO_LOOKING = "base_reachable_time_ms=3600000", "delay_first_probe_time=3600"


@pytest.fixture(scope="module")
def systemd_lab() -> Iterator[Lab]:
    """h1 starts by systemd, h2 and h3 do not."""
    try:
        with Lab(hosts=3, systemd=["h1"]) as lab:
            yield lab
    except UnavailableError as missing:
        pytest.skip(f"NOT RUN: {missing}")


@pytest.fixture(scope="module")
def host(systemd_lab: Lab) -> SystemdHost:
    found = systemd_lab.hosts["h1"]
    assert isinstance(found, SystemdHost)
    return found


def _install(host: Host, *options: str) -> str:
    done = host.run([f"{CHECKOUT}/install.sh", *options], env=FROM_WHEELS, timeout=600)
    return done.stdout + done.stderr


def _property(host: Host, unit: str, name: str) -> str:
    return host.run(["systemctl", "show", "--value", "--property", name, unit]).stdout.strip()


def test_install_and_uninstall(systemd_lab: Lab, host: SystemdHost) -> None:
    """What systemd has loaded follows the files; of an uninstalled driver nothing is left, and it can come again."""
    assert "Nothing to change." in _install(host, "--node")
    assert "remove /usr/sbin/aws-ovs" in _install(host, "--uninstall", "--node")
    assert _property(host, RESTORE, "LoadState") == "not-found"
    assert _property(host, VSWITCHD, "DropInPaths") == ""
    left = host.run(["sh", "-c", "ls /etc/sudoers.d /etc/sysctl.d /usr/sbin; systemctl list-unit-files"]).stdout
    assert "aws" not in left
    refused = systemd_lab.driver("h1", "pre", (), DOCUMENT)
    assert "/usr/sbin/aws-ovs is not installed on host h1" in refused.stderr
    assert "install /usr/sbin/aws-ovs" in _install(host, "--node")
    assert _property(host, RESTORE, "LoadState") == "loaded"
    assert _property(host, VSWITCHD, "DropInPaths") == f"{UNITS}/ovs-vswitchd.service.d/aws_ovs.conf"
    assert RESTORE in _property(host, VSWITCHD, "ExecStartPost")
    assert "Nothing to change." in _install(host, "--node")
    host.run(["aws-ovs", "restore"])
    assert unhealthy(systemd_lab) == []


def test_nothing_waits_without_vms_or_without_restore(systemd_lab: Lab, host: SystemdHost) -> None:
    """ovs-vswitchd is told to wait for its flows only where there are flows to come, and somebody who brings them."""
    lab = systemd_lab
    lab.reset()
    _restart(host)
    assert "flow-restore-wait" not in _waits(host)
    lab.play(load("deploy"))
    host.run(["systemctl", "mask", "--runtime", RESTORE])
    try:
        _restart(host)
        assert "flow-restore-wait" not in _waits(host)
    finally:
        host.run(["systemctl", "unmask", "--runtime", RESTORE])
    pid = host.ovs_pids()["ovs-vswitchd"]
    _restart(host)
    host.settled(pid)
    assert unhealthy(lab) == []


def test_a_restore_that_dies_lets_ovs_vswitchd_begin(systemd_lab: Lab, host: SystemdHost) -> None:
    lab = systemd_lab
    lab.reset()
    lab.play(load("deploy"))
    pid = host.ovs_pids()["ovs-vswitchd"]
    _restart(host)
    assert "flow-restore-wait" in _waits(host), "restore was faster than this test"
    host.run(["systemctl", "kill", "--signal", "KILL", RESTORE])
    host.settled(pid)
    assert "flow-restore-wait" not in _waits(host)
    assert unhealthy(lab) == []


def _waits(host: Host) -> str:
    return host.run(["ovs-vsctl", "get", "Open_vSwitch", ".", "other_config"]).stdout


def _restart(host: SystemdHost) -> None:
    host.run(["systemctl", "restart", "openvswitch-switch"], timeout=120)


def _crash(host: SystemdHost) -> None:
    host.run(["pkill", "-KILL", "-x", "ovs-vswitchd"])


@pytest.mark.parametrize("trouble", [_restart, _crash], ids=["restart of openvswitch-switch", "crash of ovs-vswitchd"])
def test_vms_live_on(
    systemd_lab: Lab, host: SystemdHost, trouble: Callable[[SystemdHost], None], report: Report
) -> None:
    """Nobody but systemd does anything, and all is as before."""
    lab = systemd_lab
    lab.reset()
    neighbours = Neighbours(lab)
    lab.play(load("deploy"))
    assert neighbours.alive(DOCUMENT) == []
    before, pid = lab.dump("h1"), host.ovs_pids()["ovs-vswitchd"]
    for guest in lab.hypervisor.guests.values():
        # A guest that looks just then whether a neighbour is still there is cut off, which is another thing to measure.
        settings = [f"net.ipv4.neigh.{card.device}.{setting}" for card in guest.cards for setting in _NO_LOOKING]
        guest.network(["sysctl", "-q", "-w", *settings])
    pings = pinging(lab)
    trouble(host)
    host.settled(pid)
    recovered(pings)
    report(_ended(pings))
    assert "flow-restore-wait" not in _waits(host)
    assert neighbours.alive(DOCUMENT) == []
    assert _without_process(lab.dump("h1")) == _without_process(before)


def test_a_reboot(systemd_lab: Lab, host: SystemdHost, report: Report) -> None:
    """The host's VMs are gone, those of others do not notice; then it takes VMs again without further ado."""
    lab = systemd_lab
    lab.reset()
    neighbours = Neighbours(lab)
    lab.play(promise.deploy(promise.on_host(DOCUMENT, "h2"), "h2"))
    pings = pinging(lab, without="h1")
    lab.hypervisor.destroy(2)
    host.reboot()
    recovered(pings)
    report(_ended(pings))
    assert unhealthy(lab) == []
    assert int(host.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_max"]).stdout) >= 1048576
    lab.play(neighbours.recordings[2])
    assert neighbours.alive(promise.on_host(DOCUMENT, "h2")) == []


def _without_process(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if '"ovs-vswitchd"' not in line)


def _ended(pings: dict[str, Ping]) -> list[Check]:
    return [Check(f"pings {name}", True, str(ping.end())) for name, ping in pings.items()]
