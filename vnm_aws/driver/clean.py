"""`clean`: remove a VM, a NIC or an alias from this node. It is no error when it is not there."""

from __future__ import annotations

from ..errors import AwsOvsError
from ..journal import WARNING, log
from ..overlay.flows import Change, Observed
from ..overlay.guest_port import GuestPort, plan
from ..vm import Leaving, Nic
from . import state
from .node import Node
from .ports import apply, carry_out, marked_ports, plan_ports, without_aliases


def run(node: Node, vm: Leaving) -> None:
    """Remove what the action is about.

    Without ATTACH=YES that is the whole VM, be it that it ends here or that it has moved to another node (OpenNebula
    names the destination in both cases): all that this node holds of a VM is its own. What that is, the node knows
    itself; the document tells what its file and its marks have lost.
    """
    if vm.trouble:
        log(WARNING, f"clean of VM {vm.vm_id}: goes by what this node knows of the VM, because {vm.trouble}")
    observed = node.observe()
    known = state.load(vm.vm_id)
    if not vm.attaching:
        before = _all(node, observed, vm, known)
        apply(node, observed, Change(vm.vm_id, before, [], {port.nic_id for port in before}, whole=True), known)
    elif vm.nic_ids or vm.aliases:
        _remove_part(node, observed, vm, known)


def _all(node: Node, observed: Observed, vm: Leaving, known: list[GuestPort] | None) -> list[GuestPort]:
    """List the VM's ports: those of its file, those that are only marked, and those that only the document tells."""
    ports = list(known or ())
    ports += _others(ports, marked_ports(observed, vm.vm_id))
    documented = [plan(vm.vm_id, nic, nic.vni(node.config.vni_base), node.transit, {}, set()) for nic in _nics(vm)]
    return ports + _others(ports, documented)


def _others(ports: list[GuestPort], more: list[GuestPort]) -> list[GuestPort]:
    present = {port.nic_id for port in ports}
    return [port for port in more if port.nic_id not in present]


def _nics(vm: Leaving) -> tuple[Nic, ...]:
    return vm.vm.nics if vm.vm else ()


def _remove_part(node: Node, observed: Observed, vm: Leaving, known: list[GuestPort] | None) -> None:
    """Remove a NIC, or an alias from its parent."""
    leaving = [port for port in _all(node, observed, vm, known) if port.nic_id in vm.nic_ids]
    if known is None:
        # Only the document tells of the VM's other NICs: all are written anew. If it is no help either, they stay.
        marked = marked_ports(observed, vm.vm_id)
        stay = _planned(node, observed, vm, _nics(vm), marked)
        before, concerned = [*leaving, *_others(leaving, marked)], {port.nic_id for port in (*leaving, *marked)}
        if stay is None:
            carry_out(node, observed, Change(vm.vm_id, leaving, [], set(vm.nic_ids)))
            return
    else:
        before = [*known, *_others(known, leaving)]
        stay = _planned(node, observed, vm, vm.vm.concerned if vm.vm else (), known)
        if stay is None:
            stay = without_aliases(node, observed, vm, known)
        concerned = {*vm.nic_ids, *(port.nic_id for port in stay)}
    after = [port for port in before if port.nic_id not in concerned] + stay
    after.sort(key=lambda port: port.nic_id)
    apply(node, observed, Change(vm.vm_id, before, after, concerned), known)


def _planned(
    node: Node, observed: Observed, vm: Leaving, nics: tuple[Nic, ...], ports: list[GuestPort]
) -> list[GuestPort] | None:
    """Plan those of `nics` that stay and are among a VM's `ports`, as the document has them; None if that is no use."""
    if vm.vm is None:
        return None
    present = {port.nic_id for port in ports}
    stay = [_without_attached(nic) for nic in nics if not nic.attach and nic.nic_id in present]
    try:
        return plan_ports(node, observed, vm.vm_id, stay, ports)
    except AwsOvsError as error:
        log(WARNING, f"clean of VM {vm.vm_id}: goes by what this node knows of the VM, because {error}")
        return None


def _without_attached(nic: Nic) -> Nic:
    return nic._replace(aliases=tuple(alias for alias in nic.aliases if not alias.attach))
