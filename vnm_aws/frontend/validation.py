"""Check what a network of this driver must be like, when OpenNebula creates it and by `oneaws vnet check`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from .. import addresses, mtu
from ..addresses import Prefix, int_to_ip, ip_to_int, shown
from ..config import Config
from ..errors import AwsOvsError
from ..names import EXTERNAL_IP, POOL, PRIVATE_IP, RESERVATION, RESTRICTED, VTEP
from ..overlay.bridges import RESERVED
from ..vm import MAX_VNI
from . import nics
from .free_addresses import prefix_of
from .objects import NETWORK_ERROR, NETWORK_LOCK_CREATE, Network
from .tags import TagFilter
from .world import World

_VNI_STEP = 1 << 20
"""More than there are network IDs: a VNI that a network may choose for itself is no other network's, modulo this."""

OF_NICS = {
    *RESTRICTED,
    *("TARGET", "ATTACH", "VLAN_ID", "EXTERNAL_PORT_RANGE", "INTERNAL_PORT_RANGE"),
    *("IP6_LINK", "IP6_ULA", "IP6_GLOBAL"),
}
"""What only administrators may write into NICs: RESTRICTED_VM of install.sh."""


class Validation:
    """Check networks, each against all others, which are looked through once.

    Args:
        world: whose networks, hosts and configuration of the nodes count.
    """

    def __init__(self, world: World) -> None:
        self._world, self._config = world, world.driver
        self._by_id = {network.network_id: network for network in world.networks}
        self._by_vni: dict[int | None, list[tuple[Network, str]]] = defaultdict(list)
        self._by_private_ip: dict[str, list[tuple[Network, bool]]] = defaultdict(list)
        ours = [network for network in world.networks if network.ours]
        self._choosing = [other for other in ours if not other.vlan_id and other.state == NETWORK_LOCK_CREATE]
        for network in ours:
            for _, bridge, vlan_id in _places(network):
                self._by_vni[vni_of(network, vlan_id, self._config)].append((network, bridge))
            for address, shared in _claims(network):
                self._by_private_ip[address].append((network, shared))

    def problems(self, network: Network) -> list[AwsOvsError]:
        """Find what is wrong with a network, by the nodes' configuration."""
        checks: tuple[Callable[[], object], ...] = (
            lambda: _bridges(network),
            lambda: self._vnis(network),
            lambda: _mtu(network, self._config),
            lambda: _nested(network),
            lambda: _subnet(network),
            lambda: _ranges(network),
            lambda: self._private_addresses(network),
            lambda: self._hosts_addresses(network),
            lambda: _pool(network),
            lambda: nics.check(network.bridge, network.vlan_id, network.template, _each(network)),
        )
        errors = {str(error): error for error in map(_error, checks) if error}
        return list(errors.values())

    def choose_vni(self, network: Network) -> int:
        """Choose a VNI for a network that names none, which no other network has or can choose at the same time.

        Raises:
            AwsOvsError: all that it may choose from are taken.
        """
        first = self._config.vni_base + network.network_id
        for number in range(first, MAX_VNI + 1, _VNI_STEP):
            if all(other.network_id == network.network_id for other, _ in self._by_vni.get(number, ())):
                return number
        raise AwsOvsError(f"no VNI from {first} on is free for network {network.network_id}", "give it a VLAN_ID")

    def _vnis(self, network: Network) -> None:
        for what, bridge, vlan_id in _places(network):
            if not vlan_id and network.state == NETWORK_LOCK_CREATE:
                continue  # it gets a free one
            vni = addresses.number(vlan_id or str(self._config.vni_base + network.network_id), what, 1, MAX_VNI)
            for other, others_bridge in [*self._by_vni.get(vni, ()), *self._about_to_choose(vni)]:
                if not _comes_first(other, network) or _reservation(network, other):
                    continue
                remedy = "choose another, or leave it out for a free one"
                if bridge == others_bridge:
                    if self._owner(network, bridge, vni) == self._owner(other, bridge, vni):
                        continue  # two networks may be one segment, if one user wants that
                    remedy = "choose another, or let one user own both networks"
                name = f"network {other.network_id} ({other.name}) on bridge {others_bridge}"
                raise AwsOvsError(f"{what} {vni} is the VNI of {name} already", remedy)

    def _about_to_choose(self, vni: int) -> Iterator[tuple[Network, str]]:
        """List the networks that are being created and may choose a VNI now."""
        for other in self._choosing:
            first = self._config.vni_base + other.network_id
            if first < vni and (vni - first) % _VNI_STEP == 0:
                yield other, other.bridge

    def _owner(self, network: Network, bridge: str, vni: int) -> str:
        """Find whose segment a network is on: that of its parent, if it is a reservation that stays there."""
        parent = self._by_id.get(int(network.parent)) if network.parent.isdecimal() else None
        there = parent is not None and any(
            (bridge, vni) == (place, vni_of(parent, vlan_id, self._config)) for _, place, vlan_id in _places(parent)
        )
        return parent.owner if parent is not None and there else network.owner

    def _private_addresses(self, network: Network) -> None:
        """Let a private address lead to one range only, or to ranges that share it by ports."""
        claims = list(_claims(network))
        for address in dict.fromkeys(address for address, _ in claims):
            holders = [(network, shared) for claim, shared in claims if claim == address]
            holders += [
                (other, shared)
                for other, shared in self._by_private_ip.get(address, ())
                if _comes_first(other, network) and not _reservation(network, other)
            ]
            if len(holders) > 1 and not all(shared for _, shared in holders):
                names = " and ".join(str(holder.network_id) for holder, _ in holders[:5])
                what = f"{PRIVATE_IP} {address} is in several address ranges (of networks {names}), which would be leased at once"
                raise AwsOvsError(what, "keep one of them")

    def _hosts_addresses(self, network: Network) -> None:
        """Refuse the address of a host: its VM would be taken for the host, and get none of its packets."""
        claims = {address for address, _ in _claims(network)}
        for host in self._world.hosts if claims else ():
            if host.template.get(VTEP) in claims and not host.terminated:
                what = f"{PRIVATE_IP} {host.template[VTEP]} is the address of host {host.name} itself"
                raise AwsOvsError(what, "give the address range a secondary address of an ENI")


