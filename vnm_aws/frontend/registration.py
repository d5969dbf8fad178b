"""Registering the driver's hooks in OpenNebula: those of the templates in share/hooks/, by name."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ..errors import AwsOvsError
from .objects import Hook
from .oned import template
from .plan import Plan
from .world import World

INSTALLED = "/usr/share/aws_ovs/hooks"
_CHECKOUT = os.path.join(os.path.dirname(__file__), "../../share/hooks")
_LINE = re.compile(r'\s*([A-Z_]+)\s*=\s*"([^"]*)"\s*\Z')
_PREFIX = "aws_ovs-"


class Registration(NamedTuple):
    """A hook as it should be, and as OpenNebula has it. `state`: `registered`, `missing`, `differs` or `unknown` to this
    version."""

    name: str
    state: str
    hook_id: int


def wanted() -> dict[str, dict[str, str]]:
    """The hooks of the templates, by name.

    Raises:
        AwsOvsError: the templates are not there.
    """
    directory = INSTALLED if os.path.isdir(INSTALLED) else _CHECKOUT
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".hook"))
    except OSError as bad:
        raise AwsOvsError(
            f"the hook templates in {INSTALLED} cannot be read ({bad.strerror})", "run 'install.sh --frontend' again"
        ) from None
    found = {}
    for name in names:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            values = {match[1]: match[2] for match in map(_LINE.match, file) if match}
        found[values["NAME"]] = values
    return found


def registrations(world: World) -> list[Registration]:
    """The state of every hook of the driver, by name."""
    hooks = wanted()
    present = _present(world)
    found = [
        Registration(name, _state(present.get(name), values), _id(present.get(name))) for name, values in hooks.items()
    ]
    found += [Registration(name, "unknown", hook.hook_id) for name, hook in present.items() if name not in hooks]
    return sorted(found)


def _present(world: World) -> dict[str, Hook]:
    return {hook.name: hook for hook in world.oned.hooks() if hook.name.startswith(_PREFIX)}


def _id(hook: Hook | None) -> int:
    return hook.hook_id if hook else -1


def _state(hook: Hook | None, values: dict[str, str]) -> str:
    if hook is None:
        return "missing"
    there = {"NAME": hook.name, "TYPE": hook.kind, **hook.template}
    if values.get("ON") == "RUNNING":  # oned takes only this word for the states, and then keeps the states
        there["ON"] = "RUNNING" if (there.get("STATE"), there.get("LCM_STATE")) == ("ACTIVE", "RUNNING") else ""
    return "registered" if all(there.get(key) == value for key, value in values.items()) else "differs"


def plan(world: World) -> Plan:
    """What registers the hooks."""
    result, hooks = Plan(), wanted()
    for one in registrations(world):
        target = f"hook {one.name}"
        if one.state == "missing":
            _adding(world, result, target, "register it", hooks[one.name])
        elif one.state == "differs":
            # A replaced hook, for oned does not let the type of one be changed.
            _removing(world, result, one, "remove it, because it differs from its template")
            _adding(world, result, target, "register it anew", hooks[one.name])
        elif one.state == "unknown":
            _removing(world, result, one, "remove it, because this version has no such hook")
    return result


def plan_removal(world: World) -> Plan:
    """What removes the hooks."""
    result = Plan()
    for name, hook in sorted(_present(world).items()):
        _removing(world, result, Registration(name, "registered", hook.hook_id), "remove it")
    return result


def _adding(world: World, result: Plan, target: str, text: str, values: dict[str, str]) -> None:
    def add() -> None:
        world.oned.add_hook(template(values))

    result.change(target, text, add)


def _removing(world: World, result: Plan, one: Registration, text: str) -> None:
    result.change(f"hook {one.name}", text, lambda: world.oned.remove_hook(one.hook_id))
