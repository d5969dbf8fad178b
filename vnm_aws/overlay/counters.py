"""What the flows of security groups have counted, since they were written last.

ovs-vswitchd asks the datapath for its counts about once a second, one flow of the datapath after the other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import AwsOvsError
from . import openflow, unixctl
from .pipeline import FROM_GUEST_MATCH, TO_GUEST_MATCH, flow
from .pipeline import VnetTable as Table

_GROUPS = (Table.OUTBOUND, Table.IN_RULES, Table.OUT_RULES, Table.ACCEPTED, Table.COMMITTED)
_LONGEST_S = 2
"""It asks every half second, unless there are very many flows."""
_DEFAULT_PRIORITY = 32768
"""Of a flow that shows none."""
_FLOW = re.compile(
    r"cookie=(0x[0-9a-f]+),.* table=([0-9]+), n_packets=([0-9]+), n_bytes=([0-9]+),(?:.* priority=([0-9]+))?"
)

Nic = tuple[int, int]
"""VM ID and NIC_ID."""


class Count(NamedTuple):
    """Tell how many flows there are, and how many packets and bytes they have counted."""

    flows: int = 0
    packets: int = 0
    bytes: int = 0


class Passed(NamedTuple):
    """Tell how packets of a NIC have fared.

    Attributes:
        refused_in: to the guest, and accepted by no rule.
        refused_out: from the guest, and accepted by no rule.
        begun: accepted, and the first of a connection.
        went_on: of these, those for which there was room.
        had_no_room: those of which the userspace datapath has said that there was none.
    """

    refused_in: int = 0
    refused_out: int = 0
    begun: int = 0
    went_on: int = 0
    had_no_room: int = 0


class _Flow(NamedTuple):
    cookie: int
    table: int
    packets: int
    bytes: int
    priority: int
    actions: str


def of_nics(bridges: Iterable[str]) -> dict[Nic, Passed]:
    """Read how the packets of all NICs with security groups have fared, on some bridges.

    Raises:
        AwsOvsError: a bridge does not answer.
    """
    kind, mask = flow.port_cookie(0, 0), 0xFF << 56
    found: dict[Nic, Passed] = {}
    for bridge in sorted(set(bridges)):
        for way in (FROM_GUEST_MATCH, TO_GUEST_MATCH):  # what rules accept, they accept on both ways
            for line in _read(bridge, f"cookie={kind:#x}/{mask:#x},{way}"):
                nic = flow.owner(line.cookie)
                if nic:
                    found[nic] = _add(found.get(nic, Passed()), line, to_guest=way == TO_GUEST_MATCH)
    return found


def _add(passed: Passed, line: _Flow, to_guest: bool) -> Passed:
    """Add what a flow has counted that is about one way only."""
    if line.table in (Table.IN_RULES, Table.OUT_RULES) and line.priority == 0:
        if to_guest:
            return passed._replace(refused_in=passed.refused_in + line.packets)
        return passed._replace(refused_out=passed.refused_out + line.packets)
    if line.table == Table.ACCEPTED and line.actions.startswith("ct(commit"):  # what is not tracked begins nothing
        return passed._replace(begun=passed.begun + line.packets)
    if line.table == Table.COMMITTED and line.priority:
        return passed._replace(went_on=passed.went_on + line.packets)
    if line.table == Table.COMMITTED:
        return passed._replace(had_no_room=passed.had_no_room + line.packets)
    return passed


def of_rules(bridge: str, nic: Nic) -> tuple[int, dict[tuple[bool, int], Count]]:
    """Read what the flows of a NIC's rules have counted.

    Returns:
        how many flows its security groups have; and the counts of the flows of each rule, by whether it is inbound, and the
        flows' priority.

    Raises:
        AwsOvsError: the bridge does not answer.
    """
    counts: dict[tuple[bool, int], Count] = {}
    lines = [line for line in _read(bridge, f"cookie={flow.port_cookie(*nic):#x}/-1") if line.table in _GROUPS]
    for line in lines:
        if line.table in (Table.IN_RULES, Table.OUT_RULES):
            key = (line.table == Table.IN_RULES, line.priority)
            count = counts.get(key, Count())
            counts[key] = Count(count.flows + 1, count.packets + line.packets, count.bytes + line.bytes)
    return len(lines), counts


def settle() -> None:
    """Wait until ovs-vswitchd has asked the datapath for what it has counted by now."""
    try:
        unixctl.call("revalidator/wait")
    except AwsOvsError:  # it refuses where others have bridges of the other datapath
        time.sleep(_LONGEST_S)


def _read(bridge: str, match: str) -> Iterator[_Flow]:
    for line in openflow.ask("dump-flows", bridge, match, stats=True):
        match, _, actions = line.partition(" actions=")
        if text := _FLOW.search(match):  # an action to learn flows has a priority, too
            cookie, *numbers = text.groups(str(_DEFAULT_PRIORITY))
            table, packets, octets, priority = map(int, numbers)
            yield _Flow(int(cookie, 16), table, packets, octets, priority, actions)
