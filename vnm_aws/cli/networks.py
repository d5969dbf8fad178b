"""Define `oneaws eip` and `oneaws vnet`: Elastic IPs, and the networks that have them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .common import Later, as_json_option, changing, open_world, print_lines, say

if TYPE_CHECKING:
    from ..frontend import listing, reconcile
    from ..frontend.reconcile import Stage
    from ..frontend.world import World
else:
    listing, reconcile = map(Later, ("listing", "reconcile"))


@click.group()
def eip() -> None:
    """Elastic IPs: pools, and where they lead."""


@eip.command("list")
@click.argument("networks", nargs=-1, metavar="[NETWORK]...")
@as_json_option
@click.pass_context
def eip_list(ctx: click.Context, networks: tuple[str, ...], as_json: bool) -> None:
    """List the Elastic IPs of all networks of the driver, or of some (names or IDs).

    HOST is where the private address is now. STATUS is 'ok', 'pending' (the next run changes it), 'unmapped' (the Elastic
    IP does not lead to the private address) or 'problem', with the reasons below.
    """
    world = open_world(ctx)
    lines = listing.elastic_ip_lines(world, {world.network(name).network_id for name in networks})
    quota = listing.quota(world)
    if as_json:
        click.echo(json.dumps({"elastic_ips": lines, "region": quota._asdict()}, indent=2))
        return
    head = ("EXTERNAL_IP", "PRIVATE_IP", "NETWORK", "AR", "IP", "VM", "HOST", "STATUS")
    print_lines([line | {"VM": [*line["VM"], *["held"] * line["HELD"]]} for line in lines], head, as_json)
    for line in lines:
        if line["REASON"]:
            say(f"{line['EXTERNAL_IP'] or 'network ' + line['NETWORK']}: {line['REASON']}")
    left = f" of {quota.quota}, {quota.quota - quota.allocated} more can be allocated" if quota.quota else ""
    say(f"Elastic IPs in the Region: {quota.allocated}{left}.")


@eip.command("sync")
@click.argument("networks", nargs=-1, metavar="[NETWORK]...")
@changing
def eip_sync(world: World, networks: tuple[str, ...]) -> Iterator[Stage]:
    """Bring pools (networks with AWS_EIP_POOL), or some of them, up to date with the Elastic IPs that have their tags.

    Each Elastic IP gets an address range of its own, and a private address if it has none. A range that is leased never
    changes. No Elastic IP is ever released, or taken from anything that is not a host.
    """
    return reconcile.of_pools(world, networks)


@eip.command("follow")
@click.argument("vms", nargs=-1, type=click.IntRange(min=0), metavar="[VM_ID]...")
@changing
def eip_follow(world: World, vms: tuple[int, ...]) -> Iterator[Stage]:
    """Move the private addresses of VMs, or of all VMs, to the hosts where they run, and their Elastic IPs with them."""
    return reconcile.of_vms(world, vms)


@click.group()
def vnet() -> None:
    """Networks of the driver."""


@vnet.command("check")
@click.argument("networks", nargs=-1, metavar="[NETWORK]...")
@as_json_option
@click.pass_context
def vnet_check(ctx: click.Context, networks: tuple[str, ...], as_json: bool) -> None:
    """Check all networks of the driver, or some (names or IDs): bridge, VNI, MTU, subnet, address ranges, pool.

    These are the checks that a network must pass when it is created; one may fail them after 'onevnet update'. VPC and RAW
    are its AWS_VPC_ACCESS and AWS_RAW_ETHERNET, which address ranges may have of their own. Of networks that give private
    addresses it also says what to put into the templates of VMs, so that the scheduler finds hosts where these can be.
    """
    lines = listing.network_lines(open_world(ctx), networks)
    print_lines(lines, ("ID", "NAME", "BRIDGE", "VNI", "VPC", "RAW", "STATUS"), as_json)
    if not as_json:
        for line in lines:
            if line["SCHED_REQUIREMENTS"]:
                escaped = line["SCHED_REQUIREMENTS"].replace('"', '\\"')
                say(f'VMs of network {line["NAME"]}: SCHED_REQUIREMENTS = "{escaped}"')
            for problem in line["PROBLEMS"]:
                say(f"oneaws: network {line['NAME']}: {problem}", err=True)
    if any(line["PROBLEMS"] for line in lines):
        sys.exit(1)
