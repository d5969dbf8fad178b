"""Run `oneaws`, the administrator's command on the front-end."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from . import __version__, config
from .frontend import settings
from .frontend.plan import Outcome
from .frontend.terminal import Progress
from .journal import ERROR, INFO, explain, log
from .table import printable, table


def _say(line: str, err: bool = False) -> None:
    """Print a line; the names and errors in it are of others, and do nothing to a terminal."""
    click.echo(printable(line), err=err)


class _Later:
    """Import a module of the front-end when it is used: --help and completion need not wait for boto3 and pyone."""

    def __init__(self, name: str) -> None:
        self._name = f"{__package__}.frontend.{name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


if TYPE_CHECKING:
    from .frontend import health, listing, peer_list, reconcile, registration
    from .frontend.reconcile import Stage
    from .frontend.world import World
else:
    health, listing, peer_list, reconcile, registration = map(
        _Later, ("health", "listing", "peer_list", "reconcile", "registration")
    )

_RIGHT = {"ID", "FREE", "TVM", "UP", "DOWN", "MTU", "AR"}


class _Main(click.Group):
    """Group commands whose failures are one sentence on stderr, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, SystemExit):
            raise
        except BrokenPipeError:
            # Whoever read the output has gone; Python must not complain when it closes it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:  # noqa: BLE001 - an administrator gets a sentence; the journal has the rest
            _say(f"oneaws: {explain(error, 'oneaws')}", err=True)
            sys.exit(1)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oneaws")
@click.option(
    "--settings", "path", envvar="AWS_OVS_SETTINGS", default=settings.PATH, show_default=True, help="Settings file."
)
@click.pass_context
def main(ctx: click.Context, path: str) -> None:
    """Administer the aws_ovs network driver of an OpenNebula front-end.

    It makes EC2 instances with a tag hosts of OpenNebula, tells every host its peers, fills networks with Elastic IPs, and
    moves private addresses to where their VMs run. Hooks and a timer do all that by themselves; these commands show it,
    do it now, and say what is wrong.

    Run it as oneadmin; started by root it acts as oneadmin, who owns the state directory. It finds OpenNebula by ONE_AUTH
    and ONE_XMLRPC, and AWS as every program that uses boto3: by instance role, ~/.aws or AWS_PROFILE. Everything can be
    interrupted and run again at any time.

    \b
    Exit codes: 0  all is as it should be, or is now
                1  something is not, or failed: a sentence on stderr for each
                2  wrong usage
    Files:      /etc/one/aws_ovs.yaml, /var/lib/one/aws_ovs/
    Log:        journalctl -t aws_ovs
    """
    ctx.obj = path


def _world(ctx: click.Context) -> World:
    from .frontend.world import World

    return World(settings.load(ctx.find_root().obj))


