"""VMs with security groups, and how they are told others."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from lxml import etree

from tests.lab.support import promise
from tests.lab.support.promise import text
from tests.world.lab import Lab
from tests.world.recording import Recording

GROUP, NAME = "100", "web"
Rule = dict[str, str]
ALL_IN, ALL_OUT = ({"RULE_TYPE": way, "PROTOCOL": "ALL"} for way in ("INBOUND", "OUTBOUND"))


def inbound(protocol: str, ports: str = "", **more: str) -> Rule:
    """A rule for what others begin; `more` are its further elements, such as IP and SIZE."""
    return {"RULE_TYPE": "INBOUND", "PROTOCOL": protocol, **({"RANGE": ports} if ports else {}), **more}


def outbound(protocol: str, ports: str = "", **more: str) -> Rule:
    """A rule for what the guest begins."""
    return {**inbound(protocol, ports, **more), "RULE_TYPE": "OUTBOUND"}


def grouped(document: bytes, *rules: Rule, nics: Collection[int] | None = None, groups: str = GROUP) -> bytes:
    """The VM with these groups and rules, and no others, on each of its NICs, or on `nics`; the others have none."""

    def change(root: etree._Element) -> None:
        template = root.find("TEMPLATE")
        assert template is not None
        for parent in root.iterfind("TEMPLATE"):
            for element in parent.findall("SECURITY_GROUP_RULE"):
                parent.remove(element)
        for nic in root.iterfind("TEMPLATE/NIC"):
            of_nic = groups if nics is None or int(text(nic, "NIC_ID")) in nics else ""
            known = nic.find("SECURITY_GROUPS")
            (etree.SubElement(nic, "SECURITY_GROUPS") if known is None else known).text = of_nic
        for rule in rules:
            element = etree.SubElement(template, "SECURITY_GROUP_RULE")
            for key, value in {"SECURITY_GROUP_ID": GROUP, "SECURITY_GROUP_NAME": NAME, **rule}.items():
                etree.SubElement(element, key).text = value

    return promise.changed(document, change)


def grouped_all(recording: Recording, *rules: Rule) -> Recording:
    """The operation on a VM with such a group on each NIC."""
    steps = [step._replace(xml=grouped(step.xml, *rules)) if step.xml else step for step in recording.steps]
    return recording._replace(steps=tuple(steps))


def update(lab: Lab, host: str, document: bytes) -> str:
    """Tell a VM's rules by `update_sg`; what was wrong with it."""
    return lab.driver(host, "update_sg", (f"one-{promise.vm_id(document)}",), document).stderr


EXCHANGE = ["/usr/bin/python3", "-c", (Path(__file__).parent / "exchange.py").read_text(encoding="utf-8")]
Connections = dict[str, "subprocess.Popen[str]"]


def ready(process: subprocess.Popen[str]) -> None:
    """Wait until a program of ours says that it is ready."""
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == "ready\n", process.stderr.read()


def ended(running: Connections) -> Mapping[str, dict[str, float]]:
    """End connections; what was seen of each."""
    for process in running.values():
        process.terminate()
    return {name: json.loads(process.communicate(timeout=60)[0]) for name, process in running.items()}


def answered(running: Connections) -> dict[str, int]:
    """How many packets of each exchange have been answered."""
    counts = {}
    for name, process in running.items():
        process.send_signal(signal.SIGUSR1)
        assert process.stdout
        counts[name] = int(json.loads(process.stdout.readline())["answered"])
    return counts
