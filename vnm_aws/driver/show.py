"""`show`: what is on this node, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..overlay import tunnels
from ..overlay.guest_port import Mapping
from . import state
from .node import Node


def gather(node: Node) -> dict[str, Any]:
    """Everything that `show` prints, as plain values."""
    seen, ports, observed = tunnels.observe(node.db), state.everything(), node.observe()
    networks = {tuple(row.ids["aws_ovs-network"].rsplit("/", 1)) for row in observed.patches}
    plugged = {row.name for row in observed.guests if row.ofport}
    return {
        "underlay": node.underlay._asdict(),
        "guest_mtu": node.underlay.guest_mtu(node.config.internet_mtu, leaves=True),
        "peers": [_peer(node, peer, seen.get(peer.name, tunnels.MISSING)) for peer in tunnels.load()],
        "networks": [
            {
                "bridge": bridge,
                "vni": int(vni),
                "ports": sum((port.bridge, port.vni) == (bridge, int(vni)) for port in ports),
            }
            for bridge, vni in sorted(networks)
        ],
        "ports": [{**port._asdict(), "plugged": port.name in plugged} for port in ports],
    }


def _peer(node: Node, peer: tunnels.Peer, tunnel: tunnels.Tunnel) -> dict[str, Any]:
    values = {"name": peer.name, "vtep": peer.vtep, **tunnel._asdict()}
    return {**values, "state": "self"} if peer.vtep == node.underlay.address else values


def run(node: Node, as_json: bool) -> None:
    """Print it."""
    everything = gather(node)
    if as_json:
        print(json.dumps(everything, indent=2))
        return
    underlay = everything["underlay"]
    print(
        f"{underlay['interface']} {underlay['address']} mtu {underlay['mtu']}, guests up to {everything['guest_mtu']}\n"
    )
    counters = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")
    columns = ("name", "vtep", "state", *counters)
    _table(
        ("PEER", "VTEP", "TUNNEL", *(name.upper() for name in counters)),
        [tuple(str(peer[key]) for key in columns) for peer in everything["peers"]],
    )
    print()
    _table(
        ("BRIDGE", "VNI", "PORTS"),
        [(one["bridge"], str(one["vni"]), str(one["ports"])) for one in everything["networks"]],
    )
    print()
    ports = [
        (
            str(port.vm_id), str(port.nic_id), port.name, port.bridge, str(port.vni), mapping.inside, mapping.outside,
            " ".join(one.private_ip for one in port.shared),
        )
        for port in state.everything()
        for mapping in port.mappings or (Mapping(" ".join(port.addresses), ""),)
    ]  # fmt: skip
    _table(("VM", "NIC", "PORT", "BRIDGE", "VNI", "IP", "OUTSIDE", "SHARED"), ports)


def _table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    for line in [head, *lines]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
