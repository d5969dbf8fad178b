"""Make OpenNebula, EC2 and the hosts' peer lists agree, stage by stage. What hooks do is done here too.

One runs at a time on a front-end, and one more may wait: it will see all that others would want to bring about.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from .. import lock
from ..errors import AwsOvsError
from . import doubles, elsewhere, hosts, mesh, network_problems, pools, room, tagging, unused
from .deadline import OverError
from .follow import plans, reserve, stand_ins
from .oned import NotFoundError
from .plan import LeadLostError, Outcome, Plan, unforeseen
from .validation import Validation
from .world import Part, World


class Stage(NamedTuple):
    """A part of the work: its plan, and what has to be read again when it has changed something."""

    name: str
    plan: Callable[[World], Plan]
    changes: tuple[Part, ...] = ()


def _pools(world: World) -> dict[int, Stage]:
    def stage(network_id: int, name: str) -> Stage:
        changes = (Part.NETWORKS, Part.ADDRESSES)
        return Stage(f"pool {name}", partial(_plan_pool, network_id=network_id), changes)

    return {network.network_id: stage(network.network_id, network.name) for network in pools.pools(world)}


def _plan_pool(world: World, network_id: int) -> Plan:
    try:
        network = world.with_leases(network_id)
    except NotFoundError:  # it is gone meanwhile
        return Plan()
    return pools.plan(world, network)


_HOSTS = Stage("hosts", hosts.plan, (Part.HOSTS,))
_FREE = Stage("free addresses", room.plan, (Part.HOSTS,))
_FOLLOW = Stage("addresses", plans.plan, (Part.VMS, Part.ADDRESSES))
_RANGES = Stage("address ranges", doubles.plan, (Part.NETWORKS,))
_RESERVE = Stage("reserved addresses", reserve.plan, (Part.ADDRESSES,))
_UNUSED = Stage("unused addresses", unused.plan, (Part.ADDRESSES,))
_NETWORKS = Stage("networks", network_problems.plan)
_STAND_INS = Stage("stand-ins", stand_ins.plan, (Part.HOSTS, Part.ADDRESSES))
_MESH = Stage("mesh", mesh.plan)
_TAGS = Stage("tags", tagging.plan)


def _astray(world: World) -> list[Stage]:
    """List the stage that says that EC2 is not that of the hosts; none when it is."""
    plan = Plan()
    plan.problems = elsewhere.problems(world)
    return [Stage("EC2", lambda _: plan)] if plan.problems else []


def everything(world: World) -> Iterator[Stage]:
    """List all stages. Pools are looked up when their turn has come."""
    if stages := _astray(world):
        yield from stages
        return
    yield _HOSTS
    yield _RANGES
    yield _STAND_INS
    yield _FOLLOW  # the room is for VMs first
    yield _RESERVE
    changes = world.oned.changes
    yield from _pools(world).values()
    if world.oned.changes != changes:
        yield _RANGES
    yield _UNUSED
    yield _FREE
    yield _NETWORKS
    yield _MESH
    if world.settings.write_tags:
        yield _TAGS


def of_hosts(world: World) -> Iterator[Stage]:
    """List the stages that a host which comes, goes or changes makes necessary."""
    yield from _astray(world) or (_HOSTS, _FREE, _MESH)


def of_pools(world: World, names: Sequence[str] = ()) -> Iterator[Stage]:
    """List the stages for Elastic IPs that come or go, in all pools or in those with certain names or IDs.

    Raises:
        AwsOvsError: a name is not that of a pool.
    """
    wanted = {world.network(name).network_id: name for name in names}
    stages = _pools(world)
    for network_id, name in wanted.items():
        if network_id not in stages:
            raise AwsOvsError(f"network {name} is not an Elastic IP pool that is ready", "see 'oneaws eip list'")
    if astray := _astray(world):
        yield from astray
        return
    yield _RANGES
    changes = world.oned.changes
    yield from [stage for key, stage in stages.items() if not names or key in wanted]
    if world.oned.changes != changes:  # another front-end may have done the same
        yield _RANGES
    yield _FREE
    yield _MESH  # every host knows the private addresses of the ranges


def of_network(world: World, network_id: int) -> Iterator[Stage]:
    """List the stages for a network that is new or was changed, and the others that it may be in the way of."""
    stage = _pools(world).get(network_id)
    if stage is not None:
        yield from _astray(world) or (stage, _FREE)
    yield from (_NETWORKS, _MESH)


def check_network(world: World, network_id: int, outcome: Outcome) -> None:
    """Report what is wrong with a network of this driver."""
    network = world.oned.network(network_id)
    if network.ours:
        for error in Validation(world).problems(network):
            outcome.error(f"network {network.name}", error)


def of_vms(world: World, vm_ids: Sequence[int] = ()) -> Iterator[Stage]:
    """List the stages for VMs, all or certain ones, that run elsewhere than before."""
    if astray := _astray(world):
        yield from astray
        return
    if vm_ids:
        yield Stage("addresses", lambda world: plans.plan_for(world, vm_ids), _FOLLOW.changes)
    else:
        yield from (_STAND_INS, _FOLLOW, _RESERVE)
    yield _FREE


def of_mesh(everybody: bool) -> Iterator[Stage]:
    """List the stages that send the peer list to the hosts that have not the present one, or what there is to every host."""
    yield Stage("mesh", lambda world: mesh.plan(world, everybody))
    if everybody:
        yield Stage("stand-ins", stand_ins.plan_to_tell)


def carry_out(world: World, stages: Iterator[Stage], outcome: Outcome) -> None:
    """Plan and apply stages, one after the other; one that cannot be planned becomes a problem and the others go on."""
    try:
        for stage in stages:
            try:
                plan = stage.plan(world)
            except OverError:
                raise
            except AwsOvsError as error:
                outcome.error(stage.name, error)
            except Exception as error:  # noqa: BLE001 - it is this stage's trouble, not the run's
                outcome.error(stage.name, unforeseen(error, stage.name))
            else:
                if plan.incomplete:
                    outcome.error(stage.name, plan.incomplete)
                if outcome.carry_out(stage.name, plan, world.oned.leads):
                    world.forget(*stage.changes)
    except (OverError, LeadLostError) as error:
        outcome.error("run", error)
    except AwsOvsError as error:  # which stages there are is not known
        outcome.error("OpenNebula", error)


@contextlib.contextmanager
def turn(world: World, what: str, queue: str = "") -> Iterator[bool]:
    """Wait for the turn to change something.

    Args:
        world: both worlds.
        what: who waits, as the error of one that waits in vain shows it.
        queue: at most one waits in a queue of this name; it will see all that others of its kind would bring about.

    Yields:
        False when there is nothing to do: another front-end leads, or somebody in the queue is waiting already.

    Raises:
        AwsOvsError: whoever is at work does not end, or oned does not answer.
    """
    directory, timeout = world.settings.state_directory, world.deadline.left(world.settings.lock_timeout)
    with contextlib.ExitStack() as work:
        with contextlib.ExitStack() as waiting:
            if queue and not waiting.enter_context(lock.tried(what, f"{directory}/next-{queue}.lock")):
                _hung(world, timeout)
                yield False
                return
            if not world.oned.leads():
                yield False
                return
            work.enter_context(lock.held(what, timeout, path(world)))
        yield True


def _hung(world: World, timeout: float) -> None:
    """Make sure that the one that waits in the queue will get its turn.

    Raises:
        AwsOvsError: whoever is at work does not end; or oned, which the one that waits asks first, does not answer.
    """
    holder = lock.holder(path(world))
    if holder is None:
        world.oned.leads()
    elif holder[1] > timeout:
        what = f"busy: {holder[0]} has held {path(world)} for {holder[1]:.0f} s, and another run waits for it already"
        raise AwsOvsError(what, "look at that process")


def path(world: World) -> str:
    """Name the lock that whoever changes something holds."""
    return f"{world.settings.state_directory}/lock"
