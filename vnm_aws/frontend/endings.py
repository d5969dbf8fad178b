"""Disable hosts in time whose instances AWS is going to end, and say what AWS is going to do with the others.

A host is disabled once for each such notice, so that an administrator who enables it again has the last word. When the notice is
gone, because the instance was stopped and started on other hardware, the host is enabled.
"""

from __future__ import annotations

from .. import names
from .ec2_errors import Ec2Error
from .ec2_objects import Event
from .objects import STATE_DISABLED, STATE_OFFLINE, Host
from .plan import Plan
from .world import World

_ENDS = ("instance-stop", "instance-retirement", "spot-interruption")
_BY_HAND = " (was disabled before)"


def add(world: World, result: Plan) -> None:
    """Add the changes that notices of AWS make necessary; hosts are served without when EC2 does not give them."""
    try:
        events = _events(world)
    except Ec2Error as error:
        result.incomplete = error
        return
    for host in world.hosts:
        if not host.terminated and host.template.get(names.INSTANCE_ID) in world.instances:
            notices = [event for event in events if event.instance_id == host.template[names.INSTANCE_ID]]
            notices.sort(key=lambda event: event.when)
            for event in notices:
                _tell(result, host, event)
            ending = next((event for event in notices if event.code in _ENDS), None)
            _follow(world, result, host, _text(ending) if ending else "")


def _events(world: World) -> list[Event]:
    spot = any(instance.spot and not instance.gone for instance in world.instances.values())
    return world.ec2.scheduled_events() + (world.ec2.interruptions() if spot else [])


def _text(event: Event) -> str:
    return f"{event.code} {event.when}".rstrip()


def _tell(result: Plan, host: Host, event: Event) -> None:
    when = f"on {event.when}" if event.when else "within two minutes"
    if event.code in _ENDS:
        what = f"AWS ends its instance {event.instance_id} {when} ({event.code})"
        remedy = f"move its VMs away with 'onehost flush {host.name}'"
        if event.when:
            remedy += "; then stop and start the instance, which brings it to other hardware"
    else:
        what = f"its instance {event.instance_id} is out of service for a while {when} ({event.code})"
        remedy = (
            f"move its VMs away before with 'onehost flush {host.name}', and 'onehost enable {host.name}' afterwards"
        )
    result.problem(f"host {host.name}", what, remedy)


def _follow(world: World, result: Plan, host: Host, now: str) -> None:
    noted = host.template.get(names.ENDING, "")
    before = noted.removesuffix(_BY_HAND)
    if now == before:
        return
    target, idle = f"host {host.name}", host.state in (STATE_DISABLED, STATE_OFFLINE)
    if now:
        value = now + _BY_HAND if noted.endswith(_BY_HAND) or (idle and not noted) else now
        text = (
            f"set {names.ENDING}={value}"
            if idle
            else f"disable it, for AWS ends its instance, and set {names.ENDING}={value}"
        )
        result.change(target, text, _begin, world, host, value, not idle)
    else:
        enable = host.state == STATE_DISABLED and not noted.endswith(_BY_HAND)
        text = "enable it, for AWS does not end its instance any more, and " if enable else ""
        result.change(target, f"{text}empty {names.ENDING}", _end, world, host, enable)


def _begin(world: World, host: Host, value: str, disable: bool) -> None:
    if disable:  # first: the attribute says that it is done
        world.oned.disable_host(host.host_id)
    world.oned.update_host(host.host_id, {names.ENDING: value})


def _end(world: World, host: Host, enable: bool) -> None:
    if enable:
        world.oned.enable_host(host.host_id)
    world.oned.update_host(host.host_id, {names.ENDING: ""})
