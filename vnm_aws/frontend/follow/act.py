"""Look at both worlds as far as a decision needs it, and make its moves: change EC2, and tell the VMs."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from ...addresses import is_ipv4
from ...errors import AwsOvsError
from ..ec2_errors import Ec2Error
from ..ec2_objects import ElasticIp, Interface, Subnet, enis_of
from ..mesh import send_enis
from ..objects import AwsVm, Host
from ..oned import NotFoundError
from ..room import held, refuges, spare
from ..world import Given, Part, World, given
from .decide import Assign, Associate, Decision, Leave, PlacedError, Seen, Tell, decide, eni_of, missing, to_associate


def look(world: World, host: Host, vms: Sequence[AwsVm]) -> Seen:
    """Read what a decision about VMs on a host needs; little when all is right."""
    enis = world.enis(host)
    absent = {address for vm in vms for address in missing(vm, host, enis)}
    changes = absent or any(to_associate(vm, world.elastic_ips) for vm in vms)
    own = {address.private_ip for vm in vms for address in vm.addresses}
    leaving = spare(world, host, own, len(absent)) if absent else {}
    return Seen(
        world.given,
        world.interfaces,
        world.eni_of_address,
        world.elastic_ips,
        world.host_of_eni if changes else {},
        world.subnets if absent else {},
        world.limit(host) if absent else 0,
        leaving,
        refuges(world, host) if leaving else {},
    )


class UnknownEniError(AwsOvsError):
    """EC2 does not know the ENI of a host; it may be that of another Region or account."""


class Nearby(World):
    """Read of EC2 only what concerns some VMs: the ENIs that have their addresses or are to have them, and their Elastic IPs.

    Args:
        world: another view, whose connections this one uses. All else is read anew.
        host: where the VMs run.
        vms: the VMs.
    """

    def __init__(self, world: World, host: Host, vms: Sequence[AwsVm]) -> None:
        super().__init__(world.settings, world)
        self._host, self._vms = host, vms

    @cached_property
    def _first(self) -> Interface:
        return self.interfaces[self._host.eni_id]

    @cached_property
    def interfaces(self) -> Mapping[str, Interface]:
        """Read the ENIs of the host, and those that have addresses which it lacks."""
        eni_id = eni_of(self._host)
        own = self.ec2.interfaces_with(self._host.eni_ids)
        if eni_id not in own:
            what = f"EC2 does not know {eni_id}, the ENI of host {self._host.name}"
            correct = f"correct it with 'onehost update {self._host.host_id}'"
            raise UnknownEniError(what, f"is its instance terminated? Run 'oneaws host sync', or {correct}")
        enis = enis_of(self._host.eni_ids, own)
        absent = {address for vm in self._vms for address in missing(vm, self._host, enis)}
        return own | self.ec2.interfaces_holding(absent, own[eni_id].vpc_id)

    @cached_property
    def given(self) -> Collection[Given]:
        """Find what the networks of the VMs give to NICs, in AWS."""
        networks = []
        for network_id in {address.network_id for vm in self._vms for address in vm.addresses}:
            with contextlib.suppress(NotFoundError):
                networks.append(self.with_leases(network_id))
        return given(networks)

    @cached_property
    def elastic_ips(self) -> Mapping[str, ElasticIp]:
        """Read the Elastic IPs of the VMs, by allocation id."""
        allocations = {address.allocation_id for vm in self._vms for address in vm.addresses} - {""}
        named = {address.external_ip for vm in self._vms for address in vm.addresses if not address.allocation_id}
        return self.ec2.elastic_ips(allocations) | self.ec2.elastic_ips_named(set(filter(is_ipv4, named)))

    @cached_property
    def subnets(self) -> Mapping[str, Subnet]:
        """Read the subnet of the host's ENI."""
        return self.ec2.subnets([self._first.subnet_id])


def anew(world: World, host: Host, vms: Sequence[AwsVm]) -> World:
    """View both worlds for VMs that have other addresses on their host than those that were looked for."""
    if isinstance(world, Nearby):
        return Nearby(world, host, vms)
    return world


