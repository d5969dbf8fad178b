"""Check everything that must be right for the front-end half to work, one line each: `oneaws check`."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import AwsOvsError
from ..names import HOST_ERROR, POOL, RESTRICTED, VXLAN_PORT
from . import listing, peer_list, reconcile, registration, security_groups, vm_groups
from .plan import Outcome
from .world import World


def check(world: World) -> list[dict[str, str]]:
    """Make the checks, in an order in which each needs those before it."""
    lines: list[dict[str, str]] = []
    usable = [
        _line(lines, "driver configuration", lambda: f"VNIs from {world.driver.vni_base} on"),
        _line(lines, "OpenNebula", lambda: f"{world.oned.version()} at {world.oned.endpoint}"),
        _line(lines, "EC2", lambda: _ec2(world)),
    ]
    if usable[1]:
        _line(lines, "hooks", lambda: _hooks(world))
        _line(lines, "restricted attributes", lambda: _restricted(world))
    if all(usable):
        if _line(lines, "clusters", lambda: f"{len(world.served)} have a network of this driver"):
            for stage in reconcile.everything(world):
                _stage(lines, world, stage)
        _networks(lines, world)
        _hosts(lines, world)
        _security_groups(lines, world)
        _groups_of_vms(lines, world)
    return lines


def _add(lines: list[dict[str, str]], check: str, status: str, detail: str) -> None:
    lines.append({"CHECK": check, "STATUS": status, "DETAIL": detail})


def _line(lines: list[dict[str, str]], name: str, look: Callable[[], str]) -> bool:
    """Add what `look` returns, or what it raises."""
    try:
        _add(lines, name, "ok", look())
    except AwsOvsError as error:
        _add(lines, name, "failed", str(error))
        return False
    return True


def _ec2(world: World) -> str:
    count, quota = len(world.instances), listing.quota(world)
    most = f" of {quota.quota}" if quota.quota else ""
    return f"{count} instances match {world.settings.host_filter}; {quota.allocated}{most} Elastic IPs"


def _hooks(world: World) -> str:
    hooks = registration.registrations(world)
    wrong = [f"{hook.name} is {hook.state}" for hook in hooks if hook.state != "registered"]
    if wrong:
        raise AwsOvsError(f"{', '.join(wrong)}", "run 'oneaws hooks register'")
    return "registered"


def _restricted(world: World) -> str:
    """Look whether oned lets plain users write what would give them addresses of others."""
    vms, networks = world.oned.restricted()
    wanted = {f"{place}/{name}" for place in ("NIC", "NIC_ALIAS", "NIC_DEFAULT") for name in RESTRICTED}
    free = [f"{name} of VMs" for name in sorted(wanted - vms)]
    wanted = {POOL, *RESTRICTED, *(f"AR/{name}" for name in RESTRICTED)}
    free += [f"{name} of networks" for name in sorted(wanted - networks)]
    if free:
        more = f" and {len(free) - 3} more" if len(free) > 3 else ""
        remedy = "run 'install.sh --frontend' as root, then 'systemctl restart opennebula'"
        raise AwsOvsError(f"oned lets every user set {', '.join(free[:3])}{more}", remedy)
    return "users cannot set what gives addresses of others"


def _stage(lines: list[dict[str, str]], world: World, stage: reconcile.Stage) -> None:
    """Add what the reconciler would do, and what it cannot."""
    outcome = Outcome(dry_run=True)
    reconcile.carry_out(world, iter([stage]), outcome)
    for problem in outcome.problems:
        _add(lines, stage.name, "failed", str(problem))
    for target, text in outcome.done:
        _add(lines, stage.name, "pending", f"{target}: should {text}; run 'oneaws reconcile'")
    if not outcome.problems and not outcome.done:
        _add(lines, stage.name, "ok", "nothing to change")


def _networks(lines: list[dict[str, str]], world: World) -> None:
    for line in listing.network_lines(world):
        problems = "; ".join(line["PROBLEMS"])
        status, detail = ("failed", problems) if problems else ("ok", f"VNI {line['VNI']}")
        _add(lines, f"network {line['NAME']}", status, detail)


def _hosts(lines: list[dict[str, str]], world: World) -> None:
    """Add what hosts report of themselves, by OpenNebula's monitoring."""
    for host in peer_list.hosts(world):
        if host.template.get(HOST_ERROR):
            _add(lines, f"host {host.name}", "failed", f"it reports: {host.template[HOST_ERROR]}")


def _security_groups(lines: list[dict[str, str]], world: World) -> None:
    """Add what AWS' own security groups of the hosts lack, or let in too much."""
    try:
        errors, unreached = security_groups.look(world)
    except AwsOvsError as error:
        errors, unreached = [error], ""
    for problem in errors:
        _add(lines, "security groups", "failed", str(problem))
    if not errors:
        _add(lines, "security groups", "ok", unreached or f"hosts, and nobody else, reach UDP {VXLAN_PORT} of hosts")


def _groups_of_vms(lines: list[dict[str, str]], world: World) -> None:
    """Add which VMs have not the present rules of their groups, and warn of NICs that let everything in."""
    try:
        failed, waiting = vm_groups.not_up_to_date(world)
        for status, problems in (("failed", failed), ("warning", waiting)):
            for problem in problems:
                _add(lines, "rules of VMs", status, str(problem))
        for warning in vm_groups.open_nics(world):
            _add(lines, "open NICs", "warning", str(warning))
    except AwsOvsError as error:
        _add(lines, "groups of VMs", "failed", str(error))
