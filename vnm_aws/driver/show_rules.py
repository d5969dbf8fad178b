"""`show --rules`: the rules of a VM's security groups as they were written, with what each has let pass."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from ..errors import AwsOvsError
from ..overlay import counters
from ..overlay.counters import Count
from ..overlay.guest_port import GuestPort
from ..overlay.pipeline import groups
from ..processes import since_boot
from ..rules import Rule
from ..table import printable, table
from . import connections, state
from .node import Node

_NUMBERS = ("FLOWS", "PACKETS", "BYTES")
_HEAD = ("DIRECTION", "PROTOCOL", "PORTS", "OTHER END", *_NUMBERS, "GROUP")
_KEYS = ("direction", "protocol", "which", "where", "flows", "packets", "bytes")
_LONGEST_NAME = 32

Counts = dict[tuple[bool, int], Count]


def run(node: Node, vm_id: int, as_json: bool) -> None:
    """Print it for each NIC of a VM.

    Raises:
        AwsOvsError: the VM is not here, or its file cannot be read.
    """
    stored = state.everything()
    if vm_id in stored.unreadable:
        raise stored.unreadable[vm_id]
    ports = [port for port in stored.ports if port.vm_id == vm_id]
    if not ports:
        raise AwsOvsError(f"VM {vm_id} has no NIC on this node", f"see where it is: onevm show {vm_id}")
    nics = gather(node, ports)
    if as_json:
        print(json.dumps(nics, indent=2))
    else:
        print("\n\n".join("\n".join(_lines(nic)) for nic in nics))


def gather(node: Node, ports: list[GuestPort]) -> list[dict[str, Any]]:
    """Gather all that is printed, as plain values; what Open vSwitch does not tell is None."""
    tracked: dict[counters.Nic, connections.Tracked] = {}
    with contextlib.suppress(AwsOvsError):
        tracked = connections.look(node, ports)
    return [_nic(port, tracked.get((port.vm_id, port.nic_id))) for port in node.in_force(ports)]


def _nic(port: GuestPort, tracked: connections.Tracked | None) -> dict[str, Any]:
    flows, counts = counters.of_rules(port.bridge, (port.vm_id, port.nic_id)) if tracked else (None, None)
    rules = port.rules or ()
    return {
        "vm_id": port.vm_id,
        "nic_id": port.nic_id,
        "name": port.name,
        "groups": port.groups,
        "decide": bool(port.zone),
        "rules": [_rule(rules, place, counts) for place in range(len(rules))],
        "flows": flows,
        "picks_up_s": max(0, port.picks_up_until - since_boot()) if port.zone else 0,
        **connections.as_values(tracked),
    }


def _rule(rules: tuple[Rule, ...], place: int, counts: Counts | None) -> dict[str, Any]:
    """Describe the rule at a place among all of a NIC's."""
    rule = rules[place]
    values: dict[str, Any] = dict.fromkeys(Count._fields)
    if counts is not None:
        values = counts.get((rule.inbound, groups.FIRST_PRIORITY - place), Count())._asdict()
    return {
        "group_id": rule.group_id,
        "group_name": rule.group,
        "direction": rule.direction,
        "protocol": rule.protocol,
        "which": rule.which,
        "where": rule.where,
        **values,
        "never_first": _never_first(rules, place),
    }


def _never_first(rules: tuple[Rule, ...], place: int) -> str:
    """Say which rule is always the first to accept what a rule accepts; nothing when that is the rule itself."""
    rule = rules[place]
    first = dict(groups.effective(rules, rule.inbound))
    if place in first:
        return ""
    is_open = [other for other in first.values() if other.is_open]
    same = [other for other in first.values() if other[2:] == rule[2:]]
    return f"group {is_open[0].group_id} accepts everything" if is_open else f"the same is in group {same[0].group_id}"


def _lines(nic: dict[str, Any]) -> Iterator[str]:
    """Write what is printed of a NIC."""
    yield f"VM {nic['vm_id']} NIC {nic['nic_id']} ({nic['name']}): {_verdict(nic)}"
    lines = [[_shown(rule[key]) for key in _KEYS] + [_group(rule)] for rule in nic["rules"]]
    if lines:
        yield table(_HEAD, lines, right=_NUMBERS, gap="  ")
    if nic["connections"] is not None:
        yield f"refused: {nic['refused_in']} packets to the guest, {nic['refused_out']} from it"
        dropped = f"{nic['dropped']} packets dropped that would have begun one more"
        yield f"connections: {nic['connections']} of at most {nic['limit'] or 'any number'}, {dropped}"
        yield f"flows: {nic['flows']}"
    if nic["picks_up_s"]:
        yield f"TCP connections that have begun before are picked up for {nic['picks_up_s']} s more"


def _verdict(nic: dict[str, Any]) -> str:
    """Say whether the security groups of a NIC decide."""
    if nic["groups"] is None:
        return f"open: its security groups are not in force yet; {state.SEND}"
    if not nic["groups"]:
        return "open: it has no security groups"
    ids = ", ".join(map(str, nic["groups"]))
    return f"security groups {ids}" if nic["decide"] else f"open: its security groups ({ids}) accept everything"


def _group(rule: dict[str, Any]) -> str:
    name = printable(rule["group_name"])
    name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    note = f"({rule['never_first']})" if rule["never_first"] else ""
    return " ".join(filter(None, (str(rule["group_id"]), name, note)))


def _shown(value: object) -> object:
    return "" if value is None else value
