"""What a guest must not do to the guests beside it and to the nodes, and what it may: whole stories with packets."""

from __future__ import annotations

import re
import time

from tests.lab.support import checks, ethernet, promise, wire
from tests.lab.support.segment import document, mac, start, stop
from tests.world.lab import Lab


def test_a_guest_speaks_no_bfd_to_a_node_and_its_own_reaches_guests(fresh_lab: Lab) -> None:
    """BFD messages that a guest has forged change no tunnel, and are a packet like any other to the guest they are for."""
    lab = fresh_lab
    start(lab, document(1, "192.168.7.10"), "h1")
    start(lab, document(2, "192.168.7.11"), "h2")
    for name, host in lab.hosts.items():  # as an older version has made the tunnels
        for peer in lab.hosts.values():
            if peer is not host:
                tunnel = "vx-" + bytes(map(int, peer.instance.private_ip.split("."))).hex()
                host.run(["ovs-vsctl", "remove", "Interface", tunnel, "bfd", "check_tnl_key"])
        host.run(["aws-ovs", "restore"])
        assert "down" not in lab.tunnels(name).values()
    states = "ovs-vsctl --format=csv --columns=name,bfd_status find Interface type=vxlan"
    before = lab.hosts["h2"].run(states.split()).stdout
    forged = [
        ethernet.ethernet(
            "02:00:c0:a8:07:0b", "02:00:c0:a8:07:0a", 0x0800,
            ethernet.udp4("192.168.7.10", "192.168.7.11", (49152, 3784), ethernet.bfd(state) + wire.mark(state), ttl=255),
        )
        for state in (0, 1, 2, 3)
    ]  # fmt: skip
    with wire.Watch() as watch:
        watch.card("guest", lab.guest(2), "eth0")
        wire.send(lab.guest(1), "eth0", forged)
        time.sleep(0.5)
        assert lab.hosts["h2"].run(states.split()).stdout == before
    assert watch.seen["guest"] == [0, 1, 2, 3]


FREE = {"FILTER_MAC_SPOOFING": "NO", "FILTER_IP_SPOOFING": "NO"}
VIRTUAL_MAC = "00:00:5e:00:01:07"
"""Of VRRP: the router that is the master has it."""
_MACVLAN = """
ip link add mv0 link eth0 type macvlan mode bridge
ip link set mv0 address 02:99:00:00:00:01 up
ip address add 192.168.7.50/32 dev mv0
ip rule add from 192.168.7.50 lookup 50 priority 50
ip route add 192.168.7.0/24 dev mv0 table 50
"""
_FORGET = "for bridge in $(ovs-vsctl list-br); do ovs-ofctl del-flows $bridge cookie=0xa800000000000000/0xfe00000000000000; done"


def from_mac(source: str, to: str, number: int, ip: str = "192.168.7.99") -> bytes:
    """A frame that is marked, with UDP that is for nobody."""
    packet = ethernet.udp4(ip, "192.168.7.98", (5000, 5000), wire.mark(number))
    return ethernet.ethernet(to, source, 0x0800, packet)


def from_vm(ip: str, to: str, number: int) -> bytes:
    """The same from the MAC and the address that a VM has."""
    return from_mac(mac(ip), to, number, ip)


def flows(lab: Lab, host: str, bridge: str, match: str) -> int:
    """How many flows of a bridge match."""
    return lab.hosts[host].run(["ovs-ofctl", "dump-flows", bridge, match]).stdout.count("cookie=")


def arrives(lab: Lab, sender: int, frame: bytes, number: int, *receivers: int) -> set[int]:
    """Which of some VMs a marked frame reaches."""
    with wire.Watch() as watch:
        for vm_id in receivers:
            watch.card(str(vm_id), lab.guest(vm_id), "eth0")
        wire.send(lab.guest(sender), "eth0", [frame])
        time.sleep(0.3 * lab.hosts["h1"].slowness)
    return {int(name) for name, numbers in watch.seen.items() if number in numbers}


