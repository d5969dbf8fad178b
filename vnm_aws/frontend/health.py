"""Check everything that must be right for the front-end half to work, one line each: `oneaws check`."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import AwsOvsError
from . import listing, reconcile, registration
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
    if all(usable):
        for stage in _stages(lines, world):
            _stage(lines, world, stage)
        _networks(lines, world)
    return lines


def _line(lines: list[dict[str, str]], name: str, look: Callable[[], str]) -> bool:
    """Add what `look` returns, or what it raises."""
    try:
        lines.append({"CHECK": name, "STATUS": "ok", "DETAIL": look()})
    except AwsOvsError as error:
        lines.append({"CHECK": name, "STATUS": "failed", "DETAIL": str(error)})
        return False
    return True


def _ec2(world: World) -> str:
    count, quota = len(world.instances), listing.quota(world)
    return f"{count} instances match {world.settings.host_filter}; {quota['allocated']} of {quota['quota']} Elastic IPs"


def _hooks(world: World) -> str:
    hooks = registration.registrations(world)
    wrong = [f"{hook.name} is {hook.state}" for hook in hooks if hook.state != "registered"]
    if wrong:
        raise AwsOvsError(f"{', '.join(wrong)}", "run 'oneaws hooks register'")
    return "registered"


def _stages(lines: list[dict[str, str]], world: World) -> list[reconcile.Stage]:
    stages: list[reconcile.Stage] = []
    if not _line(lines, "clusters", lambda: f"{len(world.served)} have a network of this driver"):
        return stages
    return list(reconcile.everything(world))


def _stage(lines: list[dict[str, str]], world: World, stage: reconcile.Stage) -> None:
    """Add what the reconciler would do, and what it cannot."""
    outcome = Outcome(dry_run=True)
    reconcile.carry_out(world, iter([stage]), outcome)
    for problem in outcome.problems:
        lines.append({"CHECK": stage.name, "STATUS": "failed", "DETAIL": str(problem)})
    for target, text in outcome.done:
        detail = f"{target}: should {text}; run 'oneaws reconcile'"
        lines.append({"CHECK": stage.name, "STATUS": "pending", "DETAIL": detail})
    if not outcome.problems and not outcome.done:
        lines.append({"CHECK": stage.name, "STATUS": "ok", "DETAIL": "nothing to change"})


def _networks(lines: list[dict[str, str]], world: World) -> None:
    for line in listing.network_lines(world):
        problems = "; ".join(line["PROBLEMS"])
        status = "failed" if problems else "ok"
        lines.append({"CHECK": f"network {line['NAME']}", "STATUS": status, "DETAIL": problems or f"VNI {line['VNI']}"})
