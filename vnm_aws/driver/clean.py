"""`clean`: remove a VM, a NIC or an alias from this node. It is no error when it is not there."""

from __future__ import annotations

from collections.abc import Iterable

from ..overlay.flows import Change
from ..overlay.guest_port import GuestPort, plan
from ..vm import Nic, Vm
from . import state
from .node import Node
from .ports import apply, plan_ports


def run(node: Node, vm: Vm) -> None:
    """Remove what the action is about.

    Without ATTACH=YES that is the whole VM, be it that it ends here or that it has moved to another node (OpenNebula
    names the destination in both cases): all that this node holds of a VM is its own.
    """
    observed = node.observe()
    known = state.load(vm.vm_id)
    present = {port.nic_id for port in known}
    leaving = [nic for nic in vm.concerned if nic.attach] if vm.attaching else vm.nics
    # For the bridges of what this node has forgotten, the document serves.
    before = [*known, *_from_document(node, vm, [nic for nic in leaving if nic.nic_id not in present])]
    concerned = {nic.nic_id for nic in vm.concerned}
    if not vm.attaching:
        apply(node, observed, Change(vm.vm_id, before, [], concerned | present, whole=True), known)
        return
    parents = [_without_attached(nic) for nic in vm.concerned if not nic.attach and nic.nic_id in present]
    after = [port for port in before if port.nic_id not in concerned]
    after += plan_ports(node, observed, vm.vm_id, parents, known)
    after.sort(key=lambda port: port.nic_id)
    apply(node, observed, Change(vm.vm_id, before, after, concerned), known)


def _without_attached(nic: Nic) -> Nic:
    return nic._replace(aliases=tuple(alias for alias in nic.aliases if not alias.attach))


def _from_document(node: Node, vm: Vm, nics: Iterable[Nic]) -> list[GuestPort]:
    """Plan the ports of NICs by the document alone, for when this node's own memory of them is lost."""
    return [plan(vm.vm_id, nic, nic.vni(node.config.vni_base), node.transit, {}, set()) for nic in nics]
