"""The mesh: one unicast VXLAN port for each peer on the overlay bridge, changed by the difference only."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ..addresses import Prefix, ip_to_int, ipv4, mac, shown
from ..errors import AwsOvsError
from ..names import GATEWAY_PORT, OVERLAY, PEER_KEY, PEER_LIST, PEER_LIST_LIMIT, ROLE, VXLAN_PORT
from .bridges import Transaction, is_tunnel, places, port_number, select_role
from .ovsdb import Ovsdb, as_dict, as_list, ovs_map, select
from .pipeline import destinations, flow, overlay_bridge

_BFD = {"enable": "true", "min_rx": "1000", "min_tx": "1000", "check_tnl_key": "true"}
"""Each end says once in 1000 ms that it is there; after three times of silence the tunnel counts as down.

`check_tnl_key`: only what comes with VNI 0, which no network has, is BFD. Otherwise Open vSwitch takes every packet of a
guest to UDP port 3784 for it.
"""


_MOST = 50_000
"""Of the entries of each list; a VPC has fewer addresses."""

_MOST_ENIS = 63
"""Beside the first; no instance type can have more."""


class Peer(NamedTuple):
    """A node of the mesh and its VXLAN endpoint."""

    name: str
    vtep: str


class Eni(NamedTuple):
    """A further ENI of the node that is told: its primary address, and the secondary ones, which are VMs'."""

    mac: str
    address: str
    subnet: str
    addresses: tuple[str, ...]


class PeerList(NamedTuple):
    """What the front-end tells every node.

    Attributes:
        peers: the nodes.
        vpc_cidrs: the CIDR blocks of the VPC; none when the front-end has not told them.
        node_addresses: addresses of the nodes beside their VXLAN endpoints, the public ones too.
        private_ips: the private addresses that VMs may have, wherever they run (AWS_PRIVATE_IP of address ranges).
        grants: what networks let their NICs do, see `grants`; None when the front-end has not told it.
        enis: the ENIs beside its first that have addresses of VMs, of the node that is told only.
    """

    peers: list[Peer]
    vpc_cidrs: tuple[str, ...] = ()
    node_addresses: tuple[str, ...] = ()
    private_ips: tuple[str, ...] = ()
    grants: tuple[str, ...] | None = None
    enis: tuple[Eni, ...] = ()

    @property
    def further(self) -> list[tuple[str, str, str]]:
        """List MAC, primary address and subnet of each of these ENIs."""
        return [(eni.mac, eni.address, eni.subnet) for eni in self.enis]


