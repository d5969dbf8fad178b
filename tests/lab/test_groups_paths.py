"""Every way to and from a guest passes the same rules: what counts is the other end's address as the guest sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.alive import Neighbours, unhealthy
from tests.lab.support.groups import EXCHANGE, Rule, grouped, grouped_all, inbound, outbound, ready, update
from tests.lab.support.pings import A_EIP, PUBLIC, A
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import CLIENT, SERVER

pytestmark = pytest.mark.xdist_group("groups_paths")  # one VM is for all
BARE = load("deploy").steps[-1].xml or b""
GATEWAY, OTHER = "192.168.0.1", "192.168.0.103"
PING_OUT = outbound("ICMP", ICMP_TYPE="8")
_ASK_NOBODY = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.connect((sys.argv[2], 9))
s.settimeout(3)
s.send(b"?")
try:
    s.recv(1)
except OSError as error:
    print(type(error).__name__)
"""


class Running:
    """VM 1 on h1, its neighbours, and web servers everywhere."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.guest = lab, lab.guest(1)

    def rules(self, *rules: Rule) -> None:
        """Give the VM these rules and no others."""
        assert update(self.lab, "h1", grouped(BARE, *rules)) == ""


@pytest.fixture(scope="module")
def started(lab: Lab) -> Iterator[Running]:
    """The VM, for all tests here."""
    lab.reset()
    Neighbours(lab)
    lab.play(grouped_all(load("deploy"), inbound("TCP", "22")))
    with checks.Web() as web:
        for vm_id in (1, 2, 3):
            web.guest(lab.guest(vm_id), {80})
        web.internet(lab)
        yield Running(lab)


@pytest.fixture
def running(started: Running) -> Iterator[Running]:
    """The VM; the Internet has no narrow hop afterwards."""
    yield started
    started.lab.vpc.set_internet_mtu(1500)
    assert unhealthy(started.lab) == []


def _from(lab: Lab, address: str) -> str:
    """Fetch a page from the VM, from one of the Internet's addresses."""
    command = ["curl", "-s", "--connect-timeout", "1", "--interface", address, f"http://{PUBLIC}/"]
    return lab.vpc.internet(command, check=False).stdout.strip()


def test_an_elastic_ip_passes_the_rules_with_the_internets_addresses(running: Running) -> None:
    lab = running.lab
    running.rules(inbound("TCP", "80", IP=CLIENT, SIZE="1"))
    assert _from(lab, CLIENT) == CLIENT
    assert _from(lab, SERVER) == ""
    assert checks.fetch_out(running.guest, A_EIP).startswith("nothing")
    running.rules(outbound("TCP", "80", IP=SERVER, SIZE="1"))
    assert _from(lab, CLIENT) == ""
    assert checks.fetch_out(running.guest, A_EIP) == PUBLIC


def test_what_the_node_hides_behind_its_own_address_passes_them_too(running: Running) -> None:
    running.rules(outbound("TCP", "80", IP=SERVER, SIZE="1"))
    assert checks.fetch_out(running.guest, A) == running.lab.hosts["h1"].instance.public_ip
    running.rules(outbound("TCP", "80", IP=CLIENT, SIZE="1"))
    assert checks.fetch_out(running.guest, A).startswith("nothing")


def test_a_vm_that_asks_itself_by_its_elastic_ip_needs_both_rules(running: Running) -> None:
    to_itself, from_itself = (rule("TCP", "80", IP=PUBLIC, SIZE="1") for rule in (outbound, inbound))
    for rules, seen in (((to_itself,), ""), ((from_itself,), ""), ((to_itself, from_itself), PUBLIC)):
        running.rules(*rules)
        command = ["curl", "-s", "--connect-timeout", "1", "--interface", A_EIP, f"http://{PUBLIC}/"]
        assert running.guest.run(command, check=False).stdout.strip() == seen


def test_the_gateway_answers_where_a_rule_lets_the_guest_ask(running: Running) -> None:
    running.rules(outbound("ICMP", IP=GATEWAY, SIZE="1"))
    assert checks.reaches(checks.ping(running.guest, A, GATEWAY))
    assert checks.ping(running.guest, A, OTHER, count=1) == "no answer"
    running.rules(outbound("ICMP", IP=OTHER, SIZE="1"))
    assert checks.ping(running.guest, A, GATEWAY, count=1) == "no answer"
    assert checks.reaches(checks.ping(running.guest, A, OTHER))


