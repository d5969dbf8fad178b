"""`check`: what is not as it should be on this node, each with its remedy. It changes nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from ..addresses import Prefix
from ..errors import AwsOvsError
from ..names import PORT_KEY, ROLE, VXLAN_PORT
from ..overlay import bridges, comparison, stand_ins, tunnels, upcalls
from ..overlay.ovsdb import as_dict, as_list, select
from ..overlay.pipeline import flow
from ..table import printable
from ..underlay import kernel, routing, surroundings
from . import connections, restore, state, strangers
from . import node as node_module
from .node import Node

_RESTORE = "run 'aws-ovs restore'"
_SYNC = "run 'oneaws mesh sync --all' on the front-end"
_MOVE = "let its owner give it another UDP port, at both of its ends"


class Difference(NamedTuple):
    """Something that is not as it should be, and what to do."""

    what: str
    remedy: str = _RESTORE


def run(node: Node, as_json: bool) -> int:
    """Print the differences, and return the exit code: 1 when there are any."""
    wrong = differences(node)
    if as_json:
        print(json.dumps([difference._asdict() for difference in wrong], indent=2))
    else:
        lines = [printable(f"{difference.what}; {difference.remedy}") for difference in wrong]
        print("\n".join(lines) or "ok: everything on this node is as it should be")
    return 1 if wrong else 0


def differences(node: Node) -> list[Difference]:
    """List everything that differs, each once, the causes first."""
    if node_module.vswitchd() == node_module.NOT_RUNNING:
        return [Difference("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")]
    stored, refused = strangers.own(node)
    parts = (
        _overlap(node),
        (Difference(error.what, error.remedy) for error in refused.values()),
        _plugged(node, stored),
        (Difference(error.what, error.remedy) for error in stored.unreadable.values()),
        _marker(node),
        _peers(node),
        _stand_ins(node, stored),
        _strangers(node),
        _upcalls(node),
        _open_vswitch(node, stored),
        _kernel(node, strangers.private_addresses(node.transit, node.underlay, stored.ports)),
        _groups(node, stored),
        (Difference(*trouble) for trouble in surroundings.troubles()),
    )
    by_sentence: dict[str, Difference] = {}
    for difference in chain.from_iterable(map(_explained, parts)):
        by_sentence.setdefault(difference.what, difference)
    return list(by_sentence.values())


def _explained(part: Iterable[Difference]) -> Iterator[Difference]:
    """Go through a part of the check and, where it cannot go on, say why: an error is a sentence with a remedy, too."""
    try:
        yield from part
    except AwsOvsError as error:
        yield Difference(error.what, error.remedy)


def _overlap(node: Node) -> Iterator[Difference]:
    """Look whether the driver's route takes the way of something else."""
    blocks: tuple[str, ...] = ()
    with contextlib.suppress(AwsOvsError):  # _peers tells of a list that cannot be read
        blocks = tunnels.load().vpc_cidrs
    node.refuse_overlap(blocks)
    yield from ()


def _peers(node: Node) -> Iterator[Difference]:
    """Check the peer list, and look for tunnels that are there and carry nothing."""
    try:
        peers = tunnels.load().peers
    except AwsOvsError as error:
        yield Difference(error.what, _SYNC)
        return
    own, seen = node.underlay.address, tunnels.observe(node.db)
    if not any(peer.vtep == own for peer in peers):
        yield Difference(f"the peer list lacks this node ({own})" if peers else "this node has no peer list", _SYNC)
    for peer in peers:
        tunnel = seen.get(peer.name)
        if peer.vtep == own or tunnel is None or tunnel.state == "up":
            continue
        what, remedy = f"the tunnel to {peer.name} ({peer.vtep})", f"end what is in its way, then {_RESTORE}"
        if tunnel.error:
            yield Difference(f"Open vSwitch refuses {what}: {tunnel.error}", remedy)
        else:
            remedy = f"look whether {peer.name} runs and has this node as a peer"
            yield Difference(f"{what} is {tunnel.state}", f"{remedy}, and allow UDP {VXLAN_PORT} among the hosts")


