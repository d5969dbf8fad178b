"""What security groups cost a NIC that has some: flows, actions, packets and new connections.

Packets and connections go between two VMs on two hosts, through Open vSwitch's kernel module and a VXLAN tunnel: two VMs
with 100 rules each, two whose groups accept everything, and two without groups. They are measured in turns, and what counts
is the ratio.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence

from lxml import etree

from tests.lab.support import promise
from tests.world.hosts import datapath
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load

from .datapath import Way, deploy
from .timing import action, timed

COUNTS = (10, 100, 1000)
ROUNDS, UPDATES = 9, 21
SECONDS = 3
TARGETS = {
    "sg.update_ratio_1000": "<= 2",
    "sg.throughput_ratio": ">= 0.9",
    "sg.connections_ratio": ">= 0.7",
    "sg.open_throughput_ratio": "1",
}
_UNITS = {"10": "flows", "100": "flows", "1000": "flows", "rate": "connections/s"}
_GROUP, _PORT = "100", 5201

Rules = Sequence[dict[str, str]]
OPEN: Rules = [{"RULE_TYPE": way, "PROTOCOL": "ALL"} for way in ("INBOUND", "OUTBOUND")]

# Takes connections.
_TAKE = """
import socket, sys
taker = socket.create_server(("", int(sys.argv[1])), backlog=1024)
while True:
    taker.accept()[0].close()
"""

# Begins connections, one after the other, for so many seconds; prints how many a second.
_BEGIN = """
import socket, struct, sys, time
target, seconds = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3])
at_once = struct.pack("ii", 1, 0)
count, began = 0, time.monotonic()
while time.monotonic() < began + seconds:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        connection.connect(target)
    count += 1
