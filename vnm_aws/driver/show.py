"""`show`: what is on this node, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..overlay import bridges, tunnels
from ..overlay.ovsdb import Ovsdb
from . import state
from .node import Node


def tunnels_up(db: Ovsdb) -> dict[str, bool]:
    """The names of the peers that have a tunnel, and whether ovs-vswitchd has taken it."""
    found = bridges.rows(db.transact([bridges.select_role("tunnel")])[0])
    return {row.ids.get("aws_ovs-peer", ""): bool(row.ofport) for row in found}


def gather(node: Node) -> dict[str, Any]:
    """Everything that `show` prints, as plain values."""
    up = tunnels_up(node.db)
    return {
        "underlay": node.underlay._asdict(),
        "guest_mtu": node.underlay.guest_mtu(node.config.internet_mtu, leaves=True),
        "peers": [
            {
                "name": peer.name,
                "vtep": peer.vtep,
                "tunnel": "self" if peer.vtep == node.underlay.address else up.get(peer.name, False),
            }
            for peer in tunnels.load()
        ],
        "ports": [port._asdict() for port in state.everything()],
    }


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
    peers = [
        (peer["name"], peer["vtep"], {True: "up", False: "missing"}.get(peer["tunnel"], "this node"))
        for peer in everything["peers"]
    ]
    _table(("PEER", "VTEP", "TUNNEL"), peers)
    print()
    ports = [
        (
            str(port.vm_id), str(port.nic_id), port.name, port.bridge, str(port.vni), mapping.inside, mapping.outside,
            " ".join(one.private_ip for one in port.shared),
        )
        for port in state.everything()
        for mapping in port.mappings
    ]  # fmt: skip
    _table(("VM", "NIC", "PORT", "BRIDGE", "VNI", "IP", "OUTSIDE", "SHARED"), ports)


def _table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    for line in [head, *lines]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
