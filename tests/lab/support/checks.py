"""Checks of a running VM and of what must not stay of one that is gone; each gives a line that says what was measured."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.lab.support import promise
from tests.lab.support.promise import PromisedCard, Reach
from tests.world.guests.guest import Guest
from tests.world.lab import Lab
from tests.world.vpc.vpc import CLIENT, SERVER

# As text: the checkout may lie where guests do not see it.
WEB = ["/usr/bin/python3", "-c", (Path(__file__).parent / "web.py").read_text(encoding="utf-8")]
_STRANGER_VLAN = "16777000"
_PROBE_ID = 90000


class Check(NamedTuple):
    """What was looked at, whether it is as it must be, and what was seen."""

    name: str
    passed: bool
    seen: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.name}: {self.seen}"


Report = Callable[[Iterable[Check]], None]
"""Has what was seen printed at the end of the tests; see `conftest.report`."""


def ping(guest: Guest, source: str, target: str, *, size: int = 56, count: int = 3, fragment: bool = False) -> str:
    """Ping from an address of a guest.

    Returns:
        what happened, as text: `answered` with the round trip, or why not.
    """
    dont = [] if fragment else ["-M", "do"]
    command = ["ping", "-n", "-c", str(count), "-i", "0.2", "-W", "1", "-s", str(size), *dont, "-I", source, target]
    done = guest.run(command, check=False)
    text = done.stdout + done.stderr
    if " 0 received" not in text and "rtt" in text:
        received = text.split(" received")[0].rsplit(" ", 1)[-1]
        return f"answered {received}/{count}, {text.rsplit('=', 1)[-1].split('/')[1]} ms"
    if "too long" in text or "too large" in text or "Frag needed" in text:
        return "refused: message too long"
    return "no answer"


def reaches(seen: str) -> bool:
    """True when `ping` was answered, every packet of it."""
    return seen.startswith("answered") and len(set(seen.split()[1].rstrip(",").split("/"))) == 1


class Web:
    """Web servers that a check needs; ended with it."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *unused: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def serve(self, process: subprocess.Popen[str]) -> None:
        """Wait until a server that has been started is ready."""
        self._processes.append(process)
        assert process.stdout
        if process.stdout.readline().strip() != "ready":
            assert process.stderr
            raise RuntimeError(f"the web server did not start: {process.stderr.read()}")

    def guest(self, guest: Guest, ports: set[int]) -> None:
        """Serve on ports of a guest."""
        self.serve(guest.spawn([*WEB, *map(str, sorted(ports))]))

    def internet(self, lab: Lab) -> None:
        """Serve on the Internet's port 80."""
        self.serve(lab.vpc.internet_spawn([*WEB, "80"]))


_CURL = ["curl", "-s", "--connect-timeout", "3", "--max-time", "6"]


def fetch_out(guest: Guest, source: str, url: str = f"http://{SERVER}/") -> str:
    """Fetch a page of the Internet from an address of a guest: as whom the server saw it."""
    done = guest.run([*_CURL, "--interface", source, url], check=False)
    return done.stdout.strip() or f"nothing (curl {done.returncode})"


def fetch_in(lab: Lab, address: str, port: int = 80) -> str:
    """Fetch a page from the Internet's client: as whom the VM saw it."""
    done = lab.vpc.internet([*_CURL, "--interface", CLIENT, f"http://{address}:{port}/"], check=False)
    return done.stdout.strip() or f"nothing (curl {done.returncode})"


def running(lab: Lab, document: bytes) -> Iterator[Check]:
    """Check every NIC and alias of a VM that runs, with the help of other VMs, which are gone afterwards."""
    guest = lab.guest(promise.vm_id(document))
    assert guest.host
    here = guest.host.name
    cards = promise.cards(document)
    used = {reach.inside for card in cards for reach in card.reaches}
    there = next(name for name in lab.hosts if name != here)
    internal = {80} | {port for card in cards for reach in card.reaches for port in _internal(reach)}
    helpers: list[tuple[bytes, str]] = []
    try:
        with Web() as web:
            web.guest(guest, internal)
            web.internet(lab)
            for number, card in enumerate(card for card in cards if card.ip):
                ips = _free(card.ip, used)
                peer = promise.other_vm(document, card.nic_id, _PROBE_ID + 2 * number, next(ips))
                stranger = promise.other_vm(
                    document, card.nic_id, _PROBE_ID + 2 * number + 1, next(ips), str(int(_STRANGER_VLAN) + number)
                )
                for vm, host in ((peer, there), (stranger, here)):
                    lab.play(promise.deploy(promise.settled(vm), host))
                    helpers.append((vm, host))
                yield from _card(lab, guest, card, promise.vm_id(peer), promise.vm_id(stranger))
                for reach in card.reaches:
                    yield from _reach(lab, guest, card, reach)
    finally:
        for vm, host in helpers:
            lab.play(promise.terminate(vm, host))


