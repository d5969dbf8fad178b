"""Define `oneaws host` and `oneaws mesh`: EC2 instances as hosts, and the tunnels between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .common import Later, as_json_option, changing, open_world, print_lines

if TYPE_CHECKING:
    from ..frontend import listing, peer_list, reconcile
    from ..frontend.reconcile import Stage
    from ..frontend.world import World
else:
    listing, peer_list, reconcile = map(Later, ("listing", "peer_list", "reconcile"))


@click.group()
def host() -> None:
    """EC2 instances as OpenNebula hosts."""


@host.command("list")
@as_json_option
@click.pass_context
def host_list(ctx: click.Context, as_json: bool) -> None:
    """List the hosts that are EC2 instances, as OpenNebula knows them.

    FREE is how many more private addresses the host's ENI can have, of as many VMs with an Elastic IP; the scheduler sees it as
    EC2_FREE_ADDRESSES.
    """
    head = ("ID", "NAME", "CLUSTER", "INSTANCE", "TYPE", "ZONE", "EC2", "FREE", "TVM", "STAT")
    print_lines(listing.host_lines(open_world(ctx)), head, as_json)


@host.command("sync")
@changing
def host_sync(world: World) -> Iterator[Stage]:
    """Make the EC2 instances with the tag of host_filter hosts, and tell all hosts their peers.

    A host whose instance is terminated is disabled and marked with EC2_INSTANCE_STATE=terminated. No host is ever deleted.
    """
    return reconcile.of_hosts(world)


@click.group()
def mesh() -> None:
    """The tunnels between the hosts."""


@mesh.command("show")
@as_json_option
@click.pass_context
def meshprint_values(ctx: click.Context, as_json: bool) -> None:
    """Show the hosts of the mesh: those of the clusters that have a network of this driver; and what else they are told.

    LIST says whether the host has the present peer list. UP and DOWN count its tunnels, MTU is the greatest for guests,
    VERSION the driver's: these come from the host itself, through OpenNebula's monitoring, and may be ten minutes old.

    With their peers hosts get the blocks of the VPC, into which a VM gets only as AWS_VPC_ACCESS of its network says, other
    addresses of hosts, where no VM gets, and private addresses of VMs, where all VMs get.
    """
    world = open_world(ctx)
    wanted, unread = peer_list.present(world)
    lines = listing.peer_lines(world, wanted)
    if as_json:
        lists = {key: value for key, value in wanted._asdict().items() if key not in ("peers", "enis")}
        click.echo(json.dumps({"hosts": lines, **lists}, indent=2))
        return
    head = ("ID", "NAME", "VTEP", "LIST", "UP", "DOWN", "MTU", "VERSION", "STAT", "ERROR")
    print_lines(lines, head, as_json)
    for what, addresses in (
        ("Blocks of the VPC", wanted.vpc_cidrs),
        ("Other addresses of hosts", wanted.node_addresses),
        ("Private addresses of VMs", wanted.private_ips),
    ):
        if addresses:
            more = f" and {len(addresses) - 10} more" if len(addresses) > 10 else ""
            click.echo(f"{what}: {' '.join(addresses[:10])}{more}")
    if unread:
        click.echo(f"oneaws: this is what EC2 said last: {unread}", err=True)


@mesh.command("sync")
@click.option("--all", "everybody", is_flag=True, help="Tell also the hosts that know already.")
@changing
def mesh_sync(world: World, everybody: bool) -> Iterator[Stage]:
    """Tell the hosts their peers, by ssh, several at once.

    A host that does not answer is named; the next 'oneaws reconcile' tries it again.
    """
    return reconcile.of_mesh(everybody)