@pytest.mark.parametrize("source", [A_EIP, A])
def test_path_mtu_discovery_needs_no_rule_of_its_own(running: Running, source: str) -> None:
    running.rules(PING_OUT)
    running.lab.vpc.set_internet_mtu(1300)
    guest, device = running.guest, "eth1" if source == A_EIP else "eth0"
    guest.run(["ip", "route", "flush", "cache"])
    checks.ping(guest, source, SERVER, size=1400, count=2)
    assert "mtu 1300" in guest.run(["ip", "route", "get", SERVER, "from", source, "oif", device]).stdout


def test_a_page_of_the_vm_passes_a_narrow_hop(running: Running) -> None:
    running.rules(inbound("TCP", "80"))
    running.lab.vpc.set_internet_mtu(1300)
    command = ["curl", "-s", "--max-time", "20", "-w", "%{size_download}", "-o", "/dev/null"]
    assert running.lab.vpc.internet([*command, f"http://{PUBLIC}/big/300000/0"]).stdout == "300000"


def test_errors_about_the_guests_own_packets_reach_it(running: Running) -> None:
    running.rules(outbound("UDP", "9"))
    for source, target in ((A, OTHER), (A_EIP, SERVER)):
        seen = running.guest.run(["/usr/bin/python3", "-c", _ASK_NOBODY, source, target]).stdout
        assert seen == "ConnectionRefusedError\n", target


def test_fragments_pass_as_the_packet_that_they_are_of(running: Running) -> None:
    lab, guest = running.lab, running.guest
    others = (lab.guest(2), "192.168.0.202", A_EIP), (lab.guest(3), OTHER, A)
    running.rules(inbound("ICMP", ICMP_TYPE="8"), inbound("UDP", "7000"))
    for other, theirs, own in others:
        assert checks.reaches(checks.ping(other, theirs, own, size=4000, fragment=True))
        assert checks.ping(guest, own, theirs, size=4000, count=1, fragment=True) == "no answer"
    seen = lab.vpc.internet(["ping", "-n", "-c", "2", "-s", "4000", "-I", CLIENT, PUBLIC], check=False).stdout
    assert " 0% packet loss" in seen
    running.rules(PING_OUT, outbound("UDP", "7000"))
    for other, theirs, own in others:
        assert checks.reaches(checks.ping(guest, own, theirs, size=4000, fragment=True))
        assert checks.ping(other, theirs, own, size=4000, count=1, fragment=True) == "no answer"
    checks.ping(guest, A_EIP, SERVER, size=4000, fragment=True)  # the first ones find nothing in any cache
    assert checks.reaches(checks.ping(guest, A_EIP, SERVER, size=4000, fragment=True))


_BIG = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.settimeout(3)
s.sendto(b"x" * 1900, (sys.argv[2], 7000))
print(len(s.recv(4000)))
"""


def test_big_udp_packets_pass_both_ways(running: Running) -> None:
    lab, guest = running.lab, running.guest
    servers: list[subprocess.Popen[str]] = [
        machine.spawn([*EXCHANGE, "answer", "7000"]) for machine in (guest, lab.guest(3))
    ]
    for server in servers:
        ready(server)
    for rule, asking, theirs, own in ((inbound, lab.guest(3), A, OTHER), (outbound, guest, OTHER, A)):
        running.rules(rule("UDP", "7000"))
        assert asking.run(["/usr/bin/python3", "-c", _BIG, own, theirs], check=False).stdout == "1900\n"
        running.rules(rule("UDP", "7001"))
        assert asking.run(["/usr/bin/python3", "-c", _BIG, own, theirs], check=False).stdout == ""
    for server in servers:
        server.kill()
        server.wait()


def test_an_address_that_several_vms_share_by_ports_passes_the_ports_that_the_guest_sees(running: Running) -> None:
    lab = running.lab
    recording = grouped_all(load("deploy-ports"), inbound("TCP", "1,3", IP=CLIENT, SIZE="1"))
    document = recording.steps[-1].xml or b""
    assert lab.driver("h1", "clean", ("h1",), grouped(BARE)).returncode == 0  # both have 192.168.0.10
    try:
        lab.play(recording)
        with checks.Web() as web:
            web.guest(lab.guest(5), {1, 2, 3})
            seen = [checks.fetch_in(lab, "54.10.20.45", port) for port in (9001, 9002, 9003)]
        assert seen[::2] == [CLIENT, CLIENT]
        assert seen[1].startswith("nothing")
    finally:
        lab.play(promise.terminate(document, "h1"))
        running.rules()
