"""The flows of security groups in a real Open vSwitch: it finds those that the model finds, and floods do not fill its cache."""

from __future__ import annotations

import random
import re
from ipaddress import IPv4Address, IPv6Address

from tests.lab.support import promise, segment, wire
from tests.lab.support.ethernet import SYN, ethernet, tcp4
from tests.lab.support.groups import grouped, inbound
from tests.unit import flow_interpreter as switch
from tests.unit.flow_interpreter import NEW, TRK
from tests.unit.test_group_model import PORT, Driver, Sent, fields, is_tracked, packets
from tests.verdicts.cases import ICMP, ICMPV6, IN, TCP
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from vnm_aws.overlay.pipeline import VnetTable
from vnm_aws.overlay.pipeline.groups import CONNECTION, MIDDLE, PACKET, STRAY

BRIDGE = "model"
WEB = "22,80,443,1000:2000,5000:5009,60000:65535"
RULES = [
    {"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP", "RANGE": WEB, "IP": "192.168.0.5", "SIZE": "90"},
    {"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP", "RANGE": "21:81", "IP": "192.168.0.50", "SIZE": "101"},
    {
        "RULE_TYPE": "INBOUND",
        "PROTOCOL": "UDP",
        "RANGE": WEB,
        "IP6_GLOBAL": "2001:db8::13",
        "IP6_ULA": "fd00::7",
        "SIZE": "77",
    },
    {"RULE_TYPE": "INBOUND", "PROTOCOL": "ICMP", "ICMP_TYPE": "8", "IP": "192.168.0.5", "SIZE": "7"},
    {"RULE_TYPE": "INBOUND", "PROTOCOL": "ICMPV6"},
    {"RULE_TYPE": "INBOUND", "PROTOCOL": "IPSEC", "IP": "10.0.0.1", "SIZE": "254"},
    {"RULE_TYPE": "OUTBOUND", "PROTOCOL": "TCP", "RANGE": "443"},
    {"RULE_TYPE": "OUTBOUND", "PROTOCOL": "ALL", "IP": "10.0.0.3", "SIZE": "11"},
    {"RULE_TYPE": "OUTBOUND", "PROTOCOL": "UDP", "RANGE": "53", "IP": "0.0.0.0", "SIZE": str(1 << 32)},
]


def test_open_vswitch_finds_the_flows_that_the_model_finds(fresh_lab: Lab) -> None:
    """Rules of both directions, with conjunctions, by what is asked of them first for each packet."""
    host = fresh_lab.hosts["h1"]
    driver = Driver(RULES, picks_up=True)
    lines = [
        *driver.lines(RULES),
        *(f"flow add table=0,priority=1,reg0={table} actions=resubmit(,{table})" for table in _TABLES),
    ]
    host.run(["ovs-vsctl", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, f"datapath_type={host.datapath_type}"])
    try:
        host.run(["ovs-ofctl", "bundle", BRIDGE, "-"], stdin="flow delete\n" + "\n".join(lines) + "\n")
        seen = []
        for sent in packets(random.Random(5), RULES, 60):
            if not sent.quotes:
                packet, table = asked(sent)
                wanted = driver.bridge.look_up(packet, table)
                assert traced(host, packet, table) == (wanted.priority if wanted else None), packet
                seen.append((table, packet["reg4"] >> 16, wanted.priority if wanted else None))
    finally:
        host.run(["ovs-vsctl", "del-br", BRIDGE])
    print(f"{len(seen)} packets found {len(set(seen))} kinds of flows")
    assert len(set(seen)) > 12


FLOOD = 5000