def _places(network: Network) -> Iterator[tuple[str, str, str]]:
    """List where the VMs of a network are: BRIDGE and VLAN_ID, of the network and of ranges with their own; and what says so."""
    yield "VLAN_ID", network.bridge, network.vlan_id
    for values in _each(network):
        if values.get("VLAN_ID") or values.get("BRIDGE"):
            yield "AR: VLAN_ID", values.get("BRIDGE") or network.bridge, values.get("VLAN_ID") or network.vlan_id


def _claims(network: Network) -> Iterator[tuple[str, bool]]:
    """List the private addresses of the ranges, and whether each is shared by ports."""
    for values in _each(network):
        if values.get(PRIVATE_IP):
            yield values[PRIVATE_IP], nics.ports(values) is not None


def _error(check: Callable[[], object]) -> AwsOvsError | None:
    try:
        check()
    except AwsOvsError as error:
        return error
    return None


def _bridges(network: Network) -> None:
    for what, bridge, _ in _places(network):
        what = what.replace("VLAN_ID", "BRIDGE")
        addresses.device_name(bridge, what)
        if bridge in RESERVED:
            raise AwsOvsError(f"{what} {bridge} is the driver's own", "choose another name")
    kind = network.template.get("BRIDGE_TYPE", "")
    if kind not in ("", "openvswitch"):
        what = f"BRIDGE_TYPE is {shown(kind)} instead of openvswitch: oned.conf lacks the driver's VN_MAD_CONF"
        raise AwsOvsError(what, "run 'install.sh --frontend' and restart OpenNebula")


def _reservation(network: Network, other: Network) -> bool:
    """Say whether one network is a reservation of the other, or both are of the same."""
    return (
        network.parent == str(other.network_id)
        or other.parent == str(network.network_id)
        or (network.parent != "" and network.parent == other.parent)
    )


def _comes_first(other: Network, network: Network) -> bool:
    """Say whether another network has what it has before this one.

    oned has a network in its pool before it lets the driver create it, so of two that are being created at once the later
    one sees the earlier one, and gives way.
    """
    if other.network_id == network.network_id or other.state == NETWORK_ERROR:
        return False
    return other.state != NETWORK_LOCK_CREATE or other.network_id < network.network_id


def vni_of(network: Network, vlan_id: str, config: Config) -> int | None:
    """Find the VNI that a VLAN_ID of a network is to the nodes, for which 0100 is 100; None when it is none."""
    try:
        return addresses.number(vlan_id or str(config.vni_base + network.network_id), "VLAN_ID", 1, MAX_VNI)
    except AwsOvsError:
        return None


