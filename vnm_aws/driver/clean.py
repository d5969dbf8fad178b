"""`clean`: remove a VM, a NIC or an alias from this node. It is no error when it is not there."""

from __future__ import annotations

from ..overlay.flows import Change
from ..overlay.guest_port import plan
from ..vm import Nic, Vm
from . import state
from .node import Node
from .ports import apply, marked_ports, plan_ports


def run(node: Node, vm: Vm) -> None:
    """Remove what the action is about.

    Without ATTACH=YES that is the whole VM, be it that it ends here or that it has moved to another node (OpenNebula
    names the destination in both cases): all that this node holds of a VM is its own.
    """
    observed = node.observe()
    known = state.load(vm.vm_id)
    remembered = marked_ports(observed, vm.vm_id) if known is None else known
    present = {port.nic_id for port in remembered}
    leaving = [nic for nic in vm.concerned if nic.attach] if vm.attaching else vm.nics
    # For the bridges of what this node has forgotten, the document serves.
    forgotten = [nic for nic in leaving if nic.nic_id not in present]
    vni_base, transit = node.config.vni_base, node.transit
    before = [*remembered, *(plan(vm.vm_id, nic, nic.vni(vni_base), transit, {}, set()) for nic in forgotten)]
    # When the file cannot be read, only the document tells of the VM's other NICs: all are written anew.
    nics = vm.nics if known is None else vm.concerned
    concerned = {nic.nic_id for nic in nics}
    if known is None or not vm.attaching:
        concerned |= present
    if not vm.attaching:
        apply(node, observed, Change(vm.vm_id, before, [], concerned, whole=True), known)
        return
    parents = [_without_attached(nic) for nic in nics if not nic.attach and nic.nic_id in present]
    after = [port for port in before if port.nic_id not in concerned]
    after += plan_ports(node, observed, vm.vm_id, parents, remembered)
    after.sort(key=lambda port: port.nic_id)
    apply(node, observed, Change(vm.vm_id, before, after, concerned), known)


def _without_attached(nic: Nic) -> Nic:
    return nic._replace(aliases=tuple(alias for alias in nic.aliases if not alias.attach))
