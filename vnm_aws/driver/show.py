"""`show`: what is on this node, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..overlay import tunnels
from ..overlay.guest_port import GuestPort
from ..table import table
from . import node as node_module
from . import state
from .node import Node

_PEER = ("name", "vtep", "state", "rx_packets", "tx_packets", "rx_bytes", "tx_bytes")


def gather(node: Node) -> dict[str, Any]:
    """Everything that `show` prints, as plain values."""
    seen, ports, observed = tunnels.observe(node.db), state.everything().ports, node.observe()
    plugged = set(observed.numbers())
    if node_module.vswitchd() == node_module.NOT_RUNNING:  # the database still has what was
        seen = {name: tunnel._replace(state="down") for name, tunnel in seen.items()}
        plugged = set()
    return {
        "underlay": node.underlay._asdict(),
        "guest_mtu": node.underlay.guest_mtu(node.config.internet_mtu, leaves=True),
        "peers": [_peer(node, peer, seen.get(peer.name, tunnels.MISSING)) for peer in tunnels.load()],
        "networks": [
            {
                "bridge": bridge,
                "vni": vni,
                "ports": sum((port.bridge, port.vni) == (bridge, vni) for port in ports),
            }
            for bridge, vni in observed.networks
        ],
        "ports": [
            {**port._asdict(), "reaches": _reaches(node, port), "plugged": port.name in plugged} for port in ports
        ],
    }


def _peer(node: Node, peer: tunnels.Peer, tunnel: tunnels.Tunnel) -> dict[str, Any]:
    values = {"name": peer.name, "vtep": peer.vtep, **tunnel._asdict()}
    return {**values, "state": "self"} if peer.vtep == node.underlay.address else values


def _reaches(node: Node, port: GuestPort) -> list[dict[str, str]]:
    """Each guest address with its AWS_PRIVATE_IPs, with ports where it shares one, and what it is on the node."""
    outside = {mapping.inside: mapping.outside for mapping in port.mappings}
    found = []
    for address in dict.fromkeys((*port.addresses, *outside)):
        own = outside.get(address, "")
        private = [own] if own and own not in node.transit else []
        private += [str(shared.claim) for shared in port.shared if shared.outside == own]
        found.append({"ip": address, "aws_private_ip": " ".join(private), "outside": own})
    return found


def run(node: Node, as_json: bool) -> None:
    """Print it."""
    everything = gather(node)
    if as_json:
        print(json.dumps(everything, indent=2))
        return
    underlay, mtu = everything["underlay"], everything["guest_mtu"]
    columns = ("vm_id", "nic_id", "name", "bridge", "vni")
    nowhere = {"ip": "", "aws_private_ip": "", "outside": ""}
    reaches = [(port, reach) for port in everything["ports"] for reach in port["reaches"] or [nowhere]]
    tables: tuple[tuple[Sequence[str], list[list[Any]]], ...] = (
        (
            ("PEER", "VTEP", "TUNNEL", *(name.upper() for name in _PEER[3:])),
            [[peer[key] for key in _PEER] for peer in everything["peers"]],
        ),
        (("BRIDGE", "VNI", "PORTS"), [[*network.values()] for network in everything["networks"]]),
        (
            ("VM", "NIC", "PORT", "BRIDGE", "VNI", "IP", "AWS_PRIVATE_IP", "OUTSIDE"),
            [[*(port[key] for key in columns), *reach.values()] for port, reach in reaches],
        ),
    )
    print(f"{underlay['interface']} {underlay['address']} mtu {underlay['mtu']}, guests up to {mtu}")
    for head, lines in tables:
        print(f"\n{table(head, lines, gap='  ')}")
