"""Register the driver's hooks in OpenNebula: those of the templates in share/hooks/, by name."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ..errors import AwsOvsError
from .hook_objects import Hook
from .oned import template
from .plan import Plan
from .world import World

INSTALLED = "/usr/share/aws_ovs/hooks"
_CHECKOUT = os.path.join(os.path.dirname(__file__), "../../share/hooks")
_LINE = re.compile(r'\s*([A-Z_]+)\s*=\s*"([^"]*)"\s*\Z')
_PREFIX = "aws_ovs-"


class Registration(NamedTuple):
    """A hook as it should be, and as OpenNebula has it.

    Attributes:
        name: of the hook.
        state: `registered`, `missing`, `differs` or `unknown` to this version.
        hook_id: its ID; -1 when it is missing.
    """

    name: str
    state: str
    hook_id: int


def wanted() -> dict[str, dict[str, str]]:
    """Read the hooks of the templates, by name.

    Raises:
        AwsOvsError: the templates are not there.
    """
    directory = INSTALLED if os.path.isdir(INSTALLED) else _CHECKOUT
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".hook"))
    except OSError as error:
        what = f"the hook templates in {INSTALLED} cannot be read ({error.strerror})"
        raise AwsOvsError(what, "run 'install.sh --frontend' again") from None
    hooks = {}
    for name in names:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            values = {match[1]: match[2] for match in map(_LINE.match, file) if match}
        hooks[values["NAME"]] = values
    return hooks


def registrations(world: World) -> list[Registration]:
    """Compare every hook of the driver with its template, by name."""
    hooks = wanted()
    present = _present(world)
    states = [_compared(name, values, present.get(name)) for name, values in hooks.items()]
    states += [Registration(name, "unknown", hook.hook_id) for name, hook in present.items() if name not in hooks]
    return sorted(states)


def _present(world: World) -> dict[str, Hook]:
    return {hook.name: hook for hook in world.oned.hooks() if hook.name.startswith(_PREFIX)}


def _compared(name: str, values: dict[str, str], hook: Hook | None) -> Registration:
    if hook is None:
        return Registration(name, "missing", -1)
    there = {"NAME": hook.name, "TYPE": hook.kind, **hook.template}
    if values.get("ON") == "RUNNING":  # oned takes only this word for the states, and then keeps the states
        there["ON"] = "RUNNING" if (there.get("STATE"), there.get("LCM_STATE")) == ("ACTIVE", "RUNNING") else ""
    same = all(there.get(key) == value for key, value in values.items())
    return Registration(name, "registered" if same else "differs", hook.hook_id)


def plan(world: World) -> Plan:
    """Plan the changes that register the hooks."""
    result, hooks = Plan(), wanted()
    for hook in registrations(world):
        target = f"hook {hook.name}"
        if hook.state == "missing":
            result.change(target, "register it", world.oned.add_hook, template(hooks[hook.name]))
        elif hook.state == "differs":  # oned does not let the type of a hook be changed, so it is replaced
            text = "remove it, because it differs from its template"
            result.change(target, text, world.oned.remove_hook, hook.hook_id)
            result.change(target, "register it anew", world.oned.add_hook, template(hooks[hook.name]))
        elif hook.state == "unknown":
            text = "remove it, because this version has no such hook"
            result.change(target, text, world.oned.remove_hook, hook.hook_id)
    return result


def plan_removal(world: World) -> Plan:
    """Plan the changes that remove the hooks."""
    result = Plan()
    for name, hook in sorted(_present(world).items()):
        result.change(f"hook {name}", "remove it", world.oned.remove_hook, hook.hook_id)
    return result
