"""Large clouds in which nothing is to be done: to count the calls of a reconcile, and to time it."""

from __future__ import annotations

from collections import defaultdict

from lxml import etree

from .cloud import POOL, RUNNING_VM, Cloud

EVERY = 8
"""So many VMs there are for one with an Elastic IP, as far as there are Elastic IPs."""

_MONITORED = 2


def _plain_vm() -> bytes:
    """A running VM with NICs that AWS knows nothing of."""
    root = etree.fromstring(RUNNING_VM)
    for nic in (*root.iter("NIC"), *root.iter("NIC_ALIAS")):
        for key in ("AWS_PRIVATE_IP", "EXTERNAL_IP", "AWS_ALLOCATION_ID"):
            for old in nic.findall(key):
                nic.remove(old)
    return etree.tostring(root)


def _inside(number: int) -> str:
    return f"172.16.{number >> 8}.{number & 255}"


def settle(cloud: Cloud, hosts: int, vms: int, eips: int) -> None:
    """Fill a cloud: metal hosts, one pool with all Elastic IPs, VMs on all hosts; and bring it to rest.

    What takes a reconciler three calls a piece is made here, as it would be then; it does the rest.
    """
    metal = cloud.add_metal(*(f"h{number:03}" for number in range(hosts)))
    cloud.add_network("private", NETWORK_ADDRESS="172.31.0.0", NETWORK_MASK="255.255.0.0")
    cloud.oneaws("host", "sync")
    for host in cloud.world().hosts:
        cloud.oned.set_host_state(host.host_id, _MONITORED)

    made = cloud.ec2.allocate_eips([POOL] * eips)
    subnet = next(iter(cloud.world().subnets.values()))
    free = [address for address, _ in zip(subnet.candidates(), range(eips), strict=False)]
    homes = {address: metal[EVERY * number % hosts] for number, address in enumerate(free)}
    by_eni: dict[str, list[str]] = defaultdict(list)
    for address, home in homes.items():
        by_eni[home.eni_id].append(address)
    for eni_id, addresses in by_eni.items():
        cloud.ec2.client.assign_private_ip_addresses(NetworkInterfaceId=eni_id, PrivateIpAddresses=addresses)
    ranges = []
    for number, (eip, address) in enumerate(zip(made, free, strict=True)):
        cloud.ec2.client.associate_address(
            AllocationId=eip.allocation_id, NetworkInterfaceId=homes[address].eni_id, PrivateIpAddress=address
        )
        ranges.append(
            f'AR=[ TYPE="IP4", IP="{_inside(number + 2)}", SIZE="1", EXTERNAL_IP="{eip.public_ip}", '
            f'AWS_PRIVATE_IP="{address}", AWS_ALLOCATION_ID="{eip.allocation_id}" ]'
        )
    pool = cloud.add_pool(
        AR="\n".join(ranges), NETWORK_ADDRESS="172.16.0.0", NETWORK_MASK="255.255.0.0", GATEWAY=_inside(1)
    )

    cloud.oned.populate(_plain_vm(), hosts=0, vms=vms)
    for held in cloud.network(pool).ranges:
        vm_id = EVERY * held.ar_id
        if vm_id < vms:
            ip = cloud.oned.lease(pool, held.ar_id, vm_id)
            cloud.set_nics(vm_id, pool, [{"IP": ip, **held.attributes}])
    cloud.oneaws("reconcile")
