"""`make bench`: the wall time of pre, post and clean as processes, beside their floor in the same run; then the front-end half.

The floor is what no driver of this kind can avoid: one bare Python start, one `sudo -n true`, one `ovs-vsctl` transaction
that changes nothing, one `ovs-ofctl --bundle` of one flow.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from lxml import etree

from tests.lab.support import promise
from tests.world.lab import ACTIONS, Lab
from tests.world.recording import load, substitute

from . import datapath, frontend, node

RESULTS = Path(__file__).parent / "results.json"
ROUNDS = 21
PYTHON = "/usr/lib/aws_ovs/venv/bin/python"
FLOOR = ("floor.python", "floor.sudo", "floor.ovs_vsctl", "floor.ovs_ofctl")


def _command(name: str, argv: list[str], user: str = "root", stdin: str = "") -> dict[str, object]:
    return {"name": name, "argv": argv, "user": user, "stdin": stdin}


def _action(name: str, verb: str, arguments: list[str], document: bytes) -> dict[str, object]:
    return _command(name, [f"{ACTIONS}/{verb}", *arguments], "oneadmin", base64.b64encode(document).decode())


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
    documents = {"one": _one_nic(one.steps[-1].xml or b""), "two": two.steps[-1].xml or b""}
    for document in documents.values():
        lab.play(promise.deploy(document, "h1"))
    flow = "table=200,priority=1,in_port=65000 actions=drop\n"
    python = (
        lab.hosts["h1"].run(["sh", "-c", "readlink -f $(head -1 /usr/sbin/aws-ovs | cut -c3- | cut -d' ' -f1)"]).stdout
    )
    commands = [
        _command("floor.python", [python.strip() or PYTHON, "-c", "pass"]),
        _command("floor.sudo", ["sudo", "-n", "true"]),
        _command("floor.ovs_vsctl", ["ovs-vsctl", "--if-exists", "del-port", "not-there"]),
        _command("floor.ovs_ofctl", ["ovs-ofctl", "--bundle", "add-flow", "aws_ovs", "-"], stdin=flow),
    ]
    for document, suffix in ((documents["one"], ""), (documents["two"], "_eip_filters")):
        name = f"one-{promise.vm_id(document)}"
        commands += [
            _action(f"driver.pre{suffix}", "pre", [], document),
            _action(f"driver.post{suffix}", "post", [name, "h1"], document),
            _action(f"driver.clean{suffix}", "clean", ["h1"], document),
        ]
    script = (Path(__file__).parent / "inside.py").read_text()
    plan = json.dumps({"rounds": ROUNDS, "commands": commands})
    done = lab.hosts["h1"].run(["/usr/bin/python3", "-c", script], stdin=plan, timeout=300)
    medians: dict[str, float] = json.loads(done.stdout)
    return medians


def report(medians: dict[str, float]) -> dict[str, dict[str, float | str]]:
    """The results in the form in which they are kept."""
    floor = sum(medians[name] for name in FLOOR)
    results: dict[str, dict[str, float | str]] = {"floor": {"value": round(floor * 1000, 2), "unit": "ms"}}
    for name, seconds in medians.items():
        results[name] = {"value": round(seconds * 1000, 2), "unit": "ms"}
        if name not in FLOOR:
            results[name]["ratio_to_floor"] = round(seconds / floor, 2)
    return results


def main() -> int:
    """Measure, print and keep."""
    print(f"==> starting the lab; then {ROUNDS} rounds", flush=True)
    with Lab(hosts=2) as lab:
        results = report(measure(lab))
    results |= frontend.main() | node.main() | datapath.main()
    width = max(map(len, results))
    print(f"\n{'NAME'.ljust(width)}  {'VALUE':>9}  UNIT  RATIO TO FLOOR")
    for name, result in results.items():
        print(f"{name.ljust(width)}  {result['value']:>9}  {result['unit']:<4}  {result.get('ratio_to_floor', '')}")
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {RESULTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
