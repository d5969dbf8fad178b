"""Define `oneaws hooks`, `config` and `settings`: what an installation consists of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .. import config
from ..frontend import settings
from .common import Later, as_json_option, changing, open_world, print_lines, print_values

if TYPE_CHECKING:
    from ..frontend import listing, reconcile, registration
    from ..frontend.reconcile import Stage
    from ..frontend.world import World
else:
    listing, reconcile, registration = map(Later, ("listing", "reconcile", "registration"))


@click.group()
def hooks() -> None:
    """The driver's hooks in OpenNebula."""


@hooks.command("list")
@as_json_option
@click.pass_context
def hooks_list(ctx: click.Context, as_json: bool) -> None:
    """List the driver's hooks: registered, missing, differs (from its template) or unknown (to this version)."""
    print_lines(listing.hook_lines(open_world(ctx)), ("ID", "NAME", "STATUS"), as_json)


@hooks.command("register")
@changing
def hooks_register(world: World) -> Iterator[Stage]:
    """Register the driver's hooks as its templates are; those that differ are replaced."""
    yield reconcile.Stage("hooks", registration.plan)


@hooks.command("remove")
@changing
def hooks_remove(world: World) -> Iterator[Stage]:
    """Remove the driver's hooks from OpenNebula."""
    yield reconcile.Stage("hooks", registration.plan_removal)


@click.command("config")
@click.option(
    "--file", "path", envvar="AWS_OVS_CONFIG", default=settings.DRIVER_PATH, show_default=True, help="What to check."
)
@as_json_option
def check_config(path: str, as_json: bool) -> None:
    """Check the nodes' configuration and print what is in force, defaults included.

    Run it after an edit, before 'onehost sync -f' carries the file to the nodes.
    """
    print_values(config.parse(path)._asdict(), as_json)


@click.command("settings")
@as_json_option
@click.pass_context
def check_settings(ctx: click.Context, as_json: bool) -> None:
    """Check the settings of the front-end half and print what is in force, defaults included."""
    print_values(settings.load(ctx.find_root().obj)._asdict(), as_json)
