"""Recordings of what OpenNebula called, and variations of them.

A recording is a directory with `sequence.json`, the calls in order, and `NN-<action>.xml`, what each got on stdin (there
decoded; OpenNebula sends base64).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from lxml import etree

RECORDINGS = Path(__file__).parents[1] / "recordings"
"""The recordings of the project's own tests."""

FRONTEND = "frontend"


class Step(NamedTuple):
    """One call: of a driver script, or of the hypervisor driver (then `runs_on` is None)."""

    action: str
    runs_on: str | None
    argv: tuple[str, ...]
    xml: bytes | None


class Recording(NamedTuple):
    """An operation."""

    name: str
    steps: tuple[Step, ...]


def load(directory: Path | str) -> Recording:
    """Read a recording.

    Args:
        directory: its path; a plain name is one of the project's own.

    Raises:
        FileNotFoundError: the directory or one of its files is missing.
        ValueError: `sequence.json` is not what it should be.
    """
    path = RECORDINGS / directory  # an absolute path, or one with a slash that exists, stays what it is
    if not path.is_dir():
        path = Path(directory)
    try:
        entries = json.loads((path / "sequence.json").read_bytes())
        return Recording(path.name, tuple(_step(path, entry) for entry in entries))
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as bad:
        raise ValueError(f"{path}/sequence.json is not a list of recorded steps ({bad!r})") from None


def _step(path: Path, entry: dict[str, object]) -> Step:
    file = re.match(r"(\S+\.xml)\b", str(entry.get("stdin", "")))
    argv = entry["argv"]
    if not isinstance(argv, list):
        raise TypeError("argv is not a list")
    runs_on = entry["runs_on"]
    return Step(
        action=str(entry["action"]),
        runs_on=None if runs_on is None else str(runs_on),
        argv=tuple(map(str, argv)),
        xml=(path / file[1]).read_bytes() if file else None,
    )


def substitute(
    recording: Recording,
    *,
    vm_id: int | None = None,
    hosts: Mapping[str, str] | None = None,
    macs: Mapping[str, str] | None = None,
    ips: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    strip: Collection[str] = (),
) -> Recording:
    """The same operation on another VM, or elsewhere.

    Args:
        vm_id: the ID of the other VM; names that OpenNebula makes of it (`one-1`, `one-1-0`) follow.
        hosts: host names, old to new.
        macs: MAC addresses, old to new. One that OpenNebula made of an address in `ips` (02:00 and its four bytes)
            follows by itself.
        ips: addresses of NICs, aliases and their context, old to new, those in AWS too; security group rules stay.
        values: any other texts of NICs, aliases and context, old to new, such as `eipalloc-0a1`.
        strip: elements to leave out of NICs and aliases, such as `AWS_PRIVATE_IP`.
    """
    made = {_mac(old): _mac(new) for old, new in (ips or {}).items()}
    texts = {**made, **(ips or {}), **(macs or {}), **(values or {})}
    known = {_vm_id(step) for step in recording.steps} - {None}
    if vm_id is not None and len(known) > 1:
        raise ValueError(f"recording {recording.name} is of more than one VM: {sorted(map(str, known))}")
    old_id = next(iter(known), None)
    names = _renamer(old_id, vm_id)

    def argument(text: str) -> str:
        return names((hosts or {}).get(text, texts.get(text, text)))

    steps = []
    for step in recording.steps:
        argv = [argument(text) for text in step.argv]
        if step.runs_on is None and vm_id is not None:
            argv[-2] = str(vm_id)
        xml = step.xml and _rewrite(step.xml, vm_id, hosts or {}, texts, names, strip)
        runs_on = step.runs_on and (hosts or {}).get(step.runs_on, step.runs_on)
        steps.append(Step(step.action, runs_on, tuple(argv), xml))
    return Recording(recording.name, tuple(steps))


def _mac(address: str) -> str:
    """The MAC that OpenNebula gives to an IPv4 address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def _vm_id(step: Step) -> int | None:
    if step.xml is None:
        return int(step.argv[-2]) if step.runs_on is None else None
    root = etree.fromstring(step.xml)
    return int(root.findtext("ID") or "") if root.tag == "VM" else None


def _renamer(old: int | None, new: int | None) -> Callable[[str], str]:
    if new is None or old is None:
        return lambda text: text
    pattern = re.compile(rf"(^one-|/datastores/\d+/){old}(?=$|[-/])")
    return lambda text: pattern.sub(rf"\g<1>{new}", text)


def _rewrite(
    xml: bytes,
    vm_id: int | None,
    hosts: Mapping[str, str],
    texts: Mapping[str, str],
    names: Callable[[str], str],
    strip: Collection[str],
) -> bytes:
    root = etree.fromstring(xml, etree.XMLParser(strip_cdata=False))
    if root.tag != "VM":
        return xml
    if vm_id is not None:
        for path in ("ID", "TEMPLATE/VMID", "HISTORY_RECORDS/HISTORY/OID"):
            for element in root.iterfind(path):
                _set(element, str(vm_id))
    for element in root.iterfind("HISTORY_RECORDS/HISTORY/HOSTNAME"):
        _set(element, hosts.get(element.text or "", element.text or ""))
    for element in root.iterfind("DEPLOY_ID"):
        _set(element, names(element.text or ""))
    for kind in ("NIC", "NIC_ALIAS", "CONTEXT"):
        for parent in root.iterfind(f"TEMPLATE/{kind}"):
            for element in list(parent):
                if kind != "CONTEXT" and element.tag in strip:
                    parent.remove(element)
                elif element.text:
                    _set(element, names(texts.get(element.text, element.text)))
    return etree.tostring(root)


def _set(element: etree._Element, text: str) -> None:
    if text != (element.text or ""):
        # OpenNebula writes numbers and host names bare and all else as CDATA; whoever reads XML cannot tell.
        element.text = text
