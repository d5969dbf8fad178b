"""Plan what brings the addresses of VMs to their hosts: decisions that can be printed, and then carried out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from ...errors import AwsOvsError
from ...names import EIP_STATUS
from ..objects import AwsVm, Host
from ..oned import NotFoundError
from ..plan import Plan
from ..world import World
from . import stand_ins
from .act import look
from .conflicts import conflicts, left_to_others, rivals, without, yielded
from .decide import Decision, Tell, decide, describe, differs, failure, nothing_left, waiting
from .loop import follow, of_vms, place_all


def plan(world: World) -> Plan:
    """Plan the changes that bring the addresses of all VMs to their hosts, host by host."""
    result = Plan()
    left = left_to_others(world, world.vms)
    for vm in world.vms:
        if not vm.addresses:
            _plan_end(world, result, vm)
        elif vm.vm_id in left and not without(vm, left[vm.vm_id]).addresses:
            _plan_waiting(world, result, vm, left[vm.vm_id])
    for vm_id, error in sorted(world.unread.items()):
        result.error(f"VM {vm_id}", error)
    vms = [without(vm, left.get(vm.vm_id, {})) for vm in world.vms]
    losers = conflicts(world, vms)
    hosts = {host.host_id: host for host in world.hosts}
    by_host: dict[int, list[AwsVm]] = defaultdict(list)
    for vm in vms:
        if not vm.on_host or not vm.addresses:
            continue
        if vm.vm_id in losers:
            values = failure(losers[vm.vm_id])
            result.error(f"VM {vm.vm_id}", losers[vm.vm_id])
            if differs(vm, values):
                result.change(f"VM {vm.vm_id}", f"set {EIP_STATUS}", world.oned.update_vm, vm.vm_id, values)
        elif vm.host_id in hosts:
            by_host[vm.host_id].append(vm)
    for host_id, vms in sorted(by_host.items()):
        _plan_host(world, result, hosts[host_id], sorted(vms, key=lambda vm: vm.vm_id), left)
    return result


def _plan_end(world: World, result: Plan, vm: AwsVm) -> None:
    """Plan that a VM without an address in AWS says nothing of one."""
    if vm.told:
        text = f"empty {EIP_STATUS}: it has no address in AWS any more"
        result.change(f"VM {vm.vm_id}", text, world.oned.update_vm, vm.vm_id, nothing_left(vm))


def _plan_waiting(world: World, result: Plan, vm: AwsVm, left: Mapping[str, AwsVm]) -> None:
    """Plan that a VM says that others have its addresses."""
    if differs(vm, waiting(vm, left)):
        text = f"set {EIP_STATUS}, for what it shares others have"
        result.change(f"VM {vm.vm_id}", text, world.oned.update_vm, vm.vm_id, waiting(vm, left))


def _plan_host(
    world: World, result: Plan, host: Host, vms: list[AwsVm], left: Mapping[int, Mapping[str, AwsVm]]
) -> None:
    target, vm_ids = f"host {host.name}", [vm.vm_id for vm in vms]
    decision, text = _decide(world, result, host, vms)
    for error in of_vms(decision.refusals):
        result.foresee(target, error)
    if decision.moves:
        result.change(target, text, place_all, world, host, vm_ids, left)
    elif decision.refusals:
        result.attempt(target, "bring the addresses of its VMs to it", place_all, world, host, vm_ids, left)


def _decide(world: World, result: Plan, host: Host, vms: Sequence[AwsVm]) -> tuple[Decision, str]:
    """Decide on the moves of VMs on a host, with what will stand in there; the decision, and its text for people."""
    then = host
    try:
        then = stand_ins.foresee(world, host, vms)
    except AwsOvsError as error:
        result.foresee(f"host {host.name}", error)
    here = [stand_ins.standing(vm, then) for vm in vms]
    seen = look(world, then, here)
    decision = decide(here, then, seen)
    new = sorted({*then.stand_ins.items()} - {*host.stand_ins.items()})
    texts = [f"let {address} stand for {private_ip}" for private_ip, address in new]
    return decision, ", ".join([*texts, describe(decision, then, seen)])


def plan_for(world: World, vm_ids: Collection[int]) -> Plan:
    """Plan the changes that bring the addresses of certain VMs to their hosts, VM by VM.

    What is wrong with a VM becomes a problem.
    """
    result = Plan()
    for vm_id in vm_ids:
        target = f"VM {vm_id}"
        try:
            vm = world.oned.vm(vm_id)
            if not vm.addresses:
                _plan_end(world, result, vm)
                what = "has no address in AWS: none of its networks of this driver gave it AWS_PRIVATE_IP"
                result.problem(target, what, "attach it to a network that has Elastic IPs")
            elif not vm.on_host:
                result.problem(target, "does not run", "its addresses follow when it does")
            else:
                _plan_vm(world, result, vm)
        except NotFoundError as error:
            result.error(target, error)
    return result


def _plan_vm(world: World, result: Plan, vm: AwsVm) -> None:
    host, target = world.oned.host(vm.host_id), f"VM {vm.vm_id}"
    left = yielded(world, vm)
    if left and not without(vm, left).addresses:
        _plan_waiting(world, result, vm, left)
        return
    vm = without(vm, left)
    decision, text = _decide(world, result, host, [vm])
    conflict = None
    if decision.refusals or any(not isinstance(move, Tell) for move in decision.moves):
        conflict = conflicts(world, [vm, *rivals(world, vm)]).get(vm.vm_id)
    error = conflict or decision.refusals.get(vm.vm_id)
    if error:
        result.foresee(target, error)
    if decision.moves and not conflict:
        result.change(target, text, follow, world, vm.vm_id)
    elif error:
        result.attempt(target, f"bring its addresses to {host.name}", follow, world, vm.vm_id)
