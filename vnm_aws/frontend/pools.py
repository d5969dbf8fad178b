"""Elastic IP pools: a network with AWS_EIP_POOL has one address range of size 1 for each Elastic IP with those tags.

The range is written before anything is changed in EC2, so it is the record of what was meant: after a kill at any
instant the next run finds the private address there and goes on. An Elastic IP is never released, never taken from
what is not an OpenNebula host, and one that is right is not touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection

from ..addresses import ip_to_int
from ..errors import AwsOvsError
from .ec2 import Ec2Error, ElasticIp, Interface
from .free_addresses import Chooser, no_room
from .objects import NETWORK_LOCK_CREATE, NETWORK_READY, AddressRange, Network
from .plan import Plan
from .tags import TagFilter
from .world import ALLOCATION, POOL, PRIVATE, PUBLIC, World


def pools(world: World, states: Collection[int] = (NETWORK_READY,)) -> list[Network]:
    """The networks in certain states that are Elastic IP pools, the oldest first."""
    found = [one for one in world.networks if one.ours and is_pool(one) and one.state in states]
    return sorted(found, key=lambda one: one.network_id)


def is_pool(network: Network) -> bool:
    """True for an Elastic IP pool; a reservation gets the template of its network, but is none."""
    return bool(network.template.get(POOL)) and not network.parent


def _wants(pool: Network, eip: ElasticIp) -> bool:
    """True when an Elastic IP has the tags of a pool; a bad filter, which its own plan reports, matches nothing."""
    try:
        return TagFilter.parse(pool.template.get(POOL, ""), POOL).matches(eip.tags)
    except AwsOvsError:
        return False


def claimed(world: World, network: Network, result: Plan) -> list[ElasticIp]:
    """The Elastic IPs that belong to a pool: those with its tags that no older pool has."""
    states = (NETWORK_READY, NETWORK_LOCK_CREATE)
    older = [one for one in pools(world, states) if one.network_id < network.network_id]
    mine = []
    for eip in sorted(world.elastic_ips.values(), key=lambda one: ip_to_int(one.public_ip)):
        if _wants(network, eip):
            first = next((one for one in older if _wants(one, eip)), None)
            if first is None:
                mine.append(eip)
            else:
                result.problem(
                    f"Elastic IP {eip.public_ip}",
                    f"belongs to two pools, networks {first.name} and {network.name}; change its tags or {POOL} "
                    f"of one (network {first.name} keeps it)",
                )
    return mine


def plan(world: World, network: Network) -> Plan:
    """What makes the address ranges of a pool, and the private addresses in EC2, those of its Elastic IPs.

    Args:
        world: both worlds.
        network: with leases, as `Oned.network` gives it.
    """
    result = Plan()
    if not is_pool(network):
        return result
    try:
        TagFilter.parse(network.template[POOL], POOL)
    except AwsOvsError as bad:
        result.problem(f"network {network.name}", str(bad))
        return result
    mine = claimed(world, network, result)
    ranges: dict[str, list[AddressRange]] = defaultdict(list)
    for one in network.ranges:
        ranges[one.attributes.get(ALLOCATION, "")].append(one)
    chooser = Chooser(world, network)
    for eip in mine:
        target = f"Elastic IP {eip.public_ip}"
        reason = foreign(world, eip)
        held = ranges[eip.allocation_id]
        if reason:
            result.problem(target, reason)
        elif len(held) > 1:
            _duplicate(result, network, eip, held)
        else:
            try:
                _keep(world, result, network, eip, held[0] if held else None, chooser)
            except AwsOvsError as bad:
                result.problem(target, str(bad))
    _surplus(world, result, network, {eip.allocation_id for eip in mine})
    return result


def foreign(world: World, eip: ElasticIp) -> str:
    """Why an Elastic IP is not for VMs; empty when it is."""
    if not eip.eni_id:
        return ""
    host = world.host_of_eni.get(eip.eni_id)
    if host is None:
        return (
            f"is in a pool, but associated with {eip.eni_id}, which is no OpenNebula host; disassociate it there, or "
            "remove its tag"
        )
    eni = world.interfaces.get(eip.eni_id)
    if eni is not None and eip.private_ip == eni.primary:
        return (
            f"is in a pool, but it is the public address of host {host.name} itself; disassociate it, or remove its tag"
        )
    return ""


def _duplicate(result: Plan, network: Network, eip: ElasticIp, held: list[AddressRange]) -> None:
    numbers = " and ".join(str(one.ar_id) for one in held)
    idle = next((one.ar_id for one in reversed(held) if not one.used), held[-1].ar_id)
    result.problem(
        f"Elastic IP {eip.public_ip}",
        f"is in the address ranges {numbers} of network {network.name}, which would lease it twice; run "
        f"'onevnet rmar {network.network_id} {idle}'",
    )


def _keep(
    world: World, result: Plan, network: Network, eip: ElasticIp, held: AddressRange | None, chooser: Chooser
) -> None:
    target = f"Elastic IP {eip.public_ip}"
    if held is None:
        _refuse_leased(world, network, eip, held)
        values = chooser.range_for(eip)
        private_ip = values[PRIVATE]

        def add() -> None:
            world.oned.add_range(network.network_id, values)
            _secure(world, eip, private_ip)

        result.change(target, f"add range {values['IP']} with {private_ip} to network {network.name}", add)
        return
    present = held.attributes.get(PRIVATE, "")
    where = f"range {held.ar_id} of network {network.name}"
    if held.used:
        # Its VM keeps what it got with the lease, so nothing here can change; `follow` sees to the Elastic IP.
        if eip.private_ip not in ("", present):
            result.problem(
                target,
                f"leads to {eip.private_ip}, but {where} is leased with {present}; it is put back while the VM runs, "
                "detach it from the VM to let it lead elsewhere",
            )
        return
    if eip.private_ip != present:
        _refuse_leased(world, network, eip, held)
    private_ip = eip.private_ip or (present if _usable(world, present, eip) else chooser.private_ip())
    wanted = {**held.attributes, ALLOCATION: eip.allocation_id, PUBLIC: eip.public_ip, PRIVATE: private_ip}

    def update() -> None:
        if wanted != held.attributes:
            now = world.oned.network(network.network_id)
            if any(one.used for one in now.ranges if one.ar_id == held.ar_id):
                raise AwsOvsError(f"{where} has been leased just now and cannot change", "run 'oneaws eip sync' again")
            world.oned.update_range(network.network_id, held.ar_id, wanted)
        _secure(world, eip, private_ip)

    if wanted != held.attributes:
        result.change(target, f"set {where} to {private_ip}", update)
    elif eip.private_ip != private_ip:
        result.change(target, f"associate with {private_ip} ({where})", update)


def _refuse_leased(world: World, network: Network, eip: ElasticIp, held: AddressRange | None) -> None:
    """Refuse an Elastic IP that another range is leased with, or that leads to the private address of one: a VM has it.

    Raises:
        AwsOvsError: it is so.
    """
    for known in world.networks:
        if not known.ours or not any(_concerns(one, eip) for one in known.ranges):
            continue
        for one in world.with_leases(known.network_id).ranges:
            own = held is not None and (known.network_id, one.ar_id) == (network.network_id, held.ar_id)
            if one.used and not own and _concerns(one, eip):
                where = f"range {one.ar_id} of network {known.name}"
                if one.attributes.get(ALLOCATION) == eip.allocation_id:
                    raise AwsOvsError(f"is leased from {where} still", "detach it there first")
                raise AwsOvsError(
                    f"leads to {eip.private_ip}, which is that of the leased {where}",
                    "disassociate it, or associate it with another address",
                )


def _concerns(held: AddressRange, eip: ElasticIp) -> bool:
    same_address = eip.private_ip != "" and held.attributes.get(PRIVATE) == eip.private_ip
    return same_address or held.attributes.get(ALLOCATION) == eip.allocation_id


def _usable(world: World, address: str, eip: ElasticIp) -> bool:
    """True when a private address can serve an Elastic IP: it is free, or a secondary one of a host, and no other has it."""
    if any(one.private_ip == address and one.allocation_id != eip.allocation_id for one in world.elastic_ips.values()):
        return False
    eni = world.eni_of_address.get(address)
    if eni is None:
        return any(subnet.has(address) for subnet in world.subnets.values()) if address else False
    return eni.eni_id in world.host_of_eni and eni.primary != address


def _secure(world: World, eip: ElasticIp, private_ip: str) -> None:
    """Let an Elastic IP lead to a private address, which gets onto an ENI first if it is on none.

    Raises:
        AwsOvsError: EC2 refuses, or the address has been taken meanwhile.
    """
    eni = world.eni_of_address.get(private_ip)
    if eni is None:
        eni = _roomiest(world, private_ip)
        world.ec2.assign(eni.eni_id, [private_ip])
        note(world, eni, private_ip)
        world.ec2.confirm(
            f"{private_ip} on {eni.eni_id}",
            lambda: any(private_ip in one.addresses for one in world.ec2.interfaces_with([eni.eni_id]).values()),
        )
    elif eni.eni_id not in world.host_of_eni or eni.primary == private_ip:
        raise AwsOvsError(f"{private_ip} belongs to {eni.eni_id} and cannot serve {eip.public_ip}", "run it again")
    if eip.private_ip != private_ip:
        associate(world, eip, eni.eni_id, private_ip)


def associate(world: World, eip: ElasticIp, eni_id: str, private_ip: str) -> None:
    """Let an Elastic IP lead to a private address, and wait until EC2 shows it.

    Raises:
        AwsOvsError: another Elastic IP leads there, which would lose it.
    """
    there = world.ec2.elastic_ips_at(private_ip)
    here = {eni_id, *world.interfaces}  # another VPC may have the same private address
    other = next((one for one in there.values() if one != eip and one.eni_id in here), None)
    if other is not None and other.allocation_id != eip.allocation_id:
        raise AwsOvsError(
            f"{private_ip} has the Elastic IP {other.public_ip} already, so {eip.public_ip} cannot have it",
            "disassociate one",
        )
    world.ec2.associate(eip.allocation_id, eni_id, private_ip)
    world.elastic_ips[eip.allocation_id] = eip._replace(eni_id=eni_id, private_ip=private_ip)
    world.ec2.confirm(
        f"{eip.public_ip} at {private_ip}",
        lambda: any(one.private_ip == private_ip for one in world.ec2.elastic_ips([eip.allocation_id]).values()),
    )


def note(world: World, eni: Interface, *added: str) -> None:
    """Keep in mind that an ENI has got addresses, so that the next choice counts them."""
    for other in list(world.interfaces.values()):
        left = tuple(one for one in other.addresses if one not in added)
        world.interfaces[other.eni_id] = other._replace(addresses=left)
    now = world.interfaces.get(eni.eni_id, eni)
    now = now._replace(addresses=(*now.addresses, *added))
    world.interfaces[eni.eni_id] = now
    vars(world).pop("eni_of_address", None)


def _roomiest(world: World, address: str) -> Interface:
    """The ENI with most room among those of hosts in the subnet of an address.

    Raises:
        NoRoomError: all are full.
    """
    room = {
        eni_id: world.limit(host) - len(world.interfaces[eni_id].addresses)
        for eni_id, host in world.host_of_eni.items()
        if eni_id in world.interfaces and _of_subnet(world, world.interfaces[eni_id], address)
    }
    best = max(sorted(room), key=lambda one: room[one], default="")
    if not best or room[best] < 1:
        raise no_room(world, room, f" in the subnet of {address}")
    return world.interfaces[best]


def _of_subnet(world: World, eni: Interface, address: str) -> bool:
    return eni.subnet_id in world.subnets and world.subnets[eni.subnet_id].has(address)


def _surplus(world: World, result: Plan, network: Network, mine: set[str]) -> None:
    """Ranges whose Elastic IP is not in the pool any more."""
    for held in network.ranges:
        allocation = held.attributes.get(ALLOCATION, "")
        if not allocation or allocation in mine:
            continue
        eip = world.elastic_ips.get(allocation)
        public_ip = held.attributes.get(PUBLIC, allocation)
        remedy = "detach it there"
        if eip is None:
            what = "is not in this account any more"
        elif _wants(network, eip):
            what = "belongs to an older pool"
        else:
            what = "has not the pool's tags any more"
            remedy += ", or give it the tag again"
        if held.used:
            owners = " ".join(f"VM {vm_id}" for vm_id in held.leases if vm_id >= 0) or "a held lease"
            result.problem(
                f"Elastic IP {public_ip}",
                f"{what}, but range {held.ar_id} of network {network.name} is in use by {owners}; {remedy}",
            )
            continue
        result.change(
            f"Elastic IP {public_ip}",
            f"remove range {held.ar_id} of network {network.name}: it {what}",
            _removal(world, network, held, eip),
        )


def _removal(world: World, network: Network, held: AddressRange, eip: ElasticIp | None) -> Callable[[], None]:
    def remove() -> None:
        private_ip = held.attributes.get(PRIVATE, "")
        eni = world.eni_of_address.get(private_ip)
        in_use = any(one.private_ip == private_ip for one in world.elastic_ips.values())
        if (
            eip is None
            and eni is not None
            and eni.eni_id in world.host_of_eni
            and eni.primary != private_ip
            and not in_use
        ):
            try:  # the address was taken for the Elastic IP that is no more; while the range is there it is remembered
                world.ec2.unassign(eni.eni_id, private_ip)
            except Ec2Error as bad:
                if bad.code != "InvalidParameterValue":
                    raise
        world.oned.remove_range(network.network_id, held.ar_id)

    return remove