def parse(text: bytes) -> PeerList:
    """Read a document like `{"peers": [{"name": "h1", "vtep": "10.0.0.11"}]}`; it may have the lists of `PeerList`, too.

    Raises:
        AwsOvsError: it is not such a document, or names an endpoint twice.
    """
    example = 'send {"peers": [{"name": "h1", "vtep": "10.0.0.11"}]}'
    if len(text) > PEER_LIST_LIMIT:
        raise AwsOvsError(f"the peer list is larger than {PEER_LIST_LIMIT} bytes", example)
    try:
        document = json.loads(text.decode())
        pairs = [(entry["name"], entry["vtep"]) for entry in document["peers"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AwsOvsError("the peer list is not valid", example) from None
    peers: dict[str, Peer] = {}
    for name, vtep in pairs:
        is_text = isinstance(name, str) and isinstance(vtep, str)
        if not is_text or not name.isprintable() or not 1 <= len(name) <= 255:
            raise AwsOvsError(f"the peer {shown(str(name))} is not valid", example)
        peer = Peer(name, ipv4(vtep, f"peer {shown(name)}: vtep"))
        if peers.setdefault(peer.vtep, peer) is not peer:
            raise AwsOvsError(f"two peers have the VXLAN endpoint {peer.vtep}", "correct the peer list")
    lists = {key: _texts(document, key) for key in ("vpc_cidrs", "node_addresses", "private_ips")}
    grants = None if document.get("grants") is None else tuple(_texts(document, "grants"))
    cidrs = tuple(str(Prefix(text, "the peer list: vpc_cidrs")) for text in lists.pop("vpc_cidrs"))
    others = {key: tuple(ipv4(text, f"the peer list: {key}") for text in texts) for key, texts in lists.items()}
    return PeerList(list(peers.values()), cidrs, **others, grants=grants, enis=_enis(document.get("enis", [])))


def _enis(entries: Any) -> tuple[Eni, ...]:
    """Read the further ENIs of this node; their order, which the node goes by, stays."""
    advice = "run 'oneaws mesh sync --all' again"
    listed: list[Any] = entries if isinstance(entries, list) else [entries]
    if len(listed) > _MOST_ENIS:
        raise AwsOvsError(f"the peer list has more than {_MOST_ENIS} further ENIs", advice)
    enis = [_eni(entry, advice) for entry in listed]
    marks: set[str] = set()
    for mark in (mark for eni in enis for mark in (eni.mac, eni.address, *eni.addresses)):
        if mark in marks:
            raise AwsOvsError(f"the peer list: enis has {mark} twice", advice)
        marks.add(mark)
    return tuple(enis)


def _eni(entry: Any, advice: str) -> Eni:
    try:
        own, address, subnet = (entry[key] for key in ("mac", "address", "subnet"))
        if not all(isinstance(text, str) for text in (own, address, subnet)):
            raise TypeError
        addresses = _texts(entry, "addresses")
    except (KeyError, TypeError):
        raise AwsOvsError("the peer list: enis is not a list of ENIs", advice) from None
    what = f"the peer list: enis: {shown(own)}"
    prefix = Prefix(subnet, what)
    if ipv4(address, what) not in prefix:
        raise AwsOvsError(f"{what}: {address} is not in its subnet {prefix}", advice)
    secondary = sorted((ipv4(text, what) for text in addresses), key=ip_to_int)
    return Eni(mac(own, "the peer list: enis: mac"), address, str(prefix), tuple(secondary))


def _texts(document: dict[str, Any], key: str) -> list[str]:
    """Read one of the lists that may be missing."""
    texts = document.get(key, [])
    if not isinstance(texts, list) or len(texts) > _MOST or not all(isinstance(text, str) for text in texts):
        raise AwsOvsError(f"the peer list: {key} is not a list of texts", "run 'oneaws mesh sync --all' again")
    return sorted(set(texts))


def load(path: str = PEER_LIST) -> PeerList:
    """Load the stored peer list; empty when none was ever sent."""
    try:
        with open(path, "rb") as file:
            return parse(file.read(PEER_LIST_LIMIT + 1))
    except FileNotFoundError:
        return PeerList([])


def digest(told: PeerList) -> str:
    """Compute twelve characters that are the same wherever a peer list says the same, in whatever order."""
    import hashlib  # costs 3 ms, and a VM's start needs none

    lines = sorted(f"{peer.name} {peer.vtep}" for peer in told.peers)
    lines += [f"{key} {text}" for key in PeerList._fields[1:-1] for text in sorted(getattr(told, key) or ())]
    lines += [f"eni {eni.mac} {eni.address} {eni.subnet} {','.join(eni.addresses)}" for eni in told.enis]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


class Tunnel(NamedTuple):
    """A tunnel as ovs-vswitchd has it. `state` is up, down, or missing when it has not taken the port; `error` says why."""

    state: str
    error: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int


MISSING = Tunnel("missing", "", 0, 0, 0, 0)


def observe(db: Ovsdb) -> dict[str, Tunnel]:
    """Read the tunnels that there are, by the names of their peers."""
    columns = ["name", "ofport", "external_ids", "bfd_status", "statistics", "error"]
    (rows,) = db.transact([{**select_role("tunnel"), "columns": columns}])
    return {as_dict(row["external_ids"]).get(PEER_KEY, ""): _tunnel(row) for row in rows if is_tunnel(row["name"])}


def flows(db: Ovsdb, told: PeerList, own: str, subnet: str, transit: str) -> list[str]:
    """Compile the flows of the overlay bridge that depend on the peer list, in place of all earlier ones.

    Args:
        db: where the port numbers of the tunnels are.
        told: the peer list.
        own: this node's own endpoint.
        subnet: the ENI's.
        transit: the range of transit addresses.
    """
    gateway = select("Interface", [["name", "==", GATEWAY_PORT]], ["name", "ofport"])
    rows, gateways = db.transact([{**select_role("tunnel"), "columns": ["name", "ofport"]}, gateway])
    numbers = filter(None, (port_number(row) for row in rows if is_tunnel(row["name"])))
    nodes = {*told.node_addresses, *(peer.vtep for peer in told.peers), *(eni.address for eni in told.enis)}
    subnets = {subnet, *(eni.subnet for eni in told.enis)}
    open_and_closed = destinations.mesh(own, nodes, subnets | {*told.vpc_cidrs}, told.private_ips, transit)
    outward = [
        line
        for row in gateways
        for number, eni in enumerate(told.enis, 2)
        for line in overlay_bridge.by_eni(number, eni.addresses, port_number(row))
    ]
    return [flow.delete(flow.MESH_COOKIE), *overlay_bridge.mesh(numbers), *open_and_closed, *outward]


def _tunnel(row: dict[str, Any]) -> Tunnel:
    if not port_number(row):
        lines = " ".join(as_list(row["error"])).splitlines()
        return MISSING._replace(error=", ".join(lines))
    counters = {key: int(value) for key, value in row["statistics"][1]}
    up = as_dict(row["bfd_status"]).get("state") == "up"
    counts = (counters.get(key, 0) for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"))
    return Tunnel("up" if up else "down", "", *counts)


def _name(vtep: str) -> str:
    return f"vx-{ip_to_int(vtep):08x}"


def plan(db: Ovsdb, peers: list[Peer], local_ip: str) -> Transaction:
    """Plan the changes that leave exactly one tunnel per peer; the peer at `local_ip` is this node itself.

    A tunnel is known by its name, so that the driver repairs its own whatever they are marked as, and touches nobody else's.
    """
    columns = ["name", "type", "options", "external_ids", "bfd"]
    queries = [select("Interface", [["type", "==", "vxlan"]], columns), select("Port", [], ["_uuid", "name"])]
    there = places(db.transact([*queries, select("Bridge", [], ["name", "ports"])]))
    wanted = {_name(peer.vtep): peer for peer in peers if peer.vtep != local_ip}
    changes = Transaction()
    for name, peer in wanted.items():
        missing = f"the tunnel to {peer.name} ({peer.vtep}) is missing"
        wrong = f"tunnel {name} to {peer.name} ({peer.vtep}) has other options than it should"
        changes.ensure_port(OVERLAY, name, _interface(peer, local_ip), there, missing, wrong)
    on_overlay = sorted(name for name, place in there.items() if place.bridge == OVERLAY)
    surplus = [name for name in on_overlay if is_tunnel(name) and name not in wanted]
    changes.reasons += [f"tunnel {name} leads to no peer" for name in surplus]
    if surplus:
        changes.change_ports([["name", "==", OVERLAY]], "delete", [there[name].port for name in surplus])
    return changes


def _interface(peer: Peer, local_ip: str) -> dict[str, Any]:
    options = {"remote_ip": peer.vtep, "local_ip": local_ip, "key": "flow", "dst_port": str(VXLAN_PORT)}
    ids = {ROLE: "tunnel", PEER_KEY: peer.name}
    return {"type": "vxlan", "options": ovs_map(options), "bfd": ovs_map(_BFD), "external_ids": ovs_map(ids)}
