"""The flows of the overlay bridge that decide where a guest's packet may go once it has left its network.

Its source is a node-side address by then. The Internet is open. Private addresses are not: those of the VPC and of what
is connected to it, where the node's own address would let the guest in as if it were the node. What stays open there:

- what the network's AWS_VPC_ACCESS says, and its DNS servers on port 53;
- the private addresses of other VMs. On this node the packet goes straight to the guest; from a guest without one of its
  own it comes from the node's address, as it would from another node;
- the answers to whoever came to the guest from there. Connection tracking knows them, in a zone of its own. What comes
  from the Internet, and the answers to it, never visits it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...addresses import Prefix
from ...names import ANSWERS_ZONE
from ..guest_port import GuestPort, SharedAddress
from . import OverlayTable, flow
from .blocks import spans

NEVER = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""What no packet on a wire goes to, link-local addresses (the instance's credentials are at one), multicast and above."""
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
"""Private addresses (RFC 1918, RFC 6598): what a VPC is connected to has them, and mostly the VPC itself."""

_TO_NODE = flow.goto(OverlayTable.TO_NODE)
_INWARD = flow.goto(OverlayTable.INWARD)
# The guest may be on the patch port that the packet came from, where Open vSwitch sends nothing back by itself.
_BACK = f"load:0->NXM_OF_IN_PORT[],{_INWARD}"
_ASK = f"ct(nat,zone={ANSWERS_ZONE},table={OverlayTable.ANSWER})"


def port(guest: GuestPort, transit: Prefix) -> list[str]:
    """Write the flows of a guest port: the way to its private addresses, and what its network lets it reach."""
    cookie = flow.port_cookie(guest.vm_id, guest.nic_id)
    outside = [mapping.outside for mapping in guest.mappings]
    private = [f"ip,nw_dst={address}" for address in outside if address not in transit]
    private += [match for shared in guest.shared for match in _matches(shared)]
    entries = [(230, match, flow.goto(OverlayTable.HAIRPIN)) for match in dict.fromkeys(private)]
    for address in outside:
        entries += [
            (310, f"{protocol},nw_src={address},nw_dst={server},tp_dst=53", _TO_NODE)
            for server in guest.dns
            for protocol in ("udp", "tcp")
        ]
        entries += [(210, f"ip,nw_src={address},nw_dst={prefix}", _TO_NODE) for prefix in guest.vpc_access]
    return [flow.add(cookie, OverlayTable.DESTINATION, *entry) for entry in entries]


def _matches(shared: SharedAddress) -> list[str]:
    """Match packets to a private address, or to those ports of it that lead to the guest."""
    if shared.ports is None:
        return [f"ip,nw_dst={shared.private_ip}"]
    first = shared.ports.external
    return [
        f"{protocol},nw_dst={shared.private_ip},tp_dst={span}"
        for span in spans(((first, first + shared.ports.size - 1),))
        for protocol in ("tcp", "udp")
    ]


def node(transit: str) -> list[str]:
    """Write the flows that depend on nothing but the node."""
    table = OverlayTable
    flows = [
        (table.ARRIVAL, 110, f"ip,nw_dst={transit}", _INWARD),
        (table.ARRIVAL, 0, "", _INWARD),
        *((table.DESTINATION, 300, f"ip,nw_dst={prefix}", "drop") for prefix in (*NEVER, transit)),
        (table.DESTINATION, 0, "ip", _TO_NODE),
        (table.HAIRPIN, 0, "", f"ct_clear,{_BACK}"),
        (table.ANSWER, 110, f"ct_state=+trk+est+rpl,ip,nw_dst={transit}", _BACK),
        (table.ANSWER, 100, "ct_state=+trk+est+rpl,ip", _TO_NODE),
        (table.ANSWER, 0, "", "drop"),  # a count of what was refused
    ]
    return [flow.add(flow.NODE_COOKIE, *entry) for entry in flows]


def mesh(
    own: str, node_addresses: Iterable[str], prefixes: Iterable[str], private_ips: Iterable[str], transit: str
) -> list[str]:
    """Write the flows that depend on what the front-end tells.

    Args:
        own: this node's address on the ENI.
        node_addresses: all addresses of nodes; guests may only answer them.
        prefixes: where addresses are private, beside `PRIVATE`: the VPC.
        private_ips: the private addresses of VMs on all nodes.
        transit: the range of this node's transit addresses.
    """
    table = OverlayTable
    nodes = sorted({own, *node_addresses})
    closed = sorted({*PRIVATE, *prefixes})
    ranges = [Prefix(prefix, "a private range") for prefix in closed]
    elsewhere = [address for address in nodes if not any(address in prefix for prefix in ranges)]
    flows = [
        *((table.ARRIVAL, 100, f"ip,nw_src={who}", f"ct(commit,zone={ANSWERS_ZONE}),{_INWARD}") for who in closed + elsewhere),
        *((table.DESTINATION, 240, f"ip,nw_dst={address}", _ASK) for address in nodes),
        *((table.DESTINATION, 220, f"ip,nw_dst={address}", _TO_NODE) for address in sorted(set(private_ips))),
        *((table.DESTINATION, 200, f"ip,nw_dst={prefix}", _ASK) for prefix in closed),
        (
            table.HAIRPIN,
            100,
            f"ip,nw_src={transit}",
            f"ct(commit,zone={ANSWERS_ZONE},nat(src={own}),table={table.HAIRPIN})",
        ),
    ]  # fmt: skip
    return [flow.add(flow.MESH_COOKIE, *entry) for entry in flows]
