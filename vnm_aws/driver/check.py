"""`check`: what is not as it should be on this node, each with its remedy. It changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..errors import AwsOvsError
from ..names import VXLAN_PORT
from ..overlay import bridges, comparison, tunnels, upcalls
from ..overlay.guest_port import GuestPort
from ..overlay.ovsdb import as_dict, as_list, select
from ..overlay.pipeline import flow
from ..underlay import eni, kernel, routing, surroundings
from . import node as node_module
from . import restore, state
from .node import Node

_RESTORE = "run 'aws-ovs restore'"
_SYNC = "run 'oneaws mesh sync --all' on the front-end"
_OURS = ("guest", "node", "patch", "tunnel")


class Difference(NamedTuple):
    """Something that is not as it should be, and what to do."""

    what: str
    remedy: str = _RESTORE


def run(node: Node, as_json: bool) -> int:
    """Print the differences.

    Returns:
        the exit code: 1 when there are any.
    """
    found = differences(node)
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=2))
    else:
        for one in found:
            print(f"{one.what}; {one.remedy}")
        if not found:
            print("ok: everything on this node is as it should be")
    return 1 if found else 0


def differences(node: Node) -> list[Difference]:
    """Everything that differs, each once, the causes first."""
    if node_module.vswitchd() == node_module.NOT_RUNNING:
        return [Difference("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")]
    stored = state.everything()
    parts = (
        _plugged(node, stored),
        (Difference(error.what, error.remedy) for error in stored.unreadable.values()),
        _marker(node),
        _peers(node),
        _strangers(node),
        _upcalls(node),
        _open_vswitch(node, stored),
        _kernel(node, stored.ports),
        (Difference(*trouble) for trouble in surroundings.troubles()),
    )
    found: dict[str, Difference] = {}
    for part in parts:
        for one in _explained(part):
            found.setdefault(one.what, one)
    return list(found.values())


def _explained(part: Iterable[Difference]) -> Iterator[Difference]:
    """What a part of the check finds and, where it cannot go on, why: an error is a sentence with a remedy, too."""
    try:
        yield from part
    except AwsOvsError as bad:
        yield Difference(bad.what, bad.remedy)


def _peers(node: Node) -> Iterator[Difference]:
    """The peer list, and tunnels that are there and carry nothing."""
    try:
        peers = tunnels.load()
    except AwsOvsError as bad:
        yield Difference(bad.what, _SYNC)
        return
    own, seen = node.underlay.address, tunnels.observe(node.db)
    if not any(peer.vtep == own for peer in peers):
        yield Difference(f"the peer list lacks this node ({own})" if peers else "this node has no peer list", _SYNC)
    for peer in peers:
        tunnel = seen.get(peer.name)
        if peer.vtep == own or tunnel is None or tunnel.state == "up":
            continue
        if tunnel.error:
            what = f"Open vSwitch refuses the tunnel to {peer.name} ({peer.vtep}): {tunnel.error}"
            yield Difference(what, f"end what is in its way, then {_RESTORE}")
        else:
            yield Difference(
                f"the tunnel to {peer.name} ({peer.vtep}) is {tunnel.state}",
                f"look whether {peer.name} runs and has this node as a peer, and allow UDP {VXLAN_PORT} among the hosts",
            )


def _marker(node: Node) -> Iterator[Difference]:
    """Whether the node was built for what it is now."""
    built, now = node_module.read_marker(), node.marker()
    if not isinstance(built, dict):
        yield Difference("this node has not been set up since it booted")
        return
    named = {
        "version": "the driver",
        "config": "aws_ovs.yaml",
        "underlay": "the ENI (name, address, subnet, MTU)",
        "ovs-vswitchd": "the process of ovs-vswitchd (PID, start)",
    }
    for key, name in named.items():
        if built.get(key) != now[key]:
            yield Difference(f"{name} is {_short(now[key])}, but this node was set up for {_short(built.get(key))}")


def _short(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _strangers(node: Node) -> Iterator[Difference]:
    """Other VXLAN ports, which take the tunnels' packets."""
    columns, udp = ["name", "options", "external_ids"], str(VXLAN_PORT)
    for row in node.db.transact([select("Interface", [["type", "==", "vxlan"]], columns)])[0]:
        ours = as_dict(row["external_ids"]).get(bridges.ROLE) == "tunnel"
        if not ours and as_dict(row["options"]).get("dst_port", udp) == udp:
            yield Difference(
                f"VXLAN port {row['name']} of Open vSwitch is not the driver's and has its UDP port {udp}",
                f"remove it: ovs-vsctl del-port {row['name']}",
            )
    for name in routing.vxlan_devices(VXLAN_PORT):
        yield Difference(
            f"VXLAN device {name} of the kernel has the driver's UDP port {udp}", f"remove it: ip link del {name}"
        )


def _upcalls(node: Node) -> Iterator[Difference]:
    """Whether ovs-vswitchd handles packets that the datapath knows no flow for."""
    _, _, start = node_module.vswitchd().partition(" ")
    if upcalls.waits(node.db):
        yield Difference(
            "ovs-vswitchd handles new packets on no bridge as long as it waits for its flows (other_config:flow-restore-wait)"
        )
    elif start.isdecimal() and (lost := upcalls.lost(int(start))):
        yield Difference(
            f"ovs-vswitchd was started too early after the boot: it gets no packet from the kernel, which has lost {lost}",
            "start it again: systemctl restart openvswitch-switch",
        )


