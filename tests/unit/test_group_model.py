"""The flows of security groups against what the rules mean, for many packets in a row, with connections and other rules later."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.unit import flow_interpreter as switch
from tests.unit.documents import recorded
from tests.unit.flow_interpreter import ACK, RST, SYN, Bridge
from tests.unit.test_guest_port import ports
from tests.verdicts.cases import ESP, ICMP, ICMPV6, IN, OUT, SCTP, TCP, UDP, Packet
from tests.verdicts.evaluator import accepts
from vnm_aws.overlay.guest_port import GuestPort
from vnm_aws.overlay.pipeline import VnetTable, groups
from vnm_aws.rules import Groups

Attributes = dict[str, str]

OFPORT = 3
GUEST = {4: "192.168.0.10", 6: "2001:db8::10"}
PORT = ports(recorded("attach-nic-sg", "03-post.xml"))[0]._replace(slot=7)
ALL_IN = {"RULE_TYPE": "INBOUND", "PROTOCOL": "ALL"}
QUESTIONS = {ICMP: (8, 13), ICMPV6: (128,)}
ANSWERS = {(ICMP, 8): 0, (ICMP, 13): 14, (ICMPV6, 128): 129}
ERRORS = {ICMP: 3, ICMPV6: 1}
DISCOVERY = {OUT: (133, 135, 136), IN: (134, 135, 136, 137)}
MANY = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


EPHEMERAL = 32768
"""From here on are the ports that systems give to who begins a connection."""


class Sent(NamedTuple):
    """A packet on its way; an ICMP error quotes the packet that it is about."""

    packet: Packet
    flags: int = SYN
    quotes: Packet | None = None


def reversed_(packet: Packet) -> Packet:
    """The answer to a packet."""
    kind = ANSWERS.get((packet.protocol, packet.type), packet.type)
    return packet._replace(
        direction=IN if packet.direction == OUT else OUT, port=packet.source_port, source_port=packet.port, type=kind
    )


class Meaning:
    """What becomes of packets by what the rules mean, and the connections that there are."""

    def __init__(self, rules: Sequence[Attributes], picks_up: bool = False) -> None:
        self.rules = rules
        self._picks_up = picks_up
        self._connections: dict[tuple[object, ...], Packet] = {}
        self._answered: set[Packet] = set()
        self._passed: set[tuple[object, ...]] = set()

    def passes(self, sent: Sent) -> bool:
        packet, original = sent.packet, self._original(sent)
        if packet.protocol == ICMPV6 and packet.version == 6 and packet.type in DISCOVERY[packet.direction]:
            return True
        if not is_tracked(packet):
            return self._passes_untracked(packet)
        if original:
            if original.direction != packet.direction:
                self._answered.add(original)
            return self._accepts(original) or (original not in self._answered and self._picks(sent))
        if not begins(sent):
            return self._picks(sent) if packet.protocol == TCP else self._accepts(packet)
        if packet.source_port < EPHEMERAL <= packet.port and self._picks(sent):
            return True  # it looks like an answer, so it begins nothing
        if self._accepts(packet):
            self._connections[_ends(packet)] = packet
            return True
        return self._picks(sent)

    def _picks(self, sent: Sent) -> bool:
        """Whether a packet is taken for an answer in a connection whose beginning nobody has seen, and may be one."""
        is_middle = sent.packet.protocol == TCP and sent.flags & (SYN | ACK) == ACK
        return self._picks_up and is_middle and self._accepts(reversed_(sent.packet))

    def _original(self, sent: Sent) -> Packet | None:
        """The packet with which the connection began that a packet, or what it quotes, belongs to."""
        packet = sent.quotes or sent.packet
        if not is_tracked(packet):
            return None
        return self._connections.get(_ends(packet)) or self._connections.get(_ends(packet)[::-1])

    def _passes_untracked(self, packet: Packet) -> bool:
        answered = reversed_(packet)
        if ("untracked", *_ends(answered)) in self._passed and self._accepts(answered):
            return True
        if self._accepts(packet):
            self._passed.add(("untracked", *_ends(packet)))
            return True
        return False

    def _accepts(self, packet: Packet) -> bool:
        return any(accepts(rule, packet) for rule in self.rules)


def is_tracked(packet: Packet) -> bool:
    """Whether connections of this protocol are known."""
    return packet.protocol in (TCP, UDP) or packet.protocol == {4: ICMP, 6: ICMPV6}[packet.version]


def begins(sent: Sent) -> bool:
    """Whether a packet can be the first of a connection, as far as connection tracking goes."""
    if sent.packet.protocol == TCP:
        return sent.flags in (SYN, ACK)  # an ACK: it may have missed the beginning
    return sent.packet.protocol == UDP or sent.packet.type in QUESTIONS[sent.packet.protocol]


def _ends(packet: Packet) -> tuple[object, object]:
    """Both ends of what a packet belongs to: where it comes from, where it goes."""
    pairs = {(protocol, answer): question for (protocol, question), answer in ANSWERS.items()} | ANSWERS
    kinds = (packet.type, pairs.get((packet.protocol, packet.type), packet.type)) if is_tracked(packet) else (0, 0)
    ends = [(packet.local, packet.source_port), (packet.remote, packet.port)]
    if packet.direction == IN:
        ends = [(packet.remote, packet.source_port), (packet.local, packet.port)]
    return (packet.protocol, kinds[0], ends[0]), (packet.protocol, kinds[1], ends[1])


class Driver:
    """What becomes of packets by the flows of the driver."""

    def __init__(self, rules: Sequence[Attributes], picks_up: bool = False, limit: int = 1 << 30) -> None:
        self._picks_up = picks_up
        self.bridge = Bridge(self.lines(rules), VnetTable.GATEWAY, limit)

    def lines(self, rules: Sequence[Attributes]) -> list[str]:
        """The flows for a NIC with these rules."""
        guest = guest_with(rules)._replace(picks_up_until=300 if self._picks_up else 0)
        assert guest.zone, "the NIC is open"
        return groups.network(guest.vni, has_groups=True) + groups.port(guest, OFPORT, now=0)

    def passes(self, sent: Sent) -> bool:
        is_in = sent.packet.direction == IN
        here = {"reg1": PORT.vni, "reg3": PORT.slot, "reg4": 0 if is_in else 16384 + PORT.slot}
        start = groups.deliver(OFPORT, 16384 + PORT.slot) if is_in else f"resubmit(,{VnetTable.OUTBOUND})"
        ends = self.bridge.send(fields(sent) | here, start)
        assert ends in ([], [f"output:{OFPORT}" if is_in else "outside"]), ends
        return bool(ends)


def guest_with(rules: Sequence[Attributes]) -> GuestPort:
    """A guest port with these rules, as they come in a document."""
    root = etree.Element("VM")
    template = etree.SubElement(root, "TEMPLATE")
    for rule in rules:
        element = etree.SubElement(template, "SECURITY_GROUP_RULE")
        for key, text in ({"SECURITY_GROUP_ID": "100"} | rule).items():
            etree.SubElement(element, key).text = text
    return PORT._replace(rules=Groups(root).of_nic("100", ""))


def fields(sent: Sent) -> switch.Packet:
    """The fields of a packet as Open vSwitch sees it."""
    packet = sent.packet
    family = "nw" if packet.version == 4 else "ipv6"
    local, remote = (int(ip_address(address)) for address in (packet.local, packet.remote))
    source, destination = (remote, local) if packet.direction == IN else (local, remote)
    made = {
        "eth_type": switch.IP if packet.version == 4 else switch.IPV6,
        "nw_proto": packet.protocol,
        f"{family}_src": source,
        f"{family}_dst": destination,
    }
    if packet.protocol in (TCP, UDP):
        made |= {"tp_src": packet.source_port, "tp_dst": packet.port}
    if packet.protocol == TCP:
        made["tcp_flags"] = sent.flags
    if packet.protocol in (ICMP, ICMPV6):
        made |= {"icmp_type": packet.type, "icmp_code": packet.code}
    if sent.quotes:
        quoted = fields(Sent(sent.quotes))
        made |= {f"quoted_{end}": quoted[f"{family}_{end}"] for end in ("src", "dst")}
        made |= {f"quoted_{field}": quoted.get(field, -1) for field in ("nw_proto", "tp_src", "tp_dst")}
    return made


PLACES = {4: ("0.0.0.0", "10.0.0.5", "192.168.0.12", "255.255.255.0"), 6: ("::", "2001:db8::20", "fd00::5")}
SIZES = st.sampled_from((200, 120, 50, 13, 7, 2, 1, 0))
EDGES = st.sampled_from((0, 1, 21, 22, 23, 80, 1023, 1024, 5000, 32768, 60000, 65535))


@st.composite
def rules(draw: st.DrawFn) -> Attributes:
    """A rule as users make them: blocks that are no prefixes, ranges that overlap, networks with several blocks."""
    protocol = draw(st.sampled_from(("TCP", "TCP", "TCP", "UDP", "UDP", "ICMP", "ICMPV6", "IPSEC", "ALL")))
    rule = {"RULE_TYPE": draw(st.sampled_from(("INBOUND", "OUTBOUND"))), "PROTOCOL": protocol}
    if protocol in ("TCP", "UDP") and draw(st.integers(0, 3)):
        pairs = draw(st.lists(st.tuples(EDGES, st.sampled_from((0, 1, 5, 1000, 40000))), min_size=1, max_size=7))
        rule["RANGE"] = ",".join(f"{low}:{min(low + more, 65535)}" if more else f"{low}" for low, more in pairs)
    if protocol in ("ICMP", "ICMPV6") and draw(st.booleans()):
        rule[f"{protocol}_TYPE"] = str(
            draw(st.sampled_from((0, 3, 8, 13, 14) if protocol == "ICMP" else (1, 128, 129)))
        )
    kinds = draw(st.sampled_from(((), ("IP",), ("IP6_GLOBAL",), ("IP", "IP6_GLOBAL", "IP6_ULA"))))
    for kind in kinds:
        family = 4 if kind == "IP" else 6
        first = ip_address(draw(st.sampled_from(PLACES[family]))) + draw(st.integers(0, 40))
        rule |= {kind: str(first), "SIZE": str(draw(SIZES))}
    return rule


RULES = st.lists(rules(), min_size=3, max_size=10)


def packets(chance: random.Random, rules: Sequence[Attributes], count: int) -> Iterator[Sent]:
    """So many packets: near what rules accept, answers, more of the same, the other way round, and what belongs to nothing."""
    last: list[Packet] = []
    for _ in range(count):
        packet = chance.choice(last[-8:]) if last and chance.random() < 0.5 else _near(chance, rules)
        last.append(packet)
        flags = chance.choice((SYN, SYN, ACK, ACK, SYN | ACK, RST, RST | ACK))
        if chance.random() < 0.5:
            packet = reversed_(packet)
        if is_tracked(packet) and chance.random() < 0.1:
            kind = ICMP if packet.version == 4 else ICMPV6
            quoted = packet if packet.protocol in (TCP, UDP) else None
            way = {IN: OUT, OUT: IN}[packet.direction]
            yield Sent(
                packet._replace(direction=way, protocol=kind, type=ERRORS[kind], port=0, source_port=0), 0, quoted
            )
        else:
            yield Sent(packet, flags)


def _near(chance: random.Random, rules: Sequence[Attributes]) -> Packet:
    """Make a packet for one of the rules, or just beside it."""
    rule = chance.choice(rules) if rules and chance.random() < 0.9 else {}
    starts = [rule[key] for key in ("IP", "IP6_GLOBAL", "IP6_ULA") if key in rule]
    if starts:
        first, size = ip_address(chance.choice(starts)), int(rule["SIZE"])
        number = int(first) + chance.choice((0, size - 1, size, size // 2, -1))
        remote = str(type(first)(min(max(number, 0), (1 << first.max_prefixlen) - 1)))
    else:
        family = chance.choice((4, 6))
        remote = str(ip_address(chance.choice(PLACES[family])) + chance.randrange(60))
    version = ip_address(remote).version
    known = {"TCP": TCP, "UDP": UDP, "IPSEC": ESP, "ICMP": ICMP, "ICMPV6": ICMPV6}
    others = (TCP, UDP, ESP, ESP, SCTP, SCTP, ICMP, ICMPV6, ICMP if version == 4 else ICMPV6)
    protocol = known.get(rule.get("PROTOCOL", ""), 0) if chance.random() < 0.9 else 0
    protocol = protocol or chance.choice(others)
    kinds = {ICMP: (8, 8, 13, 0, 14, 3), ICMPV6: (128, 128, 129, 1, 135, 133)}
    edges = [int(edge) for part in rule.get("RANGE", "22").split(",") for edge in part.split(":")]
    port = min(max(chance.choice(edges) + chance.choice((-1, 0, 0, 1)), 0), 65535)
    has_ports, is_icmp = protocol in (TCP, UDP), protocol in kinds
    return Packet(
        direction={"INBOUND": IN, "OUTBOUND": OUT}.get(rule.get("RULE_TYPE", ""), IN),
        local=GUEST[version],
        remote=remote,
        protocol=protocol,
        port=port if has_ports else 0,
        source_port=chance.choice((22, 40000, 65535)) if has_ports else 0,
        type=chance.choice(kinds[protocol]) if is_icmp else 0,
        code=chance.choice((0, 0, 1)) if is_icmp else 0,
        where="other",
        reply=False,
    )


COUNT = 50
"""Packets under the first rules of an example, and under the others: in all some 15,000 at each run."""


@MANY
@given(RULES, RULES, st.booleans(), st.integers(0, 2**32))
def test_packets_pass_as_the_rules_mean_it(
    first: list[Attributes], second: list[Attributes], picks_up: bool, seed: int
) -> None:
    """Other rules come while there are connections, half of the former ones among them, and then the former ones are back."""
    sets = (first, first[: len(first) // 2] + second, first)
    assume(all(guest_with(rules).zone for rules in sets))
    chance = random.Random(seed)
    driver, meaning = Driver(first, picks_up), Meaning(first, picks_up)
    for rules in sets:
        if rules is not meaning.rules:
            driver.bridge.replace(driver.lines(rules))
            meaning.rules = rules
        for sent in packets(chance, [*first, *second], COUNT):
            wanted = meaning.passes(sent)
            event(f"{'passes' if wanted else 'is dropped'}: {'tracked' if is_tracked(sent.packet) else 'untracked'}")
            assert driver.passes(sent) == wanted, sent


def test_a_request_for_an_address_passes_without_rules() -> None:
    """The guest asks by DHCP before it has any address, and OpenNebula lets that pass before the rules."""
    driver = Driver([{"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP"}])
    request = {
        "in_port": OFPORT,
        "eth_type": switch.IP,
        "nw_proto": UDP,
        "tp_src": 68,
        "tp_dst": 67,
        "nw_dst": 0xFFFFFFFF,
    }
    here = {"reg1": PORT.vni, "reg4": PORT.slot + 16384}
    for change, wanted in (({}, ["outside"]), ({"tp_dst": 68}, []), ({"nw_src": 1}, [])):
        ends = driver.bridge.send({"nw_src": 0, **request, **here, **change}, f"resubmit(,{VnetTable.OUTBOUND})")
        assert ends == wanted, change


def test_what_finds_no_room_in_the_zone_is_dropped_and_what_has_a_place_goes_on() -> None:
    driver = Driver([ALL_IN], limit=2)
    first, second, third = (
        Packet(IN, GUEST[4], "10.0.0.5", TCP, port, 40000, 0, 0, "other", reply=False) for port in (22, 80, 443)
    )
    assert [driver.passes(Sent(packet)) for packet in (first, second, third, third)] == [True, True, False, False]
    assert driver.passes(Sent(reversed_(first), SYN | ACK))
    assert driver.passes(Sent(second, ACK))
    assert not driver.passes(Sent(reversed_(third), ACK))
