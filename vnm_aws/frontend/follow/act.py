"""Look at both worlds as far as a decision needs it, and make its moves: change EC2, and tell the VMs."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from ...addresses import is_ipv4
from ...errors import AwsOvsError
from ..ec2_errors import Ec2Error
from ..ec2_objects import ElasticIp, Interface, Subnet
from ..objects import AwsVm, Host
from ..oned import NotFoundError
from ..world import Given, Part, World, given
from .decide import Assign, Associate, Decision, PlacedError, Seen, Tell, decide, eni_of, missing, to_associate


def look(world: World, host: Host, vms: Sequence[AwsVm]) -> Seen:
    """Read what a decision about VMs on a host needs; little when all is right."""
    eni = world.interfaces.get(host.eni_id)
    moves = any(missing(vm, host, eni) for vm in vms)
    changes = moves or any(to_associate(vm, world.elastic_ips) for vm in vms)
    return Seen(
        world.given,
        world.interfaces,
        world.eni_of_address,
        world.elastic_ips,
        world.host_of_eni if changes else {},
        world.subnets if moves else {},
        world.limit(host) if moves else 0,
    )


class UnknownEniError(AwsOvsError):
    """EC2 does not know the ENI of a host; it may be that of another Region or account."""


class Nearby(World):
    """Read of EC2 only what concerns one VM: the ENIs that have its addresses or are to have them, and its Elastic IPs.

    Args:
        world: another view, whose connections this one uses. All else is read anew.
        host: where the VM runs.
        vm: the VM.
    """

    def __init__(self, world: World, host: Host, vm: AwsVm) -> None:
        super().__init__(world.settings, world)
        self._host, self._vm = host, vm

    @cached_property
    def _eni(self) -> Interface:
        eni_id = eni_of(self._host)
        own = self.ec2.interfaces_with([eni_id])
        if eni_id not in own:
            what = f"EC2 does not know {eni_id}, the ENI of host {self._host.name}"
            correct = f"correct it with 'onehost update {self._host.host_id}'"
            remedy = f"is its instance terminated? Run 'oneaws host sync', or {correct}"
            raise UnknownEniError(what, remedy)
        return own[eni_id]

    @cached_property
    def interfaces(self) -> Mapping[str, Interface]:
        """Read the ENI of the host, and those that have addresses which it lacks."""
        absent = missing(self._vm, self._host, self._eni)
        return {self._eni.eni_id: self._eni} | self.ec2.interfaces_holding(absent, self._eni.vpc_id)

    @cached_property
    def given(self) -> Collection[Given]:
        """Find what the networks of the VM give to NICs, in AWS."""
        networks = []
        for network_id in {address.network_id for address in self._vm.addresses}:
            with contextlib.suppress(NotFoundError):
                networks.append(self.with_leases(network_id))
        return given(networks)

    @cached_property
    def elastic_ips(self) -> Mapping[str, ElasticIp]:
        """Read the Elastic IPs of the VM, by allocation id."""
        allocations = {address.allocation_id for address in self._vm.addresses} - {""}
        named = {address.external_ip for address in self._vm.addresses if not address.allocation_id}
        return self.ec2.elastic_ips(allocations) | self.ec2.elastic_ips_named(set(filter(is_ipv4, named)))

    @cached_property
    def subnets(self) -> Mapping[str, Subnet]:
        """Read the subnet of the host's ENI."""
        return self.ec2.subnets([self._eni.subnet_id])


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
    return error if isinstance(error, Ec2Error) and error.concerns_account else None


def _lead_and_tell(
    world: World, host: Host, decision: Decision, failed: dict[int, AwsOvsError], stop: Ec2Error | None
) -> dict[int, AwsOvsError]:
    """Make the moves that follow when the private addresses are there.

    Args:
        world: both worlds.
        host: where they are.
        decision: the moves.
        failed: the VMs whose private addresses are not, and why; it becomes more.
        stop: why EC2 is not asked any more.
    """
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
