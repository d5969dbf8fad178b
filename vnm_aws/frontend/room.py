"""Find room for private addresses on the ENIs of hosts: addresses that no VM has take none from those that one needs.

An address of a range that nobody has a lease of is idle. It is on some ENI, so that nobody else in the subnet gets it, and it
leaves when a VM needs its place: to another host's ENI, or when all in view are full to none, and its Elastic IP leads nowhere
then, until there is room again or a VM has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from .. import lock
from ..addresses import ip_to_int
from ..errors import AwsOvsError
from ..names import FREE_ADDRESSES, PRIVATE_IP, SUBNET_ID
from .ec2_objects import Interface
from .locks import lock_of
from .objects import Host, Network
from .plan import Plan
from .world import Part, World


class Places:
    """Give addresses their places on the ENIs of a host, the first with room; when all are full, those of others that may leave.

    Args:
        enis: the first one first.
        limit: how many addresses each can have; 0 when that is not known.
        spare: the addresses that may leave each of them, in the order in which they leave.
        refuges: where those may go, with the room there.
    """

    def __init__(
        self, enis: Sequence[Interface], limit: int, spare: Mapping[str, Sequence[str]], refuges: Mapping[str, int]
    ) -> None:
        self._limit, self._refuges = limit, dict(refuges)
        self._taken = {eni.eni_id: eni.used for eni in enis}
        self._spare = {eni.eni_id: list(spare.get(eni.eni_id, ())) for eni in enis}

    def __str__(self) -> str:
        return f"{sum(self._taken.values())} of {self._limit * len(self._taken)}"

    def left(self) -> int:
        """Count the addresses that still find a place."""
        if not self._limit:
            return 1 << 16
        free = sum(max(0, self._limit - taken) for taken in self._taken.values())
        return free + sum(map(len, self._spare.values()))

    def take(self) -> tuple[str, str]:
        """Take a place; there must be one.

        Returns:
            the ENI, and the address that has to leave it first, if any.
        """
        for eni_id, taken in self._taken.items():
            if not self._limit or taken < self._limit:
                self._taken[eni_id] += 1
                return eni_id, ""
        eni_id = next(eni_id for eni_id, spare in self._spare.items() if spare)
        return eni_id, self._spare[eni_id].pop(0)

    def refuge(self) -> str:
        """Take a place elsewhere for an address that leaves; empty when all is full."""
        eni_id = roomiest(self._refuges)
        if eni_id:
            self._refuges[eni_id] -= 1
        return eni_id


def roomiest(room: Mapping[str, int]) -> str:
    """Choose the ENI with most room; empty when all are full."""
    eni_id = max(sorted(room), key=room.__getitem__, default="")
    return eni_id if eni_id and room[eni_id] > 0 else ""


def holders(world: World, addresses: Collection[str]) -> dict[str, set[int]]:
    """Find who has leases of the private addresses that ranges of the driver give; -1 stands for what is no VM.

    Nobody has an idle one. What a reservation has taken from a network is the reservation's, and counts as that says.
    """
    children = [network for network in world.networks if network.parent]
    reserved = {(network.parent, private_ip) for network in children for private_ip, _ in network.gives()}
    result: dict[str, set[int]] = {}
    for network in world.networks:
        if not network.ours or not any(private_ip in addresses for private_ip, _ in network.gives()):
            continue
        for item in world.ranges(network):
            private_ip = {**network.template, **item.attributes}.get(PRIVATE_IP, "")
            if private_ip in addresses and (str(network.network_id), private_ip) not in reserved:
                others = [-1] if item.used > len(item.leases) else []
                result.setdefault(private_ip, set()).update(item.leases, others)
    return result


def spare(world: World, host: Host, needed: Collection[str], count: int) -> dict[str, list[str]]:
    """List the addresses that may leave the ENIs of a host: idle ones, then those that only VMs of other hosts have.

    Args:
        world: both worlds.
        host: of the ENIs.
        needed: addresses that must not leave.
        count: how many addresses are to come.

    Returns:
        them by ENI, in the order in which they are to leave; none when all find room.
    """
    enis, limit = world.enis(host), world.limit(host)
    if not limit or count <= sum(max(0, limit - eni.used) for eni in enis):
        return {}
    may = {item for eni in enis for item in eni.addresses[1:]} - {*needed}
    staying = {*host.vms, -1}
    there = holders(world, may).items()
    leaving = {address: (bool(vm_ids), ip_to_int(address)) for address, vm_ids in there if not vm_ids & staying}
    return {eni.eni_id: sorted(leaving.keys() & {*eni.addresses}, key=leaving.__getitem__) for eni in enis}


def refuges(world: World, host: Host) -> dict[str, int]:
    """Find the ENIs of other hosts, as far as they are in view, where addresses that leave a host may go, with their room."""
    subnets = {eni.subnet_id for eni in world.enis(host)}
    rooms = world.room().items()
    own = {*host.eni_ids}
    return {key: room for key, room in rooms if key not in own and world.interfaces[key].subnet_id in subnets}


def held(world: World, host: Host) -> AbstractContextManager[None]:
    """Hold the lock of whoever lets addresses leave the ENIs of a host, so that no two count on the same place."""
    return lock_of(world.settings, "room", host.host_id, f"making room on host {host.name}")


def plan(world: World) -> Plan:
    """Plan the changes that make EC2_FREE_ADDRESSES of every host right; idle addresses count as free.

    By it the scheduler puts VMs with Elastic IPs where there is room.
    """
    result = Plan()
    _plan_hosts(world, result, world.hosts)
    return result


def _plan_hosts(world: World, result: Plan, hosts: Sequence[Host]) -> None:
    enis = {host.host_id: world.enis(host) for host in hosts}
    there = holders(world, {item for each in enis.values() for eni in each for item in eni.addresses[1:]})
    for host in hosts:
        limit, own = world.limit(host), enis[host.host_id]
        if limit and own:
            idle = sum(there.get(item) == set() for eni in own for item in eni.addresses[1:])
            _plan_host(world, result, host, sum(max(0, limit - eni.used) for eni in own) + idle)


def _plan_host(world: World, result: Plan, host: Host, count: int) -> None:
    free = str(count)
    if host.template.get(FREE_ADDRESSES) != free:
        text, values = f"set {FREE_ADDRESSES}={free}", {FREE_ADDRESSES: free}
        result.change(f"host {host.name}", text, world.oned.update_host, host.host_id, values)


def note(world: World, eni_ids: Iterable[str]) -> None:
    """Tell the scheduler at once how much room is left on the hosts that have these ENIs, as EC2 shows it now.

    Of several that do so at once, each after its change, the last one sees all changes.
    """
    settings = world.settings
    with lock.held("counting free addresses", settings.lock_timeout, f"{settings.state_directory}/free.lock"):
        ids = {world.host_of_eni[eni_id].host_id for eni_id in eni_ids if eni_id in world.host_of_eni}
        hosts = [world.oned.host(host_id) for host_id in sorted(ids)]
        world.forget(Part.ADDRESSES)
        world.interfaces = world.ec2.interfaces_with({eni_id for host in hosts for eni_id in host.eni_ids})
        result = Plan()
        _plan_hosts(world, result, hosts)
        for change in result.changes:
            change.apply()


def requirements(world: World, network: Network) -> str:
    """Compose what lets the scheduler put VMs of a network only where their addresses can be; empty when it gives none.

    Private addresses with an Elastic IP have stand-ins in other subnets; the others cannot leave theirs.
    """
    if not network.gives():
        return ""
    bound = [private_ip for private_ip, elastic_ip in network.gives() if not any(elastic_ip)]
    subnets = []
    if bound:
        with contextlib.suppress(AwsOvsError):
            subnets = sorted(key for key, subnet in world.subnets.items() if any(map(subnet.has, bound)))
    where = " | ".join(f'{SUBNET_ID} = "{subnet_id}"' for subnet_id in subnets)
    return f"{FREE_ADDRESSES} > 0" + (f" & ({where})" if where else "")
