"""Changing the guest ports of a VM from one desired state to another, as one step that is undone when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable

from ..errors import AwsOvsError
from ..names import CLAIMS_KEY, NETWORK_KEY, PORT_KEY, ROLE, VNET_KEY
from ..overlay import bridges
from ..overlay.bridges import (
    GUEST_KEYS,
    PORT_COLUMNS,
    OvsInterface,
    as_interfaces,
    guest_ids,
    mark,
    marked_slot,
    marked_vm,
)
from ..overlay.flows import Change, Observed, changed_flows
from ..overlay.guest_port import Claim, GuestPort, choose_slot, plan, without
from ..overlay.openflow import ALL_ANEW
from ..overlay.ovsdb import Operation, as_dict, ids_include, replace_ids, select
from ..underlay import eni, netlink
from ..vm import Leaving, Nic, Vm
from . import state
from .node import Node


def check_mtu(node: Node, nics: Iterable[Nic]) -> None:
    """Refuse a NIC whose packets would not fit, with both numbers."""
    for nic in nics:
        fits = node.underlay.guest_mtu(node.config.internet_mtu, leaves=nic.gateway is not None)
        if nic.mtu is not None and nic.mtu > fits:
            eni, mtu = node.underlay.interface, node.underlay.mtu
            what = f"NIC {nic.nic_id}: MTU {nic.mtu} does not fit: {eni} has {mtu}, which leaves {fits} for a guest"
            raise AwsOvsError(what, f"set MTU and GUEST_MTU of the network to {fits} or less")


def plan_ports(
    node: Node, observed: Observed, vm_id: int, nics: Iterable[Nic], known: list[GuestPort]
) -> list[GuestPort]:
    """Plan the guest ports that `nics` of a VM ask for, free of conflicts with other VMs; `known` are its ports so far.

    Raises:
        AwsOvsError: an address is taken, or is the node's own.
    """
    taken = _taken(observed, vm_id)
    used = {claim.address for claim, _ in taken if claim.vni is None and claim.ports is None}
    own = {mapping.outside for port in known for mapping in port.mappings}
    formers = {port.nic_id: port for port in known}
    planned: list[GuestPort] = []
    for nic in nics:
        for network_id, private_ip in nic.leases:
            node.grants.refuse_private_ip(network_id, private_ip)
        former = formers.get(nic.nic_id)
        kept = dict(former.mappings) if former else {}
        # What another NIC of the VM has is not free either, planned already or not.
        elsewhere = used | own - set(kept.values())
        port = plan(vm_id, nic, nic.vni(node.config.vni_base), node.transit, kept, elsewhere)
        used |= {mapping.outside for mapping in port.mappings}
        _refuse_network(observed, port, former)
        (in_force,) = node.in_force([port])
        for claim in (*port.claims, *in_force.claims):
            _refuse_conflict(claim, taken)
        for address in in_force.private_addresses(node.transit):
            _refuse_own(node, nic, address)
        planned.append(port._replace(picks_up_until=former.picks_up_until) if former else port)
    return planned


def _taken(observed: Observed, vm_id: int) -> list[tuple[Claim, OvsInterface]]:
    """List what the ports of other VMs claim."""
    return [
        (Claim.parse(text), guest)
        for guest in observed.guests
        if marked_vm(guest.ids) != vm_id
        for text in guest.ids.get(CLAIMS_KEY, "").split()
    ]


def _refuse_conflict(claim: Claim, taken: list[tuple[Claim, OvsInterface]]) -> None:
    for other, guest in reversed(taken):
        if claim.conflicts_with(other):
            what = f"{claim if claim.vni is None else claim.address} is in use on this node"
            whose = f"by VM {marked_vm(guest.ids)} (port {guest.name})"
            raise AwsOvsError(f"{what} {whose}", "give one of the two VMs another lease")


def _refuse_network(observed: Observed, port: GuestPort, former: GuestPort | None) -> None:
    """Refuse a VNI that another network has on this node: both would become one.

    Networks on one bridge may share a VNI, as one and its reservations do, but no running VM is moved to another's.
    """
    if former and (former.bridge, former.vni) == (port.bridge, port.vni):
        return
    for guest in observed.guests:
        bridge, _, vni = guest.ids.get(NETWORK_KEY, "").rpartition("/")
        vnet, vm_id = guest.ids.get(VNET_KEY), marked_vm(guest.ids)
        shares = vni == str(port.vni) and (former is not None or bridge != port.bridge)
        if shares and vm_id != port.vm_id and vnet and vnet != str(port.network_id):
            what = f"NIC {port.nic_id}: VNI {vni} of network {port.network_id} is that of network {vnet}"
            remedy = f"give network {port.network_id} another VLAN_ID: onevnet update {port.network_id}"
            raise AwsOvsError(f"{what} on this node, where VM {vm_id} has it", remedy)


def refuse_targets(node: Node, vm: Vm) -> None:
    """Refuse NICs of other drivers that would take a port of this driver: the hypervisor removes what has their name."""
    rows = [select("Interface", [["name", "==", target]], ["external_ids"]) for target in vm.foreign_targets]
    for target, reply in zip(vm.foreign_targets, node.db.transact(rows), strict=True):
        if any(ROLE in as_dict(row["external_ids"]) for row in reply):
            what = f"TARGET {target} of a NIC of another driver is a port of aws_ovs on this node"
            raise AwsOvsError(what, "instantiate the VM, or attach the NIC, without TARGET")


def without_aliases(node: Node, observed: Observed, vm: Leaving, known: list[GuestPort]) -> list[GuestPort]:
    """Derive those of `known`, a VM's ports, that lose an alias and stay, where the document is no help."""
    used = {claim.address for claim, _ in _taken(observed, vm.vm_id) if claim.vni is None and claim.ports is None}
    used |= {mapping.outside for port in known for mapping in port.mappings}
    ports = {str(port.nic_id): port for port in known if port.nic_id not in vm.nic_ids}
    for alias in vm.aliases:
        if alias.parent_id in ports:
            parent = ports[alias.parent_id]
            ports[alias.parent_id] = without(parent, alias, node.transit, used)
    return [ports[number] for number in dict.fromkeys(alias.parent_id for alias in vm.aliases) if number in ports]