def _mtu(network: Network, config: Config) -> None:
    leaves = any(values.get("GATEWAY") for values in (network.template, *_each(network)))
    fits = mtu.for_guests(mtu.VPC, config.internet_mtu, leaves)
    for where, values in (("", network.template), *(("AR: ", values) for values in _each(network))):
        for key in ("MTU", "GUEST_MTU"):
            if values.get(key) and mtu.parse(values[key], f"{where}{key}") > fits:
                left = f"{fits} is left for guests after {mtu.VXLAN_OVERHEAD} bytes of VXLAN"
                raise AwsOvsError(f"{where}{key} {values[key]} does not fit: {left}", f"set it to {fits} or less")


def _nested(network: Network) -> None:
    """Refuse attributes of NICs inside of others: oned gives them to the NICs, and restricts nobody to write them."""
    for path in network.nested:
        outer, _, inner = path.partition("/")
        if inner in OF_NICS:
            what = f"{outer} has {inner} inside, which the network's NICs would get past the restrictions of oned.conf"
            raise AwsOvsError(what, f"remove {outer}: onevnet update {network.network_id}")


def _each(network: Network) -> Iterator[dict[str, str]]:
    """List the address ranges, those that are and those that are asked for, as OpenNebula's attributes."""
    for item in network.ranges:
        yield {**item.attributes, "IP": item.ip, "SIZE": str(item.size)}
    yield from network.asked


def _prefix(network: Network) -> Prefix | None:
    values = network.template
    if not values.get("NETWORK_ADDRESS") or not values.get("NETWORK_MASK"):
        return None
    return prefix_of(values["NETWORK_ADDRESS"], values["NETWORK_MASK"], "NETWORK_ADDRESS and NETWORK_MASK")


def _subnet(network: Network) -> None:
    prefix = _prefix(network)
    for values in (network.template, *_each(network)):
        gateway = values.get("GATEWAY")
        if gateway and addresses.ipv4(gateway, "GATEWAY") and prefix is not None and gateway not in prefix:
            raise AwsOvsError(f"GATEWAY {gateway} is not in the subnet {prefix}", "correct one of the two")


def _ranges(network: Network) -> None:
    prefix, every = _prefix(network), list(_each(network))
    gateways = {values["GATEWAY"] for values in (network.template, *every) if values.get("GATEWAY")}
    for gateway in gateways:
        addresses.ipv4(gateway, "GATEWAY")
    for values in every:
        if values.get("IP"):
            addresses.ipv4(values["IP"], "AR: IP")
            addresses.number(values.get("SIZE") or "1", "AR: SIZE", 1, 1 << 24)
        for key in (PRIVATE_IP, EXTERNAL_IP):
            if values.get(key):
                addresses.ipv4(values[key], f"AR: {key}")
        if values.get(PRIVATE_IP) and values.get("SIZE", "1") != "1" and not nics.ports(values):
            what = f"AR with {PRIVATE_IP} {values[PRIVATE_IP]} has SIZE {shown(values['SIZE'])}, but one VM can have that address"
            raise AwsOvsError(what, "use SIZE 1, or PORT_START and PORT_SIZE to share it")
    spans = sorted(network.spans())
    for first, last in spans:
        shape = f"AR {int_to_ip(first)} to {int_to_ip(last)}"
        if prefix is not None and not (prefix.first <= first and last < prefix.first + prefix.size):
            raise AwsOvsError(f"{shape} is not in the subnet {prefix}", "correct its IP or SIZE")
        for gateway in sorted(gateways):
            if first <= ip_to_int(gateway) <= last:
                raise AwsOvsError(f"{shape} includes the GATEWAY {gateway}, which a VM must not get", "leave it out")
    for (_, last), (first, _) in pairwise(spans):
        if first <= last:
            what = f"two address ranges include {int_to_ip(first)}, which would be leased twice"
            raise AwsOvsError(what, "remove one")


def _pool(network: Network) -> None:
    named = network.template.get(RESERVATION, "")
    wrong = next((name for name in named.replace(",", " ").split() if not name.startswith("scr-")), None)
    if wrong is not None:
        what = f"{RESERVATION} {shown(wrong)} is not the id of a subnet CIDR reservation like scr-044f977c4e3a5e1a2"
        raise AwsOvsError(what, "see 'aws ec2 get-subnet-cidr-reservations help' for how to find it")
    if not network.template.get(POOL):
        return
    TagFilter.parse(network.template[POOL], POOL)
    if _prefix(network) is None:
        what = f"a network with {POOL} needs NETWORK_ADDRESS and NETWORK_MASK, where its address ranges are made"
        raise AwsOvsError(what, "add both")