def test_a_flood_from_many_addresses_makes_few_entries_of_the_datapath(fresh_lab: Lab) -> None:
    """Rules are about addresses, so Open vSwitch must learn from a packet that is dropped what holds for many others."""
    lab, chance = fresh_lab, random.Random(7)
    blocks = [
        (str(IPv4Address(chance.randrange(1 << 24, 223 << 24))), str(chance.choice((1, 3, 7, 50)))) for _ in range(20)
    ]
    rules = [inbound("TCP", "22", IP=first, SIZE=size) for first, size in blocks]
    guest, sender = "192.168.0.60", "192.168.0.61"
    lab.play(promise.deploy(grouped(segment.document(1, guest), *rules), "h1"))
    lab.play(promise.deploy(grouped(segment.document(2, sender, FILTER_IP_SPOOFING="NO"), nics=()), "h1"))
    sources = [str(IPv4Address(chance.randrange(1 << 24, 223 << 24))) for _ in range(FLOOD)]
    packets = [tcp4(source, guest, (1024 + number, 22), SYN) for number, source in enumerate(sources)]
    head = (segment.mac(guest), segment.mac(sender), 0x0800)
    wire.send(lab.guest(2), "eth0", [ethernet(*head, packet) for packet in packets], spacing_ms=0.1)
    entries = lab.hosts["h1"].run(["ovs-appctl", "dpctl/dump-flows"]).stdout.splitlines()
    print(f"{FLOOD} packets made {len(entries)} entries")
    assert 5 < len(entries) < 500


_TABLES = (VnetTable.IN_RULES, VnetTable.OUT_RULES)


def asked(sent: Sent) -> tuple[switch.Packet, int]:
    """A packet as it comes to the rules of its direction, and their table."""
    packet = fields(sent)
    way = 2 if sent.packet.direction == IN else 0
    kind = PACKET
    if is_tracked(sent.packet):
        is_middle = sent.packet.protocol == TCP and sent.flags == switch.ACK
        begins = sent.packet.protocol not in (ICMP, ICMPV6) or sent.packet.type in (8, 13, 128)
        kind = MIDDLE if is_middle else CONNECTION if begins else STRAY
        if begins:
            packet |= switch.original(packet) | {"ct_state": TRK | NEW}
    table = _TABLES[(sent.packet.direction == IN) == (kind == MIDDLE)]
    return packet | {"reg2": way, "reg4": kind << 16 | 16384 + PORT.slot}, table


def traced(host: Host, packet: switch.Packet, table: int) -> int | None:
    """The priority of the first flow that Open vSwitch finds in a table."""
    packet = {"reg0": table, **packet}
    flow = ",".join(filter(None, (word(field, packet) for field in sorted(packet, key=_behind))))
    text = host.run(["ovs-appctl", "ofproto/trace", BRIDGE, flow]).stdout
    (first,) = re.findall(rf"(?m)^ *{table}\. (.*)", text)[:1]
    found = re.search(r"priority (\d+)", first)
    return int(found[1]) if found else None


def _behind(field: str) -> bool:
    return field not in ("eth_type", "nw_proto", "ct_state")  # which others ask for


def word(field: str, packet: switch.Packet) -> str:
    """A field of a packet as `ofproto/trace` wants it; nothing for one that Open vSwitch does not read."""
    value, names = packet[field], {"tcp_flags": switch.FLAGS, "ct_state": switch.STATES}
    if field in names:
        return f"{field}={'|'.join(name for name, bit in names[field].items() if value & bit)}"
    if field.startswith("icmp_"):
        known = {(switch.IP, ICMP): field, (switch.IPV6, ICMPV6): f"icmpv6_{field.removeprefix('icmp_')}"}
        field = known.get((packet["eth_type"], packet["nw_proto"]), "")
        return field and f"{field}={value}"
    if field.startswith("tp_"):
        field = field.replace("tp_", "tcp_" if packet["nw_proto"] == TCP else "udp_")
    if re.match(r"(ct_)?ipv6_(src|dst)", field):
        return f"{field}={IPv6Address(value)}"
    return f"{field}={IPv4Address(value)}" if re.match(r"(ct_)?nw_(src|dst)", field) else f"{field}={value:#x}"
