"""Keep Elastic IP pools: a network with AWS_EIP_POOL has a range of size 1 for each Elastic IP with those tags.

An Elastic IP is never released, never taken from what is not an OpenNebula host, and one that is right is not touched. How
new ones get addresses and ranges, `filling` says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from ..addresses import ip_to_int
from ..errors import AwsOvsError
from ..names import ALLOCATION_ID, EXTERNAL_IP, POOL, PRIVATE_IP
from .deadline import OverError
from .ec2_errors import Ec2Error
from .ec2_objects import ElasticIp
from .elastic_ips import foreign, led_to
from .filling import Filling
from .free_addresses import Chooser
from .objects import NETWORK_LOCK_CREATE, NETWORK_USABLE, AddressRange, Network
from .plan import Plan
from .tags import TagFilter, of_other_cloud
from .world import World


def pools(world: World, states: Collection[int] = NETWORK_USABLE) -> list[Network]:
    """List the networks in certain states that are Elastic IP pools, the oldest first."""
    networks = [network for network in world.networks if network.ours and is_pool(network) and network.state in states]
    return sorted(networks, key=lambda network: network.network_id)


def is_pool(network: Network) -> bool:
    """Say whether a network is a pool; a reservation gets the template of its network, but is none."""
    return bool(network.template.get(POOL)) and not network.parent


def _wants(pool: Network, eip: ElasticIp) -> bool:
    """Say whether an Elastic IP has the tags of a pool; a wrong filter, which the pool's plan reports, matches nothing."""
    try:
        return TagFilter.parse(pool.template.get(POOL, ""), POOL).matches(eip.tags)
    except AwsOvsError:
        return False


def claimed(world: World, network: Network, result: Plan) -> list[ElasticIp]:
    """List the Elastic IPs that belong to a pool: those with its tags that no older pool has."""
    states = (*NETWORK_USABLE, NETWORK_LOCK_CREATE)
    older = [pool for pool in pools(world, states) if pool.network_id < network.network_id]
    members = []
    for eip in sorted(world.elastic_ips.values(), key=lambda eip: ip_to_int(eip.public_ip)):
        if _wants(network, eip) and not of_other_cloud(eip.tags, world.settings.cloud):
            first = next((pool for pool in older if _wants(pool, eip)), None)
            if first is None:
                members.append(eip)
            else:
                what = f"belongs to two pools, networks {first.name} and {network.name}"
                remedy = f"change its tags or {POOL} of one (network {first.name} keeps it)"
                result.problem(f"Elastic IP {eip.public_ip}", what, remedy)
    return members


def plan(world: World, network: Network) -> Plan:
    """Plan the changes that make the ranges (with leases) of a pool, and addresses in EC2, those of its Elastic IPs."""
    result = Plan()
    if not is_pool(network):
        return result
    try:
        TagFilter.parse(network.template[POOL], POOL)
    except AwsOvsError as error:
        result.error(f"network {network.name}", error)
        return result
    members = claimed(world, network, result)
    by_allocation: dict[str, list[AddressRange]] = defaultdict(list)
    for item in network.ranges:
        by_allocation[item.attributes.get(ALLOCATION_ID, "")].append(item)
    idle = [eip for eip in members if not any(item.used for item in by_allocation[eip.allocation_id])]
    filling = Filling(world, network, result, idle)
    for eip in members:
        target = f"Elastic IP {eip.public_ip}"
        reason = foreign(world, network, eip)
        ranges = by_allocation[eip.allocation_id]
        if reason:
            result.error(target, reason)
        elif len(ranges) > 1:
            _duplicate(result, network, eip, ranges)
        else:
            try:
                _keep(world, result, network, eip, ranges[0] if ranges else None, filling)
            except OverError:
                raise
            except AwsOvsError as error:
                result.error(target, error)
    _surplus(world, result, network, {eip.allocation_id for eip in members})
    return result


def _duplicate(result: Plan, network: Network, eip: ElasticIp, ranges: list[AddressRange]) -> None:
    numbers = " and ".join(str(item.ar_id) for item in ranges)
    idle = next((item.ar_id for item in reversed(ranges) if not item.used), ranges[-1].ar_id)
    what = f"is in the address ranges {numbers} of network {network.name}, which would lease it twice"
    result.problem(f"Elastic IP {eip.public_ip}", what, f"run 'onevnet rmar {network.network_id} {idle}'")


