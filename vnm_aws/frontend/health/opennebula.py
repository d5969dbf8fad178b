"""Look at OpenNebula: the driver's hooks and how they went, what oned does with attributes, networks, VMs."""

from __future__ import annotations

import time

from ...errors import AwsOvsError
from ...names import INHERITED, POOL, RESERVATION, RESTRICTED
from .. import listing, registration, vm_groups
from ..follow.conflicts import left_to_others, without
from ..follow.decide import find
from ..follow.stand_ins import standing
from ..hook_objects import Execution
from ..objects import AwsVm, Host
from ..world import World
from .report import FAILED, OK, PENDING, WARNING, Report

_REMEDY = "run 'install.sh --frontend' as root, then 'systemctl restart opennebula'"


def hooks(world: World, report: Report) -> None:
    """Add the hooks that are not as they should be, and those whose last execution failed."""
    registrations = registration.registrations(world)
    wrong = [f"{hook.name} is {hook.state}" for hook in registrations if hook.state != "registered"]
    if wrong:
        report.add("hooks", FAILED, AwsOvsError(", ".join(wrong), "run 'oneaws hooks register'"))
    ours = {hook.hook_id: hook.name for hook in registrations if hook.hook_id >= 0}
    failing = [item for item in _last_failures(world) if item.hook_id in ours and _is_last(world, item)]
    for execution in failing:
        at, numbers = shown(execution.time), f"{execution.hook_id} {execution.execution_id}"
        what = f"{ours[execution.hook_id]} failed when it ran last, at {at}: {execution.said or 'it printed no reason'}"
        remedy = f"when the cause is gone, run 'onehook retry {numbers}'"
        report.add("hooks", FAILED, AwsOvsError(what.rstrip(". "), remedy))
    if not wrong and not failing:
        report.add("hooks", OK, "registered, and none failed when it ran last")


def _last_failures(world: World) -> list[Execution]:
    """List the last failure of each hook that has any."""
    last: dict[int, Execution] = {}
    for execution in world.oned.executions(failed=True):
        if execution.execution_id >= last.get(execution.hook_id, execution).execution_id:
            last[execution.hook_id] = execution
    return [last[hook_id] for hook_id in sorted(last)]


def _is_last(world: World, failure: Execution) -> bool:
    """Say whether a hook has not succeeded since; oned gives what is later than a second, so that one is asked for, too."""
    later = world.oned.executions(failed=False, hook_id=failure.hook_id, since=failure.time - 1)
    return all(execution.execution_id < failure.execution_id for execution in later)


def shown(seconds: int) -> str:
    """Write a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def attributes(world: World, report: Report) -> None:
    """Add whether oned lets plain users write what would give them addresses of others, and whether NICs get what they need."""
    of_oned = world.oned.attributes()
    wanted = {f"{place}/{name}" for place in ("NIC", "NIC_ALIAS", "NIC_DEFAULT") for name in RESTRICTED}
    free = [f"{name} of VMs" for name in sorted(wanted - of_oned.of_vms)]
    wanted = {POOL, RESERVATION, *RESTRICTED, *(f"AR/{name}" for name in RESTRICTED)}
    free += [f"{name} of networks" for name in sorted(wanted - of_oned.of_networks)]
    errors = [AwsOvsError(f"oned lets every user set {_first(free)}", _REMEDY)] if free else []
    report.errors("restricted attributes", errors, "users cannot set what gives addresses of others")
    lost = sorted({*INHERITED} - of_oned.inherited)
    errors = [AwsOvsError(f"oned does not give NICs {_first(lost)} of their networks", _REMEDY)] if lost else []
    report.errors("inherited attributes", errors, "NICs get what the driver needs of their networks")


def _first(texts: list[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def networks(world: World, report: Report) -> None:
    """Add what is wrong with networks."""
    for line in listing.network_lines(world):
        problems = "; ".join(line["PROBLEMS"])
        status, detail = (FAILED, problems) if problems else (OK, f"VNI {line['VNI']}")
        report.add(f"network {line['NAME']}", status, detail)


def waiting(world: World, report: Report) -> None:
    """Add the VMs whose addresses are not where they run yet, and since when they run there."""
    hosts = {host.host_id: host for host in world.hosts}
    left = left_to_others(world, world.vms)
    for each in sorted(world.vms, key=lambda vm: vm.vm_id):
        vm = without(each, left.get(each.vm_id, {}))
        host = hosts.get(vm.host_id)
        absent = _absent(world, vm, host) if host is not None and vm.on_host else []
        if host is not None and absent:
            minutes = (
                f"{(time.time() - vm.since) // 60:.0f} minutes, since {shown(vm.since)}"
                if vm.since
                else "an unknown time"
            )
            what = f"VM {vm.vm_id} is on host {host.name} for {minutes}, and {_first(absent)} is not"
            report.add("addresses", PENDING, AwsOvsError(what, f"run 'oneaws eip follow {vm.vm_id}'"))


def _absent(world: World, vm: AwsVm, host: Host) -> list[str]:
    """List the private addresses of a VM that are on no ENI of its host, and Elastic IPs that do not lead to theirs."""
    addresses = standing(vm, host).addresses
    there = {address for eni in world.enis(host) for address in eni.addresses}
    absent = [item.private_ip for item in addresses if item.private_ip not in there]
    for address in addresses:
        eip = find(address, world.elastic_ips)
        if eip is not None and eip.private_ip != address.private_ip:
            absent.append(f"Elastic IP {eip.public_ip}")
    return list(dict.fromkeys(absent))


def groups_of_vms(world: World, report: Report) -> None:
    """Add which VMs have not the present rules of their groups, and warn of NICs that let everything in."""
    failed, late = vm_groups.not_up_to_date(world)
    for status, problems in ((FAILED, failed), (WARNING, late)):
        for problem in problems:
            report.add("rules of VMs", status, problem)
    for warning in vm_groups.open_nics(world):
        report.add("open NICs", WARNING, warning)
