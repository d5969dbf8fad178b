"""A node at scale: a restore of 200 ports, an attach to a VM with 50 NICs, a first list of 500 peers and one peer more.

Whole processes, the program's own start included. Guests' ports are internal ports of Open vSwitch, and the peers answer nothing;
to the driver that is all the same.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
from typing import Any

from lxml import etree

from tests.lab.support import promise
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load

from .timing import action, command, timed

VMS, NICS, NETWORKS = 4, 50, 10
PEERS = 500
ROUNDS = 7

TARGETS = {
    "restore.200_ports_s": 2.0,
    "attach.ratio_50_nics": 1.5,
    "peers.first_500_s": 1.0,
    "peers.one_more_ms": 100.0,
}
_UNITS = {"s": "s", "ms": "ms", "nics": "ratio"}
_PROGRAM = "/usr/sbin/aws-ovs"


def _vm(vm_id: int, nics: int, attach: bool = False) -> bytes:
    """A VM with so many NICs in several networks; with `attach`, one NIC more that is being attached."""

    def change(root: etree._Element) -> None:
        pattern, *others = root.findall("TEMPLATE/NIC")
        parent = pattern.getparent()
        assert parent is not None
        for element in [*others, *root.findall("TEMPLATE/NIC_ALIAS"), *root.findall("TEMPLATE/CONTEXT")]:
            above = element.getparent()
            assert above is not None
            above.remove(element)
        parent.remove(pattern)
        for number in range(nics + attach):
            nic = copy.deepcopy(pattern)
            network = number % NETWORKS
            values = {
                "NIC_ID": str(number), "TARGET": f"one-{vm_id}-{number}", "VLAN_ID": str(100 + network),
                "IP": f"192.168.{vm_id}.{number + 2}", "MAC": f"02:00:c0:a8:{vm_id:02x}:{number + 2:02x}",
            }  # fmt: skip
            if attach and number == nics:
                values["ATTACH"] = "YES"
            for key, value in values.items():
                known = nic.find(key)
                (etree.SubElement(nic, key) if known is None else known).text = value
            parent.append(nic)
        identity = root.find("ID")
        assert identity is not None
        identity.text = str(vm_id)

    return promise.changed(load("deploy").steps[-1].xml or b"", change)


def _start(host: Host, vm_id: int, nics: int, spare: int = 0) -> None:
    """Start a VM: pre, its ports and `spare` more, post."""
    document = _vm(vm_id, nics)
    bridge = promise.text(promise.parse(document).findall("TEMPLATE/NIC")[0], "BRIDGE")
    timed(host, [action("", "pre", [], document)])
    ports = [f"one-{vm_id}-{number}" for number in range(nics + spare)]
    plug = [f"-- add-port {bridge} {port} -- set Interface {port} type=internal" for port in ports]
    host.run(["ovs-vsctl", *" ".join(plug).split()])
    timed(host, [action("", "post", [f"one-{vm_id}", host.name], document)])


def _restore(host: Host) -> float:
    """Seconds that `restore` takes after a crash of ovs-vswitchd."""
    seconds = []
    for _ in range(ROUNDS):
        host.kill_ovs("ovs-vswitchd")
        host.start_ovs()
        seconds.append(timed(host, [command("restore", [_PROGRAM, "restore"])])["restore"])
    return statistics.median(seconds)


def _attach_ratio(host: Host, many: int, few: int) -> float:
    """How much longer an attach to VM `many`, which has 50 NICs, takes than one to VM `few`, which has one."""
    commands = []
    for vm_id, nics in ((few, 1), (many, NICS)):
        document = _vm(vm_id, nics, attach=True)
        commands += [
            action(f"pre {vm_id}", "pre", [], document),
            action(f"post {vm_id}", "post", [f"one-{vm_id}", host.name], document),
            action("", "clean", [host.name], document),
        ]
    took = timed(host, commands, ROUNDS * 3)
    return (took[f"pre {many}"] + took[f"post {many}"]) / (took[f"pre {few}"] + took[f"post {few}"])


def _peers(host: Host) -> tuple[float, float]:
    """Seconds that a first list of 500 peers takes, and one peer more."""

    def told(name: str, count: int) -> dict[str, object]:
        own: dict[str, Any] = {"name": host.name, "vtep": host.instance.private_ip}
        peers = [
            {"name": f"p{number}", "vtep": f"10.0.{number // 200 + 4}.{number % 200 + 1}"} for number in range(count)
        ]
        return command(name, [_PROGRAM, "peers"], stdin=json.dumps({"peers": [own, *peers]}))

    settle = command("", ["sleep", "1"])  # a new peer does not come in the second in which 500 others did
    first = timed(host, [told("", 0), settle, told("first", PEERS)], ROUNDS)
    more = timed(host, [told("", PEERS), settle, told("more", PEERS + 1)], ROUNDS * 2)
    return first["first"], more["more"]


def measure(lab: Lab) -> dict[str, float]:
    """The figures by name."""
    host = lab.hosts["h1"]
    first, more = _peers(host)
    lab.reset()
    for vm_id in range(1, VMS + 1):
        _start(host, vm_id, NICS, spare=vm_id == 1)
    restore = _restore(host)
    _start(host, 100, 1, spare=1)
    ratio = _attach_ratio(host, 1, 100)
    return dict(zip(TARGETS, (restore, ratio, first, more * 1000), strict=True))


def report(figures: dict[str, float]) -> dict[str, dict[str, float | str]]:
    """The results in the form in which they are kept."""
    return {
        name: {"value": round(value, 2), "unit": _UNITS[name.rpartition("_")[2]], "target": TARGETS[name]}
        for name, value in figures.items()
    }


def show(figures: dict[str, float]) -> None:
    """Print a table."""
    print(f"\n{VMS * NICS} ports on one node; {PEERS} peers; medians:\n")
    print(f"{'NAME':<21}  {'VALUE':>8}  {'TARGET':>9}")
    for name, value in figures.items():
        verdict = "" if value <= TARGETS[name] else "  missed"
        print(f"{name:<21}  {value:>8.2f}  {'<= ' + format(TARGETS[name], 'g'):>9}{verdict}")


def main() -> dict[str, dict[str, float | str]]:
    """Measure and print; the results."""
    print(f"==> a node with {VMS * NICS} ports, {PEERS} peers, a VM with {NICS} NICs", flush=True)
    with Lab(hosts=1) as lab:
        figures = measure(lab)
    show(figures)
    return report(figures)


if __name__ == "__main__":
    main()
    sys.exit(0)
