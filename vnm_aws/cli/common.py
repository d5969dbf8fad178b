"""Share what the commands of `oneaws` have in common: how they reach the worlds, change them, and print."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..errors import AwsOvsError
from ..frontend import settings
from ..frontend.plan import Outcome
from ..frontend.terminal import Progress
from ..frontend.told import untold
from ..journal import ERROR, INFO, is_fed_by, log
from ..table import printable, table

_FAILURE = "failure"
_RIGHT = {"ID", "FREE", "TVM", "UP", "DOWN", "MTU", "AR"}


class Later:
    """Import a module of the front-end when it is used: --help and completion need not wait for boto3 and pyone."""

    def __init__(self, name: str) -> None:
        self._name = f"vnm_aws.frontend.{name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


if TYPE_CHECKING:
    from ..frontend import reconcile, timer
    from ..frontend.reconcile import Stage
    from ..frontend.world import World
else:
    reconcile, timer = map(Later, ("reconcile", "timer"))


def say(line: str, err: bool = False) -> None:
    """Print a line; the names and errors in it are of others, and do nothing to a terminal."""
    click.echo(printable(line), err=err)


def open_world(ctx: click.Context) -> World:
    """Make the view of both worlds, by the settings that the command was given."""
    from ..frontend.world import World

    return World(settings.load(ctx.find_root().obj))


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_lines(lines: Sequence[dict[str, Any]], head: Sequence[str], as_json: bool) -> None:
    """Print lines as JSON, or the columns of `head` as a table."""
    if as_json:
        click.echo(json.dumps(lines, indent=2))
    else:
        click.echo(table(head, [[_cell(line[key]) for key in head] for line in lines], _RIGHT))


def _cell(value: object) -> object:
    """Write a value of a line for people."""
    if isinstance(value, list):
        value = " ".join(map(str, value)) or None
    return "-" if value is None else value


def print_values(values: dict[str, Any], as_json: bool) -> None:
    """Print values by name."""
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    width = max(map(len, values))
    for key, value in values.items():
        say(f"{key.ljust(width)}  {value}".rstrip())


def changing(stages: Callable[..., Iterator[Stage]]) -> Callable[..., None]:
    """Make the body of a command, and its options, of a function that lists stages of the reconciler."""

    @click.option("--dry-run", is_flag=True, help="Print what would be changed; change nothing.")
    @click.option("-v", "--verbose", is_flag=True, help="Print each step to stderr.")
    @as_json_option
    @click.pass_context
    def run(ctx: click.Context, /, dry_run: bool, verbose: bool, as_json: bool, **arguments: Any) -> None:
        world, progress = open_world(ctx), Progress(verbose)
        outcome = Outcome(dry_run, progress)
        name = ctx.command_path.partition(" ")[2]
        queue = name if name == "reconcile" else ""  # the timer starts it, however long the one before takes
        with contextlib.nullcontext(True) if dry_run else reconcile.turn(world, f"oneaws {name}", queue) as our_turn:
            if our_turn:
                reconcile.carry_out(world, stages(world, **arguments), outcome)
                if name == "reconcile" and not dry_run:
                    timer.note(world)
            else:
                say(
                    "oneaws: another front-end leads, or another run is waiting already; this one did nothing", err=True
                )
        progress.end()
        if not dry_run:
            _note(outcome, world.settings.state_directory, name)
        _report(outcome, as_json, our_turn)

    return functools.update_wrapper(run, stages)


def _note(outcome: Outcome, state_directory: str, name: str) -> None:
    """Write to the journal what was changed, and which problems there are that it does not have yet."""
    for target, text in outcome.done:
        log(INFO, f"{target}: {text}")
    kind, problems = name.replace(" ", "-"), map(str, outcome.problems)
    for problem in untold(state_directory, kind, problems, everything=True):
        log(ERROR, problem)
    untold(state_directory, _FAILURE, [], everything=True)  # whatever it was, it is over


def fail(ctx: click.Context, sentence: str) -> NoReturn:
    """End with a sentence on stderr; when a timer has started this, with one that the journal does not have yet."""
    said = not is_fed_by(sys.stderr)
    with contextlib.suppress(AwsOvsError):
        if not said:
            said = bool(
                untold(settings.load(ctx.params["path"]).state_directory, _FAILURE, [sentence], everything=True)
            )
    if said:
        say(f"oneaws: {sentence}", err=True)
    sys.exit(1)


def _report(outcome: Outcome, as_json: bool, our_turn: bool) -> None:
    """Print what was changed and what is wrong, and end with exit code 1 if anything is.

    What systemd leads into the journal is there already.
    """
    if as_json:
        document = {
            "dry_run": outcome.dry_run,
            "changes": [{"target": target, "change": text} for target, text in outcome.done],
            "problems": [{"target": problem.target, "problem": problem.text} for problem in outcome.problems],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for target, text in outcome.done if not is_fed_by(sys.stdout) else ():
            say(f"{target}: {'would ' if outcome.dry_run else ''}{text}")
        for problem in outcome.problems if not is_fed_by(sys.stderr) else ():
            say(f"oneaws: {problem}", err=True)
        if not outcome.done and not outcome.problems and our_turn:
            click.echo("Nothing to change.")
    if outcome.problems:
        sys.exit(1)
