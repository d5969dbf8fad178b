"""Carry out flows as Open vSwitch does, as far as those of security groups go, with a small connection tracking.

It reads the text of the flows, so that a model of what they are to mean can be compared with it for many packets. It asserts
what Open vSwitch only asks for: that a packet meets one flow of a priority, and one of each dimension of a conjunction.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

Packet = dict[str, int]
"""The values of the fields that a packet has, registers and metadata too; a packet lacks those of other protocols."""

IP, IPV6 = 0x0800, 0x86DD
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
NEW, EST, REL, RPL, INV, TRK = (1 << bit for bit in range(6))
STATES = {"new": NEW, "est": EST, "rel": REL, "rpl": RPL, "inv": INV, "trk": TRK}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16}
SYN, RST, ACK = FLAGS["syn"], FLAGS["rst"], FLAGS["ack"]
_QUESTIONS = {ICMP: {8: 0, 13: 14, 15: 16, 17: 18}, ICMP6: {128: 129}}
"""ICMP messages that begin an exchange, and those that answer them."""
_ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMP6: (1, 2, 3, 4)}
_WORDS = {
    "ip": {"eth_type": IP}, "ipv6": {"eth_type": IPV6},
    "tcp": {"eth_type": IP, "nw_proto": TCP}, "tcp6": {"eth_type": IPV6, "nw_proto": TCP},
    "udp": {"eth_type": IP, "nw_proto": UDP}, "udp6": {"eth_type": IPV6, "nw_proto": UDP},
    "icmp": {"eth_type": IP, "nw_proto": ICMP}, "icmp6": {"eth_type": IPV6, "nw_proto": ICMP6},
}  # fmt: skip
_NXM = {f"NXM_NX_REG{number}": f"reg{number}" for number in range(8)}
_NXM |= {"NXM_NX_CT_MARK": "ct_mark", "NXM_OF_IP_PROTO": "nw_proto"}
_NXM |= {"NXM_OF_IP_SRC": "nw_src", "NXM_OF_IP_DST": "nw_dst"}
_NXM |= {"NXM_NX_IPV6_SRC": "ipv6_src", "NXM_NX_IPV6_DST": "ipv6_dst"}
_TRACKED = (
    "ct_state",
    "ct_zone",
    "ct_mark",
    "ct_nw_proto",
    "ct_nw_src",
    "ct_nw_dst",
    "ct_ipv6_src",
    "ct_ipv6_dst",
    "ct_tp_src",
    "ct_tp_dst",
)
_ALL_BITS = (1 << 128) - 1


class Part(NamedTuple):
    """A field, or some bits of it: `mask` has them, the least of them is bit `shift`."""

    field: str
    mask: int
    shift: int


class Flow(NamedTuple):
    """A flow; of each field of the match there are value and mask."""

    table: int
    priority: int
    cookie: int
    match: dict[str, tuple[int, int]]
    actions: list[str]

    def meets(self, packet: Packet) -> bool:
        """Whether a packet has what the match asks for; what a packet lacks is 0, as in Open vSwitch."""
        return all(packet.get(field, 0) & mask == value for field, (value, mask) in self.match.items())


class Connection(NamedTuple):
    """An entry of connection tracking: how it began, and its answer."""

    original: Packet
    answer: tuple[int, ...]


class Bridge:
    """Flows, and what comes of the packets that they saw.

    Args:
        lines: the flows, as for `ovs-ofctl bundle`.
        outside: the table behind those that are carried out.
        limit: how many connections a zone may have.
    """

    def __init__(self, lines: Iterable[str], outside: int, limit: int = 1 << 30) -> None:
        self._outside, self._limit = outside, limit
        self._learned: list[Flow] = []
        self._tables: dict[int, list[Flow]] = {}
        self._began: dict[tuple[int, ...], Connection] = {}
        self._answered: dict[tuple[int, ...], Connection] = {}
        self._replied: set[tuple[int, ...]] = set()
        self.replace(lines)

    def replace(self, lines: Iterable[str]) -> None:
        """Put these flows in the place of those that there are; what was learned stays, and so do connections."""
        self.flows = [read(line) for line in lines]
        kinds = [(flow.table, flow.priority, tuple(sorted(flow.match.items()))) for flow in self.flows]
        assert len(kinds) == len(set(kinds)), "two flows have the same table, priority and match"
        numbers = {(flow.table, number): flow.priority for flow in self.flows for number in _conjunctions(flow)}
        for flow in self.flows:
            for number in _conjunctions(flow):
                assert numbers[flow.table, number] == flow.priority, f"conjunction {number} has two priorities"
        self._sort()

    def send(self, packet: Packet, actions: str) -> list[str]:
        """Carry out actions on a packet; the list has `output:PORT` and `outside`."""
        ends: list[str] = []
        self._carry_out(dict(packet), split(actions), ends)
        return ends

    def _sort(self) -> None:
        self._tables = defaultdict(list)
        for flow in sorted([*self.flows, *self._learned], key=lambda flow: -flow.priority):
            self._tables[flow.table].append(flow)

    def _carry_out(self, packet: Packet, actions: list[str], ends: list[str]) -> None:
        for action in actions:
            word, _, rest = action.partition("(" if "(" in action.partition(":")[0] else ":")
            if word == "resubmit":
                self._visit(packet, int(rest.strip(",)")), ends)
            elif word == "load":
                value, _, where = rest.partition("->")
                store(packet, part(where), int(value, 0))
            elif word == "output":
                ends.append(f"output:{rest if rest.isdecimal() else load(packet, part(rest))}")
            elif word == "ct":
                self._track(packet, split(rest[:-1]), ends)
            elif word == "learn":
                self._learn(packet, split(rest[:-1]))
            else:
                assert action == "drop", action

    def _visit(self, packet: Packet, table: int, ends: list[str]) -> None:
        if table == self._outside:
            ends.append("outside")
            return
        flow = self.look_up(packet, table)
        if flow:
            self._carry_out(packet, flow.actions, ends)

    def look_up(self, packet: Packet, table: int) -> Flow | None:
        """Find the flow for a packet in a table."""
        meeting: dict[int, list[Flow]] = defaultdict(list)
        for flow in self._tables[table]:
            if flow.meets(packet):
                meeting[flow.priority].append(flow)
        for priority in sorted(meeting, reverse=True):
            soft = [flow for flow in meeting[priority] if flow.actions[0].startswith("conjunction")]
            hard = [flow for flow in meeting[priority] if flow not in soft]
            hard += self._joined(packet, table, priority, soft)
            assert len(hard) < 2, f"a packet meets several flows of a priority: {hard}"
            if hard:
                return hard[0]
        return None

    def _joined(self, packet: Packet, table: int, priority: int, soft: list[Flow]) -> Iterator[Flow]:
        """Find the flows for conjunctions of which a packet meets each dimension."""
        numbers: dict[str, list[str]] = defaultdict(list)
        for flow in soft:
            for action in flow.actions:
                number, _, dimension = action[len("conjunction(") : -1].partition(",")
                numbers[number].append(dimension)
        for number, dimensions in numbers.items():
            assert len(dimensions) == len(set(dimensions)), f"a packet meets a dimension twice: {soft}"
            if len(dimensions) == int(dimensions[0].partition("/")[2]):
                joined = packet | {"conj_id": int(number)}
                yield from (
                    flow
                    for flow in self._tables[table]
                    if flow.priority == priority and "conj_id" in flow.match and flow.meets(joined)
                )

    def _track(self, packet: Packet, words: list[str], ends: list[str]) -> None:
        """Look a packet up, or make its entry, and go on with it in a table."""
        named = dict(word.split("=", 1) for word in words if "=" in word and "(" not in word)
        zone = int(named["zone"]) if named["zone"].isdecimal() else load(packet, part(named["zone"]))
        for field in _TRACKED:
            packet.pop(field, None)
        own, answer = _tuples(packet)
        known = self._began.get((zone, *own)) or self._answered.get((zone, *own))
        if "commit" in words and known is None and sum(key[0] == zone for key in self._began) < self._limit:
            known = Connection(original(packet), (zone, *answer))
            self._began[(zone, *own)] = self._answered[known.answer] = known
        packet["ct_zone"] = zone
        packet |= self._state(packet, zone, known)
        if "commit" in words and known:
            (execute,) = (word for word in words if word.startswith("exec("))
            self._carry_out(packet, split(execute[len("exec(") : -1]), ends)
            known.original["ct_mark"] = packet["ct_mark"]
        forked = dict(packet)
        self._visit(forked, int(named["table"]), ends)

    def _state(self, packet: Packet, zone: int, known: Connection | None) -> Packet:
        quoted = [packet.get(f"quoted_{field}", -1) for field in ("nw_proto", "src", "dst", "tp_src", "tp_dst")]
        master = self._began.get((zone, *quoted)) or self._answered.get((zone, *quoted))
        if master:
            rpl = RPL if (zone, *quoted) in self._began else 0  # the error goes against what it quotes
            return master.original | {"ct_state": TRK | REL | rpl}
        if known is None:
            return original(packet) | {"ct_state": TRK | NEW} if _begins(packet) else {"ct_state": TRK | INV}
        own, _ = _tuples(packet)
        if known.answer == (zone, *own):
            self._replied.add(known.answer)
            return known.original | {"ct_state": TRK | EST | RPL}
        return known.original | {"ct_state": TRK | (EST if known.answer in self._replied else NEW)}

    def _learn(self, packet: Packet, words: list[str]) -> None:
        named, match, actions = {}, {}, []
        for word in words:
            name, is_named, value = word.partition("=")
            if name.startswith("load:"):
                actions.append(word)
            elif name.startswith("NXM"):
                where = part(name)
                got = load(packet, part(value) if is_named else where)
                match[where.field] = (got << where.shift, where.mask)
            elif name == "eth_type":
                match[name] = (int(value, 0), 0xFFFF)
            else:
                named[name] = int(value, 0)
        flow = Flow(named["table"], named["priority"], named["cookie"], match, actions)
        others = [other for other in self._learned if other.match != match or other.table != flow.table]
        if sum(other.cookie == flow.cookie for other in others) < named["limit"]:
            self._learned = [*others, flow]
            self._sort()


def read(line: str) -> Flow:
    """Read a line that adds a flow."""
    head, _, actions = line.removeprefix("flow add ").partition(" actions=")
    match: dict[str, tuple[int, int]] = {}
    numbers = {"table": 0, "priority": 32768, "cookie": 0, "hard_timeout": 0}
    for word in head.split(","):
        name, _, text = word.partition("=")
        if name in numbers:
            numbers[name] = int(text, 0)
        elif name in _WORDS:
            match |= {field: (value, 0xFFFF) for field, value in _WORDS[name].items()}
        else:
            match[name] = _value(name, text)
    for field in ("ct_nw_src", "ct_nw_dst", "ct_ipv6_src", "ct_ipv6_dst", "ct_nw_proto", "ct_tp_src", "ct_tp_dst"):
        if field in match:
            assert match["ct_state"] == (TRK, TRK | INV), f"Open vSwitch refuses {field} here: {line}"
    return Flow(numbers["table"], numbers["priority"], numbers["cookie"], match, split(actions))


def _conjunctions(flow: Flow) -> list[int]:
    """The conjunctions that a flow is a dimension of, or the end of."""
    parts = [int(action[len("conjunction(") :].partition(",")[0]) for action in flow.actions if "conjunction" in action]
    return parts + [value for field, (value, _) in flow.match.items() if field == "conj_id"]


def _value(name: str, text: str) -> tuple[int, int]:
    if name in ("ct_state", "tcp_flags"):
        bits = STATES if name == "ct_state" else FLAGS
        words = re.findall(r"([+-])([a-z]+)", text)
        mask = sum(bits[word] for _, word in words)
        return sum(bits[word] for sign, word in words if sign == "+"), mask
    if name == "nw_frag":
        return {"no": 0, "first": 1, "later": 3}[text], 3
    value, is_masked, mask_text = text.partition("/")
    if "nw_src" in name or "nw_dst" in name or "ipv6" in name:
        bits_of, number = (128 if "ipv6" in name else 32), int(ip_address(value))
        length = int(mask_text) if is_masked else bits_of
        mask = (1 << bits_of) - (1 << bits_of - length)
    else:
        number, mask = int(value, 0), int(mask_text, 0) if is_masked else _ALL_BITS
    assert number & mask == number, f"{name}={text} has bits beyond its mask"
    return number, mask


def split(text: str) -> list[str]:
    """Split at the commas that are in no brackets."""
    words, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            words.append("")
        else:
            words[-1] += letter
    return words


def part(text: str) -> Part:
    """Read `NXM_NX_REG4[16..18]`, or `NXM_NX_REG4[]` for all bits."""
    name, _, bits = text.rstrip("]").partition("[")
    first, _, last = bits.partition("..")
    if not first:
        return Part(_NXM[name], _ALL_BITS, 0)
    low, high = int(first), int(last or first)
    return Part(_NXM[name], (1 << high + 1) - (1 << low), low)


def load(packet: Packet, where: Part) -> int:
    """Get some bits of a packet."""
    return (packet.get(where.field, 0) & where.mask) >> where.shift


def store(packet: Packet, where: Part, value: int) -> None:
    """Set some bits of a packet."""
    packet[where.field] = packet.get(where.field, 0) & ~where.mask | value << where.shift


def _begins(packet: Packet) -> bool:
    """Whether a packet that belongs to no connection can be the first one."""
    if packet["nw_proto"] == TCP:
        flags = packet["tcp_flags"]
        return not flags & RST and not (flags & SYN and flags & ACK)
    return packet["nw_proto"] == UDP or packet["icmp_type"] in _QUESTIONS[packet["nw_proto"]]


def _tuples(packet: Packet) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a packet is known by in connection tracking, and what the answer to it would be."""
    family = "nw" if packet["eth_type"] == IP else "ipv6"
    ends = (packet[f"{family}_src"], packet[f"{family}_dst"])
    protocol = packet["nw_proto"]
    if protocol in (TCP, UDP):
        ports = (packet["tp_src"], packet["tp_dst"])
        return (protocol, *ends, *ports), (protocol, *ends[::-1], *ports[::-1])
    kind, number = packet["icmp_type"], packet.get("icmp_id", 0)
    answers = _QUESTIONS[protocol]
    other = answers.get(kind, next((question for question, answer in answers.items() if answer == kind), -1))
    return (protocol, *ends, kind, number), (protocol, *ends[::-1], other, number)


def original(packet: Packet) -> Packet:
    """The fields that tell how the connection of a packet began."""
    family = "nw" if packet["eth_type"] == IP else "ipv6"
    is_icmp = packet["nw_proto"] in (ICMP, ICMP6)
    return {
        "ct_nw_proto": packet["nw_proto"],
        f"ct_{family}_src": packet[f"{family}_src"],
        f"ct_{family}_dst": packet[f"{family}_dst"],
        "ct_tp_src": packet["icmp_type" if is_icmp else "tp_src"],
        "ct_tp_dst": packet["icmp_code" if is_icmp else "tp_dst"],
    }
