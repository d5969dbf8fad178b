"""Choose addresses for the Elastic IPs of a pool: one inside the network, and a private one in the VPC."""

from __future__ import annotations

from collections.abc import Iterator

from ..addresses import Prefix, int_to_ip, ip_to_int
from ..errors import AwsOvsError
from ..names import ALLOCATION_ID, EXTERNAL_IP, PRIVATE_IP
from .ec2_objects import ElasticIp
from .objects import Network
from .reserved import Reserved
from .world import World


class NoRoomError(AwsOvsError):
    """No ENI or subnet has room for another private address."""


class Chooser:
    """Choose free addresses for new ranges of a network, each once."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self._inside: Iterator[str] | None = None
        self._subnets: dict[str, Iterator[str]] = {}
        self._private = {
            address for other in (*world.networks, network) for address in other.values_of_ranges(PRIVATE_IP)
        }
        self._reserved = Reserved(world.settings.state_directory)
        self._room = world.room()

    def range_for(self, eip: ElasticIp) -> dict[str, str]:
        """Compose the address range of an Elastic IP that has none yet.

        Raises:
            AwsOvsError: the network or EC2 has no address left.
        """
        self._inside = self._inside or _free(self._network)
        inside = next(self._inside, None)
        if inside is None:
            what = f"network {self._network.name} has no free address for another range"
            raise AwsOvsError(what, "enlarge its NETWORK_MASK")
        private_ip = eip.private_ip or self.private_ip()
        values = {"TYPE": "IP4", "IP": inside, "SIZE": "1"}
        return {**values, EXTERNAL_IP: eip.public_ip, PRIVATE_IP: private_ip, ALLOCATION_ID: eip.allocation_id}

    def private_ip(self) -> str:
        """Choose a private address that nothing has, in the subnet of the ENI with most room.

        Raises:
            NoRoomError: no ENI has room, or the subnet is exhausted.
        """
        world = self._world
        exhausted: set[str] = set()
        for eni_id in sorted(self._room, key=lambda key: (-self._room[key], key)):
            subnet = world.subnets[world.interfaces[eni_id].subnet_id]
            if self._room[eni_id] < 1 or subnet.subnet_id in exhausted:
                continue
            for address in self._subnets.setdefault(subnet.subnet_id, iter(subnet.candidates())):
                taken = address in world.eni_of_address or address in self._private
                if not taken and not self._reserved.holds(address):
                    self._room[eni_id] -= 1
                    return address
            exhausted.add(subnet.subnet_id)
        if exhausted:
            what = f"the subnets {' '.join(sorted(exhausted))} have no free address"
            raise NoRoomError(what, "free some, or use a larger subnet")
        raise no_room(world, self._room)


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


def no_room(world: World, room: dict[str, int], where: str = "") -> NoRoomError:
    """Make the error for ENIs, with so much room each, that are full; `where` says which those are."""
    hosts = [(world.host_of_eni[eni_id], left) for eni_id, left in list(room.items())[:10]]
    full = ", ".join(f"{host.name} has {world.limit(host) - left} of {world.limit(host)}" for host, left in hosts)
    what = f"no host{where} has room for another private address{f' ({full})' if full else ''}"
    return NoRoomError(what, "add a host, or remove Elastic IPs from the pool")