def _stand_ins(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """Look for private addresses of VMs that cannot be in the subnet of this node, and have no address to stand in."""
    standing, subnet = stand_ins.read(), Prefix(node.underlay.subnet, "subnet")
    for port in stored.ports:
        for address in dict.fromkeys(port.private_addresses(node.transit)):
            if standing.of(address) not in subnet:
                what = f"{address} of VM {port.vm_id} cannot be in {subnet}, the subnet of this node, and nothing stands for it"
                yield Difference(what, f"run 'oneaws eip follow {port.vm_id}' on the front-end")


def _marker(node: Node) -> Iterator[Difference]:
    """Compare what the node was built for with what it is now."""
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
            current, former = _short(now[key]), _short(built.get(key))
            yield Difference(f"{name} is {current}, but this node was set up for {former}")


def _short(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _strangers(node: Node) -> Iterator[Difference]:
    """Look for other VXLAN ports, which take the tunnels' packets."""
    columns, udp = ["name", "options", "external_ids"], str(VXLAN_PORT)
    for row in node.db.transact([select("Interface", [["type", "==", "vxlan"]], columns)])[0]:
        if not bridges.is_tunnel(row["name"]) and as_dict(row["options"]).get("dst_port", udp) == udp:
            what = f"VXLAN port {row['name']} of Open vSwitch is not the driver's and has its UDP port {udp}"
            yield Difference(what, f"{_MOVE}: ovs-vsctl set Interface {row['name']} options:dst_port=4790")
    for name in routing.vxlan_devices(VXLAN_PORT):
        what = f"VXLAN device {name} of the kernel has the driver's UDP port {udp}"
        yield Difference(what, f"{_MOVE}; if nobody needs it, remove it: ip link del {name}")


def _upcalls(node: Node) -> Iterator[Difference]:
    """Check that ovs-vswitchd handles packets that the datapath knows no flow for."""
    _, _, start = node_module.vswitchd().partition(" ")
    if upcalls.waits(node.db):
        what = "ovs-vswitchd handles new packets on no bridge as long as it waits for its flows"
        yield Difference(f"{what} (other_config:flow-restore-wait)")
    elif start.isdecimal() and (lost := upcalls.lost(int(start))):
        what = "ovs-vswitchd was started too early after the boot: it gets no packet from the kernel"
        yield Difference(f"{what}, which has lost {lost}", "start it again: systemctl restart openvswitch-switch")


def _open_vswitch(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """Compare the driver's bridges and ports with the plans for them, and then flows."""
    is_right = True
    for plan in restore.plans(node, stored):
        is_right = is_right and not plan.reasons
        # _plugged has told of the strangers, and restore cuts them off
        yield from (Difference(reason) for reason in plan.reasons if reason not in plan.strangers)
    if is_right:  # flows are made of port numbers: what they should be is not known before
        yield from _flows(node, stored)


def _plugged(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """Check how the hypervisor has plugged ports in. It comes first, because restore closes what a lost file opened."""
    rows, ports, on = node.db.transact(
        [
            select("Interface", [], bridges.PORT_COLUMNS),
            select("Port", [], ["_uuid", "name"]),
            select("Bridge", [], ["name", "ports", "external_ids"]),
        ]
    )
    names = {str(row["_uuid"]): row["name"] for row in ports}
    bridge_of = {names.get(str(uuid)): row["name"] for row in on for uuid in as_list(row["ports"])}
    interfaces = {row["name"]: row for row in rows}
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
        elif not bridges.port_number(row):
            what = f"{whose} has no device: {row['error'] or 'not there'}"
            yield Difference(what, f"see whether {guest} runs: 'virsh list'")
    known = {port.name for port in stored.ports}
    driven = bridges.driven(on)
    for name, row in sorted(interfaces.items()):
        bridge = bridge_of.get(name, "")
        gone = row["ofport"] == -1 and name.startswith("one-")  # the plan for guest ports tells of these
        ids = as_dict(row["external_ids"])
        left_alone = bridges.marked_vm(ids) in stored.unreadable
        is_ours = bridges.is_own(name)  # the plans tell of these
        if name not in known and name != bridge and bridge in driven and not gone and not left_alone and not is_ours:
            yield from _unknown(name, bridge, ids)


def _unknown(name: str, bridge: str, ids: dict[str, str]) -> Iterator[Difference]:
    """Tell of a port on a bridge of the driver that is of no VM with a file."""
    role = ids.get(ROLE)
    if role == "guest":
        vm_id = ids.get(PORT_KEY, "?").partition("/")[0]
        what = f"port {name} on bridge {bridge} is of VM {vm_id}, whose file in {state.DIRECTORY} is lost"
        yield Difference(f"{what}: the next 'aws-ovs restore' or start of a VM closes it", state.SEND)
    else:
        what, remove = f"port {name} on bridge {bridge}", f"remove it: ovs-vsctl del-port {bridge} {name}"
        remedy = f"{state.SEND}; if there is no such VM, {remove}" if name.startswith("one-") else remove
        yield Difference(f"{what} is of no VM that the driver knows, and passes nothing", remedy)


def _flows(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """Look for flows that are missing, changed, or nobody's."""
    yield from map(Difference, connections.wrong_limits(node, stored.ports))
    for bridge, bundle in restore.all_flows(node, stored).items():
        kinds: dict[tuple[str, str], list[str]] = {}
        for line in comparison.compare(bridge, bundle):
            kind = ("missing" if line.startswith("+") else "there without reason", _owner(line))
            kinds.setdefault(kind, []).append(line[1:].strip())
        for (how, whose), examples in sorted(kinds.items()):
            flows, are = (f"{len(examples)} flows", "are") if len(examples) > 1 else ("a flow", "is")
            yield Difference(f"{flows}{whose} on bridge {bridge} {are} {how}: {examples[0][:200]}")


def _owner(line: str) -> str:
    cookie = comparison.cookie(line)
    whose = flow.owner(cookie)
    if whose:
        return f" of VM {whose[0]} NIC {whose[1]}"
    return " of the node" if flow.is_of_node(cookie) else ""


def _groups(node: Node, stored: state.Stored) -> Iterator[Difference]:
    """Look for NICs whose security groups are not known, and for those whose connections are too many."""
    unknown: dict[int, list[int]] = {}
    for port in stored.ports:
        if port.groups is None:
            unknown.setdefault(port.vm_id, []).append(port.nic_id)
    for vm_id, nic_ids in unknown.items():
        nics = ", ".join(map(str, nic_ids))
        what = f"VM {vm_id} has no security groups in force yet (NIC {nics}): its file is of a version that knew none"
        yield Difference(what, state.SEND)
    for (vm_id, nic_id), nic in connections.look(node, stored.ports).items():
        whose, remedy = f"VM {vm_id} NIC {nic_id}", connections.REMEDY.format(vm_id)
        if nic.is_nearly_full:
            what = (
                f"{whose} has {nic.connections} of the {nic.limit} connections that it may have; beyond, new ones fail"
            )
            yield Difference(what, remedy)
        if nic.dropped:
            what = (
                f"{whose} had {nic.dropped} packets dropped that would have begun a connection beyond its {nic.limit}"
            )
            yield Difference(what, f"{remedy}; 'aws-ovs restore' begins to count anew")


def _kernel(node: Node, of_vms: dict[str, str]) -> Iterator[Difference]:
    yield from map(Difference, kernel.differences(node.underlay, node.config, of_vms))
    for entry, whose in strangers.taken(of_vms):
        what = (
            f"{entry.address} of {whose} is configured on this node itself ({entry.interface}), which drops its packets"
        )
        yield Difference(what, f"remove it: ip address del {entry}")
    yield from (Difference(error.what, error.remedy) for error in strangers.missing(node.underlay))
