"""Names and numbers that more than one room needs, each with the reason for it."""

from __future__ import annotations

OVERLAY = "aws_ovs"
"""The overlay bridge, which has the tunnels."""
GATEWAY_PORT = "aws_gw"
"""The overlay bridge's port to the node's kernel: the way between VMs and the ENI."""
REPAIR_PORT = "aws_icmp"
"""The overlay bridge's port that ICMP errors pass to have the packet repaired that they quote."""

VXLAN_PORT = 4789
"""UDP port of the tunnels: the one that IANA gave to VXLAN."""
ROUTE_TABLE = VXLAN_PORT
"""Table of the route to the VMs. Nobody else has reason to take this number, and whoever sees it thinks of VXLAN."""
RULE_PRIORITY = VXLAN_PORT
"""Priority of the rule that leads to ROUTE_TABLE: behind table `local` (0), so that the node keeps its own addresses,
and before table `main` (32766), which knows the VMs' addresses as neighbours on the ENI."""
