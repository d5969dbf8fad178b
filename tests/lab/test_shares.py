"""What the VMs of a node share has shares: the flood of one VM harms no other, and `aws-ovs show` tells of it."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.lab.support import checks, promise
from tests.world.guests.guest import Guest
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import SERVER

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
A, A_EIP, NEIGHBOUR = "192.168.0.10", "192.168.0.250", "192.168.0.60"
A_EIP_MAC = "02:00:c0:a8:00:fa"
PORT = 4000
SHARE = 4096

_ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{SERVER}", {PORT}))
print("ready", flush=True)
while True:
    data, sender = s.recvfrom(2000)
    if data != b"flood":
        s.sendto(data, sender)
"""

# Asks from so many new sockets, and prints how many are answered.
_ASK = """
import socket, sys
source, count = sys.argv[1], int(sys.argv[2])
sockets = []
for _ in range(count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((source, 0))
    s.settimeout(2)
    s.sendto(b"ask", (sys.argv[3], int(sys.argv[4])))
    sockets.append(s)
answered = 0
for s in sockets:
    try:
        answered += s.recv(100) == b"ask"
    except TimeoutError:
        pass
print(answered)
"""

# A connection of its own, then one of each port there is, then again the first; prints how often that was answered. A slow
# machine takes longer than UDP connections are remembered (30 s), so it is used meanwhile, and loses packets, so it asks again.
_FLOOD = """
import socket, sys, time
source, target = sys.argv[1], (sys.argv[2], int(sys.argv[3]))
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
old.bind((source, 1023))
old.settimeout(1)
def ask(number):
    question = b"mine %d" % number
    for _ in range(5):
        old.sendto(question, target)
        try:
            while old.recv(100) != question:
                pass
            return True
        except TimeoutError:
            pass
    return False
answered = ask(0)
for port in range(1024, 65536):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((source, port))
        s.sendto(b"flood", target)
    if port % 256 == 0:
        time.sleep(0.01)
    if port % 4096 == 0:
        ask(port)
print(answered + ask(1))
"""


# Sends UDP packets to so many MACs, all different, whose first byte is given: 02 for machines, 03 for groups.
_SPREAD = """
import os, socket, sys, time
first, own, count, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth1", 0))
rest = bytes.fromhex(own + "0800")
packet = bytes.fromhex("4500001c00000000401100007f000001e0000001" + "0fa00fa000080000")
packet = packet[:12] + socket.inet_aton(sys.argv[5]) + packet[16:]
for number in range(count):
    s.send(bytes.fromhex(first) + os.urandom(2) + number.to_bytes(3, "big") + rest + packet)
    if number % 10 == 9:
        time.sleep(pause)
"""
FLOOD, LIMIT = 12_000, 200


def show(host: Host) -> list[dict[str, Any]]:
    """The ports that `aws-ovs show` knows."""
    ports: list[dict[str, Any]] = json.loads(host.run(["aws-ovs", "show", "--json"]).stdout)["ports"]
    return ports


def asked(guest: Guest, source: str, count: int = 20) -> int:
    """How many of so many new connections of a guest to the Internet are answered."""
    done = guest.run(["/usr/bin/python3", "-c", _ASK, source, str(count), SERVER, str(PORT)])
    return int(done.stdout)


def test_a_flood_of_connections_uses_up_the_share_of_its_vm_only(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 2, NEIGHBOUR), "h1"))
    with checks.Web() as servers:
        servers.serve(lab.vpc.internet_spawn(["/usr/bin/python3", "-c", _ECHO]))
        assert asked(lab.guest(1), A) == asked(lab.guest(2), NEIGHBOUR) == 20
        flood = lab.guest(1).run(["/usr/bin/python3", "-c", _FLOOD, A, SERVER, str(PORT)])
        assert asked(lab.guest(2), NEIGHBOUR) == 20
        assert flood.stdout.strip() == "2", "its own connection of before lives on"
        assert asked(lab.guest(1), A) == 0
        # What has an Elastic IP needs no share.
        assert asked(lab.guest(1), A_EIP) == 20
    refused = {port["name"]: port["connections_refused"] for port in show(lab.hosts["h1"])}
    assert refused["one-1-0"] > SHARE  # a busy machine loses many before
    assert (refused["one-1-1"], refused["one-2-0"]) == (0, 0)
    assert lab.hosts["h1"].run(["aws-ovs", "check"]).stdout.startswith("ok: ")


def spread(guest: Guest, first: str, count: int, pause: float) -> None:
    """Let VM 1 send on eth1 to so many MACs."""
    own = A_EIP_MAC.replace(":", "")
    guest.run(["/usr/bin/python3", "-c", _SPREAD, first, own, str(count), str(pause), A_EIP])


