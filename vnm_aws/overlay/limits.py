"""How many entries of connection tracking each NIC may have: the limits of zones, which ovs-vswitchd keeps in the datapath.

Its database has them from version 3.3 on. Earlier ones take them by a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..names import NIC_ZONES
from . import unixctl

_DATAPATHS = {"system": "system@ovs-system", "netdev": "netdev@ovs-netdev"}
_LINE = "limit "


class Zone(NamedTuple):
    """Tell of a zone how many entries it may have, and how many it has."""

    limit: int
    entries: int


def limit(datapath_type: str, zone: int, entries: int) -> str:
    """Write the line of a bundle that gives a zone its limit; it is carried out before the flows."""
    return f"{_LINE}{_DATAPATHS[datapath_type]} zone={zone},limit={entries}"


def is_limit(line: str) -> bool:
    """Tell whether a line is one of these."""
    return line.startswith(_LINE)


def apply(lines: Iterable[str]) -> None:
    """Carry out such lines.

    Raises:
        AwsOvsError: ovs-vswitchd does not answer, or refuses a limit.
    """
    zones: dict[str, list[str]] = {}
    for line in lines:
        _, datapath, zone = line.split()
        zones.setdefault(datapath, []).append(zone)
    for datapath, words in zones.items():
        unixctl.call("dpctl/ct-set-limits", datapath, *words)


def read(datapath_type: str, timeout: float = unixctl.TIMEOUT_S) -> dict[int, Zone]:
    """Read the limits and the numbers of entries of all NICs that have limits, by their zones.

    Raises:
        AwsOvsError: ovs-vswitchd does not answer.
    """
    shown = unixctl.call("dpctl/ct-get-limits", _DATAPATHS[datapath_type], timeout=timeout)
    found = re.findall(r"zone=([0-9]+),limit=([0-9]+),count=([0-9]+)", shown)
    return {int(zone): Zone(int(most), int(count)) for zone, most, count in found if int(zone) > NIC_ZONES}
