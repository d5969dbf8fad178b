"""Private addresses follow their VMs: they are moved to the ENI of the host where the VM runs, and their Elastic IPs with them.

One AssignPrivateIpAddresses a host, none when all is right. The outcome is on the VM: AWS_EIP_STATUS, and ERROR when
it failed. A VM may move again meanwhile, two VMs may claim one address, EC2 may show what was: each is looked at again
before and after a change.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection

from .. import lock
from ..errors import AwsOvsError
from .conflicts import conflicts, rivals
from .ec2 import Ec2Error, ElasticIp, Interface
from .hosts import FREE, eni_of, plan_free
from .objects import Address, Host, Vm
from .oned import NotFoundError
from .plan import Plan
from .pools import associate, note
from .world import ADDRESSES, ENI_ID, HOSTS, TYPE, VTEP, World

STATUS = "AWS_EIP_STATUS"
_PREFIX = "aws_ovs: "
_OK = "OK: "
_ATTEMPTS = 5
_READ = (*ADDRESSES, "subnets")
"""What following one VM reads of EC2 only in part."""

_CONCERN_ALL = {"UnauthorizedOperation", "AuthFailure", "RequestLimitExceeded", "InternalError", "Unavailable"}
"""What EC2 refuses for all VMs alike."""


def plan(world: World) -> Plan:
    """What brings the addresses of all VMs to their hosts, host by host."""
    result = Plan()
    losers = conflicts(world, world.vms)
    hosts = {host.host_id: host for host in world.hosts}
    by_host: dict[int, list[Vm]] = defaultdict(list)
    for vm in world.vms:
        if vm.on_host and vm.vm_id in losers:
            reason = str(losers[vm.vm_id])
            result.problem(f"VM {vm.vm_id}", reason)
            if _differs(vm, _failure(reason)):
                result.change(f"VM {vm.vm_id}", f"set {STATUS}", _setter(world, vm.vm_id, _failure(reason)))
        elif vm.on_host:
            by_host[vm.host_id].append(vm)
    for host_id, vms in sorted(by_host.items()):
        host = hosts.get(host_id)
        if host is not None and not _right(world, host, vms):
            eni = world.interfaces.get(host.template.get(ENI_ID, ""))
            moved = sorted({one.private_ip for vm in vms for one in _to_move(vm, host, eni)})
            text = f"move {', '.join(moved)} to it" if moved else "put Elastic IPs and their status right"
            result.change(f"host {host.name}", text, _placing(world, host, sorted(vm.vm_id for vm in vms)))
    return result


def plan_for(world: World, vm_ids: Collection[int]) -> Plan:
    """What brings the addresses of certain VMs to their hosts, VM by VM; what is wrong with one becomes a problem."""
    result = Plan()
    for vm_id in vm_ids:
        target = f"VM {vm_id}"
        try:
            vm = world.oned.vm(vm_id)
            if not vm.addresses:
                result.problem(
                    target, "has no address in AWS: none of its networks of this driver gave it AWS_PRIVATE_IP"
                )
            elif not vm.on_host:
                result.problem(target, "does not run; its addresses follow when it does")
            elif not _right(world, world.oned.host(vm.host_id), [vm]):
                result.change(target, f"bring its addresses to {vm.host}", _following(world, vm_id))
        except NotFoundError as bad:
            result.problem(target, str(bad))
    return result


def _following(world: World, vm_id: int) -> Callable[[], object]:
    return lambda: follow(world, vm_id)


def _placing(world: World, host: Host, vm_ids: list[int]) -> Callable[[], None]:
    return lambda: _place_all(world, host, vm_ids)


def _place_all(world: World, host: Host, vm_ids: list[int]) -> None:
    """Place the VMs of a host, as they are now: those that have left it since are somebody else's.

    Raises:
        AwsOvsError: some VMs cannot have their addresses; what concerns the others is done.
    """
    vms = _still(world, host, vm_ids)
    failed = []
    try:
        place(world, host, vms)
    except AwsOvsError as bad:
        failed = _place_each(world, host, vms, bad)
    for vm in vms:
        try:
            if not _stays(world, vm):  # it moved while its address came here
                try:
                    follow(world, vm.vm_id)
                finally:
                    world.forget(_READ)
        except NotFoundError:
            pass
        except AwsOvsError as bad:
            failed.append(_of_vm(vm, bad))
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise AwsOvsError("; ".join(bad.what for bad in failed), "; ".join(dict.fromkeys(bad.remedy for bad in failed)))


def _still(world: World, host: Host, vm_ids: list[int]) -> list[Vm]:
    vms = []
    for vm_id in vm_ids:
        with contextlib.suppress(NotFoundError):
            vm = world.oned.vm(vm_id)
            if vm.on_host and vm.host_id == host.host_id:
                vms.append(vm)
    return vms


def _place_each(world: World, host: Host, vms: list[Vm], failure: AwsOvsError) -> list[AwsOvsError]:
    """One VM's trouble must not keep the others from their addresses; what concerns all is not tried again for each."""
    concerns_all = isinstance(failure, Ec2Error) and failure.code in _CONCERN_ALL
    if not concerns_all:
        world.forget(ADDRESSES)
    failed = []
    for vm in vms:
        try:
            if concerns_all and not _there(world, host, vm):
                raise failure
            place(world, host, [vm])
        except NotFoundError:
            continue
        except AwsOvsError as bad:
            failed.append(_of_vm(vm, bad))
            with contextlib.suppress(NotFoundError):
                _report(world, vm, str(bad))
    return failed


