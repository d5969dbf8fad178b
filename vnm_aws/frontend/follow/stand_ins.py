"""Let addresses of a host's own subnet stand there for private addresses of its VMs that cannot leave theirs.

A stand-in is written into the template of the host, EC2_STAND_INS, before the node is told and before it is taken in EC2, and
goes from there last: so whoever is killed leaves a record of what was meant. There is one for each Elastic IP and subnet.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from ...addresses import Prefix, is_ipv4
from ...errors import AwsOvsError
from ...names import HOST_STAND_INS, PRIVATE_IP
from ...overlay import stand_ins as node_list
from .. import ssh
from ..attempts import Attempts
from ..ec2_errors import Ec2Error
from ..ec2_objects import ElasticIp, Subnet
from ..locks import lock_of
from ..objects import Address, AwsVm, Host
from ..oned import NotFoundError
from ..plan import Plan
from ..world import Part, World
from .decide import missing, to_associate

_COMMAND = "sudo -n /usr/sbin/aws-ovs stand-ins"
_REFUSED = ("InvalidParameterValue", "InvalidIPAddress.InUse", "InvalidAddress.Locked", "PrivateIpAddressInUse")
"""What EC2 says of an address that an ENI cannot have."""


def standing(vm: AwsVm, host: Host) -> AwsVm:
    """Show a VM with the addresses that it has on a host: what stands there for them, if anything does."""
    pairs = host.stand_ins
    if not pairs:
        return vm
    addresses = tuple(
        item._replace(private_ip=pairs[item.private_ip], stands_for=item.private_ip)
        if item.private_ip in pairs and not item.stands_for
        else item
        for item in vm.addresses
    )
    return vm._replace(addresses=addresses)


def foresee(world: World, host: Host, vms: Sequence[AwsVm], refused: Collection[str] = ()) -> Host:
    """Show a host with the stand-ins that its VMs need there; not those that EC2 has `refused`.

    Raises:
        AwsOvsError: its subnet has no free address.
    """
    pairs, occupied = dict(host.stand_ins), None
    for address in _lacking(world, host, vms):
        pairs.pop(address.leased, None)
        chosen = _elsewhere(world, host, address.leased)
        if not chosen:
            occupied = occupied or _occupied(world, _subnet(world, host))
            chosen = _free(_subnet(world, host), occupied, {*pairs.values(), *refused}, address)
        pairs[address.leased] = chosen
    return host if pairs == host.stand_ins else _with(host, pairs)


def _with(host: Host, pairs: dict[str, str]) -> Host:
    text = " ".join(f"{private_ip}={address}" for private_ip, address in sorted(pairs.items()))
    return host._replace(template={**host.template, HOST_STAND_INS: text})


def _lacking(world: World, host: Host, vms: Sequence[AwsVm]) -> list[Address]:
    """List the addresses of VMs, with an Elastic IP each, that cannot be on their host, and for which nothing good stands."""
    enis, here = world.enis(host), [standing(vm, host) for vm in vms]
    absent = {address for vm in here for address in missing(vm, host, enis)}
    subnet = world.subnets.get(enis[0].subnet_id) if enis and absent else None
    if subnet is None:
        return []
    lacking: dict[str, Address] = {}
    for vm in here:
        for item in vm.addresses:
            if item.private_ip in absent and _may_stand(world, item):
                holder = world.eni_of_address.get(item.private_ip) if item.stands_for else None
                is_strange = holder is not None and holder.eni_id not in world.host_of_eni
                if not subnet.has(item.private_ip) or is_strange:
                    lacking.setdefault(item.leased, item)
    return list(lacking.values())


def _may_stand(world: World, item: Address) -> bool:
    """Say whether another address may stand for one: it has an Elastic IP, and is what its network gives."""
    is_given = (item.network_id, item.leased, item.elastic_ip) in world.given
    return is_given and bool(item.elastic_ip) and not item.dead_end and is_ipv4(item.leased)


def _elsewhere(world: World, host: Host, private_ip: str) -> str:
    """Find what stands for an address on another host of the same subnet; empty when nothing does."""
    subnet = _subnet(world, host)
    others = (other.stand_ins.get(private_ip, "") for other in world.hosts if other.host_id != host.host_id)
    return next((address for address in others if subnet.has(address)), "")


def _subnet(world: World, host: Host) -> Subnet:
    return world.subnets[world.interfaces[host.eni_id].subnet_id]


class _Occupied(NamedTuple):
    """What of a subnet somebody has, or is about to have."""

    addresses: set[str]
    blocks: list[Prefix]

    def has(self, address: str) -> bool:
        """Say whether an address is among it."""
        return address in self.addresses or any(address in block for block in self.blocks)


def _occupied(world: World, subnet: Subnet) -> _Occupied:
    """Look what of a subnet is not free: reserved blocks and those of ENIs, too."""
    enis = world.ec2.interfaces_in(subnet.subnet_id).values()
    addresses = {item for eni in enis for item in eni.addresses} | {*world.stands_for}
    addresses |= {item for network in world.networks for item in network.values_of_ranges(PRIVATE_IP)}
    attempts = Attempts(world.settings.state_directory)
    addresses |= attempts.expected() | {item for item in subnet.candidates() if attempts.refused(item)}
    blocks = [block for eni in enis for block in eni.prefixes]
    blocks += [block.cidr for block in world.ec2.reservations([subnet.subnet_id])]
    return _Occupied(addresses, [Prefix(block, f"a block of {subnet.subnet_id}") for block in blocks])


def _free(subnet: Subnet, occupied: _Occupied, taken: Collection[str], address: Address) -> str:
    """Choose an address of a subnet that nothing has.

    Those of pools are chosen from the end of the subnet on. So that both choices seldom meet, each Elastic IP begins elsewhere.
    """
    candidates = list(subnet.candidates())
    start = zlib.crc32(address.elastic_ip.encode()) % max(1, len(candidates))
    for item in candidates[start:] + candidates[:start]:
        if not occupied.has(item) and item not in taken:
            return item
    what = f"subnet {subnet.subnet_id} has no free address that could stand for {address.leased}"
    raise AwsOvsError(what, "free some, or migrate the VM to a host in the subnet of that address")


def concerned(world: World, host: Host, vms: Sequence[AwsVm]) -> list[AwsVm]:
    """List the VMs that are to have something that stands in on their host, and for which there is something to do."""
    lacking = {address.leased for address in _lacking(world, host, vms)}
    enis, result = world.enis(host), []
    for vm in vms:
        here = standing(vm, host)
        stands = any(address.stands_for for address in here.addresses)
        moves = stands and (missing(here, host, enis) or to_associate(here, world.elastic_ips))
        if moves or any(address.leased in lacking for address in here.addresses):
            result.append(vm)
    return result


def provide(world: World, host: Host, vms: Sequence[AwsVm], refused: Collection[str] = ()) -> Host:
    """Let VMs have what stands for their addresses on their host: it is written down, and the node knows it.

    Returns:
        the host, with all that stands there.

    Raises:
        AwsOvsError: the node does not take it, or nothing can stand in.
    """
    with _held(world, host):
        now = world.oned.host(host.host_id)
        then = foresee(world, now, vms, refused)
        if then.stand_ins != now.stand_ins:
            _write(world, then)
        _tell(world, then)
    return then


def _write(world: World, host: Host) -> None:
    """Write down what stands on a host."""
    world.oned.update_host(host.host_id, {HOST_STAND_INS: host.template[HOST_STAND_INS]})
    world.forget(Part.HOSTS)


def _held(world: World, host: Host) -> AbstractContextManager[None]:
    """Hold the lock of whoever changes what stands on a host."""
    return lock_of(world.settings, "stand-ins", host.host_id, f"stand-ins of host {host.name}")


def _tell(world: World, host: Host) -> None:
    """Tell a node what stands there.

    Raises:
        AwsOvsError: it does not take it.
    """
    text = node_list.document(node_list.StandIns(host.stand_ins))
    (answer,) = ssh.run(world, [host], _COMMAND, text)
    if answer.reason:
        what = f"host {host.name} did not take the addresses that stand in there ({answer.reason})"
        remedy = "look whether ssh to it works and it has this version of the driver; 'oneaws reconcile' tries again"
        raise AwsOvsError(what, remedy)


def refresh(world: World, hosts: Sequence[Host]) -> None:
    """Tell nodes, which may have been made anew, what stands there.

    Raises:
        AwsOvsError: one does not take it.
    """
    for host in hosts:
        if host.stand_ins:
            with _held(world, host):
                _tell(world, world.oned.host(host.host_id))


def plan_to_tell(world: World) -> Plan:
    """Plan to tell every node what stands there."""
    result = Plan()
    for host in world.hosts:
        if host.stand_ins and not host.terminated:
            text = f"tell it what stands in there: {host.template[HOST_STAND_INS]}"
            result.change(f"host {host.name}", text, refresh, world, [host])
    return result


def is_refused_address(error: AwsOvsError | None) -> bool:
    """Say whether EC2 has refused an address, and not what was to be done with it."""
    return isinstance(error, Ec2Error) and error.code in _REFUSED


def discard(world: World, host: Host, vms: Sequence[AwsVm]) -> set[str]:
    """Forget what was to stand in for addresses of VMs and is on no ENI of their host: EC2 has refused it.

    Returns:
        it.
    """
    with _held(world, host):
        now = world.oned.host(host.host_id)
        there = {address for eni in world.ec2.interfaces_with(now.eni_ids).values() for address in eni.addresses}
        leased = {address.leased for vm in vms for address in vm.addresses}
        pairs = {key: item for key, item in now.stand_ins.items() if key not in leased or item in there}
        if pairs != now.stand_ins:
            _write(world, _with(now, pairs))
    return {*now.stand_ins.values()} - {*pairs.values()}


def hosts_with(world: World, vm: AwsVm) -> list[Host]:
    """List the hosts on which something stands for an address of a VM."""
    leased = {address.leased for address in vm.addresses}
    return [host for host in world.hosts if leased & {*host.stand_ins}]


def leave(world: World, vms: Sequence[AwsVm]) -> None:
    """Give back what stood for addresses of VMs on other hosts than theirs; what that fails for, the reconciler tries again."""
    places = {address.leased: vm.host_id for vm in vms for address in vm.addresses}
    for host in world.hosts:
        for private_ip in host.stand_ins:
            if places.get(private_ip, host.host_id) != host.host_id:
                with contextlib.suppress(AwsOvsError):
                    give_back(world, host, private_ip)


def places(world: World) -> dict[str, Host]:
    """Find the hosts where Elastic IPs lead to what stands for a private address, by that."""
    leads = {eip.private_ip: eip.eni_id for eip in world.elastic_ips.values() if eip.private_ip}
    return {
        private_ip: host
        for host in world.hosts
        for private_ip, address in host.stand_ins.items()
        if leads.get(address) in host.eni_ids
    }


def plan(world: World) -> Plan:
    """Plan to give back what stands on hosts for addresses that no VM needs there any more."""
    result = Plan()
    hosts = [host for host in world.hosts if host.stand_ins]
    if not hosts:
        return result
    holders: dict[str, list[AwsVm]] = defaultdict(list)
    for vm in world.vms:
        for item in vm.addresses:
            holders[item.private_ip].append(vm)
    leads = {(eip.eni_id, eip.private_ip) for eip in world.elastic_ips.values()}
    for host in hosts:
        for private_ip, address in host.stand_ins.items():
            if not any(
                _needs(vm, host, any((eni_id, address) in leads for eni_id in host.eni_ids))
                for vm in holders[private_ip]
            ):
                text = f"give back {address}, which stands for {private_ip}"
                result.change(f"host {host.name}", text, give_back, world, host, private_ip)
    return result


def _needs(vm: AwsVm, host: Host, leads_here: bool) -> bool:
    """Say whether a VM, on whatever host it is, needs what stands for its address on one of them."""
    return not vm.on_host or vm.host_id == host.host_id or leads_here


def give_back(world: World, host: Host, private_ip: str) -> None:
    """Let nothing stand for a private address on a host any more, unless a VM has come that needs it.

    Raises:
        AwsOvsError: the node or EC2 refuses; what is left is done the next time.
    """
    with _held(world, host):
        now = world.oned.host(host.host_id)
        address = now.stand_ins.get(private_ip)
        if address is None:
            return
        eips = [eip for eip in world.ec2.elastic_ips_at([address]).values() if eip.eni_id in now.eni_ids]
        if any(_needs(vm, now, bool(eips)) for vm in _holders(world, private_ip)):
            return
        then = _with(now, {key: item for key, item in now.stand_ins.items() if key != private_ip})
        if not now.terminated:
            _tell(world, then)
            for eip in eips:
                _lead_home(world, now, eip, private_ip)
            _unassign(world, now, address)
        _write(world, then)
        world.forget(Part.ADDRESSES)


def _lead_home(world: World, host: Host, eip: ElasticIp, private_ip: str) -> None:
    """Let an Elastic IP lead to its own private address again, if that is on the ENI of a host."""
    own = world.ec2.interfaces_with([host.eni_id])[host.eni_id]
    for eni in world.ec2.interfaces_holding([private_ip], own.vpc_id).values():
        if eni.eni_id in world.host_of_eni and eni.primary != private_ip:
            world.associate(eip, eni.eni_id, private_ip)


def _unassign(world: World, host: Host, address: str) -> None:
    """Take an address from the ENI of a host, if it is there and does not belong to the host itself."""
    for eni in world.ec2.interfaces_with(host.eni_ids).values():
        if address in eni.addresses and address != eni.primary:
            try:
                world.ec2.unassign(eni.eni_id, [address])
            except Ec2Error as error:
                if error.code != "InvalidParameterValue":  # it has gone already
                    raise
            world.taken.forget([address])


def _holders(world: World, private_ip: str) -> list[AwsVm]:
    """Read the VMs on hosts that have a lease of a private address, as they are now."""
    holders: set[int] = set()
    for network in world.networks:
        if network.ours and private_ip in network.values_of_ranges(PRIVATE_IP):
            with contextlib.suppress(NotFoundError):
                now = world.oned.network(network.network_id)
                leases = (item.leases for item in now.ranges if item.attributes.get(PRIVATE_IP) == private_ip)
                holders.update(*leases)
    on_hosts = {vm_id for host in world.hosts for vm_id in host.vms}
    vms = []
    for vm_id in sorted(holders & on_hosts):
        with contextlib.suppress(NotFoundError):
            vms.append(world.oned.vm(vm_id))
    return vms
