"""Open vSwitch restarts, a node reboots: all that should live comes back, and until then nothing passes that should not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.lab.support import checks, promise
from tests.world.guests.guest import Guest
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import CLIENT

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
A, A_EIP, A_PUBLIC = "192.168.0.10", "192.168.0.250", "54.10.20.41"
B, STRANGER, THERE = "192.168.0.60", "192.168.0.81", "192.168.0.82"


def _crash(host: Host) -> None:
    host.kill_ovs("ovs-vswitchd")
    host.start_ovs()


def _crash_of_both(host: Host) -> None:
    host.kill_ovs()
    host.start_ovs()


TROUBLES: dict[str, Callable[[Host], None]] = {
    "ovs-vswitchd killed": _crash,
    "both killed": _crash_of_both,
    "both restarted": Host.restart_ovs,
}

# What the kernel of a node forgets in a reboot; the routes have gone with the devices.
_FORGET = """
rm -rf /run/aws_ovs; install -d /run/aws_ovs
nft delete table ip aws_ovs; nft delete table netdev aws_ovs
while ip rule del table 4789 2>/dev/null; do :; done
echo 0 >/proc/sys/net/ipv4/conf/ens5/forwarding
"""

# Asks by ARP, again and again: as the guest that it is, with another's address, and with another's MAC.
_SEND = """
import socket, sys, time
interface, mac, own, other = sys.argv[1:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((interface, 0))
def ask(mac, ip):
    mac, ip = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(ip)
    nobody = socket.inet_aton("192.168.0.99")
    return b"\\xff" * 6 + mac + bytes.fromhex("08060001080006040001") + mac + ip + bytes(6) + nobody
frames = [ask(mac, own), ask(mac, other), ask("02:00:c0:a8:00:99", own)]
print("ready", flush=True)
while True:
    for frame in frames:
        s.send(frame)
    time.sleep(0.005)
"""


def _populate(lab: Lab) -> None:
    """A VM with an Elastic IP on h1, one of its network on h2, and on both a stranger on the same bridge."""
    lab.play(DEPLOY)
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 2, B), "h2"))
    for vm_id, ip, host in ((5, STRANGER, "h1"), (6, THERE, "h2")):
        lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, vm_id, ip, vlan_id="4242"), host))


def _works(lab: Lab) -> None:
    """From VM to VM across hosts, from the Internet to the Elastic IP, and out by SNAT."""
    assert checks.reaches(checks.ping(lab.guest(1), A_EIP, B))
    assert checks.reaches(checks.ping(lab.guest(5), STRANGER, THERE))
    with checks.Web() as web:
        web.guest(lab.guest(1), {80})
        web.internet(lab)
        assert checks.fetch_in(lab, A_PUBLIC) == CLIENT
        assert checks.fetch_out(lab.guest(1), A_EIP) == A_PUBLIC
        assert checks.fetch_out(lab.guest(1), A) == lab.hosts["h1"].instance.public_ip


def _all_is_well(lab: Lab) -> None:
    assert "down" not in lab.tunnels("h1").values()
    done = lab.hosts["h1"].run(["aws-ovs", "check"], check=False)
    assert done.returncode == 0, done.stdout


class Ears:
    """Listens in guests for what another says by ARP."""

    def __init__(self, *guests: Guest) -> None:
        self._running = [
            guest.spawn(["tcpdump", "-n", "-e", "-l", "-i", "eth0", "arp", "and", "arp[24:4]", "=", "0xc0a80063"])
            for guest in guests
        ]
        for process in self._running:
            assert process.stderr
            while "listening" not in (line := process.stderr.readline()):
                assert line, "tcpdump did not start"

    def heard(self) -> list[set[tuple[str, str]]]:
        """Who asked, as MAC and address, for each guest; it listens no more."""
        for process in self._running:
            process.terminate()
        texts = [process.communicate()[0] for process in self._running]
        return [set(re.findall(r"(02:\S+) > .* tell (\S+),", text)) for text in texts]


@contextmanager
def _asking(guest: Guest) -> Iterator[None]:
    card = next(card for card in guest.cards if card.device == "eth1")
    process = guest.spawn(["/usr/bin/python3", "-c", _SEND, card.device, card.mac, A_EIP, "192.168.0.77"])
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_restore_brings_everything_back_and_nothing_false_passes_meanwhile(fresh_lab: Lab, trouble: str) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    _populate(lab)
    _works(lab)
    before = _without_process(lab.dump("h1"))
    own = ("02:00:c0:a8:00:fa", A_EIP)
    all_the_time = Ears(lab.guest(2), lab.guest(5), lab.guest(6))
    with _asking(lab.guest(1)):
        TROUBLES[trouble](host)
        meanwhile = Ears(lab.guest(2), lab.guest(5), lab.guest(6))
        assert checks.ping(lab.guest(1), A_EIP, B, count=2) == "no answer"
        assert checks.ping(lab.guest(1), A, "192.168.0.1", count=1) == "no answer"
        assert checks.fetch_in(lab, A_PUBLIC).startswith("nothing")
        found = host.run(["aws-ovs", "check"], check=False)
        assert found.returncode == 1
        assert "the process of ovs-vswitchd" in found.stdout
        assert meanwhile.heard() == [set(), set(), set()], "without flows nothing passes"
        host.run(["aws-ovs", "restore"])
        _all_is_well(lab)
        assert checks.reaches(checks.ping(lab.guest(1), A_EIP, B))
    assert all_the_time.heard() == [{own}, set(), set()], "its network hears what is its own; strangers hear nothing"
    _works(lab)
    assert _without_process(lab.dump("h1")) == before


def _without_process(text: str) -> str:
    return re.sub(r'"ovs-vswitchd": "[\d ]+"', "", text)


def test_a_restart_of_ovsdb_server_alone_cuts_nobody_off(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    _populate(lab)
    steady = lab.guest(1).spawn(["ping", "-n", "-i", "0.1", "-c", "40", "-I", A_EIP, B])
    host.kill_ovs("ovsdb-server")
    done = host.run(["aws-ovs", "restore"], check=False)
    assert done.returncode == 1
    assert "Open vSwitch does not answer" in done.stderr
    host.start_ovs()
    host.run(["aws-ovs", "restore"])
    assert " 40 received, 0% packet loss" in steady.communicate(timeout=60)[0]
    _works(lab)
    _all_is_well(lab)


def test_restore_says_that_ovs_vswitchd_does_not_run(fresh_lab: Lab) -> None:
    host = fresh_lab.hosts["h1"]
    host.kill_ovs("ovs-vswitchd")
    done = host.run(["aws-ovs", "restore"], check=False)
    host.start_ovs()
    assert done.returncode == 1
    assert done.stderr == (
        "aws-ovs: restore: ovs-vswitchd does not run; start it: systemctl start openvswitch-switch\n"
    )


WAIT = "other_config:flow-restore-wait"


def _crash_and_wait(host: Host) -> None:
    """As systemd does it on a node with VMs: ovs-vswitchd handles nothing before it is told to."""
    host.kill_ovs("ovs-vswitchd")
    host.run(["ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".", f"{WAIT}=true"])
    host.start_ovs()
    assert _waits(host)


def _waits(host: Host) -> bool:
    return "true" in host.run(["ovs-vsctl", "--if-exists", "get", "Open_vSwitch", ".", WAIT]).stdout


def test_ovs_vswitchd_waits_for_its_flows_until_restore_has_brought_them(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    _populate(lab)
    _crash_and_wait(host)
    assert checks.ping(lab.guest(1), A_EIP, B, count=1) == "no answer"
    host.run(["aws-ovs", "restore", "--dry-run"])
    assert _waits(host)
    host.run(["aws-ovs", "restore"])
    assert not _waits(host)
    _all_is_well(lab)
    _works(lab)


def test_a_restore_that_fails_lets_ovs_vswitchd_begin_all_the_same(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    _populate(lab)
    _crash_and_wait(host)
    host.run(["mount", "--bind", "/usr/bin/false", "/usr/sbin/nft"])
    assert "nft refused" in host.run(["aws-ovs", "restore"], check=False).stderr
    assert not _waits(host)
    host.run(["umount", "/usr/sbin/nft"])
    host.run(["aws-ovs", "restore"])
    _all_is_well(lab)
    _works(lab)


def test_the_next_action_restores_the_node_too(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    _populate(lab)
    another = promise.deploy(promise.other_vm(DOCUMENT, 1, 7, "192.168.0.70"), "h1")
    pre, plug, post = another.steps
    _crash(host)
    lab.play(another._replace(steps=(pre,)))
    _works(lab)
    lab.play(another._replace(steps=(plug,)))
    _crash_and_wait(host)
    lab.play(another._replace(steps=(post,)))
    _works(lab)
    assert checks.reaches(checks.ping(lab.guest(7), "192.168.0.70", B))
    _all_is_well(lab)


def _reboot(lab: Lab) -> None:
    """h1 reboots: its VMs are gone, their ports stay in Open vSwitch's database."""
    host = lab.hosts["h1"]
    host.stop_ovs()
    for vm_id in [vm_id for vm_id, guest in lab.hypervisor.guests.items() if guest.host is host]:
        lab.hypervisor.destroy(vm_id)
    host.run(["sh", "-c", _FORGET])
    host.start_ovs()
    assert set(_guest_ports(host)) >= {"one-1-0", "one-1-1", "one-5-0"}


def _guest_ports(host: Host) -> list[str]:
    return re.findall(r"one-\d+-\d+", host.run(["ovs-vsctl", "--columns=name", "list", "Port"]).stdout)


def test_a_reboot_leaves_a_node_without_vms_that_works(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    _populate(lab)
    _reboot(lab)
    found = host.run(["aws-ovs", "check"], check=False)
    assert "this node has not been set up since it booted" in found.stdout
    assert "port one-1-0 has no device, and its VM is gone; run 'aws-ovs restore'" in found.stdout
    host.run(["aws-ovs", "restore"])
    assert _guest_ports(host) == []
    _all_is_well(lab)
    once = lab.dump("h1")
    host.run(["aws-ovs", "restore"])
    assert lab.dump("h1") == once
    for document in (DOCUMENT, promise.other_vm(DOCUMENT, 1, 5, STRANGER, vlan_id="4242")):
        lab.play(promise.deploy(document, "h1"))
    _works(lab)
    _all_is_well(lab)


def test_after_a_reboot_the_first_vm_sets_the_node_up_and_may_have_a_lost_ones_addresses(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    _populate(lab)
    _reboot(lab)
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 8, A_EIP), "h1"))
    assert checks.reaches(checks.ping(lab.guest(8), A_EIP, B))
    assert _guest_ports(host) == ["one-8-0"]
    _all_is_well(lab)


def test_a_port_that_is_plugged_in_or_of_another_driver_stays(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    lab.play(DEPLOY)
    another = promise.deploy(promise.other_vm(DOCUMENT, 1, 7, "192.168.0.70"), "h1")
    lab.play(another._replace(steps=another.steps[:2]))
    host.run(
        ["ovs-vsctl", "add-br", "br-else", "--", "set", "Bridge", "br-else", f"datapath_type={host.datapath_type}"]
    )
    host.run(["ovs-vsctl", "--no-wait", "add-port", "br-else", "one-9-0"])
    host.run(["aws-ovs", "restore"])
    assert sorted(_guest_ports(host)) == ["one-1-0", "one-1-1", "one-7-0", "one-9-0"]
    lab.play(another._replace(steps=another.steps[2:]))
    assert checks.reaches(checks.ping(lab.guest(7), "192.168.0.70", "192.168.0.1"))