def _open_vswitch(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """The driver's bridges and ports, and then flows."""
    right = True
    for plan in restore.plans(node, stored):
        for reason in plan.reasons:
            right = False
            if reason not in plan.strangers:  # _plugged has told of those, and restore cuts them off
                yield Difference(reason)
    if right:  # flows are made of port numbers: what they should be is not known before
        yield from _flows(node, stored)


def _plugged(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """Ports as the hypervisor has plugged them in. It comes first, because restore closes what a lost file opened."""
    found, bound, on = node.db.transact(
        [
            select("Interface", [], ["name", "ofport", "external_ids", "error"]),
            select("Port", [], ["_uuid", "name"]),
            select("Bridge", [], ["name", "ports", "external_ids"]),
        ]
    )
    names = {str(row["_uuid"]): row["name"] for row in bound}
    bridge_of = {names[str(one)]: row["name"] for row in on for one in as_list(row["ports"]) if str(one) in names}
    interfaces = {row["name"]: row for row in found}
    for port in stored.ports:
        row, bridge = interfaces.get(port.name), bridge_of.get(port.name)
        whose, guest = f"port {port.name} of VM {port.vm_id}", f"one-{port.vm_id}"
        if row is None or bridge is None:
            yield Difference(
                f"{whose} is not on bridge {port.bridge}",
                f"when 'virsh domiflist {guest}' has it, power the VM off and resume it; when the VM is not here, "
                f"rm {state.DIRECTORY}/{port.vm_id}.json and run 'aws-ovs restore'",
            )
        elif bridge != port.bridge:
            yield Difference(
                f"{whose} is on bridge {bridge} instead of {port.bridge}", "power the VM off and resume it"
            )
        elif not isinstance(row["ofport"], int) or row["ofport"] < 1:
            yield Difference(
                f"{whose} has no device: {row['error'] or 'not there'}", f"see whether {guest} runs: 'virsh list'"
            )
    known = {port.name for port in stored.ports}
    driven = {row["name"] for row in on if as_dict(row["external_ids"]).get(bridges.ROLE) in ("overlay", "vnet")}
    for name, row in sorted(interfaces.items()):
        bridge = bridge_of.get(name, "")
        gone = row["ofport"] == -1 and name.startswith("one-")  # the plan for guest ports tells of these
        ids = as_dict(row["external_ids"])
        left_alone = bridges.marked_vm(ids) in stored.unreadable
        if name not in known and name != bridge and bridge in driven and not gone and not left_alone:
            yield from _unknown(name, bridge, ids)


def _unknown(name: str, bridge: str, ids: dict[str, str]) -> Iterator[Difference]:
    """A port on a bridge of the driver that is of no VM with a file."""
    role = ids.get(bridges.ROLE)
    if role == "guest":
        vm_id = ids.get("aws_ovs-port", "?").partition("/")[0]
        yield Difference(
            f"port {name} on bridge {bridge} is of VM {vm_id}, whose file in {state.DIRECTORY} is lost: the next "
            "'aws-ovs restore' or start of a VM closes it",
            state.SEND,
        )
    elif role not in _OURS:
        remove = f"remove it: ovs-vsctl del-port {name}"
        yield Difference(
            f"port {name} on bridge {bridge} is of no VM that the driver knows, and passes nothing",
            f"{state.SEND}; if there is no such VM, {remove}" if name.startswith("one-") else remove,
        )


def _flows(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """Flows that are missing, changed, or nobody's."""
    for bridge, bundle in restore.all_flows(node, stored).items():
        examples: dict[tuple[str, str], str] = {}
        kinds: Counter[tuple[str, str]] = Counter()
        for line in comparison.compare(bridge, bundle):
            kind = ("missing" if line.startswith("+") else "there without reason", _owner(line))
            kinds[kind] += 1
            examples.setdefault(kind, line[1:].strip())
        for (how, whose), count in sorted(kinds.items()):
            flows, are = (f"{count} flows", "are") if count > 1 else ("a flow", "is")
            yield Difference(f"{flows}{whose} on bridge {bridge} {are} {how}: {examples[how, whose][:200]}")


def _owner(line: str) -> str:
    _, found, rest = line.partition("cookie=")
    cookie = int(rest.split(",")[0].split()[0], 16) if found else 0
    whose = flow.owner(cookie)
    if whose:
        return f" of VM {whose[0]} NIC {whose[1]}"
    return " of the node" if flow.is_of_node(cookie) else ""


def _kernel(node: Node, ports: list[GuestPort]) -> Iterator[Difference]:
    settings, underlay = node.config, node.underlay
    for what in kernel.differences(underlay, settings.gateway_mac, settings.transit_range, settings.internet_mtu):
        yield Difference(what)
    for port in ports:
        outside = [mapping.outside for mapping in port.mappings] + [one.private_ip for one in port.shared]
        for address in outside:
            if address not in node.transit and eni.is_local(address):
                yield Difference(
                    f"{address} of VM {port.vm_id} is configured on this node itself, which keeps its packets",
                    f"find it with 'ip address show to {address}' and remove it there: ip address del",
                )
