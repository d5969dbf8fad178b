"""A VM among others on three hosts: whether everything that its document promises works, in a few seconds.

`checks.running` starts helpers of its own for every NIC; here neighbours stay for a whole test, and all packets of one
look are sent at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.demo.demo import ELASTIC
from tests.lab.support import checks, promise
from tests.lab.support.checks import Check
from tests.lab.support.promise import PromisedCard
from tests.world.guests.guest import Guest
from tests.world.lab import Lab
from tests.world.recording import Recording, Step, load, substitute
from tests.world.vpc.vpc import CLIENT

TUNNEL = "the tunnel to "
_SETTLE_S = 20

Seen = tuple[bool, str]
"""Whether it is as it must be, and what was seen."""
Job = tuple[str, Callable[[], Seen]]


def neighbour(vm_id: int, host: str) -> Recording:
    """A VM without Elastic IP in both recorded networks: 192.168.0.10<ID> in one, 192.168.0.20<ID> in the other."""
    ips = {"192.168.0.10": f"192.168.0.10{vm_id}", "192.168.0.250": f"192.168.0.20{vm_id}"}
    return substitute(load("deploy"), vm_id=vm_id, hosts={"h1": host}, ips=ips, strip=ELASTIC)


class Neighbours:
    """VMs that the others are to reach, or not: VM 2 on h1, VM 3 on h3.

    Args:
        lab: a fresh lab, whose tunnels are up afterwards.

    Attributes:
        recordings: how each was deployed.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.recordings = {vm_id: neighbour(vm_id, host) for vm_id, host in ((2, "h1"), (3, "h3"))}
        self.cards: dict[int, list[PromisedCard]] = {}
        for vm_id, recording in self.recordings.items():
            lab.play(recording)
            self.cards[vm_id] = promise.cards(recording.steps[-1].xml or b"")
        for name in lab.hosts:
            lab.tunnels(name)

    def alive(self, document: bytes) -> list[str]:
        """What a running VM's document promises and is not so."""
        vm_id = promise.vm_id(document)
        cards = promise.cards(document)
        guest = self.lab.guest(vm_id)
        assert guest.host
        with checks.Web() as web:
            ports = {port for card in cards for reach in card.reaches if reach.ports for port in reach.ports[2:]}
            web.guest(guest, {80, *ports})
            web.internet(self.lab)
            jobs = {name: do for card in cards for name, do in self._card(vm_id, card)}
            # Once more, what failed: late on a busy machine is not never.
            failed = [name for name, (good, _) in together(list(jobs.items())) if not good]
            again = together([(name, jobs[name]) for name in failed])
            found = [f"{name}: {seen}" for name, (good, seen) in again if not good]
        elsewhere = [name for name, host in self.lab.hosts.items() if host is not guest.host]
        return found + remains(self.lab, document, elsewhere) + unhealthy(self.lab)

    def _card(self, vm_id: int, card: PromisedCard) -> Iterator[Job]:
        guest = self.lab.guest(vm_id)
        name = f"VM {vm_id} NIC {card.nic_id}"
        if card.gateway:
            yield f"{name} → gateway", partial(_ping, guest, card.ip, card.gateway)
        for other_id, others in self.cards.items():
            other = self.lab.guest(other_id)
            for theirs in others:
                if vni(theirs) == vni(card):
                    yield f"{name} → VM {other_id}", partial(_ping, guest, card.ip, theirs.ip)
                    for inside in {reach.inside for reach in card.reaches if reach.inside}:
                        yield f"VM {other_id} → {inside} of {name}", partial(_ping, other, theirs.ip, inside)
                elif other_id == 3:
                    yield f"{name} → another network", partial(_no_ping, guest, card.ip, theirs.ip)
        for reach in card.reaches if card.gateway else ():
            if reach.private_ip:
                port = reach.ports[0] if reach.ports else 80
                inward = partial(checks.fetch_in, self.lab, reach.public_ip, port)
                yield f"Internet → {reach.public_ip}:{port} of {reach.name}", partial(_seen, CLIENT, inward)
            wanted = checks.expected_source(guest, card, reach)
            if wanted:
                outward = partial(checks.fetch_out, guest, reach.inside)
                yield f"{reach.inside} of {reach.name} → Internet", partial(_seen, wanted, outward)


def _ping(guest: Guest, source: str, target: str) -> Seen:
    seen = checks.ping(guest, source, target, count=2)
    return checks.reaches(seen), seen


def _no_ping(guest: Guest, source: str, target: str) -> Seen:
    seen = checks.ping(guest, source, target, count=1)
    return seen == "no answer", seen


def _seen(wanted: str, fetch: Callable[[], str]) -> Seen:
    seen = fetch()
    return seen == wanted, f"seen as {seen}, not {wanted}"


def vni(card: PromisedCard) -> str:
    """What tells networks apart."""
    return card.network.vlan_id or f"network {card.network.network_id}"


def together(jobs: Sequence[Job]) -> list[tuple[str, Seen]]:
    """Do all at the same time; the names with what was seen."""
    with ThreadPoolExecutor(12) as pool:
        return list(zip([name for name, _ in jobs], pool.map(lambda job: job[1](), jobs), strict=True))


def remains(lab: Lab, document: bytes, hosts: Sequence[str] | None = None) -> list[str]:
    """What hosts, by default all, keep of a VM that is not there."""
    return _failed(checks.gone(lab, document, list(hosts if hosts is not None else lab.hosts)))


def _failed(found: Iterator[Check]) -> list[str]:
    return [f"{check.name}: {check.seen}" for check in found if not check.passed]


def unhealthy(lab: Lab) -> list[str]:
    """What `aws-ovs check` says on all hosts, but for ok.

    A tunnel may be down for a moment where the machine is so loaded that its BFD packets are late.
    """
    deadline = time.monotonic() + _SETTLE_S
    while True:
        jobs = [(name, partial(_checked, lab, name)) for name in lab.hosts]
        bad = [f"{name}: {line}" for name, (good, seen) in together(jobs) if not good for line in seen.splitlines()]
        if not any(TUNNEL in line for line in bad) or time.monotonic() > deadline:
            return bad
        time.sleep(0.5)


def _checked(lab: Lab, host: str) -> Seen:
    done = lab.hosts[host].run(["aws-ovs", "check"], check=False)
    return done.returncode == 0 and done.stdout.startswith("ok: "), done.stdout + done.stderr


def cold_migration(document: bytes, source: str, destination: str) -> Recording:
    """The steps of a cold migration; as in a live one, the document names the destination all the time."""
    xml, number = promise.on_host(promise.settled(document), destination), promise.vm_id(document)
    name, checkpoint = f"one-{number}", f"/var/lib/one//datastores/0/{number}/checkpoint"
    return Recording(
        f"cold migration {source} → {destination}",
        (
            Step("vmm-save", None, (name, checkpoint, source, str(number), source), None),
            Step("clean", source, (source,), xml),
            Step("pre", destination, (), xml),
            Step("vmm-restore", None, (checkpoint, destination, name, str(number), destination), None),
            Step("post", destination, (name, source), xml),
        ),
    )


def live_migration(document: bytes, source: str, destination: str) -> Recording:
    """The steps of a live migration."""
    xml, number = promise.on_host(promise.settled(document), destination), promise.vm_id(document)
    return Recording(
        f"live migration {source} → {destination}",
        (
            Step("pre", destination, (), xml),
            Step("vmm-migrate", None, (f"one-{number}", destination, source, str(number), source), None),
            Step("clean", source, (source,), xml),
            Step("post", destination, (f"one-{number}", source), xml),
        ),
    )