def test_machines_within_a_vm_are_reached_when_the_network_lets_it_have_other_macs(fresh_lab: Lab) -> None:
    """Containers by macvlan, from the same host and from another; also when nobody remembers where they are."""
    lab = fresh_lab
    start(lab, document(1, "192.168.7.10", **FREE), "h1")
    start(lab, document(2, "192.168.7.11"), "h1")
    start(lab, document(3, "192.168.7.12", **FREE), "h2")
    lab.guest(1).run(["sh", "-ec", _MACVLAN])
    for vm_id, address in ((2, "192.168.7.11"), (3, "192.168.7.12")):
        assert checks.reaches(checks.ping(lab.guest(vm_id), address, "192.168.7.50"))
        assert checks.reaches(checks.ping(lab.guest(1), "192.168.7.50", address))
    for host in ("h1", "h2"):
        assert lab.hosts[host].run(["aws-ovs", "check"]).stdout.startswith("ok: ")
        lab.hosts[host].run(["sh", "-ec", _FORGET])
    assert arrives(lab, 2, from_vm("192.168.7.11", "02:99:00:00:00:01", 1), 1, 1) == {1}
    assert arrives(lab, 3, from_vm("192.168.7.12", "02:99:00:00:00:01", 2), 2, 1) == {1}
    assert checks.reaches(checks.ping(lab.guest(3), "192.168.7.12", "192.168.7.10"))


def test_a_nic_gets_so_many_macs_and_no_more(fresh_lab: Lab) -> None:
    lab = fresh_lab
    start(lab, document(1, "192.168.7.10", **FREE), "h1")
    start(lab, document(2, "192.168.7.11", **FREE), "h2")
    start(lab, document(3, "192.168.7.12"), "h1")
    flood = [from_mac(f"02:99:00:00:{number >> 8:02x}:{number & 255:02x}", mac("192.168.7.11"), number)
             for number in range(2000)]  # fmt: skip
    with wire.Watch() as watch:
        watch.card("far", lab.guest(2), "eth0")
        wire.send(lab.guest(1), "eth0", flood, spacing_ms=0.2)
        time.sleep(0.5 * lab.hosts["h1"].slowness)
    assert set(watch.seen["far"]) == set(range(64))
    at_port, in_network = "cookie=0xa800000000000000/0xff00000000000000", "cookie=0xa900000000000000/0xff00000000000000"
    assert flows(lab, "h1", "onebr7", at_port) == 64
    assert flows(lab, "h2", "onebr7", at_port) == 0
    for host in ("h1", "h2"):
        assert flows(lab, host, "aws_ovs", in_network) <= 64 + 3
    refused = lab.hosts["h1"].run(["ovs-ofctl", "dump-flows", "onebr7", "table=4,cookie=0xa500000000010000/-1"]).stdout
    counted = [int(count) for count in re.findall(r"n_packets=(\d+),.* actions=drop", refused)]
    assert counted, refused
    assert counted[0] > 1000, "what is refused is counted; a busy machine loses some before"
    # Those that it has got it keeps, and other guests are not disturbed.
    assert arrives(lab, 1, flood[5], 5, 2) == {2}
    assert checks.reaches(checks.ping(lab.guest(3), "192.168.7.12", "192.168.7.11"))
    assert lab.driver("h1", "post", ("one-1", "h1"), document(1, "192.168.7.10")).returncode == 0
    assert flows(lab, "h1", "onebr7", at_port) == flows(lab, "h1", "onebr7", in_network) == 0
    stop(lab, document(2, "192.168.7.11", **FREE), "h2")
    assert flows(lab, "h2", "onebr7", in_network) == flows(lab, "h2", "aws_ovs", in_network) == 0


def test_nobody_gets_the_mac_of_a_vm_on_another_host(fresh_lab: Lab) -> None:
    """Neither by a VM that starts after it, nor once a node has forgotten all that it had learned."""
    lab = fresh_lab
    victim, thief = "192.168.7.21", mac("192.168.7.21")
    start(lab, document(1, victim), "h2")
    start(lab, document(2, "192.168.7.11"), "h1")
    start(lab, document(3, "192.168.7.12", **FREE), "h1")
    start(lab, document(4, "192.168.7.13"), "h3")
    lab.tunnels("h1")
    settle = 0.5 * lab.hosts["h1"].slowness
    for number, command in enumerate(("true", "aws-ovs restore", _FORGET)):
        lab.hosts["h1"].run(["sh", "-ec", command])
        time.sleep(settle)
        if command == _FORGET:  # nobody has asked: the first frame passes, and the victim's node tells
            wire.send(lab.guest(3), "eth0", [from_mac(thief, ethernet.BROADCAST, 0)])
            time.sleep(2 * settle)
        for to in (ethernet.BROADCAST, mac("192.168.7.13"), mac("192.168.7.11")):
            assert arrives(lab, 3, from_mac(thief, to, number), number, 1, 2, 4) == set(), (number, to)
        for vm_id, address in ((2, "192.168.7.11"), (4, "192.168.7.13")):
            wire.send(lab.guest(1), "eth0", [from_vm(victim, mac(address), 0)])
            frame = from_vm(address, thief, 10 + number)
            assert arrives(lab, vm_id, frame, 10 + number, 1, 3) == {1}, (number, vm_id)