def _keep(
    world: World, result: Plan, network: Network, eip: ElasticIp, address_range: AddressRange | None, filling: Filling
) -> None:
    """Plan what an Elastic IP needs that has one range, or none."""
    target = f"Elastic IP {eip.public_ip}"
    if address_range is None:
        _refuse_leased(world, network, eip, -1)
        filling.add_range(eip)
        return
    present = address_range.attributes.get(PRIVATE_IP, "")
    if world.stands_for.get(eip.private_ip) == present:
        return  # its VM is, or was, in another subnet: following sees to that
    where = f"range {address_range.ar_id} of network {network.name}"
    if address_range.used:
        # Its VM keeps what it got with the lease, so nothing here can change; following sees to the Elastic IP.
        if eip.private_ip not in ("", present):
            what = f"leads to {eip.private_ip}, but {where} is leased with {present}"
            remedy = "it is put back while the VM runs, detach it from the VM to let it lead elsewhere"
            result.problem(target, what, remedy)
        return
    if eip.private_ip != present:
        _refuse_leased(world, network, eip, address_range.ar_id)
    usable = present if _usable(world, filling.chooser, present, eip) else ""
    filling.keep_range(eip, address_range, eip.private_ip or usable)


def _refuse_leased(world: World, network: Network, eip: ElasticIp, ar_id: int) -> None:
    """Refuse an Elastic IP that a VM has by another range than its own, which is `ar_id` of the pool (-1: none).

    Raises:
        AwsOvsError: a VM has it, or the private address that it leads to.
    """
    for other in world.networks:
        if not other.ours or not any(_concerns(item, eip) for item in other.ranges):
            continue
        for item in world.ranges(other):
            own = (other.network_id, item.ar_id) == (network.network_id, ar_id)
            if item.used and not own and _concerns(item, eip):
                where = f"range {item.ar_id} of network {other.name}"
                if item.attributes.get(ALLOCATION_ID) == eip.allocation_id:
                    raise AwsOvsError(f"is leased from {where} still", "detach it there first")
                what = f"leads to {eip.private_ip}, which is that of the leased {where}"
                raise AwsOvsError(what, "disassociate it, or associate it with another address")


def _concerns(address_range: AddressRange, eip: ElasticIp) -> bool:
    values = address_range.attributes
    same_address = eip.private_ip != "" and values.get(PRIVATE_IP) == eip.private_ip
    return same_address or values.get(ALLOCATION_ID) == eip.allocation_id


def _usable(world: World, chooser: Chooser, address: str, eip: ElasticIp) -> bool:
    """Say whether a private address can serve an Elastic IP: free, or a secondary one of a host, and of no other."""
    if not address or any(other.allocation_id != eip.allocation_id for other in led_to(world, address)):
        return False
    eni = world.eni_of_address.get(address)
    if eni is None:
        return chooser.serves(address)
    return eni.eni_id in world.host_of_eni and eni.primary != address


def _surplus(world: World, result: Plan, network: Network, members: set[str]) -> None:
    """Plan the removal of ranges whose Elastic IP is not in the pool any more."""
    for item in network.ranges:
        allocation_id = item.attributes.get(ALLOCATION_ID, "")
        if not allocation_id or allocation_id in members:
            continue
        eip = world.elastic_ips.get(allocation_id)
        target = f"Elastic IP {item.attributes.get(EXTERNAL_IP, allocation_id)}"
        remedy = "detach it there"
        if eip is None:
            what = "is not in this account any more"
        elif _wants(network, eip):
            what = "belongs to an older pool"
        else:
            what = "has not the pool's tags any more"
            remedy += ", or give it the tag again"
        if item.used:
            owners = " ".join(f"VM {vm_id}" for vm_id in item.leases if vm_id >= 0) or "a held lease"
            where = f"range {item.ar_id} of network {network.name}"
            result.problem(target, f"{what}, but {where} is in use by {owners}", remedy)
        else:
            text = f"remove range {item.ar_id} of network {network.name}: it {what}"
            result.change(target, text, _remove_range, world, network, item, eip)


def _remove_range(world: World, network: Network, address_range: AddressRange, eip: ElasticIp | None) -> None:
    private_ip = address_range.attributes.get(PRIVATE_IP, "")
    eni = world.eni_of_address.get(private_ip)
    in_use = led_to(world, private_ip)
    on_host = eni is not None and eni.eni_id in world.host_of_eni and eni.primary != private_ip
    if eip is None and eni is not None and on_host and not in_use:
        try:  # the address was taken for the Elastic IP that is no more; while the range is there it is remembered
            world.ec2.unassign(eni.eni_id, [private_ip])
        except Ec2Error as error:
            if error.code != "InvalidParameterValue":
                raise
    world.oned.remove_range(network.network_id, address_range.ar_id)