_listing = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _print(lines: Sequence[dict[str, Any]], head: Sequence[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(lines, indent=2))
    else:
        click.echo(table(head, [[line[key] for key in head] for line in lines], _RIGHT))


def _changing(stages: Callable[..., Iterator[Stage]]) -> Callable[..., None]:
    """Make the body of a command, and its options, of a function that lists stages of the reconciler."""

    @click.option("--dry-run", is_flag=True, help="Print what would be changed; change nothing.")
    @click.option("-v", "--verbose", is_flag=True, help="Print each step to stderr.")
    @_listing
    @click.pass_context
    def run(ctx: click.Context, /, dry_run: bool, verbose: bool, as_json: bool, **arguments: Any) -> None:
        world, progress = _world(ctx), Progress(verbose)
        outcome = Outcome(dry_run, progress)
        name = ctx.command_path.partition(" ")[2]
        queue = name if name == "reconcile" else ""  # the timer starts it, however long the one before takes
        with contextlib.nullcontext(True) if dry_run else reconcile.turn(world, f"oneaws {name}", queue) as our_turn:
            if our_turn:
                reconcile.carry_out(world, stages(world, **arguments), outcome)
            else:
                _say("oneaws: another front-end leads, or another run is waiting already", err=True)
        progress.end()
        _report(outcome, as_json)

    return functools.update_wrapper(run, stages)


def _report(outcome: Outcome, as_json: bool) -> None:
    """Print what was changed and what is wrong, and end with exit code 1 if anything is."""
    if not outcome.dry_run:
        for target, text in outcome.done:
            log(INFO, f"{target}: {text}")
        for problem in outcome.problems:
            log(ERROR, str(problem))
    if as_json:
        document = {
            "dry_run": outcome.dry_run,
            "changes": [{"target": target, "change": text} for target, text in outcome.done],
            "problems": [{"target": problem.target, "problem": problem.text} for problem in outcome.problems],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for target, text in outcome.done:
            _say(f"{target}: {'would ' if outcome.dry_run else ''}{text}")
        for problem in outcome.problems:
            _say(f"oneaws: {problem}", err=True)
        if not outcome.done and not outcome.problems:
            click.echo("Nothing to change.")
    if outcome.problems:
        sys.exit(1)


@main.group()
def host() -> None:
    """EC2 instances as OpenNebula hosts."""


@host.command("list")
@_listing
@click.pass_context
def host_list(ctx: click.Context, as_json: bool) -> None:
    """List the hosts that are EC2 instances, as OpenNebula knows them.

    FREE is how many more private addresses the host's ENI can have, of as many VMs with an Elastic IP; the scheduler sees it as
    EC2_FREE_ADDRESSES.
    """
    head = ("ID", "NAME", "CLUSTER", "INSTANCE", "TYPE", "ZONE", "EC2", "FREE", "TVM", "STAT")
    _print(listing.host_lines(_world(ctx)), head, as_json)


@host.command("sync")
@_changing
def host_sync(world: World) -> Iterator[Stage]:
    """Make the EC2 instances with the tag of host_filter hosts, and tell all hosts their peers.

    A host whose instance is terminated is disabled and marked with EC2_INSTANCE_STATE=terminated. No host is ever deleted.
    """
    return reconcile.of_hosts(world)


@main.group()
def mesh() -> None:
    """The tunnels between the hosts."""


@mesh.command("show")
@_listing
@click.pass_context
def mesh_show(ctx: click.Context, as_json: bool) -> None:
    """Show the hosts of the mesh: those of the clusters that have a network of this driver; and what else they are told.

    LIST says whether the host has the present peer list. UP and DOWN count its tunnels, MTU is the greatest for guests,
    VERSION the driver's: these come from the host itself, through OpenNebula's monitoring, and may be ten minutes old.

    With their peers hosts get the blocks of the VPC, into which a VM gets only as AWS_VPC_ACCESS of its network says, other
    addresses of hosts, where no VM gets, and private addresses of VMs, where all VMs get.
    """
    world = _world(ctx)
    wanted, unread = peer_list.present(world)
    lines = listing.peer_lines(world, wanted)
    if as_json:
        lists = {key: value for key, value in wanted._asdict().items() if key != "peers"}
        click.echo(json.dumps({"hosts": lines, **lists}, indent=2))
        return
    head = ("ID", "NAME", "VTEP", "LIST", "UP", "DOWN", "MTU", "VERSION", "STAT", "ERROR")
    _print(lines, head, as_json)
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
@_changing
def mesh_sync(world: World, everybody: bool) -> Iterator[Stage]:
    """Tell the hosts their peers, by ssh, several at once.

    A host that does not answer is named; the next 'oneaws reconcile' tries it again.
    """
    return reconcile.of_mesh(everybody)


@main.group()
def eip() -> None:
    """Elastic IPs: pools, and where they lead."""


@eip.command("list")
@click.argument("networks", nargs=-1, metavar="[NETWORK]...")
@_listing
@click.pass_context
def eip_list(ctx: click.Context, networks: tuple[str, ...], as_json: bool) -> None:
    """List the Elastic IPs of all networks of the driver, or of some (names or IDs).

    HOST is where the private address is now. STATUS is 'ok', 'pending' (the next run changes it), 'unmapped' (the Elastic
    IP does not lead to the private address) or 'problem', with the reasons below.
    """
    world = _world(ctx)
    lines = listing.elastic_ip_lines(world, {world.network(name).network_id for name in networks})
    quota = listing.quota(world)
    if as_json:
        click.echo(json.dumps({"elastic_ips": lines, "region": quota}, indent=2))
        return
    head = ("EXTERNAL_IP", "PRIVATE_IP", "NETWORK", "AR", "IP", "VM", "HOST", "STATUS")
    _print(lines, head, as_json)
    for line in lines:
        if line["REASON"]:
            what = line["EXTERNAL_IP"] if line["EXTERNAL_IP"] != "-" else f"network {line['NETWORK']}"
            _say(f"{what}: {line['REASON']}")
    left = (
        f" of {quota['quota']}, {quota['quota'] - quota['allocated']} more can be allocated" if quota["quota"] else ""
    )
    _say(f"Elastic IPs in the Region: {quota['allocated']}{left}.")


@eip.command("sync")
@click.argument("networks", nargs=-1, metavar="[NETWORK]...")
@_changing
def eip_sync(world: World, networks: tuple[str, ...]) -> Iterator[Stage]:
    """Bring pools (networks with AWS_EIP_POOL), or some of them, up to date with the Elastic IPs that have their tags.

    Each Elastic IP gets an address range of its own, and a private address if it has none. A range that is leased never
    changes. No Elastic IP is ever released, or taken from anything that is not a host.
    """
    return reconcile.of_pools(world, networks)


@eip.command("follow")
@click.argument("vms", nargs=-1, type=click.IntRange(min=0), metavar="[VM_ID]...")
@_changing
def eip_follow(world: World, vms: tuple[int, ...]) -> Iterator[Stage]:
    """Move the private addresses of VMs, or of all VMs, to the hosts where they run, and their Elastic IPs with them."""
    return reconcile.of_vms(world, vms)


@main.group()
def vnet() -> None:
    """Networks of the driver."""


@vnet.command("check")
@click.argument("networks", nargs=-1, metavar="[NETWORK]...")
@_listing
@click.pass_context
def vnet_check(ctx: click.Context, networks: tuple[str, ...], as_json: bool) -> None:
    """Check all networks of the driver, or some (names or IDs): bridge, VNI, MTU, subnet, address ranges, pool.

    These are the checks that a network must pass when it is created; one may fail them after 'onevnet update'. VPC and RAW
    are its AWS_VPC_ACCESS and AWS_RAW_ETHERNET, which address ranges may have of their own.
    """
    lines = listing.network_lines(_world(ctx), networks)
    _print(lines, ("ID", "NAME", "BRIDGE", "VNI", "VPC", "RAW", "STATUS"), as_json)
    if not as_json:
        for line in lines:
            for problem in line["PROBLEMS"]:
                _say(f"oneaws: network {line['NAME']}: {problem}", err=True)
    if any(line["PROBLEMS"] for line in lines):
        sys.exit(1)


@main.command("reconcile")
@_changing
def reconcile_all(world: World) -> Iterator[Stage]:
    """Do all of it: hosts, pools, addresses of VMs, free addresses, peers. The timer runs this.

    One runs at a time, and one more waits; a third ends at once. Of several front-ends only the leader acts.
    """
    return reconcile.everything(world)


@main.command("check")
@_listing
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Say whether all is well, and for each thing that is not, what to do. Changes nothing.

    It looks at settings, OpenNebula, EC2, hooks, networks, hosts, Elastic IPs, VMs, peers, and at the security groups of AWS
    that the hosts are in: whether they let hosts, and nobody else, into the tunnels.

    It names VMs that the present rules of their own security groups did not reach, and warns of NICs with an address in AWS
    that let everything in. That may be meant so: a warning does not change the exit code.
    """
    lines = health.check(_world(ctx))
    _print(lines, ("CHECK", "STATUS", "DETAIL"), as_json)
    if any(line["STATUS"] not in ("ok", "warning") for line in lines):
        sys.exit(1)


@main.group()
def hooks() -> None:
    """The driver's hooks in OpenNebula."""


@hooks.command("list")
@_listing
@click.pass_context
def hooks_list(ctx: click.Context, as_json: bool) -> None:
    """List the driver's hooks: registered, missing, differs (from its template) or unknown (to this version)."""
    _print(listing.hook_lines(_world(ctx)), ("ID", "NAME", "STATUS"), as_json)


@hooks.command("register")
@_changing
def hooks_register(world: World) -> Iterator[Stage]:
    """Register the driver's hooks as its templates are; those that differ are replaced."""
    yield reconcile.Stage("hooks", registration.plan)


@hooks.command("remove")
@_changing
def hooks_remove(world: World) -> Iterator[Stage]:
    """Remove the driver's hooks from OpenNebula."""
    yield reconcile.Stage("hooks", registration.plan_removal)


@main.command("config")
@click.option(
    "--file", "path", envvar="AWS_OVS_CONFIG", default=settings.DRIVER_PATH, show_default=True, help="What to check."
)
@_listing
def check_config(path: str, as_json: bool) -> None:
    """Check the nodes' configuration and print what is in force, defaults included.

    Run it after an edit, before 'onehost sync -f' carries the file to the nodes.
    """
    _show(config.parse(path)._asdict(), as_json)


@main.command("settings")
@_listing
@click.pass_context
def check_settings(ctx: click.Context, as_json: bool) -> None:
    """Check the settings of the front-end half and print what is in force, defaults included."""
    _show(settings.load(ctx.find_root().obj)._asdict(), as_json)


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    width = max(map(len, values))
    for key, value in values.items():
        _say(f"{key.ljust(width)}  {value}".rstrip())
