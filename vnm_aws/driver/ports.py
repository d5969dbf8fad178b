"""Changing the guest ports of a VM from one desired state to another, as one step that is undone when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ..errors import AwsOvsError
from ..overlay import openflow
from ..overlay.bridges import GUEST_KEYS, OVERLAY, PORT_COLUMNS, Interface, as_interfaces, guest_ids
from ..overlay.guest_port import Claim, GuestPort, plan
from ..overlay.ovsdb import Operation, replace_ids, select
from ..overlay.pipeline import flow, overlay_bridge, vnet_bridge
from ..underlay import eni
from ..vm import Nic, Vm
from . import state
from .node import Node, Observed


def check_mtu(node: Node, nics: Iterable[Nic]) -> None:
    """Refuse a NIC whose packets would not fit.

    Raises:
        AwsOvsError: with both numbers.
    """
    for nic in nics:
        fits = node.underlay.guest_mtu(node.config.internet_mtu, leaves=nic.gateway is not None)
        if nic.mtu is not None and nic.mtu > fits:
            raise AwsOvsError(
                f"NIC {nic.nic_id}: MTU {nic.mtu} does not fit: {node.underlay.interface} has {node.underlay.mtu}, "
                f"which leaves {fits} for a guest",
                f"set MTU and GUEST_MTU of the network to {fits} or less",
            )


def plan_ports(node: Node, observed: Observed, vm: Vm, nics: Iterable[Nic]) -> list[GuestPort]:
    """The guest ports that `nics` ask for, free of conflicts with other VMs of this node.

    Raises:
        AwsOvsError: an address is taken, or is the node's own.
    """
    taken = _taken(observed, vm.vm_id)
    planned: list[GuestPort] = []
    mine = {port.nic_id: port for port in state.load(vm.vm_id)}
    used = {claim.address for claim, _ in taken if claim.vni is None and claim.ports is None}
    own = {mapping.outside for port in mine.values() for mapping in port.mappings}
    for nic in nics:
        kept = dict(mine[nic.nic_id].mappings) if nic.nic_id in mine else {}
        # What another NIC of the VM has is not free either, planned already or not.
        elsewhere = used | own - set(kept.values())
        port = plan(vm.vm_id, nic, nic.vni(node.config.vni_base), node.transit, kept, elsewhere)
        used |= {mapping.outside for mapping in port.mappings}
        for claim in port.claims:
            _refuse_conflict(claim, taken)
        for mapping in port.mappings:
            _refuse_own(node, nic, mapping.outside)
        for shared in port.shared:
            _refuse_own(node, nic, shared.private_ip)
        planned.append(port)
    return planned


def _taken(observed: Observed, vm_id: int) -> list[tuple[Claim, Interface]]:
    """List what the ports of other VMs claim."""
    return [
        (Claim.parse(text), guest)
        for guest in observed.guests
        if not guest.ids.get("aws_ovs-port", "").startswith(f"{vm_id}/")
        for text in guest.ids.get("aws_ovs-claims", "").split()
    ]


def _refuse_conflict(claim: Claim, taken: list[tuple[Claim, Interface]]) -> None:
    for other, guest in reversed(taken):
        if claim.conflicts_with(other):
            what = claim if claim.vni is None else claim.address
            raise AwsOvsError(
                f"{what} is in use on this node by VM {guest.ids['aws_ovs-port'].partition('/')[0]} (port {guest.name})",
                "give one of the two VMs another lease",
            )


def _refuse_own(node: Node, nic: Nic, address: str) -> None:
    if address in node.transit:
        return
    length = node.underlay.subnet.partition("/")[2]
    if eni.is_local(address):
        raise AwsOvsError(
            f"NIC {nic.nic_id}: AWS_PRIVATE_IP {address} is configured on this node itself, which would keep its "
            "packets",
            f"remove it: ip address del {address}/{length} dev {node.underlay.interface}",
        )


def apply(
    node: Node,
    observed: Observed,
    vm_id: int,
    before: list[GuestPort],
    after: list[GuestPort],
    concerned: set[int],
    whole: bool = False,
) -> None:
    """Take the VM from `before` to `after`; when that fails, back again.

    Args:
        node: this node.
        observed: its ports as they are.
        vm_id: the VM.
        before: its guest ports so far.
        after: its guest ports from now on.
        concerned: the NIC_IDs whose flows are written anew; those of the VM's other NICs stay untouched.
        whole: delete whatever flows of the VM there are, also those of NICs that nobody remembers.

    Raises:
        AwsOvsError: the change was refused; it has been undone.
    """
    known = state.load(vm_id)  # `before` may also hold what only the document tells
    try:
        _move(node, observed, vm_id, before, after, concerned, whole)
    except BaseException:
        with contextlib.suppress(Exception):
            _move(node, observed, vm_id, after, known, concerned, whole)
        raise


def _move(
    node: Node,
    observed: Observed,
    vm_id: int,
    before: list[GuestPort],
    after: list[GuestPort],
    concerned: set[int],
    whole: bool,
) -> None:
    old = [port for port in before if port.nic_id in concerned]
    new = [port for port in after if port.nic_id in concerned]
    names = {port.name for port in [*old, *new]}
    operations: list[Operation] = [
        replace_ids("Interface", [["name", "==", name]], GUEST_KEYS, {})
        for name in sorted(names - {port.name for port in new})
    ]
    operations += [replace_ids("Interface", [["name", "==", port.name]], [], guest_ids(port)) for port in new]
    operations += [select("Interface", [["name", "==", port.name]], PORT_COLUMNS) for port in new]
    operations.append(select("Bridge", [], ["name"]))
    if node.dry_run:
        operations = operations[-len(new) - 1 :]
    else:
        state.save(vm_id, after)
    *replies, existing = node.db.transact(operations)
    interfaces = [row for reply in replies if isinstance(reply, list) for row in as_interfaces(reply)]
    numbers = {row.name: row.ofport for row in interfaces if row.ofport}
    guests = [row for row in observed.guests if row.name not in names]
    guests += [Interface(port.name, numbers[port.name], guest_ids(port)) for port in new if port.name in numbers]
    now = Observed(guests, observed.patches)
    bundles: openflow.Bundles = {bridge: [] for bridge in [OVERLAY, *(port.bridge for port in [*old, *new])]}
    for lines in bundles.values():
        lines += (
            [flow.delete_vm(vm_id)]
            if whole
            else [flow.delete(flow.port_cookie(vm_id, nic_id)) for nic_id in sorted(concerned)]
        )
    for bridge, vni in sorted({(port.bridge, port.vni) for port in [*old, *new]}):
        node.add_network(bundles, now, bridge, vni)
    for port in new:
        if port.name in numbers:
            _add_flows(node, bundles, now, port, numbers[port.name])
    exists = {row["name"] for row in existing}
    node.flow({bridge: lines for bridge, lines in bundles.items() if bridge in exists})


def _add_flows(node: Node, bundles: openflow.Bundles, now: Observed, port: GuestPort, ofport: int) -> None:
    mac = node.config.gateway_mac
    bundles[port.bridge] += vnet_bridge.port(port, ofport, mac)
    bundles[port.bridge].append(vnet_bridge.announce(port, ofport))
    bundles[OVERLAY] += overlay_bridge.port(port, now.patch(port.bridge, port.vni, far=True), mac)


def require(node: Node, port: GuestPort) -> None:
    """Make sure that the hypervisor has put the port on its bridge: `ovs-vsctl add-port` succeeds without a device,
    too.

    Raises:
        AwsOvsError: it is not there, or has no device.
    """
    interface, own, bridge = node.db.transact(
        [
            select("Interface", [["name", "==", port.name]], PORT_COLUMNS),
            select("Port", [["name", "==", port.name]], ["_uuid"]),
            select("Bridge", [["name", "==", port.bridge]], ["ports"]),
        ]
    )
    if not interface or not own or not bridge or str(own[0]["_uuid"]) not in str(bridge[0]["ports"]):
        raise AwsOvsError(
            f"port {port.name} of NIC {port.nic_id} is not on bridge {port.bridge}: the hypervisor did not plug it in",
            f"see 'virsh domiflist one-{port.vm_id}' and 'ovs-vsctl show'",
        )
    error = interface[0]["error"]
    if isinstance(error, str) and error:
        raise AwsOvsError(f"port {port.name} on bridge {port.bridge} does not work: {error}", "see 'ovs-vsctl show'")
