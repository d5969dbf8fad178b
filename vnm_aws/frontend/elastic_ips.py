"""Say which Elastic IPs are not for VMs, although they have the tags of a pool: what others have is never touched."""

from __future__ import annotations

from ..errors import AwsOvsError
from ..names import INSTANCE_ID, POOL, ZONE
from .ec2_objects import ElasticIp, Interface
from .objects import Host, Network
from .tags import TagFilter
from .world import World

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def foreign(world: World, network: Network, eip: ElasticIp) -> AwsOvsError | None:
    """Say why an Elastic IP is not for the VMs of a pool; None when it is."""
    if eip.service:
        return AwsOvsError(f"is in a pool, but a service of AWS manages it ({eip.service})", untag(network, eip))
    if eip.eni_id:
        elsewhere = _elsewhere(world, network, eip)
        if elsewhere:
            return elsewhere
    groups = {border_group(world, host) for host in world.host_of_eni.values() if host.cluster_id in network.clusters}
    if groups and not eip.private_ip and eip.border_group not in ("", *groups):
        what = (
            f"is of the network border group {eip.border_group}, but the hosts in the clusters of network {network.name} are in "
            f"{' '.join(sorted(groups))}, and EC2 associates an Elastic IP only within its own"
        )
        return AwsOvsError(what, untag(network, eip))
    return None


def untag(network: Network, eip: ElasticIp) -> str:
    """Compose the remedy that takes an Elastic IP out of a pool."""
    key = TagFilter.parse(network.template[POOL], POOL).pairs[0][0]
    return f"run 'aws ec2 delete-tags --resources {eip.allocation_id} --tags Key={key}', and the pool leaves it alone"


def led_to(world: World, address: str) -> list[ElasticIp]:
    """List the Elastic IPs that lead to a private address of the hosts' VPC; another VPC may have the same address."""
    return [eip for eip in world.elastic_ips.values() if eip.private_ip == address and eip.eni_id in world.interfaces]


def border_group(world: World, host: Host) -> str:
    """Name the network border group of a host: a Region for its zones, and a Local Zone's without the letter."""
    return host.template.get(ZONE, "").rstrip(_LETTERS) or world.ec2.region


def _elsewhere(world: World, network: Network, eip: ElasticIp) -> AwsOvsError | None:
    """Say who has an Elastic IP, if that is not the ENI of a host."""
    host, eni = world.host_of_eni.get(eip.eni_id), world.interfaces.get(eip.eni_id)
    if host is not None:
        if eni is None or eip.private_ip != eni.primary:
            return None
        what = f"is in a pool, but it is the public address of host {host.name} itself"
        return AwsOvsError(what, "disassociate it, or remove its tag")
    what, remedy = f"is in a pool, but associated with {eip.eni_id}", "disassociate it there, or remove its tag"
    if eni is None:
        return AwsOvsError(f"{what}, which is no OpenNebula host and in no VPC of hosts", remedy)
    owner = _owner(world, eni)
    called = f" ({eni.description})" if eni.description else ""
    if eni.managed:
        return AwsOvsError(
            f"{what}, which is no OpenNebula host but made by a service of AWS{called}", untag(network, eip)
        )
    if owner is None:
        return AwsOvsError(f"{what}{called}, which is no OpenNebula host", remedy)
    if eni.instance_id:
        return AwsOvsError(f"{what}, which is an ENI of host {owner.name}, but not one for its VMs", remedy)
    remedy = f"run 'aws ec2 delete-network-interface --network-interface-id {eni.eni_id}'"
    return AwsOvsError(f"{what}, which the terminated instance of host {owner.name} has left behind", remedy)


def _owner(world: World, eni: Interface) -> Host | None:
    """Find the host whose instance has an ENI, or had it until it was terminated."""
    for host in world.hosts:
        if eni.instance_id and host.template.get(INSTANCE_ID) == eni.instance_id:
            return host
        if not eni.instance_id and host.terminated and host.eni_id == eni.eni_id:
            return host
    return None