def test_a_virtual_mac_moves_to_who_used_it_last(fresh_lab: Lab) -> None:
    """As keepalived with use_vmac needs: from one router to another on the same host, and to one on another host."""
    lab = fresh_lab
    for vm_id, host in ((1, "h1"), (2, "h1"), (3, "h2")):
        start(lab, document(vm_id, f"192.168.7.1{vm_id}", **FREE), host)
    start(lab, document(4, "192.168.7.24"), "h1")
    start(lab, document(5, "192.168.7.25"), "h3")
    for number, master in enumerate((1, 2, 3, 1, 3, 2)):
        wire.send(lab.guest(master), "eth0", [from_mac(VIRTUAL_MAC, ethernet.BROADCAST, 100 + number)])
        time.sleep(0.1 * lab.hosts["h1"].slowness)
        for vm_id in (4, 5):
            frame = from_vm(f"192.168.7.2{vm_id}", VIRTUAL_MAC, number)
            assert arrives(lab, vm_id, frame, number, 1, 2, 3) == {master}, (number, vm_id)


def test_a_vm_keeps_its_mac_wherever_it_migrates(fresh_lab: Lab) -> None:
    """Among guests that may have any MAC, and nodes that have heard that it is elsewhere."""
    lab = fresh_lab
    start(lab, document(1, "192.168.7.10", **FREE), "h1")
    start(lab, document(2, "192.168.7.11", **FREE), "h2")
    vm = document(3, "192.168.7.12")
    start(lab, vm, "h1")
    for source, target in (("h1", "h2"), ("h2", "h1"), ("h1", "h3"), ("h3", "h1")):
        there = promise.on_host(vm, target)
        assert lab.driver(target, "pre", (), there).returncode == 0
        lab.guest(3).migrate(lab.hosts[target])
        assert lab.driver(source, "clean", (source,), there).returncode == 0
        assert lab.driver(target, "post", ("one-3", source), there).returncode == 0
        for vm_id, address in ((1, "192.168.7.10"), (2, "192.168.7.11")):
            assert checks.reaches(checks.ping(lab.guest(3), "192.168.7.12", address)), (target, vm_id)
            assert checks.reaches(checks.ping(lab.guest(vm_id), address, "192.168.7.12")), (target, vm_id)


def test_a_network_with_two_bridges_on_a_node_is_one(fresh_lab: Lab) -> None:
    """A guest on one of them neither takes the MAC of one on the other, nor answers for the gateway that it has."""
    lab = fresh_lab
    start(lab, document(1, "192.168.7.11", GATEWAY="192.168.7.1"), "h1")
    start(lab, document(2, "192.168.7.12", BRIDGE="onebr8", **FREE), "h1")
    start(lab, document(3, "192.168.7.13"), "h2")
    thief = mac("192.168.7.11")
    assert arrives(lab, 2, from_mac(thief, ethernet.BROADCAST, 1), 1, 1, 3) == set()
    lab.hosts["h1"].run(["sh", "-ec", _FORGET])  # also of the guest that has been silent since then
    for number, vm_id, address in ((2, 3, "192.168.7.13"), (3, 2, "192.168.7.12")):
        assert arrives(lab, vm_id, from_vm(address, thief, number), number, 1, 2) == {1}
    false = (mac("192.168.7.12"), "192.168.7.1")
    gateway = ethernet.arp(ethernet.BROADCAST, false[0], ethernet.ARP_REPLY, false, (thief, "192.168.7.11"))
    assert arrives(lab, 2, gateway.ljust(60, b"\0") + wire.mark(4), 4, 1, 3) == set()
    assert checks.reaches(checks.ping(lab.guest(1), "192.168.7.11", "192.168.7.12"))
