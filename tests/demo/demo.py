"""`make demo`: the main job, end to end, and what was measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.demo.topology import DrawnHost, DrawnVm, as_svg, as_text
from tests.lab.support import checks, promise
from tests.lab.support.checks import Check
from tests.world.front_end import FrontEnd
from tests.world.guests.guest import Guest
from tests.world.hosts.datapath import UnavailableError
from tests.world.lab import Lab
from tests.world.recording import Recording, load, substitute
from tests.world.vpc.vpc import CLIENT

DRAWING = Path("demo-topology.svg")
ELASTIC = ("AWS_PRIVATE_IP", "AWS_ALLOCATION_ID", "EXTERNAL_IP")
DOWNLOAD_BYTES, DOWNLOAD_S, ADDRESS_DELAY_S = 4_000_000, 8, 1.0
BROADCASTS = 5
ELASTIC_IP = "54.10.20.41"
POOL = """
NAME = "public"
VN_MAD = "aws_ovs"
BRIDGE = "ovsbr0"
VLAN_ID = "100"
AWS_EIP_POOL = "tag:Pool=web"
NETWORK_ADDRESS = "192.168.0.0"
NETWORK_MASK = "255.255.255.0"
GATEWAY = "192.168.0.1"
"""

_LISTEN = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9999))
s.settimeout(0.2)
print("ready", flush=True)
n, end = 0, time.monotonic() + 3
while time.monotonic() < end:
    try:
        n += s.recv(100).startswith(b"all")
    except TimeoutError:
        pass
print(n)
"""
_SHOUT = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth1")
s.bind((sys.argv[1], 0))
for _ in range(int(sys.argv[2])):
    s.sendto(b"all", ("255.255.255.255", 9999))
    time.sleep(0.05)
