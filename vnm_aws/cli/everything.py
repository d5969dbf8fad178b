"""Define `oneaws reconcile` and `oneaws check`, which are about everything."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .common import Later, as_json_option, changing, open_world, print_lines

if TYPE_CHECKING:
    from ..frontend import health, reconcile
    from ..frontend.reconcile import Stage
    from ..frontend.world import World
else:
    health, reconcile = map(Later, ("health", "reconcile"))


@click.command("reconcile")
@changing
def reconcile_all(world: World) -> Iterator[Stage]:
    """Do all of it: hosts, pools, addresses of VMs, free addresses, peers. The timer runs this.

    One runs at a time, and one more waits; a third ends at once. Of several front-ends only the leader acts.
    """
    return reconcile.everything(world)


@click.command("check")
@click.option("--nodes", "ask_nodes", is_flag=True, help="Let every host check itself, too, by ssh.")
@as_json_option
@click.pass_context
def check(ctx: click.Context, ask_nodes: bool, as_json: bool) -> None:
    """Say whether all is well, and for each thing that is not, what to do. Changes nothing.

    It looks at settings, OpenNebula (hooks and how they went, attributes), EC2 (rights, clock, instances), the timer, networks,
    Elastic IPs, VMs, what hosts report of themselves, and at the security groups of AWS that the hosts are in: whether they let
    hosts, and nobody else, into the tunnels, and whether they let in what VMs with Elastic IPs do.

    It names VMs that the present rules of their own security groups did not reach, and warns of NICs with an address in AWS
    that let everything in. That may be meant so: a warning does not change the exit code.
    """
    lines = health.check(open_world(ctx), ask_nodes)
    print_lines(lines, ("CHECK", "STATUS", "DETAIL"), as_json)
    if any(line["STATUS"] not in ("ok", "warning") for line in lines):
        sys.exit(1)
