"""Check everything that must be right for the front-end half to work, one line each: `oneaws check`.

Each module looks at one side: hosts, the account in AWS, OpenNebula.
"""

from __future__ import annotations

from functools import partial

from .. import reconcile, timer
from ..plan import Outcome
from ..world import World
from . import account, nodes, opennebula
from .report import FAILED, OK, PENDING, Report


def check(world: World, ask_nodes: bool = False) -> list[dict[str, str]]:
    """Make the checks, in an order in which each needs those before it; with `ask_nodes` let every host check itself."""
    report = Report()
    usable = report.look("driver configuration", lambda: f"VNIs from {world.driver.vni_base} on")
    oned = report.look("OpenNebula", lambda: f"{world.oned.version()} at {world.oned.endpoint}")
    ec2 = report.look("EC2", lambda: account.connected(world))
    denied = "UnauthorizedOperation" in report.lines[-1]["DETAIL"]
    report.look("clock", lambda: account.clock(world))
    if oned:
        report.part("hooks", lambda: opennebula.hooks(world, report))
        report.part("restricted attributes", lambda: opennebula.attributes(world, report))
        report.look("timer", lambda: timer.look(world))
        oned = report.look("clusters", lambda: f"{len(world.served)} have a network of this driver")
    if oned:
        report.part("nodes", lambda: nodes.look(world, report))
        if ask_nodes:
            report.part("nodes", lambda: nodes.ask(world, report))
    if oned and (ec2 or denied):
        report.part("rights", lambda: account.rights(world, report))
    if usable and oned and ec2:
        report.part("instances", lambda: account.instances(world, report))
        report.part("reconcile", lambda: _stages(world, report))
        report.part("networks", lambda: opennebula.networks(world, report))
        report.part("addresses", lambda: opennebula.waiting(world, report))
        report.part("addresses of hosts", lambda: account.addresses(world, report))
        report.part("security groups", lambda: account.groups(world, report))
        report.part("groups of VMs", lambda: opennebula.groups_of_vms(world, report))
    return report.lines


def _stages(world: World, report: Report) -> None:
    for stage in reconcile.everything(world):
        report.part(stage.name, partial(_stage, world, report, stage))


def _stage(world: World, report: Report, stage: reconcile.Stage) -> None:
    """Add what the reconciler would do, and what it cannot."""
    outcome = Outcome(dry_run=True)
    reconcile.carry_out(world, iter([stage]), outcome)
    for problem in outcome.problems:
        report.add(stage.name, FAILED, problem)
    for target, text in outcome.done:
        report.add(stage.name, PENDING, f"{target}: should {text}; run 'oneaws reconcile'")
    if not outcome.problems and not outcome.done:
        report.add(stage.name, OK, "nothing to change")
