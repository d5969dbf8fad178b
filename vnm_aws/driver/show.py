"""`show`: what is on this node, as a table or as JSON."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from ..errors import AwsOvsError
from ..names import OVERLAY
from ..overlay import openflow, tunnels
from ..overlay.guest_port import GuestPort
from ..table import table
from ..underlay import nft
from . import connections, show_rules, state
from . import node as node_module
from .node import Node

_INNER = ("rules", "further_claims")
_COUNTERS = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")


def gather(node: Node) -> dict[str, Any]:
    """Gather everything that `show` prints, as plain values."""
    seen, ports, observed = tunnels.observe(node.db), state.everything().ports, node.observe()
    plugged, inhabited = set(observed.numbers()), [(port.bridge, port.vni) for port in ports]
    refused, dropped, tracked = nft.refused(), _dropped(ports), {}
    with contextlib.suppress(AwsOvsError):
        tracked = connections.look(node, ports)
    if node_module.vswitchd() == node_module.NOT_RUNNING:  # the database still has what was
        seen = {name: tunnel._replace(state="down") for name, tunnel in seen.items()}
        plugged = set()
    return {
        "underlay": node.underlay._asdict() | {"further": [eni._asdict() for eni in node.underlay.further]},
        "guest_mtu": node.underlay.guest_mtu(node.config.internet_mtu, leaves=True),
        "peers": [_peer(node, peer, seen.get(peer.name, tunnels.MISSING)) for peer in tunnels.load().peers],
        "networks": [
            {"bridge": bridge, "vni": vni, "ports": inhabited.count((bridge, vni))} for bridge, vni in observed.networks
        ],
        "ports": [
            {
                **{key: value for key, value in port._asdict().items() if key not in _INNER},
                "reaches": _reaches(node, port),
                "plugged": port.name in plugged,
                "connections_refused": sum(refused.get((mapping.outside, port.mac), 0) for mapping in port.mappings),
                "floods_dropped": sum(dropped.get(bridge, {}).get(port.slot, 0) for bridge in (OVERLAY, port.bridge)),
                "security_groups": {
                    "decide": bool(port.zone),
                    **connections.as_values(tracked.get((port.vm_id, port.nic_id))),
                },
            }
            for port in ports
        ],
    }


def _dropped(ports: list[GuestPort]) -> dict[str, dict[int, int]]:
    """Count what each bridge's meters have dropped; nothing where a bridge does not answer."""
    counts = {}
    for bridge in {OVERLAY, *(port.bridge for port in ports)}:
        with contextlib.suppress(AwsOvsError):
            counts[bridge] = openflow.dropped(bridge)
    return counts


def _peer(node: Node, peer: tunnels.Peer, tunnel: tunnels.Tunnel) -> dict[str, Any]:
    values = {"name": peer.name, "vtep": peer.vtep, **tunnel._asdict()}
    return {**values, "state": "self"} if peer.vtep == node.underlay.address else values


def _reaches(node: Node, port: GuestPort) -> list[dict[str, str]]:
    """List each guest address, its AWS_PRIVATE_IPs, with ports where it shares one, and what it is on the node."""
    outside = {mapping.inside: mapping.outside for mapping in port.mappings}
    reaches = []
    for address in dict.fromkeys((*port.addresses, *outside)):
        own = outside.get(address, "")
        private = [own] if own and own not in node.transit else []
        private += [str(shared.claim) for shared in port.shared if shared.outside == own]
        reaches.append({"ip": address, "aws_private_ip": " ".join(private), "outside": node.stand_ins.of(own)})
    return reaches


def run(node: Node, as_json: bool, vm_id: str = "") -> None:
    """Print it; with the ID of a VM, the rules of its security groups."""
    if vm_id:
        show_rules.run(node, int(vm_id), as_json)
        return
    everything = gather(node)
    if as_json:
        print(json.dumps(everything, indent=2))
        return
    underlay = everything["underlay"]
    about = f"{underlay['interface']} {underlay['address']} mtu {underlay['mtu']}"
    print(f"{about}, guests up to {everything['guest_mtu']}")
    enis = {"INTERFACE": "interface", "ENI": "address", "MAC": "mac"}
    if underlay["further"]:
        _print(enis, underlay["further"])
    counters = {key.upper(): key for key in _COUNTERS}
    _print({"PEER": "name", "VTEP": "vtep", "TUNNEL": "state", **counters}, everything["peers"])
    _print({"BRIDGE": "bridge", "VNI": "vni", "PORTS": "ports"}, everything["networks"])
    share = {"REFUSED": "connections_refused", "DROPPED": "floods_dropped"}
    nic = {"VM": "vm_id", "NIC": "nic_id", "PORT": "name", "BRIDGE": "bridge", "VNI": "vni"}
    reach = {"IP": "ip", "AWS_PRIVATE_IP": "aws_private_ip", "OUTSIDE": "outside"}
    nics = [{**port, **address} for port in everything["ports"] for address in port["reaches"] or [{}]]
    _print(nic | reach | share, nics)
    tracked = {"CONNECTIONS": "connections", "LIMIT": "limit", "DROPPED": "dropped"}
    refused = {"REFUSED_IN": "refused_in", "REFUSED_OUT": "refused_out"}
    rows = [{**port["security_groups"], **port, "groups": _groups(port)} for port in everything["ports"]]
    _print({"PORT": "name", "GROUPS": "groups", **tracked, **refused}, rows)


def _groups(port: dict[str, Any]) -> str:
    """Say which security groups decide on what a NIC sends and gets."""
    if port["groups"] is None:
        return "unknown"
    return ",".join(map(str, port["groups"])) if port["security_groups"]["decide"] else "open"


def _print(columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """Print a table; `columns` leads from each heading to the key of its values."""
    lines = [["" if row.get(key) is None else row[key] for key in columns.values()] for row in rows]
    print(f"\n{table(tuple(columns), lines, gap='  ')}")