def _of_vm(vm: Vm, bad: AwsOvsError) -> AwsOvsError:
    return AwsOvsError(f"VM {vm.vm_id}: {bad.what}", bad.remedy)


def _report(world: World, vm: Vm, reason: str) -> None:
    """Let the VM say what went wrong with its addresses."""
    if _differs(vm, _failure(reason)):
        world.oned.update_vm(vm.vm_id, _failure(reason))


def _to_move(vm: Vm, host: Host, eni: Interface | None) -> list[Address]:
    """The addresses of a VM that are not known to be on an ENI.

    A VM that came back before EC2 shows where its addresses went would find them here, so what EC2 shows counts only for
    one that was not placed on another host last.
    """
    placed = vm.user_template.get(STATUS, "")
    known = not placed or placed.endswith(_on_host(host))
    there = eni.addresses if eni is not None and known else ()
    return [one for one in vm.addresses if one.private_ip not in there]


def _on_host(host: Host) -> str:
    """How a status ends that was set when the addresses were on a host, whatever became of the Elastic IPs."""
    return f" on {host.name}"


def _right(world: World, host: Host, vms: list[Vm]) -> bool:
    return all(_there(world, host, vm) and not _differs(vm, success(vm, host)) for vm in vms)


def _there(world: World, host: Host, vm: Vm) -> bool:
    """True when nothing is to be changed in EC2 for a VM."""
    eni = world.interfaces.get(host.template.get(ENI_ID, ""))
    return not _to_move(vm, host, eni) and all(_leads(world.elastic_ips, one) for one in vm.addresses)


def _leads(elastic_ips: dict[str, ElasticIp], address: Address) -> bool:
    """True when the Elastic IP of an address leads to it, or the address names none."""
    eip = elastic_ips.get(address.allocation_id)
    return not address.allocation_id or (eip is not None and eip.private_ip == address.private_ip)


def success(vm: Vm, host: Host) -> dict[str, str]:
    """The attributes of a VM whose addresses are where they should be."""
    public = sorted({one.external_ip or one.private_ip for one in vm.addresses})
    values = {STATUS: f"{_OK}{' '.join(public)}{_on_host(host)}"}
    if vm.user_template.get("ERROR", "").startswith(_PREFIX):
        values["ERROR"] = ""  # an attribute can be emptied without knowing the others, but not removed
    return values


def _failure(reason: str) -> dict[str, str]:
    return {STATUS: f"FAILED: {reason}", "ERROR": f"{_PREFIX}{reason}"}


def _differs(vm: Vm, values: dict[str, str]) -> bool:
    return any(vm.user_template.get(key, "") != value for key, value in values.items())


def _setter(world: World, vm_id: int, values: dict[str, str]) -> Callable[[], None]:
    return lambda: world.oned.update_vm(vm_id, values)


def follow(world: World, vm_id: int) -> Vm | None:
    """Bring the addresses of one VM to the host where it runs.

    Returns:
        the VM, or None when it has no addresses in AWS or does not run.

    Raises:
        AwsOvsError: they cannot be there; the VM's ERROR says so too.
    """
    with lock.held(f"following VM {vm_id}", world.settings.lock_timeout, _lock_path(world, vm_id)):
        for _ in range(_ATTEMPTS):
            try:
                vm = world.oned.vm(vm_id)
                if not vm.on_host or not vm.addresses:
                    return None
                try:
                    _bring(world, vm)
                except AwsOvsError as bad:
                    if _stays(world, vm):  # else it concerned the host that it has left
                        _report(world, vm, str(bad))
                        raise AwsOvsError(bad.what, bad.remedy) from None  # whatever was not found, it is not the VM
                else:
                    if _stays(world, vm):
                        return vm
            except NotFoundError:
                return None
        raise AwsOvsError(
            f"VM {vm_id} moved {_ATTEMPTS} times while its addresses followed", f"run 'oneaws eip follow {vm_id}'"
        )


def _lock_path(world: World, vm_id: int) -> str:
    """A lock of the VM's; few files serve all, so that a few VMs wait for each other without need."""
    return f"{world.settings.state_directory}/follow/{vm_id % 256}.lock"


def _stays(world: World, vm: Vm) -> bool:
    now = world.oned.vm(vm.vm_id)
    return not now.on_host or now.host_id == vm.host_id