def place(world: World, host: Host, vms: Sequence[AwsVm]) -> dict[int, AwsOvsError]:
    """Put the addresses of VMs on their host's ENIs, and let their Elastic IPs lead to them.

    One VM's trouble must not keep the others from their addresses. What concerns all is not tried again for each.

    Returns:
        what is wrong with the VMs that cannot have their addresses. Nothing is half-done that the next run does not finish.

    Raises:
        AwsOvsError: EC2 or oned cannot be read.
    """
    try:
        return _at_once(world, host, vms)
    except _ApartError:
        world.forget(Part.ADDRESSES)
        return {vm_id: refusal for vm in vms for vm_id, refusal in place(world, host, [vm]).items()}


class _ApartError(Exception):
    """EC2 has refused what is for several VMs: to each for itself it may grant it."""


class _OtherError(Exception):
    """The ENIs are not as they were seen: others have taken the room, or made some."""


_ATTEMPTS = 2


def _at_once(world: World, host: Host, vms: Sequence[AwsVm]) -> dict[int, AwsOvsError]:
    """Place VMs with few calls; on a full host with its lock held: on an address that leaves, no one else may count."""
    decision = decide(vms, host, look(world, host, vms))
    if not any(isinstance(move, Leave) for move in decision.moves):
        with contextlib.suppress(_OtherError):
            return _carry_out(world, host, vms, decision)
    world.forget(Part.ADDRESSES)
    with held(world, host):
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(_OtherError):
                return _anew(world, host, vms, again=True)
        return _anew(world, host, vms, again=False)


def _anew(world: World, host: Host, vms: Sequence[AwsVm], again: bool) -> dict[int, AwsOvsError]:
    """Place VMs by what both worlds show just now."""
    now = world.oned.host(host.host_id)
    nearby = Nearby(world, now, vms)
    return _carry_out(nearby, now, vms, decide(vms, now, look(nearby, now, vms)), again)


def _carry_out(
    world: World, host: Host, vms: Sequence[AwsVm], decision: Decision, again: bool = True
) -> dict[int, AwsOvsError]:
    """Make the moves of a decision.

    Raises:
        _OtherError: with `again`, when it should be decided anew.
        _ApartError: when it should be for each VM.
    """
    assigns = [move for move in decision.moves if isinstance(move, Assign)]
    failed: dict[int, AwsOvsError] = {}
    stop: Ec2Error | None = None
    try:
        leaving = [move for move in decision.moves if isinstance(move, Leave)]
        for eni_id, addresses in _by_eni((move.address, move.refuge) for move in leaving if move.refuge):
            world.assign(world.interfaces[eni_id], addresses)
        for eni_id, addresses in _by_eni((move.address, move.eni_id) for move in leaving if not move.refuge):
            _take_away(world, eni_id, addresses, again)
        placed = _by_eni((move.address, move.eni_id) for move in assigns)
        _tell_node(world, host, placed)
        for eni_id, addresses in placed:
            world.assign(world.interfaces[eni_id], addresses)
    except AwsOvsError as error:
        if again and isinstance(error, Ec2Error) and error.code == "PrivateIpAddressLimitExceeded":
            raise _OtherError from None
        stop = _concerns_all(error)
        if stop is None and len(vms) > 1:
            raise _ApartError from None
        failed = dict.fromkeys((move.vm_id for move in assigns), error)
    return decision.refusals | _lead_and_tell(world, host, decision, failed, stop)


def _take_away(world: World, eni_id: str, addresses: list[str], again: bool) -> None:
    try:
        world.unassign(world.interfaces[eni_id], addresses)
    except Ec2Error as error:
        if again and error.code == "InvalidParameterValue":  # one of them is there no more
            raise _OtherError from None
        raise


def _tell_node(world: World, host: Host, placed: list[tuple[str, list[str]]]) -> None:
    """Tell a host with several ENIs where addresses will be, before they are; the next run tells one that does not answer."""
    coming = dict(placed)
    enis = [
        eni._replace(addresses=tuple(dict.fromkeys([*eni.addresses, *coming.get(eni.eni_id, ())])))
        for eni in world.enis(host)
    ]
    if coming and len(enis) > 1:
        with contextlib.suppress(AwsOvsError):
            send_enis(world, host, enis)


def _by_eni(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Group addresses by their ENI, so that each takes one call."""
    addresses: dict[str, set[str]] = defaultdict(set)
    for address, eni_id in pairs:
        addresses[eni_id].add(address)
    return [(eni_id, sorted(items)) for eni_id, items in sorted(addresses.items())]


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
        if move.vm_id in failed or isinstance(move, (Leave, Assign)):
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