def _refuse_own(node: Node, nic: Nic, address: str) -> None:
    is_own = address in node.underlay.addresses
    if is_own or eni.is_local(address):
        places = [str(entry) for entry in netlink.addresses() if entry.address == address]
        what = f"NIC {nic.nic_id}: AWS_PRIVATE_IP {address} is configured on this node itself, which would keep its packets"
        if is_own:
            raise AwsOvsError(f"{what}: it is the node's own", "give the VM another lease")
        remedies = "; ".join(f"ip address del {place}" for place in places)
        raise AwsOvsError(what, f"remove it there: {remedies or f'ip address show to {address} says where it is'}")


def marked_ports(observed: Observed, vm_id: int) -> list[GuestPort]:
    """List the ports that are marked as those of a VM: where they are, and nothing of what their flows are made of."""
    ports = []
    for guest in observed.guests:
        if marked_vm(guest.ids) == vm_id:
            nic_id = int(guest.ids[PORT_KEY].partition("/")[2])
            bridge, _, vni = guest.ids[NETWORK_KEY].rpartition("/")
            port = GuestPort(vm_id, nic_id, guest.name, bridge, int(vni), "", (), (), (), True, True, (), ())
            ports.append(port._replace(slot=marked_slot(guest.ids)))
    return ports


def apply(node: Node, observed: Observed, change: Change, known: list[GuestPort] | None) -> None:
    """Change the guest ports of a VM; when that fails, change them back.

    `known` are the VM's guest ports so far; those of the change may also hold what only the document tells. It is None
    when the VM's file cannot be read: then nothing is undone, and the file stays until all else is done.

    Raises:
        AwsOvsError: the change was refused; it has been undone.
    """
    slots = _slots(observed, change)
    change = change._replace(before=_numbered(change.before, slots), after=_numbered(change.after, slots))
    if known is None:
        carry_out(node, observed, change)
        _save(node, change)
        return
    try:
        _save(node, change)
        carry_out(node, observed, change)
    except BaseException:
        undo = change._replace(before=change.after, after=_numbered(known, slots))
        with contextlib.suppress(Exception):
            _save(node, undo)
            carry_out(node, observed, undo)
        raise


