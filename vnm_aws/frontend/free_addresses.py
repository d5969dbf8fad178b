"""Choose addresses for the Elastic IPs of a pool: one inside the network, and a private one in the VPC."""

from __future__ import annotations

from collections.abc import Iterator

from ..addresses import Prefix, int_to_ip, ip_to_int
from ..errors import AwsOvsError
from ..names import INSTANCE_TYPE, PRIVATE_IP, RESERVATION
from .attempts import Attempts
from .ec2_objects import ElasticIp, Subnet
from .elastic_ips import border_group
from .objects import Network
from .world import World

_ENIS = 4
"""So many ENIs get addresses at once, or one for ten addresses."""


class NoRoomError(AwsOvsError):
    """No ENI or subnet has room for another private address."""


class Chooser:
    """Choose free addresses for the ranges of a network, each once.

    The private ones are of subnets of hosts in the network's clusters, which alone run its VMs: an address never leaves its
    subnet. They go where most room is, but not each to another ENI: EC2 is called once for all of an ENI.

    Args:
        world: both worlds.
        network: the pool.
        attempts: what EC2 has refused of late.
        count: about how many private addresses are to be chosen.

    Attributes:
        room: how many more addresses each ENI of those hosts can have, by id.
    """

    def __init__(self, world: World, network: Network, attempts: Attempts, count: int = 0) -> None:
        self._world = world
        self._network = network
        self._attempts = attempts
        self._inside: Iterator[str] | None = None
        self._candidates: dict[str, Iterator[str]] = {}
        self._most, self._chosen = max(_ENIS, count // 10), set[str]()
        self._noted = {
            address for other in (*world.networks, network) for address in other.values_of_ranges(PRIVATE_IP)
        }
        self._noted |= {*world.stands_for}
        hosts = world.host_of_eni
        self.room = {key: left for key, left in world.room().items() if hosts[key].cluster_id in network.clusters}

    def inside(self) -> str:
        """Choose an address inside the network for a range.

        Raises:
            AwsOvsError: the network has none left.
        """
        self._inside = self._inside or _free(self._network)
        inside = next(self._inside, None)
        if inside is None:
            what = f"network {self._network.name} has no free address for another range"
            raise AwsOvsError(what, "enlarge its NETWORK_MASK")
        return inside

    def require_room(self, eip: ElasticIp) -> None:
        """Look whether an ENI has room, which asks EC2 nothing more.

        Raises:
            NoRoomError: none has.
        """
        if next(self._by_room(eip), None) is None:
            raise no_room(self._world, self._network, self.room)

    def private_ip(self, eip: ElasticIp) -> tuple[str, str]:
        """Choose a private address that nothing has, and the ENI with most room where it can be.

        Raises:
            NoRoomError: no ENI has room, or the subnet is exhausted.
        """
        exhausted: set[str] = set()
        for eni_id in self._by_room(eip):
            subnet = self._subnet(eni_id)
            address = None if subnet.subnet_id in exhausted else self.another(eni_id)
            if address is not None:
                self._take(eni_id)
                return address, eni_id
            exhausted.add(subnet.subnet_id)
        if exhausted:
            raise self._exhausted(exhausted)
        raise no_room(self._world, self._network, self.room)

    def place(self, eip: ElasticIp, address: str) -> str | None:
        """Choose the ENI with most room in the subnet of an address; None when no ENI there has room."""
        eni_id = next((eni_id for eni_id in self._by_room(eip) if self._subnet(eni_id).has(address)), None)
        if eni_id is not None:
            self._take(eni_id)
        return eni_id

    def serves(self, address: str) -> bool:
        """Say whether an address is of the subnet of a host in the network's clusters."""
        return any(self._subnet(eni_id).has(address) for eni_id in self.room)

    def another(self, eni_id: str) -> str | None:
        """Choose a private address for an ENI; None when its subnet has none left."""
        subnet = self._subnet(eni_id)
        return next(self._candidates.setdefault(subnet.subnet_id, self._of(subnet)), None)

    def _take(self, eni_id: str) -> None:
        self.room[eni_id] -= 1
        self._chosen.add(eni_id)

    def _by_room(self, eip: ElasticIp) -> Iterator[str]:
        """List the ENIs that an Elastic IP's private address can be on, the one with most room first."""
        enough = len(self._chosen) >= self._most
        for eni_id in sorted(self.room, key=lambda key: (enough and key not in self._chosen, -self.room[key], key)):
            group = border_group(self._world, self._world.host_of_eni[eni_id])
            if self.room[eni_id] > 0 and eip.border_group in ("", group):
                yield eni_id

    def _subnet(self, eni_id: str) -> Subnet:
        return self._world.subnets[self._world.interfaces[eni_id].subnet_id]

    def _of(self, subnet: Subnet) -> Iterator[str]:
        """List the free addresses of a subnet, the last first."""
        world, named = self._world, set(self._network.template.get(RESERVATION, "").replace(",", " ").split())
        here = [item for item in world.reservations if item.subnet_id == subnet.subnet_id]
        sources = [item.cidr for item in here if item.explicit and item.reservation_id in named]
        if named and not sources:
            return
        others = [item.cidr for item in here if item.reservation_id not in named]
        prefixes = [
            block for eni in world.interfaces.values() if eni.subnet_id == subnet.subnet_id for block in eni.prefixes
        ]
        for address in subnet.candidates(sources, [*others, *prefixes]):
            if not (address in world.eni_of_address or address in self._noted or self._attempts.refused(address)):
                yield address

    def _exhausted(self, subnets: set[str]) -> NoRoomError:
        named = self._network.template.get(RESERVATION, "")
        where = f"the subnets {' '.join(sorted(subnets))} have"
        if not named:
            return NoRoomError(f"{where} no free address", "free some, or use a larger subnet")
        what = f"{where} no free address in a reservation of type explicit that {RESERVATION} names ({named[:60]})"
        remedy = f"add one to {RESERVATION} of network {self._network.name}, see 'aws ec2 create-subnet-cidr-reservation help'"
        return NoRoomError(what, remedy)


def _free(network: Network) -> Iterator[str]:
    """List the addresses that a new range of a network may have, the lowest first."""
    address, mask = network.template.get("NETWORK_ADDRESS", ""), network.template.get("NETWORK_MASK", "")
    if not address or not mask:
        what = f"network {network.name} is an Elastic IP pool without NETWORK_ADDRESS and NETWORK_MASK"
        raise AwsOvsError(what, f"add both with 'onevnet update {network.network_id}'")
    prefix = prefix_of(address, mask, f"network {network.name}: NETWORK_ADDRESS and NETWORK_MASK")
    return _unused(prefix, sorted(network.spans()), network.template.get("GATEWAY", ""))


def _unused(prefix: Prefix, taken: list[tuple[int, int]], gateway: str) -> Iterator[str]:
    number, end = prefix.first + 1, prefix.first + prefix.size - 1
    while number < end:
        within = next((last for first, last in taken if first <= number <= last), None)
        if within is None and int_to_ip(number) != gateway:
            yield int_to_ip(number)
        number = (number if within is None else within) + 1


def prefix_of(address: str, mask: str, what: str) -> Prefix:
    """Read the prefix that an address and a mask (or a prefix length) mean."""
    try:
        length = int(mask) if len(mask) <= 2 else 0  # a greater number would fill the memory
        bits = f"{ip_to_int(mask):032b}" if len(mask) > 2 else "1" * length + "0" * (32 - length)
    except ValueError:
        bits = ""
    if len(bits) != 32 or "01" in bits:
        raise AwsOvsError(f"{what}: {mask[:40]!r} is not a network mask like 255.255.255.0", "correct it")
    return Prefix(f"{address}/{bits.count('1')}", what)


def no_room(world: World, network: Network, room: dict[str, int]) -> NoRoomError:
    """Make the error for the ENIs of hosts in the clusters of a network, with so much room each, that are full."""
    full = []
    for eni_id, left in list(room.items())[:10]:
        host = world.host_of_eni[eni_id]
        limit = world.limit(host)
        unknown = f"of {host.name} EC2 does not know the type {host.template.get(INSTANCE_TYPE, '')}"
        full.append(f"{host.name} has {limit - left} of {limit}" if limit else unknown)
    others = any(host.cluster_id not in network.clusters for host in world.host_of_eni.values())
    where = f" in the clusters of network {network.name}" if others else ""
    detail = f" ({', '.join(full)})" if full else ""
    what = f"no host{where} has room for another private address{detail}"
    return NoRoomError(what, f"add a host{where}, or remove Elastic IPs from the pool")
