"""Check what a network of this driver must be like, when OpenNebula creates it and by `oneaws vnet check`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from .. import addresses, mtu
from ..addresses import Prefix, int_to_ip, ip_to_int, shown
from ..config import Config
from ..errors import AwsOvsError
from ..names import EXTERNAL_IP, POOL, PRIVATE_IP
from ..overlay.bridges import RESERVED
from ..vm import MAX_VNI
from .free_addresses import prefix_of
from .objects import NETWORK_ERROR, NETWORK_LOCK_CREATE, Network
from .tags import TagFilter

_VNI_STEP = 1 << 20
"""More than there are network IDs: a VNI that a network may choose for itself is no other network's, modulo this."""


def problems(network: Network, networks: Iterable[Network], config: Config) -> list[AwsOvsError]:
    """Find what is wrong with one of OpenNebula's networks, by the nodes' configuration."""
    others = [other for other in networks if other.ours and _comes_first(other, network)]
    checks: tuple[Callable[[], object], ...] = (
        lambda: _bridge(network),
        lambda: _vni(network, others, config),
        lambda: _mtu(network, config),
        lambda: _subnet(network),
        lambda: _ranges(network),
        lambda: _private_addresses(network, others),
        lambda: _pool(network),
    )
    errors = {str(error): error for error in map(_error, checks) if error}
    return list(errors.values())


def _error(check: Callable[[], object]) -> AwsOvsError | None:
    try:
        check()
    except AwsOvsError as error:
        return error
    return None


def _bridge(network: Network) -> None:
    addresses.device_name(network.bridge, "BRIDGE")
    if network.bridge in RESERVED:
        raise AwsOvsError(f"BRIDGE {network.bridge} is the driver's own", "choose another name")
    kind = network.template.get("BRIDGE_TYPE", "")
    if kind not in ("", "openvswitch"):
        what = f"BRIDGE_TYPE is {shown(kind)} instead of openvswitch: oned.conf lacks the driver's VN_MAD_CONF"
        raise AwsOvsError(what, "run 'install.sh --frontend' and restart OpenNebula")


def _vni(network: Network, others: list[Network], config: Config) -> None:
    if not network.vlan_id and network.state == NETWORK_LOCK_CREATE:
        return  # it gets a free one
    own = addresses.number(network.vlan_id or str(config.vni_base + network.network_id), "VLAN_ID", 1, MAX_VNI)
    for other in others:
        one_segment = network.bridge == other.bridge or _reservation(network, other)
        if not one_segment and _taken_by(other, own, config):
            what = f"VLAN_ID {own} is the VNI of network {other.network_id} ({other.name}) on bridge {other.bridge} already"
            raise AwsOvsError(what, "choose another, or leave it out for a free one")


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


def _vni_of(network: Network, config: Config) -> int:
    """Find the VNI that a network has to the nodes, for which 0100 is 100; -1 when its VLAN_ID is none."""
    try:
        return addresses.number(network.vlan_id or str(config.vni_base + network.network_id), "VLAN_ID", 1, MAX_VNI)
    except AwsOvsError:
        return -1


def _taken_by(other: Network, number: int, config: Config) -> bool:
    """Say whether another network has a VNI, or may be about to choose it."""
    own = _vni_of(other, config)
    may_choose = not other.vlan_id and other.state == NETWORK_LOCK_CREATE
    return number == own or (may_choose and 0 < own < number and (number - own) % _VNI_STEP == 0)


def choose_vni(network: Network, networks: Iterable[Network], config: Config) -> int:
    """Choose a VNI for a network that names none, which no other network has or can choose at the same time.

    Raises:
        AwsOvsError: all that it may choose from are taken.
    """
    others = (other for other in networks if other.ours and other.network_id != network.network_id)
    taken = {_vni_of(other, config) for other in others}
    first = config.vni_base + network.network_id
    for number in range(first, MAX_VNI + 1, _VNI_STEP):
        if number not in taken:
            return number
    raise AwsOvsError(f"no VNI from {first} on is free for network {network.network_id}", "give it a VLAN_ID")


def _mtu(network: Network, config: Config) -> None:
    leaves = any(values.get("GATEWAY") for values in (network.template, *_each(network)))
    fits = mtu.for_guests(mtu.VPC, config.internet_mtu, leaves)
    for values in (network.template, *_each(network)):
        for key in ("MTU", "GUEST_MTU"):
            if values.get(key) and mtu.parse(values[key], key) > fits:
                what = f"{key} {values[key]} does not fit: {fits} is left for guests after {mtu.VXLAN_OVERHEAD} bytes of VXLAN"
                raise AwsOvsError(what, f"set it to {fits} or less")


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
        if values.get(PRIVATE_IP) and values.get("SIZE", "1") != "1" and not values.get("PORT_START"):
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


def _private_addresses(network: Network, others: list[Network]) -> None:
    """Let a private address lead to one range only, or to ranges that share it by ports."""
    claims: dict[str, list[tuple[Network, bool]]] = {}
    for claimant in (network, *(other for other in others if not _reservation(network, other))):
        for values in _each(claimant):
            if values.get(PRIVATE_IP):
                claims.setdefault(values[PRIVATE_IP], []).append((claimant, bool(values.get("PORT_START"))))
    for address, holders in claims.items():
        concerned = any(holder is network for holder, _ in holders)
        if concerned and len(holders) > 1 and not all(shared for _, shared in holders):
            names = " and ".join(str(holder.network_id) for holder, _ in holders[:5])
            what = f"{PRIVATE_IP} {address} is in several address ranges (of networks {names}), which would be leased at once"
            raise AwsOvsError(what, "keep one of them")


def _pool(network: Network) -> None:
    if not network.template.get(POOL):
        return
    TagFilter.parse(network.template[POOL], POOL)
    if _prefix(network) is None:
        what = f"a network with {POOL} needs NETWORK_ADDRESS and NETWORK_MASK, where its address ranges are made"
        raise AwsOvsError(what, "add both")
