"""Follow VMs until they stay: place them, and look again whether they are still where their addresses are."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ...errors import AwsOvsError
from .. import elsewhere
from ..locks import lock_of
from ..objects import AwsVm, Host
from ..oned import NotFoundError
from ..plan import SeveralErrors
from ..room import holders, note
from ..world import Part, World
from . import stand_ins
from .act import Nearby, UnknownEniError, anew, look, place
from .conflicts import conflicts, rivals, without, yielded
from .decide import Leave, Tell, decide, differs, failure, nothing_left, waiting
from .stand_ins import is_refused_address, standing

_ATTEMPTS = 5
_CANDIDATES = 5
"""So many addresses are tried to stand in for one."""


def follow(world: World, vm_id: int) -> AwsVm | None:
    """Bring the addresses of one VM to the host where it runs, and then those of VMs elsewhere that had to leave it for them.

    Returns:
        the VM, or None when it has no addresses in AWS or does not run.

    Raises:
        AwsOvsError: they cannot be there; the VM's ERROR says so too.
    """
    others: set[int] = set()
    result = _follow(world, vm_id, others)
    for other in sorted(others):
        with contextlib.suppress(AwsOvsError):  # it is for its own hook to say
            _follow(world, other, set())
    return result


def _follow(world: World, vm_id: int, others: set[int]) -> AwsVm | None:
    """Follow one VM; `others` gets the VMs whose addresses had to leave its host."""
    with lock_of(world.settings, "follow", vm_id, f"following VM {vm_id}"):
        for _ in range(_ATTEMPTS):
            try:
                vm = world.oned.vm(vm_id)
                if not vm.addresses and vm.told:
                    world.oned.update_vm(vm_id, nothing_left(vm))
                if not vm.on_host or not vm.addresses:
                    return None
                try:
                    others |= _bring(world, vm)
                except AwsOvsError as error:
                    if _stays(world, vm):  # else it concerned the host that it has left
                        if isinstance(error, UnknownEniError):
                            _refuse_elsewhere(world)
                        _report(world, vm, error)
                        raise AwsOvsError(error.what, error.remedy) from None  # what was not found is not the VM
                else:
                    if _stays(world, vm):
                        return vm
            except NotFoundError:
                return None
        what = f"VM {vm_id} moved {_ATTEMPTS} times while its addresses followed"
        raise AwsOvsError(what, f"run 'oneaws eip follow {vm_id}'")


def _refuse_elsewhere(world: World) -> None:
    """Refuse to go on in another Region or account; that is no trouble of a VM, and it is not told.

    Raises:
        AwsOvsError: EC2 is not that of the hosts.
    """
    for problem in elsewhere.problems(world):
        raise AwsOvsError(f"{problem.target}: {problem.what}", problem.remedy)


def _stays(world: World, vm: AwsVm) -> bool:
    now = world.oned.vm(vm.vm_id)
    return not now.on_host or now.host_id == vm.host_id


def _report(world: World, vm: AwsVm, error: AwsOvsError) -> None:
    """Let the VM say what went wrong with its addresses."""
    if differs(vm, failure(error)):
        world.oned.update_vm(vm.vm_id, failure(error))


def _bring(world: World, vm: AwsVm) -> set[int]:
    """Place one VM.

    Returns:
        the VMs whose addresses had to leave its host.

    Raises:
        AwsOvsError: it cannot have its addresses.
    """
    host = world.oned.host(vm.host_id)
    here = standing(vm, host)
    nearby = Nearby(world, host, [here])
    left = yielded(nearby, vm)
    if left:
        vm = without(vm, left)
        here = standing(vm, host)
        nearby = Nearby(world, host, [here])
        if not vm.addresses:
            if differs(vm, waiting(vm, left)):
                world.oned.update_vm(vm.vm_id, waiting(vm, left))
            return set()
    decision = decide([here], host, look(nearby, host, [here]))
    changes = bool(decision.refusals) or any(not isinstance(move, Tell) for move in decision.moves)
    concerned = _claim(nearby, vm) if changes else set()
    try:
        refusal = _settle(nearby, host, [vm]).get(vm.vm_id)
        if refusal:
            raise refusal
        if changes:
            stand_ins.leave(nearby, [vm])
    finally:
        if changes:
            with contextlib.suppress(AwsOvsError):  # it is no failure of the VM when the scheduler cannot be told
                note(nearby, concerned)
    gone = holders(nearby, {move.address for move in decision.moves if isinstance(move, Leave)})
    return {other for vm_ids in gone.values() for other in vm_ids}


def _claim(world: World, vm: AwsVm) -> set[str]:
    """Make sure that a VM may have its addresses, and list the ENIs whose room that may change.

    Raises:
        AwsOvsError: another VM has one.
    """
    error = conflicts(world, [vm, *rivals(world, vm)]).get(vm.vm_id)
    if error:
        raise error
    left = (eni_id for host in stand_ins.hosts_with(world, vm) for eni_id in host.eni_ids)
    return {*world.interfaces, *left}


def _settle(world: World, host: Host, vms: Sequence[AwsVm]) -> dict[int, AwsOvsError]:
    """Place VMs, when there is what stands on their host for addresses that cannot be there.

    What EC2 refuses to let stand in is not tried again.

    Returns:
        what is wrong with the VMs that cannot have their addresses.
    """
    refused: set[str] = set()
    for _ in range(_CANDIDATES):
        failed, now = {}, host
        concerned = stand_ins.concerned(world, host, vms)
        try:
            now = stand_ins.provide(world, host, concerned, refused) if concerned else host
        except AwsOvsError as error:
            failed = dict.fromkeys((vm.vm_id for vm in concerned), error)
        here = [standing(vm, now) for vm in vms if vm.vm_id not in failed]
        world = anew(world, now, here) if here and now is not host else world
        failed |= place(world, now, here) if here else {}
        lost = [vm for vm in concerned if is_refused_address(failed.get(vm.vm_id))]
        refused |= stand_ins.discard(world, now, lost) if lost else set()
        if not lost or not refused:
            break
        world.forget(Part.ADDRESSES)
        host = world.oned.host(host.host_id)
    return failed


def place_all(world: World, host: Host, vm_ids: Sequence[int], left: Mapping[int, Mapping[str, AwsVm]]) -> None:
    """Place the VMs of a host, as they are now: those that have left it since are somebody else's.

    Args:
        world: both worlds.
        host: where they run.
        vm_ids: the VMs.
        left: the shared addresses that VMs leave to others.

    Raises:
        SeveralErrors: some VMs cannot have their addresses; what concerns the others is done.
    """
    vms = [without(vm, left.get(vm.vm_id, {})) for vm in _still(world, host, vm_ids)]
    try:
        failed = _settle(world, host, vms)
        stand_ins.leave(world, [vm for vm in vms if vm.vm_id not in failed])
    except AwsOvsError as error:
        failed = dict.fromkeys((vm.vm_id for vm in vms), error)
    failed = {vm_id: error for vm_id, error in failed.items() if not isinstance(error, NotFoundError)}
    for vm in vms:
        with contextlib.suppress(NotFoundError):
            if vm.vm_id in failed:
                _report(world, vm, failed[vm.vm_id])
            try:
                if not _stays(world, vm):  # it moved while its address came here
                    _follow_on(world, vm.vm_id)
                    failed.pop(vm.vm_id, None)
            except NotFoundError:
                raise
            except AwsOvsError as error:
                failed[vm.vm_id] = error
    if failed:
        raise SeveralErrors(of_vms(failed))


def _still(world: World, host: Host, vm_ids: Sequence[int]) -> list[AwsVm]:
    vms = []
    for vm_id in vm_ids:
        with contextlib.suppress(NotFoundError):
            vm = world.oned.vm(vm_id)
            if vm.on_host and vm.host_id == host.host_id:
                vms.append(vm)
    return vms


def _follow_on(world: World, vm_id: int) -> None:
    try:
        follow(world, vm_id)
    finally:
        world.forget(Part.ADDRESSES)


def of_vms(errors: Mapping[int, AwsOvsError]) -> list[AwsOvsError]:
    """Let errors name their VMs; those that are the same become one."""
    vms: dict[tuple[str, str], list[str]] = defaultdict(list)
    for vm_id, error in sorted(errors.items()):
        vms[error.what, error.remedy].append(str(vm_id))
    return [
        AwsOvsError(f"VM{'s' if len(vm_ids) > 1 else ''} {' '.join(vm_ids)}: {what}", remedy)
        for (what, remedy), vm_ids in vms.items()
    ]