"""


class Vm:
    """A VM of the demo; its second NIC is in the network that all three share."""

    def __init__(self, name: str, recording: Recording) -> None:
        self.name, self.recording = name, recording
        self.document = promise.settled(recording.steps[-1].xml or b"")
        self.vm_id = promise.vm_id(self.document)
        self.card = promise.cards(self.document)[1]
        self.ip = self.card.ip


class Lease(NamedTuple):
    """What OpenNebula gives VM A of the pool: an address range of the Elastic IP."""

    vnet_id: int
    ar_id: int
    ip: str
    attributes: dict[str, str]

    def given(self, recording: Recording) -> Recording:
        """A recorded operation of VM A, with this lease."""
        private_ip, allocation = self.attributes["AWS_PRIVATE_IP"], self.attributes["AWS_ALLOCATION_ID"]
        values = {"10.0.0.41": private_ip, "eipalloc-0a1": allocation}
        return substitute(recording, ips={"192.168.0.250": self.ip}, values=values)


def machines(lease: Lease) -> list[Vm]:
    """VM A as recorded, with its lease; B and C made of it without an Elastic IP."""
    recorded = load("deploy")
    made = [Vm("A", lease.given(recorded))]
    for number, name in enumerate("BC", 2):
        ips = {"192.168.0.10": f"192.168.0.1{number}", "192.168.0.250": f"192.168.0.2{number}"}
        made.append(Vm(name, substitute(recorded, vm_id=number, hosts={"h1": f"h{number}"}, ips=ips, strip=ELASTIC)))
    return made


def say(text: str) -> None:
    """Show progress."""
    print(f"==> {text}", flush=True)


def front_end(lab: Lab, one: FrontEnd) -> Iterator[Check]:
    """The front-end half, from nothing: hosts, a pool, peers."""
    for host in lab.hosts.values():
        host.run(["aws-ovs", "peers"], stdin='{"peers": []}')
    lab.ec2.allocate_eip(ELASTIC_IP, {"Pool": "web"})
    one.oneaws("host", "sync")
    names = sorted(line["NAME"] for line in json.loads(one.oneaws("host", "list", "--json").stdout))
    yield Check("tagged instances are OpenNebula hosts", names == sorted(lab.hosts), " ".join(names))
    one.create_network(POOL)
    (line,) = one.elastic_ips()
    seen = f"{line['IP']} with {line['PRIVATE_IP']}"
    yield Check(f"Elastic IP {ELASTIC_IP} is a range of the pool", line["STATUS"] == "ok", seen)
    for name in lab.hosts:
        states = lab.tunnels(name)
        seen = ", ".join(f"{peer} {state}" for peer, state in states.items())
        yield Check(f"{name} has its peers", sorted(states.values()) == ["self", "up", "up"], seen)


def leased(one: FrontEnd) -> Lease:
    """What the pool has for VM A."""
    (line,) = one.elastic_ips()
    attributes = {
        "AWS_PRIVATE_IP": line["PRIVATE_IP"],
        "EXTERNAL_IP": ELASTIC_IP,
        "AWS_ALLOCATION_ID": line["ALLOCATION"],
    }
    return Lease(0, int(line["AR"]), line["IP"], attributes)


def pings(lab: Lab, vms: list[Vm]) -> Iterator[Check]:
    """Every VM to every other, with the largest packet that fits and one byte more."""
    for one, other in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)]:
        source, target = vms[one], vms[other]
        guest = lab.guest(source.vm_id)
        seen = checks.ping(guest, source.ip, target.ip, size=1422)
        yield Check(f"ping {source.name} → {target.name}, 1422 bytes", checks.reaches(seen), seen)
        seen = checks.ping(guest, source.ip, target.ip, size=1423, count=1)
        yield Check(f"ping {source.name} → {target.name}, 1423 bytes, is refused", not checks.reaches(seen), seen)


def pages(lab: Lab, vms: list[Vm]) -> Iterator[Check]:
    """Pages from and to the Internet."""
    with checks.Web() as web:
        web.internet(lab)
        web.guest(lab.guest(vms[0].vm_id), {80})
        elastic = vms[0].card.reaches[0]
        seen = checks.fetch_in(lab, elastic.public_ip)
        yield Check(f"Internet client fetches a page from A at {elastic.public_ip}", seen == CLIENT, f"A saw {seen}")
        for vm in vms:
            guest = lab.guest(vm.vm_id)
            wanted = checks.expected_source(guest, vm.card, vm.card.reaches[0])
            seen = checks.fetch_out(guest, vm.ip)
            yield Check(f"{vm.name} fetches a page, seen as {wanted}", seen == wanted, f"server saw {seen}")


def broadcast(lab: Lab, vms: list[Vm]) -> Iterator[Check]:
    """Broadcasts of A, counted everywhere."""
    listeners = [lab.guest(vm.vm_id).spawn(["/usr/bin/python3", "-c", _LISTEN]) for vm in vms[1:]]
    for listener in listeners:
        assert listener.stdout
        listener.stdout.readline()
    lab.guest(vms[0].vm_id).run(["/usr/bin/python3", "-c", _SHOUT, vms[0].ip, str(BROADCASTS)])
    for vm, listener in zip(vms[1:], listeners, strict=True):
        count = listener.communicate()[0].strip()
        passed = count == str(BROADCASTS)
        yield Check(f"{BROADCASTS} broadcasts of A arrive at {vm.name}, each once", passed, f"{count} arrived")


def migration(lab: Lab, one: FrontEnd, vm: Vm, lease: Lease) -> Iterator[Check]:
    """A moves to h3 during a download from it; the hook moves its address, and AWS acts a second later."""
    elastic = vm.card.reaches[0]
    moved = substitute(lease.given(load("live-migrate")), hosts={"h2": "h3"})
    lab.vpc.set_delay(ADDRESS_DELAY_S)
    with checks.Web() as web:
        web.guest(lab.guest(vm.vm_id), {8080})
        url = f"http://{elastic.public_ip}:8080/big/{DOWNLOAD_BYTES}/{DOWNLOAD_S}"
        started = time.monotonic()
        download = lab.vpc.internet_spawn(
            ["curl", "-s", "--interface", CLIENT, "-o", "/dev/null", "-w", "%{size_download}", "--max-time", "60", url]
        )
        time.sleep(2)
        before = time.monotonic()
        lab.play(moved, follow=False)
        took = time.monotonic() - before
        one.migrate_vm(vm.vm_id, "h3")
        hook = time.monotonic() - before - took
        lab.vpc.settle()
        size = download.communicate(timeout=70)[0].strip()
        whole = time.monotonic() - started
    lab.vpc.set_delay(0)
    seen = f"{size} of {DOWNLOAD_BYTES} bytes in {whole:.1f} s, migration {took:.1f} s of them, hook {hook:.1f} s"
    yield Check("A migrates live to h3 during a download from it", size == str(DOWNLOAD_BYTES), seen)
    guest = lab.guest(vm.vm_id)
    yield Check("A runs on h3", guest.host is lab.hosts["h3"], guest.host.name if guest.host else "nowhere")
    (line,) = one.elastic_ips()
    yield Check("its private address is on h3", (line["HOST"], line["STATUS"]) == ("h3", "ok"), line["HOST"])
    with checks.Web() as web:
        web.guest(guest, {80})
        seen = checks.fetch_in(lab, elastic.public_ip)
        yield Check("A is reached by its Elastic IP on h3", seen == CLIENT, f"A saw {seen}")
    yield from checks.gone(lab, vm.document, ["h1", "h2"])


def drawn(lab: Lab, vms: list[Vm]) -> list[DrawnHost]:
    """What there is to draw."""

    def lines(vm: Vm, guest: Guest) -> tuple[str, ...]:
        found = []
        for card in promise.cards(vm.document):
            for reach in card.reaches:
                source = checks.expected_source(guest, card, reach)
                way = (
                    f"{reach.public_ip} → {reach.private_ip} → {reach.inside}"
                    if reach.private_ip
                    else f"{reach.inside} → {source}"
                )
                found.append(f"{card.network.bridge}  {way}")
        return tuple(found)

    hosts = []
    for name, host in lab.hosts.items():
        here = [(vm, lab.guest(vm.vm_id)) for vm in vms if lab.guest(vm.vm_id).host is host]
        boxes = tuple(DrawnVm(f"VM {vm.name}", lines(vm, guest)) for vm, guest in here)
        hosts.append(DrawnHost(name, host.instance.private_ip, host.instance.public_ip, boxes))
    return hosts


def run(lab: Lab, found: list[Check]) -> list[DrawnHost]:
    """The demo on a lab; its checks are added to `found` as they are made."""
    with FrontEnd(lab) as one:
        return _run(lab, one, found)


def _run(lab: Lab, one: FrontEnd, found: list[Check]) -> list[DrawnHost]:
    def take(of: Iterator[Check]) -> None:
        for check in of:
            print(f"    {check}", flush=True)
            found.append(check)

    say("the front-end: instances become hosts, an Elastic IP an address range, and hosts get their peers")
    take(front_end(lab, one))
    lease = leased(one)
    vms = machines(lease)
    for vm in vms:
        started = time.monotonic()
        lab.play(vm.recording, follow=False)
        if vm.name == "A":
            one.run_vm(vm.vm_id, "h1", lease.vnet_id, lease.ar_id, lease.attributes)
            lab.vpc.settle()
        say(f"VM {vm.name} deployed on {vm.recording.steps[0].runs_on} in {time.monotonic() - started:.1f} s")
    say("the VMs reach each other across the hosts")
    take(pings(lab, vms))
    say("the VMs and the Internet")
    take(pages(lab, vms))
    say("a broadcast")
    take(broadcast(lab, vms))
    say(f"a live migration; AWS moves the address {ADDRESS_DELAY_S:.0f} s late")
    take(migration(lab, one, vms[0], lease))
    return drawn(lab, vms)


def main() -> int:
    """Run the demo; exit code 0 when every check passed."""
    found: list[Check] = []
    say("starting EC2, a VPC, the Internet and three metal hosts")
    try:
        with Lab(hosts=3) as lab:
            hosts = run(lab, found)
            drops = ", ".join(f"{count} {reason}" for reason, count in sorted(lab.vpc.drops().items())) or "none"
    except UnavailableError as missing:
        print(f"demo: {missing}", file=sys.stderr)
        return 2
    width = max(len(check.name) for check in found)
    print("\n      CHECK" + " " * (width - 3) + "MEASURED")
    for check in found:
        print(f"{'ok  ' if check.passed else 'FAIL'}  {check.name.ljust(width)}  {check.seen}")
    print(f"\npackets that the VPC dropped: {drops}\n")
    print(as_text(hosts))
    DRAWING.write_text(as_svg(hosts), encoding="utf-8")
    failed = sum(not check.passed for check in found)
    print(f"\nthe drawing as SVG: {DRAWING}; all that was made is removed")
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed else 0