print(count / (time.monotonic() - began))
"""


def rules(count: int, first: int = 0) -> Rules:
    """So many rules as users write them, all different: ports for anyone, an address, a prefix or a block that is none; ICMP."""
    return [_rule(number) for number in range(first, first + count)]


def _rule(number: int) -> dict[str, str]:
    place, place6 = f"198.{18 + number // 250}.{number % 250}", f"2001:db8:{number:x}:"
    host, net = {"IP": f"{place}.10", "SIZE": "1"}, {"IP": f"{place}.0", "SIZE": "256"}
    block, net6 = {"IP": f"{place}.5", "SIZE": "100"}, {"IP6": f"{place6}:", "SIZE": str(2**64)}
    port = 1024 + number
    kinds: list[dict[str, str]] = [
        {"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP", "RANGE": f"80,443,{port}"},
        {"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP", "RANGE": "22", **block},
        {"RULE_TYPE": "INBOUND", "PROTOCOL": "UDP", "RANGE": f"{port}:{port + 20}"},
        {"RULE_TYPE": "INBOUND", "PROTOCOL": "UDP", "RANGE": "123,161", **host},
        {"RULE_TYPE": "INBOUND", "PROTOCOL": "ICMP", "ICMP_TYPE": "8", **net},
        {"RULE_TYPE": "INBOUND", "PROTOCOL": "ICMPV6", "ICMPV6_TYPE": "128", **net6},
        {"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP", "RANGE": f"{port}:{port + 1}", **net6},
        {"RULE_TYPE": "OUTBOUND", "PROTOCOL": "TCP", "RANGE": f"443,{port}"},
        {"RULE_TYPE": "OUTBOUND", "PROTOCOL": "UDP", "RANGE": "53", **host},
        {"RULE_TYPE": "OUTBOUND", "PROTOCOL": "ALL", **net},
    ]
    return kinds[number % len(kinds)]


def vm(vm_id: int, wanted: Rules) -> bytes:
    """A VM with one NIC, which has a group with these rules; without any it has no group."""

    def change(root: etree._Element) -> None:
        for template in root.findall("TEMPLATE"):
            if template.find("SECURITY_GROUP_RULE") is not None:
                root.remove(template)
        for rule in wanted:
            element = etree.SubElement(etree.SubElement(root, "TEMPLATE"), "SECURITY_GROUP_RULE")
            for key, value in {**rule, "SECURITY_GROUP_ID": _GROUP, "SECURITY_GROUP_NAME": "bench"}.items():
                etree.SubElement(element, key).text = etree.CDATA(value)
        groups = root.find("TEMPLATE/NIC/SECURITY_GROUPS")
        assert groups is not None
        groups.text = _GROUP if wanted else ""

    recorded = load("deploy").steps[-1].xml or b""
    return promise.changed(promise.other_vm(recorded, 1, vm_id, f"192.168.0.{100 + vm_id}"), change)


def _update(lab: Lab) -> dict[str, float]:
    """The flows of a NIC by its number of rules, and how much longer updates take with the most than with the fewest."""
    host, numbers = lab.hosts["h1"], range(1, len(COUNTS) + 1)
    for vm_id, count in zip(numbers, COUNTS, strict=True):
        lab.play(promise.deploy(vm(vm_id, rules(count)), host.name))
    commands = [
        action(str(count), "update_sg", [f"one-{vm_id}"], vm(vm_id, rules(count, first)))
        for first in (1, 0)  # another rule goes, another comes
        for vm_id, count in zip(numbers, COUNTS, strict=True)
    ]
    took = timed(host, commands, UPDATES)
    flows = {f"sg.flows_{count}": _flows(host, vm_id) for vm_id, count in zip(numbers, COUNTS, strict=True)}
    return {**flows, "sg.update_ratio_1000": took[str(COUNTS[-1])] / took[str(COUNTS[0])]}


def _flows(host: Host, vm_id: int) -> int:
    """How many flows the NIC of a VM has, on all bridges."""
    owner = f"cookie=0xa5{vm_id:010x}0000/-1"
    bridges = host.run(["ovs-vsctl", "list-br"]).stdout.split()
    return sum(host.run(["ovs-ofctl", "dump-flows", bridge, owner]).stdout.count("actions=") for bridge in bridges)


def _connections(way: Way) -> float:
    """New TCP connections a second."""
    begin = ["/usr/bin/python3", "-c", _BEGIN, way.addresses[1], str(_PORT + 1), str(SECONDS)]
    return float(way.hosts[0].run(["ip", "netns", "exec", way.name, *begin]).stdout)


def _ways(lab: Lab) -> Iterable[Way]:
    ports = {"PROTOCOL": "TCP", "RANGE": f"{_PORT}:{_PORT + 1}", "IP": "192.168.0.101", "SIZE": "20"}
    own = [{"RULE_TYPE": way, **ports} for way in ("INBOUND", "OUTBOUND")]
    for number, (name, wanted) in enumerate({"none": [], "open": OPEN, "groups": [*rules(98), *own]}.items()):
        first = 2 * number + 1
        way = Way(name, [lab.hosts["h1"], lab.hosts["h2"]], [f"192.168.0.{100 + first}", f"192.168.0.{101 + first}"])
        deploy(lab, way, [vm(first, wanted), vm(first + 1, wanted)])
        way.serve()
        way.hosts[1].spawn(["ip", "netns", "exec", name, "/usr/bin/python3", "-c", _TAKE, str(_PORT + 1)])
        way.transfer()  # flows get into the kernel, neighbours are found
        yield way


def _packets(lab: Lab) -> dict[str, float]:
    """The throughput and the new connections a second that are left, as a part of what there is without groups."""
    ways = list(_ways(lab))
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(ROUNDS):
        for way in ways if turn % 2 else reversed(ways):
            way.rates.append(way.transfer())
            rates[way.name].append(_connections(way))
    none, everything, some = ways
    return {
        "sg.throughput_ratio": _ratio(some.rates, none.rates),
        "sg.open_throughput_ratio": _ratio(everything.rates, none.rates),
        "sg.connections_ratio": _ratio(rates[some.name], rates[none.name]),
        "sg.connections_rate": statistics.median(rates[some.name]),
    }


def _ratio(some: Sequence[float], none: Sequence[float]) -> float:
    """The median of the ratios of each turn: what else the machine does changes from turn to turn."""
    return statistics.median(one / other for one, other in zip(some, none, strict=True))


def report(figures: dict[str, float]) -> dict[str, dict[str, float | str]]:
    """The results in the form in which they are kept."""
    results: dict[str, dict[str, float | str]] = {}
    for name, value in figures.items():
        unit = _UNITS.get(name.rpartition("_")[2], "ratio") if name not in TARGETS else "ratio"
        results[name] = {"value": round(value, 3), "unit": unit}
        if name in TARGETS:
            results[name]["target"] = TARGETS[name]
    return results


def main() -> dict[str, dict[str, float | str]]:
    """Measure; the results."""
    print(f"==> security groups with {', '.join(map(str, COUNTS))} rules", flush=True)
    with Lab(hosts=1) as lab:
        figures = _update(lab)
    try:
        with Lab(hosts=2, kind=datapath.KERNEL) as lab:
            figures |= _packets(lab)
    except datapath.UnavailableError as missing:
        print(f"NOT RUN: {missing}", file=sys.stderr)
    return report(figures)
