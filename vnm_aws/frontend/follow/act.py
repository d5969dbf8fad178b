"""Make the moves of a decision: change EC2, and tell the VMs."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import AwsOvsError
from ..ec2 import Ec2Error
from ..objects import AwsVm, Host
from ..world import Part, World
from .decide import Assign, Associate, Decision, PlacedError, Tell, decide
from .look import look

_CONCERN_ALL = {"UnauthorizedOperation", "AuthFailure", "RequestLimitExceeded", "InternalError", "Unavailable"}
"""What EC2 refuses for all VMs alike."""


def place(world: World, host: Host, vms: Sequence[AwsVm]) -> dict[int, AwsOvsError]:
    """Put the addresses of VMs on their host's ENI, in one call, and let their Elastic IPs lead to them.

    One VM's trouble must not keep the others from their addresses. What concerns all is not tried again for each.

    Returns:
        what is wrong with the VMs that cannot have their addresses. Nothing is half-done that the next run does not finish.

    Raises:
        AwsOvsError: EC2 or oned cannot be read.
    """
    decision = decide(vms, host, look(world, host, vms))
    assigns = [move for move in decision.moves if isinstance(move, Assign)]
    failed: dict[int, AwsOvsError] = {}
    stop: Ec2Error | None = None
    try:
        if assigns:
            world.assign(world.interfaces[assigns[0].eni_id], sorted({move.address for move in assigns}))
    except AwsOvsError as error:
        stop = _concerns_all(error)
        if stop is None and len(vms) > 1:
            world.forget(Part.ADDRESSES)
            return {vm_id: refusal for vm in vms for vm_id, refusal in place(world, host, [vm]).items()}
        failed = dict.fromkeys((move.vm_id for move in assigns), error)
    return decision.refusals | _lead_and_tell(world, host, decision, failed, stop)


def _concerns_all(error: AwsOvsError) -> Ec2Error | None:
    return error if isinstance(error, Ec2Error) and error.code in _CONCERN_ALL else None


def _lead_and_tell(
    world: World, host: Host, decision: Decision, failed: dict[int, AwsOvsError], stop: Ec2Error | None
) -> dict[int, AwsOvsError]:
    """Make the moves that follow when the private addresses are there.

    Args:
        world: both worlds.
        host: where they are.
        decision: the moves.
        failed: the VMs whose private addresses are not, and why.
        stop: why EC2 is not asked any more.

    Returns:
        `failed`, and more.
    """
    failed = dict(failed)
    for move in decision.moves:
        if move.vm_id in failed or isinstance(move, Assign):
            continue
        try:
            if isinstance(move, Tell):
                world.oned.update_vm(move.vm_id, move.values)
            elif stop:
                raise stop
            else:
                _associate(world, host, move)
        except AwsOvsError as error:
            failed[move.vm_id] = error
            stop = stop or _concerns_all(error)
    return failed


def _associate(world: World, host: Host, move: Associate) -> None:
    eip = world.elastic_ips[move.allocation_id]
    if eip.private_ip == move.private_ip:  # for another VM, which shares the address
        return
    try:
        world.associate(eip, move.eni_id, move.private_ip)
    except Ec2Error:
        raise
    except AwsOvsError as error:
        raise PlacedError(error, host) from None
