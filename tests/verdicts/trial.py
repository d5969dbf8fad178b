"""Try cases in a lab: each has a VM and a network of its own, and all packets are under way at the same time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.lab.support import ethernet as eth
from tests.lab.support import promise
from tests.verdicts import documents, packets
from tests.verdicts.cases import DROP, IN, INTERNET, PASS, Case
from tests.verdicts.documents import Place
from tests.verdicts.packets import Ends
from tests.verdicts.wires import Wires
from tests.world.guests.guest import HypervisorError
from tests.world.hosts.executor import CommandError
from tests.world.lab import DriverError, Lab
from tests.world.vpc.router import INTERNET_MAC, ROUTER_MAC

BATCH = 45
"""Cases at a time: an emulated host has 64 cards, which VMs and other ends share."""
_ROUNDS = 3
_ROUND_S, _READY_S, _ASK_S = 0.5, 15.0, 0.25

# A kernel must not answer what we send to it by hand: its RST would end the connection. Those of VMs have no addresses.
_SILENCE = """
table inet verdicts {
  chain input { type filter hook input priority 0; policy drop; }
  chain output { type filter hook output priority 0; policy drop; }
}
"""


class Trial:
    """A case in the lab, and what has been seen of it.

    Attributes:
        trouble: why nothing could be seen, if so.
        ready: the way between the two ends is known to be open.
        arrived: the packet has come.
        answered: so has its answer.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.case = place, place.case
        self.trouble = ""
        self.ready = self.arrived = self.answered = False
        self.vm, self.far = f"vm {place.number}", f"peer {place.number}" if place.peer_host else INTERNET
        self._asker = self.far if place.peer_host else self.vm
        packet = place.case.packet
        outer = place.elastic.public if place.elastic else packet.local
        inner_ends, outer_ends = Ends(packet.remote, packet.local), Ends(packet.remote, outer)
        if packet.direction == IN:
            self._from, self._to, self._sent, self._seen = self.far, self.vm, outer_ends, inner_ends
        else:
            self._from, self._to, self._sent, self._seen = self.vm, self.far, inner_ends.swapped(), outer_ends.swapped()
        self._token = bytes((0x5A, 0xA5, place.number >> 8, place.number & 255))
        self._macs = {self.vm: place.case.nic.get("MAC") or documents.recorded("MAC")}
        self._macs[self.far] = place.peer_mac if place.peer_host else INTERNET_MAC.hex(":")
        self._next_hop = {self.vm: self._macs[self.far], self.far: self._macs[self.vm]}
        if not place.peer_host:
            self._next_hop = {self.vm: "", self.far: ROUTER_MAC.hex(":")}

    @property
    def decided(self) -> bool:
        """Tell whether nothing more can come."""
        return bool(self.trouble) or (self.answered if self.case.packet.reply else self.arrived)

    @property
    def verdict(self) -> str:
        """Say what was seen: pass or drop, or nothing."""
        return "" if self.trouble else PASS if self.decided else DROP

    @property
    def outcome(self) -> str:
        """Say in words what was seen."""
        if self.trouble:
            return f"not tried: {self.trouble}"
        if self.case.packet.reply and not self.answered:
            return "seen drop of its answer" if self.arrived else "seen drop"
        return f"seen {self.verdict}"

    @property
    def sent(self) -> str:
        """Say in words what was sent."""
        packet, place = self.case.packet, self.place
        what = packets.described(packet, self._sent)
        where = f"{place.host}, other end on {place.peer_host or 'the Internet'}"
        return f"{what}{' and its answer' if packet.reply else ''} ({packet.direction}, VM on {where})"

    def ask(self, wires: Wires) -> None:
        """Ask by ARP, which no group filters: with the answer, the bridges know where both ends are."""
        self.ready = False
        own, asked = self.place.peer_ip, self.case.nic["IP"]
        if not self.place.peer_host:
            own, asked = asked, self.case.nic.get("GATEWAY") or documents.recorded("GATEWAY")
        asker = self._asker
        if not (own and asked):
            self.ready = True
            return
        mac = self._macs[asker]
        wires.send(asker, eth.arp(eth.BROADCAST, mac, eth.ARP_REQUEST, (mac, own), (eth.NOBODY_MAC, asked)))

    def send(self, wires: Wires) -> None:
        """Send the packet."""
        mac = self._macs[self._from]
        packet = packets.request(self.case.packet, self._sent, self._token, mac)
        wires.send(self._from, self._frame(self._from, self._next_hop[self._from], packet))

    def see(self, wires: Wires, wire: str, frame: bytes) -> None:
        """Look whether a frame is the packet or an ARP request, which are then answered, or the answer to one of ours."""
        packet = self.case.packet
        if frame[12:14] == b"\x08\x06":
            self._see_arp(wires, wire, frame)
        elif wire == self._to and packets.is_request(packet, frame, self._seen, self._token):
            self.arrived = True
            if packet.reply:
                back = packets.answer(packet, self._seen.swapped(), self._token)
                wires.send(self._to, self._frame(self._to, frame[6:12].hex(":"), back))
        elif (
            wire == self._from and packet.reply and packets.is_answer(packet, frame, self._sent.swapped(), self._token)
        ):
            self.answered = True

    def _see_arp(self, wires: Wires, wire: str, frame: bytes) -> None:
        operation, sender_mac, sender, asked = frame[20:22], frame[22:28].hex(":"), frame[28:32], frame[38:42]
        own = self.case.nic["IP"]
        if wire == self._asker and operation == b"\0\2":
            self.ready = True
            self._next_hop[wire] = sender_mac
        elif wire == self.vm and operation == b"\0\1" and own and asked == eth.packed(own):
            ends = (self._macs[wire], own), (sender_mac, socket.inet_ntoa(sender))
            wires.send(wire, eth.arp(sender_mac, self._macs[wire], eth.ARP_REPLY, *ends))

    def _frame(self, source: str, to: str, packet: bytes) -> bytes:
        return eth.ethernet(to, self._macs[source], 0x86DD if packet[0] >> 4 == 6 else 0x0800, packet)


