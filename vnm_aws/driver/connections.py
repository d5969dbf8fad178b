"""What `show`, `check` and the probe tell of NICs with security groups: their connections, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..overlay import counters, limits, unixctl
from ..overlay.counters import Nic, Passed
from ..overlay.guest_port import GuestPort
from .node import Node

_ALMOST = 0.9
_SETTING = "connections_per_nic in /var/lib/one/remotes/etc/vnm/aws_ovs.yaml"
REMEDY = (
    "see with 'aws-ovs show --rules {}' on the host whether that is a flood; if not, raise "
    f"{_SETTING} on the front-end and run 'onehost sync -f' there"
)
"""With the ID of the VM."""


class Tracked(NamedTuple):
    """Tell of a NIC with security groups.

    Attributes:
        connections: entries of its zone of connection tracking.
        limit: how many it may have; 0 when there is no limit.
        dropped: packets that would have begun a connection for which there was no room; there may have been some more.
        refused_in: packets to the guest that no rule accepts.
        refused_out: packets from the guest that no rule accepts.
    """

    connections: int
    limit: int
    dropped: int
    refused_in: int
    refused_out: int

    @property
    def is_full(self) -> bool:
        """Tell whether new connections fail."""
        return 0 < self.limit <= self.connections

    @property
    def is_nearly_full(self) -> bool:
        """Tell whether new connections fail, or soon may."""
        return self.limit > 0 and self.connections >= self.limit * _ALMOST


def look(node: Node, ports: Iterable[GuestPort], timeout: float = unixctl.TIMEOUT_S) -> dict[Nic, Tracked]:
    """Look at the NICs whose security groups decide, and that are plugged in.

    Raises:
        AwsOvsError: Open vSwitch does not answer.
    """
    deciding = _deciding(node, ports)
    if not deciding:
        return {}
    zones = limits.read(node.config.datapath_type, timeout)
    bridges = {port.bridge for port in deciding}
    first = last = counters.of_nics(bridges)
    if any(passed.begun > passed.went_on for passed in first.values()):
        counters.settle()
        last = counters.of_nics(bridges)
    found = {}
    for port in deciding:
        nic = (port.vm_id, port.nic_id)
        limit, entries = zones.get(port.zone, (0, 0))
        passed = last.get(nic, Passed())
        dropped = _dropped(first.get(nic, Passed()), passed)
        found[nic] = Tracked(entries, limit, dropped, passed.refused_in, passed.refused_out)
    return found


def _deciding(node: Node, ports: Iterable[GuestPort]) -> list[GuestPort]:
    tracked = [port for port in ports if port.zone]
    plugged = node.observe().numbers() if tracked else {}
    return [port for port in tracked if port.name in plugged]


def as_values(tracked: Tracked | None) -> dict[str, int | None]:
    """Give what is known of a NIC as plain values: None for each when its security groups do not decide, or nobody can tell."""
    return tracked._asdict() if tracked else dict.fromkeys(Tracked._fields)


def _dropped(first: Passed, last: Passed) -> int:
    """Count the packets that found no room; the kernel's datapath does not tell, so these are those that did not go on.

    What has begun is counted some moments before it is counted to have gone on, or behind that. So what had begun at first
    is compared with what had gone on when all of that must have been counted. What goes on meanwhile makes the result smaller.
    """
    return max(last.had_no_room, first.begun - last.went_on, 0)


def wrong_limits(node: Node, ports: Iterable[GuestPort]) -> list[str]:
    """Say which NICs that are plugged in do not have the limit that the configuration gives them.

    Raises:
        AwsOvsError: Open vSwitch does not answer.
    """
    deciding = _deciding(node, ports)
    zones = limits.read(node.config.datapath_type) if deciding else {}
    wrong, right = [], node.config.connections_per_nic
    for port in deciding:
        limit = zones[port.zone].limit if port.zone in zones else 0
        if limit != right:
            has = f"{limit} connections" if limit else "any number of connections"
            wrong.append(f"VM {port.vm_id} NIC {port.nic_id} may have {has} instead of {right}")
    return wrong