def _slots(observed: Observed, change: Change) -> dict[int, int]:
    """Choose the slot of each NIC: the one that it has, or one that no port of the node has."""
    used = {marked_slot(guest.ids) for guest in observed.guests if marked_vm(guest.ids) != change.vm_id}
    slots: dict[int, int] = {}
    for port in sorted([*change.before, *change.after], key=lambda port: not port.slot):  # what has one comes first
        if port.nic_id not in slots:
            slots[port.nic_id] = choose_slot(port.slot, used)
    return slots


def _numbered(ports: list[GuestPort], slots: dict[int, int]) -> list[GuestPort]:
    return [port._replace(slot=slots[port.nic_id]) for port in ports]


def _save(node: Node, change: Change) -> None:
    if not node.dry_run:
        state.save(change.vm_id, change.after)


def carry_out(node: Node, observed: Observed, change: Change) -> None:
    change = change._replace(after=node.in_force(change.after))
    new = change.concerning(change.after)
    # What a port is called is a user's word, what it is marked as is not.
    marks = {mark(change.vm_id, nic_id) for nic_id in change.concerned}
    leaving = sorted(marks - {mark(port.vm_id, port.nic_id) for port in new})
    operations: list[Operation] = [
        replace_ids("Interface", [ids_include(**{PORT_KEY: text})], GUEST_KEYS, {}) for text in leaving
    ]
    operations += [replace_ids("Interface", [["name", "==", port.name]], GUEST_KEYS, guest_ids(port)) for port in new]
    operations += [select("Interface", [["name", "==", port.name]], PORT_COLUMNS) for port in new]
    operations.append(select("Bridge", [], ["name"]))
    if node.dry_run:
        operations = operations[-len(new) - 1 :]
    *replies, existing = node.db.transact(operations)
    interfaces = [interface for reply in replies if isinstance(reply, list) for interface in as_interfaces(reply)]
    numbers = {interface.name: interface.ofport for interface in interfaces if interface.ofport}
    names = {port.name for port in new}
    guests = [guest for guest in observed.guests if guest.name not in names and guest.ids.get(PORT_KEY) not in marks]
    guests += [OvsInterface(port.name, numbers[port.name], guest_ids(port)) for port in new if port.name in numbers]
    bundles = changed_flows(Observed(guests, observed.patches), change, node.config)
    exists = {row["name"] for row in existing}
    node.flow({bridge: lines for bridge, lines in bundles.items() if bridge in exists})


def ensure_networks(node: Node, networks: Iterable[tuple[str, int]], plugged: Collection[str]) -> None:
    """Make the bridges and patch ports of networks, each a bridge and a VNI; `plugged` are the ports of the VM.

    Raises:
        AwsOvsError: a bridge is somebody else's.
    """

    def claim(bridge: str) -> None:
        from . import strangers  # only for a bridge that is not marked as the driver's

        strangers.claim(node, bridge, plugged)

    changes = bridges.plan_networks(node.db, networks, node.config.datapath_type, claim)
    node.commit(changes)
    node.flow({bridge: [ALL_ANEW] for bridge in changes.bridges})


def require(node: Node, ports: list[GuestPort]) -> None:
    """Make sure that the hypervisor has put each port on its bridge, and that it has a device.

    `ovs-vsctl add-port` succeeds without a device, too.
    """
    lookups = [
        (
            select("Interface", [["name", "==", port.name]], PORT_COLUMNS),
            select("Port", [["name", "==", port.name]], ["_uuid"]),
            select("Bridge", [["name", "==", port.bridge]], ["ports"]),
        )
        for port in ports
    ]
    replies = node.db.transact([operation for lookup in lookups for operation in lookup])
    for port, interface, own, bridge in zip(ports, replies[::3], replies[1::3], replies[2::3], strict=True):
        if not interface or not own or not bridge or str(own[0]["_uuid"]) not in str(bridge[0]["ports"]):
            what = f"port {port.name} of NIC {port.nic_id} is not on bridge {port.bridge}"
            remedy = f"see 'virsh domiflist one-{port.vm_id}' and 'ovs-vsctl show'"
            raise AwsOvsError(f"{what}: the hypervisor did not plug it in", remedy)
        error = interface[0]["error"]
        if isinstance(error, str) and error:
            what = f"port {port.name} on bridge {port.bridge} does not work: {error}"
            raise AwsOvsError(what, "see 'ovs-vsctl show'")