def run(lab: Lab, cases: Sequence[Case]) -> list[Trial]:
    """Try some cases in a lab that is as it was at its start; it is left with their VMs."""
    trials = [Trial(place) for place in documents.arrange(cases, list(lab.hosts))]
    _deploy(lab, trials)
    lab.vpc.internet(["nft", _SILENCE])
    try:
        with Wires() as wires:
            _open(lab, wires, trials)
            _exchange(wires, trials, max(host.slowness for host in lab.hosts.values()))
    finally:
        lab.vpc.internet(["nft", "delete table inet verdicts"])
    return trials


def _deploy(lab: Lab, trials: Sequence[Trial]) -> None:
    """Start all VMs, on all hosts at the same time, and lead their Elastic IPs to them."""
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        list(pool.map(lambda host: _deploy_on(lab, host, trials), lab.hosts))
    lab.follow(*(trial.place.vm_id for trial in trials if trial.place.elastic and not trial.trouble))
    lab.vpc.settle()


def _deploy_on(lab: Lab, host: str, trials: Sequence[Trial]) -> None:
    ends = [trial for trial in trials if trial.place.peer_host == host]
    if ends:
        _start(lab, host, documents.peers(host, [trial.place for trial in ends]), ends)
    for trial in trials:
        if trial.place.host == host:
            _start(lab, host, documents.subject(trial.place), [trial])


def _start(lab: Lab, host: str, document: bytes, concerned: Iterable[Trial]) -> None:
    try:
        lab.play(promise.deploy(document, host), follow=False)
    except (DriverError, HypervisorError, CommandError) as why:
        for trial in concerned:
            trial.trouble = trial.trouble or " ".join(str(why).split())


def _open(lab: Lab, wires: Wires, trials: Iterable[Trial]) -> None:
    for trial in _alive(trials):
        place = trial.place
        wires.open(trial.vm, lab.guest(place.vm_id).pid, "eth0")
        if place.peer_host:
            wires.open(trial.far, lab.guest(documents.peer_id(place.peer_host)).pid, f"eth{place.peer_nic}")
        else:
            wires.open(trial.far, lab.vpc.internet_pid, "inet0")


def _alive(trials: Iterable[Trial]) -> Iterator[Trial]:
    return (trial for trial in trials if not trial.trouble)


def _exchange(wires: Wires, trials: Sequence[Trial], slowness: float) -> None:
    """Send all packets, a few times those of which nothing is seen, when the ways between the ends are open."""
    _ask(wires, list(_alive(trials)), slowness)
    for _ in range(_ROUNDS):
        waiting = [trial for trial in trials if not trial.decided]
        if not waiting:
            break
        for trial in waiting:
            trial.send(wires)
        _listen(wires, waiting, _ROUND_S * slowness, lambda trial: trial.decided)
        # A busy machine may be late. What is sent later comes later, so by then the packets have had their time.
        _ask(wires, waiting, slowness)


def _ask(wires: Wires, trials: Sequence[Trial], slowness: float) -> None:
    """Wait until ARP is answered at all of them."""
    waiting = list(trials)
    for _ in range(int(_READY_S / _ASK_S)):
        for trial in waiting:
            trial.ask(wires)
        _listen(wires, trials, _ASK_S * slowness, lambda trial: trial.ready)
        waiting = [trial for trial in waiting if not trial.ready]
        if not waiting:
            return
    for trial in waiting:
        trial.trouble = "ARP, which no group filters, got no answer"


def _listen(wires: Wires, trials: Sequence[Trial], seconds: float, enough: Callable[[Trial], bool]) -> None:
    for wire, frame in wires.listen(seconds):
        for trial in trials:
            trial.see(wires, wire, frame)
        if all(map(enough, trials)):
            break
