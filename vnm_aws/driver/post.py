"""`post`, `update_sg` and `update_nic`: once the hypervisor has plugged the NICs in, let their traffic pass."""

from __future__ import annotations

from ..overlay.flows import Change
from ..overlay.guest_port import GuestPort
from ..processes import since_boot
from ..vm import Vm
from . import state
from .node import PICK_UP_S, Node
from .ports import apply, check_mtu, ensure_networks, marked_ports, plan_ports, require


def run(node: Node, vm: Vm, origin: str = "") -> None:
    """Open the ports that the action is about.

    Args:
        node: the node.
        vm: the VM.
        origin: the host from which it comes, if that is another than where OpenNebula says it is.

    Raises:
        AwsOvsError: a NIC cannot work here; the node is as it was before.
    """
    known = state.load(vm.vm_id)
    if known is None:
        vm = vm._replace(attaching=False)  # only the document tells of the other NICs: all are written anew
    nics = vm.concerned
    if vm.attaching and not nics:
        return  # what comes or goes is none of the driver's
    check_mtu(node, nics)
    if node.ensure_base() and known is not None:
        known = state.load(vm.vm_id)
    observed = node.observe()
    before = marked_ports(observed, vm.vm_id) if known is None else known
    planned = plan_ports(node, observed, vm.vm_id, nics, before)
    migrated = bool(origin) and origin != vm.hostname
    planned = [_picking_up(port, before, migrated) for port in planned]
    require(node, planned)
    # After `pre` they are there; an update may bring another VLAN_ID.
    missing = {(port.bridge, port.vni) for port in planned if not observed.patch(port.bridge, port.vni)}
    if missing:
        ensure_networks(node, missing, {port.name for port in planned})
        observed = node.observe()
    concerned = {port.nic_id for port in planned}
    rest = [port for port in before if port.nic_id not in concerned]
    if not vm.attaching:
        # The document holds every NIC: what it lacks is gone.
        concerned |= {port.nic_id for port in before}
        rest = []
    after = sorted([*planned, *rest], key=lambda port: port.nic_id)
    apply(node, observed, Change(vm.vm_id, before, after, concerned), known)


def _picking_up(port: GuestPort, before: list[GuestPort], migrated: bool) -> GuestPort:
    """Let a port pick up connections, if it has some that its zone of connection tracking does not know."""
    former = next((former for former in before if former.nic_id == port.nic_id), None)
    if port.zone and (migrated if former is None else not former.zone):
        return port._replace(picks_up_until=since_boot() + PICK_UP_S)
    return port
