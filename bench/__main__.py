"""`make bench`: the wall time of pre, post and clean as processes, beside their floor in the same run; then the front-end half.

The floor is what no driver of this kind can avoid: one bare Python start, one `sudo -n true`, one `ovs-vsctl` transaction
that changes nothing, one `ovs-ofctl --bundle` of one flow.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lxml import etree

from tests.lab.support import promise
from tests.world.lab import Lab
from tests.world.recording import load, substitute

from . import datapath, frontend, groups, node
from .timing import action, command, timed

RESULTS = Path(__file__).parent / "results.json"
ROUNDS = 21
PYTHON = "/usr/lib/aws_ovs/venv/bin/python"
TARGET = ("driver.post_sg", 1.8)
FLOOR = ("floor.python", "floor.sudo", "floor.ovs_vsctl", "floor.ovs_ofctl")


def _one_nic(document: bytes) -> bytes:
    def change(root: etree._Element) -> None:
        for nic in root.findall("TEMPLATE/NIC")[1:]:
            parent = nic.getparent()
            assert parent is not None
            parent.remove(nic)

    return promise.changed(document, change)


def measure(lab: Lab) -> dict[str, float]:
    """Median seconds of each command."""
    two = substitute(load("deploy"), vm_id=2, ips={"192.168.0.10": "192.168.0.20"})
    one = load("deploy")
    documents = {
        "": _one_nic(one.steps[-1].xml or b""),
        "_eip_filters": two.steps[-1].xml or b"",
        "_sg": groups.vm(3, groups.rules(10)),
    }
    for document in documents.values():
        lab.play(promise.deploy(document, "h1"))
    flow = "table=200,priority=1,in_port=65000 actions=drop\n"
    python = (
        lab.hosts["h1"].run(["sh", "-c", "readlink -f $(head -1 /usr/sbin/aws-ovs | cut -c3- | cut -d' ' -f1)"]).stdout
    )
    commands = [
        command("floor.python", [python.strip() or PYTHON, "-c", "pass"]),
        command("floor.sudo", ["sudo", "-n", "true"]),
        command("floor.ovs_vsctl", ["ovs-vsctl", "--if-exists", "del-port", "not-there"]),
        command("floor.ovs_ofctl", ["ovs-ofctl", "--bundle", "add-flow", "aws_ovs", "-"], stdin=flow),
    ]
    for suffix, document in documents.items():
        name = f"one-{promise.vm_id(document)}"
        commands += [
            action(f"driver.pre{suffix}", "pre", [], document),
            action(f"driver.post{suffix}", "post", [name, "h1"], document),
            action(f"driver.clean{suffix}", "clean", ["h1"], document),
        ]
    return timed(lab.hosts["h1"], commands, ROUNDS)


def report(medians: dict[str, float]) -> dict[str, dict[str, float | str]]:
    """The results in the form in which they are kept."""
    floor = sum(medians[name] for name in FLOOR)
    results: dict[str, dict[str, float | str]] = {"floor": {"value": round(floor * 1000, 2), "unit": "ms"}}
    for name, seconds in medians.items():
        results[name] = {"value": round(seconds * 1000, 2), "unit": "ms"}
        if name not in FLOOR:
            results[name]["ratio_to_floor"] = round(seconds / floor, 2)
    results[TARGET[0]]["target"] = f"ratio to floor <= {TARGET[1]}"
    return results


def main() -> int:
    """Measure, print and keep."""
    print(f"==> starting the lab; then {ROUNDS} rounds", flush=True)
    with Lab(hosts=2) as lab:
        results = report(measure(lab))
    results |= frontend.main() | node.main() | datapath.main() | groups.main()
    width = max(map(len, results))
    print(f"\n{'NAME'.ljust(width)}  {'VALUE':>9}  UNIT  RATIO TO FLOOR")
    for name, result in results.items():
        print(f"{name.ljust(width)}  {result['value']:>9}  {result['unit']:<4}  {result.get('ratio_to_floor', '')}")
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {RESULTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
