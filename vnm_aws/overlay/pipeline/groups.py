"""The flows of the VNET bridge by which security groups decide what a NIC sends and gets.

They stand at the guest's port, where packets have the addresses that the guest sees. The rules of a NIC are in two tables:
IN_RULES has what others may begin, OUT_RULES what the guest may begin. A packet is looked up there in one of several kinds:

- CONNECTION: TCP, UDP and ICMP pass connection tracking, in a zone of the NIC's own, and what counts is how the connection
  began: each packet of it, in either direction, is looked up by the addresses and ports of the first one. So a rule that goes
  ends its connections at once, one that comes back lets them go on, and nothing but these flows has to change.
- STRAY: ICMP messages that belong to no connection are looked up by what is in them.
- PACKET: so are other protocols, which connection tracking does not know on all datapaths.
- ANSWER: packets of such protocols whose addresses are those of a packet that has passed the other way a short while ago
  (ANSWERS has them) are looked up among the rules of the other direction.
- MIDDLE: after a live migration and the like connection tracking does not know the guest's TCP connections. For a time, a
  segment from the middle of one that no rule lets begin passes if it can be the answer in one that may have begun the other
  way. It makes no entry: that does the next segment in the direction in which the connection began. One that looks like an
  answer, from a port that servers have to one that they have not, is looked up as such first: else what the rules let begin
  both ways would count as begun by whoever sends first.

Each rule has a priority of its own, so flows of several rules may overlap, and each counts what it was the first to accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from ...errors import AwsOvsError
from ...rules import ALL, ICMP, ICMPV6, IPSEC, TCP, UDP, Net, Rule, address
from ..guest_port import GuestPort
from . import FROM_GUEST_MATCH, KIND, OUTPUT_PORT, OUTPUT_PORT_BITS, TO_GUEST, TO_GUEST_MATCH, TURNED_BACK, ZONE
from . import VnetTable as Table
from .blocks import blocks, merged, spans
from .flow import add, answers, for_a_time, goto, in_network, network_cookie, picked_up, port_cookie

CONNECTION, ANSWER, PACKET, STRAY, MIDDLE, INVALID = range(6)
_PACKET_OR_STRAY = 0x6FFFF
"""The mask of the register under which these two kinds are the same."""
FIRST_PRIORITY, _LAST_PRIORITY = 65000, 100
MOST_FLOWS = 65536
"""Flows of a NIC: what Open vSwitch changes within a second or two."""
_ANSWER_S, _MOST_ANSWERS = 600, 512
_TRACKED = ("tcp", "udp", "icmp", "tcp6", "udp6", "icmp6")
_KNOWN = ",ct_state=-inv+trk"
_NEW = ",ct_state=+new+trk"
_FROM_SERVER = "tp_src=0/0x8000,tp_dst=0x8000/0x8000"
"""From a port below 32768, and to one of those that systems give to who begins a connection."""
_NUMBERS = {TCP: "6", UDP: "17", ICMP: "1", ICMPV6: "58", IPSEC: "50"}
_FAMILIES = {ICMP: (False,), ICMPV6: (True,)}
_ND_SENT, _ND_GOT = (133, 135, 136), (134, 135, 136, 137)
_COMMIT = f"ct(commit,zone={ZONE},exec(load:1->NXM_NX_CT_MARK[]),table={Table.COMMITTED})"
"""Make an entry. What is in no entry behind that, for lack of room, has no mark."""


class _Fields(NamedTuple):
    """Name the fields by which a kind of packet is looked up: the other end's address, the destination port, and the like.

    `mask` is that of the kind, when the same flows serve another one, too.
    """

    kind: int
    address: str
    address6: str
    port: str
    icmp_type: str
    mask: str = ""


def deliver(number: int, zone: int) -> str:
    """Write the actions that give a packet to a guest port: at once, or when its security groups (`zone`) let it."""
    if not zone:
        return f"output:{number}"
    return f"load:{number}->{OUTPUT_PORT},load:{zone:#x}->NXM_NX_REG4[],{goto(Table.INBOUND)}"


def port(guest: GuestPort, ofport: int, now: int) -> list[str]:
    """Write the flows of a guest port with security groups; `now` is in seconds since boot.

    Raises:
        AwsOvsError: its rules need too many flows.
    """
    cookie, zone = port_cookie(guest.vm_id, guest.nic_id), guest.zone
    of_rules = (line for inbound in (True, False) for line in _rules(guest, inbound, now))
    lines = list(islice(of_rules, MOST_FLOWS + 1))  # there could be millions
    if len(lines) > MOST_FLOWS:
        what = f"NIC {guest.nic_id}: the rules of its security groups need more than {MOST_FLOWS} flows"
        raise AwsOvsError(what, "give it fewer groups, or groups with fewer and larger blocks of addresses and ports")
    if guest.filter_ip:
        request = f"udp,in_port={ofport},nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67"
        lines.append(add(cookie, Table.OUTBOUND, 160, request, goto(Table.GATEWAY)))
    packet = f"reg4={_key(zone, PACKET)}"
    for way, leave in ((FROM_GUEST_MATCH, goto(Table.GATEWAY)), (TO_GUEST_MATCH, f"output:{OUTPUT_PORT_BITS}")):
        begins = f"reg4={_key(zone, CONNECTION)},{way}"
        lines += [
            *(
                add(cookie, table, 0, f"reg4={zone:#x}/0xffff,{way}", "drop")
                for table in (Table.IN_RULES, Table.OUT_RULES)
            ),
            *(add(cookie, Table.ACCEPTED, 100, f"{family},{begins}{_NEW}", _COMMIT) for family in ("ip", "ipv6")),
            *(
                add(cookie, Table.ACCEPTED, 100, f"{family},{packet},{way}", f"{_wait(guest, family)},{leave}")
                for family in ("ip", "ipv6")
            ),
            add(cookie, Table.COMMITTED, 100, f"{begins}{_KNOWN},ct_mark=1", leave),
            add(cookie, Table.COMMITTED, 50, f"{begins},ct_state=+inv+trk", "drop"),  # it was none, or is no more
            add(cookie, Table.COMMITTED, 0, begins, "drop"),
        ]
    return lines


def network(vni: int, has_groups: bool) -> list[str]:
    """Write the flows of a network on one of its bridges; `has_groups` is whether a port has groups that decide."""
    cookie, of_network = network_cookie(vni), in_network(vni)
    go_on, give = goto(Table.GATEWAY), f"output:{OUTPUT_PORT_BITS}"
    flows: list[tuple[int, int, str, str]] = [(Table.OUTBOUND, 0, "", go_on)]
    if has_groups:
        track = f"ct(zone={ZONE},table={Table.DIRECTION})"
        look = f"{_set_kind(PACKET)},{goto(Table.ANSWERS)},{goto(Table.DIRECTION)}"
        to_guest = f"load:1->{TO_GUEST}"
        flows += [
            (Table.OUTBOUND, 200, ",reg4=0", go_on),
            *((Table.OUTBOUND, 150, f",icmp6,icmp_type={kind}", go_on) for kind in _ND_SENT),
            *((Table.OUTBOUND, 100, f",{protocol}", track) for protocol in _TRACKED),
            *((Table.OUTBOUND, 90, f",{family}", look) for family in ("ip", "ipv6")),
            *((Table.INBOUND, 150, f",icmp6,icmp_type={kind}", give) for kind in _ND_GOT),
            *((Table.INBOUND, 100, f",{protocol}", f"{to_guest},{track}") for protocol in _TRACKED),
            *((Table.INBOUND, 90, f",{family}", f"{to_guest},{look}") for family in ("ip", "ipv6")),
            (Table.INBOUND, 0, "", give),
            *_directions(),
            *_fragments(),
            *_resets(go_on, give),
            (Table.ACCEPTED, 50, f",{FROM_GUEST_MATCH}", go_on),
            (Table.ACCEPTED, 50, f",{TO_GUEST_MATCH}", give),
        ]
    return [add(cookie, table, priority, f"{of_network}{match}", action) for table, priority, match, action in flows]


def _directions() -> Iterator[tuple[int, int, str, str]]:
    """Lead each kind of packet to the rules that decide on it."""
    inside, outside = Table.OUT_RULES, Table.IN_RULES
    for way, own, other in ((FROM_GUEST_MATCH, inside, outside), (TO_GUEST_MATCH, outside, inside)):
        connection, packet, answer = (f",{way},{_of_kind(kind)}" for kind in (CONNECTION, PACKET, ANSWER))
        for protocol in ("icmp", "icmp6"):
            match = f"{connection},ct_state=+inv+trk,{protocol},nw_frag=no"
            yield Table.DIRECTION, 110, match, f"{_set_kind(STRAY)},{goto(own)}"
        yield Table.DIRECTION, 100, f"{connection},ct_state=+inv+trk", f"{_set_kind(INVALID)},{goto(own)}"
        yield Table.DIRECTION, 90, f"{connection},ct_state=+rpl+trk", goto(other)
        yield Table.DIRECTION, 80, connection, goto(own)
        yield Table.DIRECTION, 80, packet, goto(own)
        yield Table.DIRECTION, 80, answer, goto(other)
        yield other, 50, answer, f"{_set_kind(PACKET)},{goto(own)}"


def _fragments() -> Iterator[tuple[int, int, str, str]]:
    """Let the later fragments of a packet wait for the first one, on which the rules decide.

    The kernel makes one packet of them. The userspace datapath gives each the state of the whole packet, but no ports to
    later ones. It keeps them again until they are complete: they never are when the first one is not accepted.
    """
    connection = _of_kind(CONNECTION)
    for family in ("ip", "ipv6"):
        yield Table.DIRECTION, 95, f",{family},{connection}{_KNOWN},nw_frag=later", _COMMIT
        yield Table.ACCEPTED, 110, f",{family},{connection},nw_frag=first", _COMMIT


def _resets(from_guest: str, to_guest: str) -> Iterator[tuple[int, int, str, str]]:
    """Let a reset of a connection that nobody knows pass without an entry, which would refuse the next one with its ports."""
    for way, leave in ((FROM_GUEST_MATCH, from_guest), (TO_GUEST_MATCH, to_guest)):
        for family in ("tcp", "tcp6"):
            yield Table.ACCEPTED, 105, f",{family},{_of_kind(CONNECTION)},{way}{_NEW},tcp_flags=+rst", leave


def _rules(guest: GuestPort, inbound: bool, now: int) -> Iterator[str]:
    """Write the flows of the rules of one direction."""
    rules = effective(guest.rules or (), inbound)
    if rules and rules[-1][0] > FIRST_PRIORITY - _LAST_PRIORITY:
        what = f"NIC {guest.nic_id}: its security groups have {len(guest.rules or ())} rules"
        raise AwsOvsError(what, f"give it groups with at most {FIRST_PRIORITY - _LAST_PRIORITY} together")
    table, end = (Table.IN_RULES, "src") if inbound else (Table.OUT_RULES, "dst")
    opposite = "dst" if inbound else "src"
    connection = _Fields(CONNECTION, f"ct_nw_{end}", f"ct_ipv6_{end}", "ct_tp_dst", "ct_tp_src")
    packet = _Fields(PACKET, f"nw_{end}", f"ipv6_{end}", "", "")
    stray = packet._replace(kind=STRAY, icmp_type="icmp_type")
    either = packet._replace(mask=f"/{_PACKET_OR_STRAY:#x}")
    answer = _Fields(ANSWER, f"nw_{opposite}", f"ipv6_{opposite}", "", "")
    middle = answer._replace(kind=MIDDLE, port="tp_src")  # what is invalid has no original tuple
    kinds: dict[str, tuple[_Fields, ...]] = {ALL: (connection, either, answer), IPSEC: (packet, answer)}
    kinds |= {ICMP: (connection, stray), ICMPV6: (connection, stray)}
    cookie, own = port_cookie(guest.vm_id, guest.nic_id), picked_up(guest.vm_id, guest.nic_id)
    zone, seconds = guest.zone, guest.picks_up_until - now
    for number, rule in rules:
        priority = FIRST_PRIORITY - number
        for fields in kinds.get(rule.protocol, (connection,)):
            yield from _flows(cookie, table, priority, zone, rule, fields)
        if rule.protocol in (ALL, TCP) and seconds > 0:
            for line in _flows(own, table, priority, zone, rule, middle):
                yield for_a_time(line, seconds)
    if seconds > 0:
        yield from _pick_up(guest, inbound, seconds)


def effective(rules: Iterable[Rule], inbound: bool) -> list[tuple[int, Rule]]:
    """List the rules of one direction that can be the first to accept a packet, each with its place among all of the NIC's.

    One that accepts everything comes first: what others accept then makes no difference.
    """
    of_direction = [(number, rule) for number, rule in enumerate(rules) if rule.inbound is inbound]
    is_open = [(number, rule) for number, rule in of_direction if rule.is_open]
    seen: dict[tuple[object, ...], tuple[int, Rule]] = {}
    for number, rule in is_open[:1] or of_direction:
        seen.setdefault(rule[2:], (number, rule))
    return list(seen.values())


def _pick_up(guest: GuestPort, inbound: bool, seconds: int) -> Iterator[str]:
    """Lead what no rule of a direction lets begin, and is from the middle of a connection, to those of the other direction.

    The kernel calls it invalid when it is the end of one that it does not know. What was taken for an answer, and is none that
    rules let pass, turns back once.
    """
    way, table, other = (
        (TO_GUEST_MATCH, Table.IN_RULES, Table.OUT_RULES)
        if inbound
        else (FROM_GUEST_MATCH, Table.OUT_RULES, Table.IN_RULES)
    )
    cookie, look = picked_up(guest.vm_id, guest.nic_id), f"{_set_kind(MIDDLE)},{goto(other)}"
    not_back = f"{way[:-1]}{int(way[-1]) | 4}"
    back = f"load:1->{TURNED_BACK},{_set_kind(CONNECTION)},{goto(table)}"
    yield for_a_time(add(cookie, other, 50, f"reg4={_key(guest.zone, MIDDLE)},{not_back}", back), seconds)
    for family in ("tcp", "tcp6"):
        new = f"{family},reg4={_key(guest.zone, CONNECTION)}{_NEW},tcp_flags=-syn+ack"
        invalid = f"{family},reg4={_key(guest.zone, INVALID)},tcp_flags=-syn+ack"
        for priority, match in (
            (FIRST_PRIORITY + 1, f"{new},{not_back},{_FROM_SERVER}"),
            (50, f"{new},{way}"),
            (50, f"{invalid},{way}"),
        ):
            yield for_a_time(add(cookie, table, priority, match, look), seconds)


def _flows(cookie: int, table: Table, priority: int, zone: int, rule: Rule, fields: _Fields) -> Iterator[str]:
    """Write the flows of a rule for one kind of packet.

    As many flows as addresses times ports, or a conjunction of both when that needs fewer.
    """
    accept, ports = goto(Table.ACCEPTED), _ports(rule, fields)
    for head, places in _ends(zone, rule, fields):
        if len(places) * len(ports) <= len(places) + len(ports) + 1:
            for place in places:
                for span in ports:
                    yield add(cookie, table, priority, f"{head}{place}{span}", accept)
            continue
        number = zone << 16 | priority  # another NIC has another zone: their dimensions never meet
        for place in places:
            yield add(cookie, table, priority, f"{head}{place}", f"conjunction({number},1/2)")
        for span in ports:
            yield add(cookie, table, priority, f"{head}{span}", f"conjunction({number},2/2)")
        yield add(cookie, table, priority, f"{head},conj_id={number}", accept)


def _ends(zone: int, rule: Rule, fields: _Fields) -> Iterator[tuple[str, list[str]]]:
    """Match the protocol of a rule, for each family, and list the matches for where the other end may be then."""
    is_tracked, number = fields.kind == CONNECTION, _NUMBERS.get(rule.protocol)
    protocol = f"{'ct_nw_proto' if is_tracked else 'nw_proto'}={number}," if number else ""
    key = f"{protocol}reg4={_key(zone, fields.kind)}{fields.mask}{_KNOWN if is_tracked else ''}"
    if is_tracked and rule.nets is None and rule.protocol not in _FAMILIES:
        yield key, [""]  # these fields need no family
        return
    for is_ipv6 in _FAMILIES.get(rule.protocol, (False, True)):
        field = fields.address6 if is_ipv6 else fields.address
        places = [""] if rule.nets is None else [f",{field}={prefix}" for prefix in _prefixes(rule.nets, is_ipv6)]
        yield f"{'ipv6' if is_ipv6 else 'ip'},{key}", places


@lru_cache(64)
def _prefixes(nets: tuple[Net, ...], is_ipv6: bool) -> list[str]:
    """Write the prefixes of one family that blocks of addresses are made of."""
    ranges = merged((net.first, net.last) for net in nets if net.is_ipv6 is is_ipv6)
    parts = [part for first, last in ranges for part in blocks(first, last, 128 if is_ipv6 else 32)]
    return [f"{address(is_ipv6, first)}/{length}" for first, length in parts]


def _ports(rule: Rule, fields: _Fields) -> list[str]:
    """Match the destination ports, or the type of an ICMP message."""
    if rule.icmp_type is not None:
        return [f",{fields.icmp_type}={rule.icmp_type}"]
    return [f",{fields.port}={span}" for span in spans(rule.ports)] or [""]


def _key(zone: int, kind: int) -> str:
    """Write the value of the register that has a NIC's zone and the kind of packet."""
    return f"{kind << 16 | zone:#x}"


def _of_kind(kind: int) -> str:
    """Match a kind of packet, whosever it is."""
    return f"reg4={kind << 16:#x}/0x70000"


def _set_kind(kind: int) -> str:
    return f"load:{kind}->{KIND}"


def _wait(guest: GuestPort, family: str) -> str:
    """Write the action that lets the answer to a packet pass for a time, as far as the rules still let the packet pass."""
    number, prefix = {"ip": ("0x0800", "NXM_OF_IP"), "ipv6": ("0x86dd", "NXM_NX_IPV6")}[family]
    return (
        f"learn(table={Table.ANSWERS},idle_timeout={_ANSWER_S},priority=10,limit={_MOST_ANSWERS},"
        f"cookie={answers(guest.vm_id, guest.nic_id):#x},{ZONE},eth_type={number},NXM_OF_IP_PROTO[],"
        f"{prefix}_SRC[]={prefix}_DST[],{prefix}_DST[]={prefix}_SRC[],load:{ANSWER}->{KIND})"
    )