def _bring(world: World, vm: Vm) -> None:
    """Place one VM, having read of EC2 only what concerns it: the ENIs that have its addresses, and its Elastic IPs."""
    world.forget((*ADDRESSES, *HOSTS))
    host = world.oned.host(vm.host_id)
    eni_id = eni_of(host)
    own = world.ec2.interfaces_with([eni_id])
    if eni_id not in own:
        raise AwsOvsError(
            f"EC2 does not know {eni_id}, the ENI of host {host.name}",
            "is its instance terminated? Run 'oneaws host sync'",
        )
    missing = {one.private_ip for one in _to_move(vm, host, own[eni_id])}
    world.interfaces = own | world.ec2.interfaces_holding(missing, own[eni_id].vpc_id)
    world.elastic_ips = world.ec2.elastic_ips({one.allocation_id for one in vm.addresses if one.allocation_id})
    if missing:
        world.subnets = world.ec2.subnets([own[eni_id].subnet_id])
    if missing or not all(_leads(world.elastic_ips, one) for one in vm.addresses):
        reason = conflicts(world, [vm, *rivals(world, vm)]).get(vm.vm_id)
        if reason:
            raise reason
    try:
        place(world, host, [vm])
    finally:
        if missing:
            _note_free(world)


def _note_free(world: World) -> None:
    """The scheduler is to know at once, not when the reconciler has run; no failure of the VM's if it cannot be."""
    with contextlib.suppress(AwsOvsError):
        for change in plan_free(world).changes:
            change.apply()


def place(world: World, host: Host, vms: list[Vm]) -> None:
    """Put the addresses of VMs on their host's ENI, in one call, and their Elastic IPs on them.

    Raises:
        AwsOvsError: it cannot be done; nothing is half-done that the next run does not finish.
    """
    eni = world.interfaces.get(eni_of(host))
    if eni is None:
        raise AwsOvsError(f"EC2 does not show {eni_of(host)}, the ENI of host {host.name}", "run 'oneaws host sync'")
    missing = sorted({one.private_ip for vm in vms for one in _to_move(vm, host, eni)})
    if missing:
        _check(world, host, eni, missing)
        world.ec2.assign(eni.eni_id, missing)
        world.ec2.confirm(
            f"{', '.join(missing)} on {eni.eni_id}",
            lambda: any(set(missing) <= set(one.addresses) for one in world.ec2.interfaces_with([eni.eni_id]).values()),
        )
        note(world, eni, *missing)
    try:
        _lead(world, eni, vms)
    except Ec2Error:
        raise
    except AwsOvsError as bad:
        raise AwsOvsError(f"{bad}", f"the private addresses are{_on_host(host)}") from None
    for vm in vms:
        if _differs(vm, success(vm, host)):
            world.oned.update_vm(vm.vm_id, success(vm, host))


def _lead(world: World, eni: Interface, vms: list[Vm]) -> None:
    """Let the Elastic IPs of VMs lead to their private addresses."""
    for address in {one.allocation_id: one for vm in vms for one in vm.addresses if one.allocation_id}.values():
        eip = world.elastic_ips.get(address.allocation_id)
        if eip is None:
            raise AwsOvsError(
                f"Elastic IP {address.external_ip} ({address.allocation_id}) is not in this account and Region",
                "detach it from the VM",
            )
        if eip.private_ip != address.private_ip:
            _refuse_foreign(world, eip)
            associate(world, eip, eni.eni_id, address.private_ip)


def _check(world: World, host: Host, eni: Interface, missing: list[str]) -> None:
    """Refuse in time, and clearly, what EC2 would refuse."""
    limit = world.limit(host)
    total = len({*eni.addresses, *missing})
    if limit and total > limit:
        raise AwsOvsError(
            f"host {host.name} ({host.template.get(TYPE)}) has {len(eni.addresses)} of {limit} addresses, no room "
            f"for {', '.join(missing)}",
            f"migrate the VM, or let it require {FREE} > 0 in SCHED_REQUIREMENTS",
        )
    subnet = world.subnets.get(eni.subnet_id)
    outside = [one for one in missing if subnet is not None and not subnet.has(one)]
    if subnet is not None and outside:
        raise AwsOvsError(
            f"{', '.join(outside)} is not in {subnet.cidr}, the subnet of host {host.name}, and an address cannot leave its "
            "subnet",
            "migrate the VM to a host in the subnet of the address",
        )
    for address in missing:
        holder = world.eni_of_address.get(address)
        if holder is not None and holder.primary == address:
            raise AwsOvsError(
                f"{address} is the primary address of {holder.eni_id} and never moves",
                "correct AWS_PRIVATE_IP of the network",
            )
        if holder is not None and holder.eni_id not in world.host_of_eni:
            raise AwsOvsError(
                f"{address} is on {holder.eni_id}, which is no OpenNebula host",
                "take it away there, or correct AWS_PRIVATE_IP",
            )


def _refuse_foreign(world: World, eip: ElasticIp) -> None:
    owner = world.host_of_eni.get(eip.eni_id)
    if eip.eni_id and owner is None:
        raise AwsOvsError(
            f"Elastic IP {eip.public_ip} is associated with {eip.eni_id}, which is no OpenNebula host",
            "disassociate it there",
        )
    if owner is not None and owner.template.get(VTEP) == eip.private_ip:
        raise AwsOvsError(
            f"Elastic IP {eip.public_ip} is the public address of host {owner.name} itself", "disassociate it there"
        )