def floods_dropped(host: Host) -> dict[str, int]:
    """How many packets of each port its meters have dropped, once a slow host has seen all that was sent."""
    while True:
        before, after = ({port["name"]: port["floods_dropped"] for port in show(host)} for _ in range(2))
        if before == after:
            return after
        time.sleep(0.5)


def cached(host: Host) -> int:
    """How many flows the datapath of a host has."""
    return len(host.run(["ovs-appctl", "dpctl/dump-flows"]).stdout.splitlines())


def received(guest: Guest) -> int:
    """How many packets a guest's card has received."""
    return int(guest.run(["cat", "/sys/class/net/eth0/statistics/rx_packets"]).stdout)


@pytest.mark.parametrize(("first", "arrives"), [("02", False), ("03", True)])
def test_a_flood_to_unknown_machines_or_groups_harms_no_other_host(fresh_lab: Lab, first: str, arrives: bool) -> None:
    lab = fresh_lab
    host, other = lab.hosts["h1"], lab.hosts["h2"]
    lab.play(DEPLOY)
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 2, NEIGHBOUR), "h2"))
    assert checks.reaches(checks.ping(lab.guest(1), A_EIP, NEIGHBOUR))
    before, begin = received(lab.guest(2)), time.monotonic()
    spread(lab.guest(1), first, FLOOD, 0.002)
    dropped = floods_dropped(host)
    passed = LIMIT * (2 + time.monotonic() - begin)  # a burst, and its rate
    assert passed < FLOOD / 2, "this was no flood"
    assert cached(other) < passed + 100
    assert received(lab.guest(2)) - before < passed + 100
    assert any(checks.reaches(checks.ping(lab.guest(1), A_EIP, NEIGHBOUR)) for _ in range(5)), "also on a slow host"
    assert dropped["one-1-0"] == 0
    assert dropped["one-1-1"] > FLOOD / 4
    # What is usual passes.
    before = received(lab.guest(2))
    spread(lab.guest(1), first, 100, 0.1)
    assert floods_dropped(host) == dropped
    assert not arrives or received(lab.guest(2)) - before >= 100
    assert host.run(["aws-ovs", "check"]).stdout.startswith("ok: ")


def meters(host: Host, bridge: str) -> list[str]:
    """The numbers and rates of a bridge's meters."""
    shown = host.run(["ovs-ofctl", "-OOpenFlow13", "dump-meters", bridge]).stdout
    return [f"{number} {rate}" for number, rate in re.findall(r"meter=(\d+).*\n.*rate=(\d+)", shown)]


def test_meters_are_there_again_after_a_restart_and_begin_anew_for_the_next_vm(fresh_lab: Lab) -> None:
    lab = fresh_lab
    host = lab.hosts["h1"]
    lab.play(DEPLOY)
    spread(lab.guest(1), "03", 2000, 0.001)
    assert show(host)[1]["floods_dropped"] > 0
    host.restart_ovs()
    host.run(["aws-ovs", "restore"])
    assert meters(host, "aws_ovs") == ["1 200", "2 200"]
    assert (meters(host, "onebr1"), meters(host, "ovsbr0")) == (["1 200"], ["2 200"])
    assert "down" not in lab.tunnels("h1").values()
    assert host.run(["aws-ovs", "check"]).stdout.startswith("ok: ")
    spread(lab.guest(1), "03", 2000, 0.001)
    seen = show(host)[1]["floods_dropped"]
    assert seen > 0
    assert lab.driver("h1", "update_sg", ("one-1",), DOCUMENT).returncode == 0
    assert show(host)[1]["floods_dropped"] == seen, "it is the same NIC"
    lab.play(load("terminate"))
    for vm_id, ip in ((2, NEIGHBOUR), (3, "192.168.0.61")):
        lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, vm_id, ip), "h1"))
    assert [(port["vm_id"], port["slot"], port["floods_dropped"]) for port in show(host)] == [(2, 1, 0), (3, 2, 0)]


def test_a_bridge_that_has_no_meters_is_named(fresh_lab: Lab) -> None:
    lab = fresh_lab
    host = lab.hosts["h1"]
    lab.play(DEPLOY)
    host.run(["ovs-vsctl", "set", "Bridge", "ovsbr0", "protocols=OpenFlow10"])
    done = lab.driver("h1", "update_sg", ("one-1",), DOCUMENT)
    assert done.returncode == 1
    remedy = "ovs-vsctl clear Bridge ovsbr0 protocols"
    assert f"bridge ovsbr0 does not speak OpenFlow 1.3; let it speak all versions: {remedy}" in done.stderr
    host.run(remedy.split())
    assert lab.driver("h1", "update_sg", ("one-1",), DOCUMENT).returncode == 0
