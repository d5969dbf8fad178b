"""The flows of security groups in a real Open vSwitch: that it finds the same flow as the interpreter of the model."""

from __future__ import annotations

import random
import re
from ipaddress import ip_address

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
    words = [f"reg0={table}"]
    for field, value in packet.items():
        if field in ("tcp_flags", "ct_state"):
            names = switch.FLAGS if field == "tcp_flags" else switch.STATES
            words.append(f"{field}={'|'.join(name for name, bit in names.items() if value & bit)}")
        elif re.match(r"(ct_)?(nw|ipv6)_(src|dst)", field):
            words.append(
                f"{field}={ip_address(value) if 'ipv6' not in field else ip_address(value.to_bytes(16, 'big'))}"
            )
        else:
            words.append(f"{field}={value:#x}")
    text = host.run(["ovs-appctl", "ofproto/trace", BRIDGE, ",".join(words)]).stdout
    (first,) = re.findall(rf"(?m)^ *{table}\. (.*)", text)[:1]
    found = re.search(r"priority (\d+)", first)
    return int(found[1]) if found else None