def _internal(reach: Reach) -> set[int]:
    return {reach.ports[2], reach.ports[2] + reach.ports[1] - reach.ports[0]} if reach.ports else set()


def _free(ip: str, used: set[str]) -> Iterator[str]:
    prefix = ip.rpartition(".")[0]
    for number in range(200, 250):
        address = f"{prefix}.{number}"
        if address not in used:
            used.add(address)
            yield address


def _card(lab: Lab, guest: Guest, card: PromisedCard, peer_id: int, stranger_id: int) -> Iterator[Check]:
    name = f"NIC {card.nic_id}"
    peer, stranger = lab.guest(peer_id), lab.guest(stranger_id)
    peer_ip, stranger_ip = (one.cards[0].addresses[0].partition("/")[0] for one in (peer, stranger))
    assert peer.host
    if card.gateway:
        seen = ping(guest, card.ip, card.gateway)
        yield Check(f"{name} reaches its gateway {card.gateway}", reaches(seen), seen)
    seen = ping(guest, card.ip, peer_ip, size=1422 if _mtu(guest, card) >= 1450 else _mtu(guest, card) - 28)
    yield Check(f"{name} reaches a VM on {peer.host.name}, full-size packets", reaches(seen), seen)
    seen = ping(peer, peer_ip, card.ip, size=1423)
    yield Check(f"{name}: one byte more is not passed", not reaches(seen), seen)
    seen = ping(peer, peer_ip, card.ip)
    yield Check(f"{name} is reached from {peer.host.name}", reaches(seen), seen)
    seen = ping(guest, card.ip, stranger_ip, count=1)
    yield Check(f"{name} does not reach another VNI on the same bridge", seen == "no answer", seen)
    seen = ping(stranger, stranger_ip, card.ip, count=1)
    yield Check(f"{name} is not reached from another VNI", seen == "no answer", seen)


def _mtu(guest: Guest, card: PromisedCard) -> int:
    return next(one.mtu for one in guest.cards if one.nic_id == card.nic_id)


def _reach(lab: Lab, guest: Guest, card: PromisedCard, reach: Reach) -> Iterator[Check]:
    if not card.gateway:
        return
    if reach.ports:
        low, high, first = reach.ports
        for external, internal in ((low, first), (high, first + high - low)):
            seen = fetch_in(lab, reach.public_ip, external)
            name = f"{reach.name}: Internet → {reach.public_ip}:{external} → {reach.inside}:{internal}"
            yield Check(name, seen == CLIENT, f"VM saw {seen}")
    elif reach.private_ip:
        seen = fetch_in(lab, reach.public_ip)
        name = f"{reach.name}: Internet → {reach.public_ip} → {reach.private_ip} → {reach.inside}"
        yield Check(name, seen == CLIENT, f"VM saw {seen}")
    wanted = expected_source(guest, card, reach)
    if wanted:
        seen = fetch_out(guest, reach.inside)
        yield Check(f"{reach.name}: {reach.inside} → Internet, seen as {wanted}", seen == wanted, f"server saw {seen}")


def expected_source(guest: Guest, card: PromisedCard, reach: Reach) -> str:
    """As whom the Internet sees connections from a guest address; nothing when another reach of it answers that."""
    assert guest.host
    mine = [one for one in card.reaches if one.inside == reach.inside]
    if reach is not mine[0]:
        return ""
    direct = [one.public_ip for one in mine if one.private_ip and not one.ports]
    return direct[0] if direct else guest.host.instance.public_ip


def gone(lab: Lab, document: bytes, hosts: list[str]) -> Iterator[Check]:
    """Check that hosts keep nothing of a VM."""
    number = promise.vm_id(document)
    cookie = f"cookie={0xA5 << 56 | number << 16:#x}/{(1 << 64) - (1 << 16):#x}"
    flows = f"for bridge in $(ovs-vsctl list-br); do ovs-ofctl dump-flows $bridge {cookie} | grep cookie=; done"
    ports = f"ovs-vsctl --columns=name find Interface 'external_ids:aws_ovs=guest' | grep 'one-{number}-'"
    files = f"ls /run/aws_ovs/vms/{number}.json"
    for host in hosts:
        left = []
        for what, command in (("flows", flows), ("ports", ports), ("a state file", files)):
            text = lab.hosts[host].run(["sh", "-c", f"{command} 2>/dev/null || true"]).stdout.strip()
            if text:
                left.append(f"{len(text.splitlines())} {what}")
        yield Check(f"{host} keeps nothing of VM {number}", not left, ", ".join(left) or "no flow, port or file")
