"""What of this node is somebody else's, and must stay so: bridges, and addresses of VMs that others gave the node."""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import contextlib
import os
from collections.abc import Collection, Iterable

from ..addresses import Prefix
from ..errors import AwsOvsError
from ..names import ROLE
from ..overlay import bridges, stand_ins, tunnels
from ..overlay.guest_port import GuestPort
from ..overlay.ovsdb import as_list, ids_include, select
from ..overlay.pipeline import flow
from ..underlay import netlink
from ..underlay.eni import Underlay
from ..underlay.netlink import Address
from . import state
from .node import Node

_DEVICES = "/sys/class/net"
_SHOWN = 3
_LINK_LOCAL = "20"
"""The scope of an IPv6 address that an interface gives itself."""


def claim(node: Node, bridge: str, plugged: Collection[str] = ()) -> None:
    """Make sure that nobody loses anything when `bridge`, which is not marked as the driver's, becomes the driver's.

    Args:
        node: this node.
        bridge: its name; it may not be there yet.
        plugged: ports that are the driver's though no VM's file names them.

    Raises:
        AwsOvsError: it is somebody else's.
    """
    rows, named, ports, on, interfaces = node.db.transact(
        [
            select("Bridge", [["name", "==", bridge]], ["ports", "controller"]),
            select("Port", [["name", "==", bridge]], ["_uuid", "fake_bridge", "tag"]),
            select("Port", [], ["_uuid", "name"]),
            select("Bridge", [], ["name", "ports"]),
            select("Interface", [["name", "==", bridge]], ["error"]),
        ]
    )
    if not rows:
        parents = [row["name"] for row in on for port in named if port["_uuid"] in as_list(row["ports"])]
        _refuse_other_kind(node, bridge, parents, [port["tag"] for port in named if port["fake_bridge"]])
        return
    error = interfaces[0]["error"] if interfaces else ""
    if isinstance(error, str) and error:
        raise AwsOvsError(f"bridge {bridge} of Open vSwitch does not work ({error})", bridges.OTHER_BRIDGE)
    names = {str(row["_uuid"]): row["name"] for row in ports}
    there = {names.get(str(uuid), bridge) for uuid in as_list(rows[0]["ports"])}
    guests = {name for name in there if name != bridge and not bridges.is_patch(name, bridge)}
    known = {port.name for port in state.everything().ports if port.bridge == bridge} | set(plugged)
    _refuse_ports(bridge, sorted(guests - known))
    if as_list(rows[0]["controller"]):
        raise AwsOvsError(f"bridge {bridge} has a controller, so it is somebody else's", bridges.OTHER_BRIDGE)
    if not guests:
        _refuse_use(node, bridge)


def _refuse_ports(bridge: str, strange: list[str]) -> None:
    """Refuse a bridge that has ports which are not the driver's."""
    if strange:
        count = f"{len(strange)} ports" if len(strange) > 1 else "a port"
        shown = ", ".join(strange[:_SHOWN]) + (", …" if len(strange) > _SHOWN else "")
        what = f"bridge {bridge} has {count} that this driver does not know ({shown}), so it is somebody else's"
        raise AwsOvsError(what, f"{bridges.OTHER_BRIDGE}; 'ovs-vsctl list-ports {bridge}' shows what is on this one")


def _refuse_other_kind(node: Node, name: str, parents: Iterable[str], vlans: Iterable[int]) -> None:
    """Refuse a name that something else has than a bridge of Open vSwitch."""
    for parent in parents:
        kind = next((f"a fake bridge: VLAN {vlan} of bridge {parent}" for vlan in vlans), f"a port of bridge {parent}")
        raise AwsOvsError(f"BRIDGE {name} is {kind} of Open vSwitch", bridges.OTHER_BRIDGE)
    if os.path.exists(f"{_DEVICES}/{name}"):
        kind = "a Linux bridge" if os.path.exists(f"{_DEVICES}/{name}/bridge") else "a network interface"
        if name == node.underlay.interface:
            kind = "the ENI"
        what = f"BRIDGE {name} is {kind} of this node, and no bridge of Open vSwitch"
        raise AwsOvsError(what, bridges.OTHER_BRIDGE)


def _refuse_use(node: Node, bridge: str) -> None:
    """Refuse a bridge without ports that serves somebody all the same."""
    for address in [*(str(entry) for entry in netlink.addresses() if entry.interface == bridge), *_ip6(bridge)]:
        what = f"bridge {bridge} has an address of this node ({address}), which it talks by"
        raise AwsOvsError(what, bridges.OTHER_BRIDGE)
    for line in node.read_flows(bridge, "cookie=0/0"):
        cookie = int(line.partition("cookie=")[2].partition(",")[0].strip() or "0", 16)  # 0 is not shown
        is_default = "priority=0 actions=NORMAL" in line
        if not is_default and not flow.owner(cookie) and not flow.is_of_node(cookie):
            raise AwsOvsError(f"bridge {bridge} has flows of somebody else", bridges.OTHER_BRIDGE)


def _ip6(interface: str) -> list[str]:
    """List the IPv6 addresses of an interface that somebody has given it: link-local ones come by themselves."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        return []
    return [
        f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0]))}/{int(row[2], 16)}"
        for row in rows
        if row[5] == interface and row[3] != _LINK_LOCAL
    ]


def own(node: Node) -> tuple[state.Stored, dict[str, AwsOvsError]]:
    """Read the stored VMs, without what is on a bridge that is somebody else's now; of these bridges, tell why."""
    stored = state.everything()
    (rows,) = node.db.transact([select("Bridge", [ids_include(**{ROLE: "vnet"})], ["name"])])
    marked = {row["name"] for row in rows}
    refused: dict[str, AwsOvsError] = {}
    for bridge in sorted({port.bridge for port in stored.ports} - marked):
        try:
            claim(node, bridge)
        except AwsOvsError as error:
            refused[bridge] = error
    ports = [port for port in stored.ports if port.bridge not in refused]
    return stored._replace(ports=ports), refused


def private_addresses(transit: Prefix, underlay: Underlay, ports: Iterable[GuestPort]) -> dict[str, str]:
    """List the private addresses of VMs, those of `ports` and those that the front-end has told, and whose each is."""
    standing = stand_ins.load()
    of_vms = dict.fromkeys(standing.pairs.values(), "a VM")
    with contextlib.suppress(AwsOvsError):  # others tell of a peer list that cannot be read
        of_vms |= dict.fromkeys(tunnels.load().private_ips, "a VM")
    for port in ports:
        own = port.private_addresses(transit)
        of_vms |= dict.fromkeys([*own, *map(standing.of, own)], f"VM {port.vm_id}")
    return {address: whose for address, whose in of_vms.items() if address not in underlay.addresses}


def missing(underlay: Underlay) -> list[AwsOvsError]:
    """Tell of the further ENIs that are no interfaces of this node, each with a remedy."""
    remedy = "attach it to this instance, or let the front-end tell what it has now: oneaws mesh sync --all"
    what = "no interface of this node has the MAC {0.mac} of its ENI {0.address}, so that VMs' addresses there are dead"
    return [AwsOvsError(what.format(eni), remedy) for eni in underlay.further if not eni.interface]


def taken(of_vms: dict[str, str]) -> list[tuple[Address, str]]:
    """List the addresses of VMs that an interface of this node has, and whose each is."""
    return [(entry, of_vms[entry.address]) for entry in netlink.addresses() if entry.address in of_vms]
