"""Blocks of addresses in the subnets of the lab's EC2: prefixes on interfaces, and subnet CIDR reservations."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.subnets import Subnet

from .views import addresses_of, prefixes_of

_LENGTH = 28
"""An IPv4 prefix of an interface is a /28 (EC2 user guide, "Prefix delegation for Amazon EC2 network interfaces")."""


def held_by(eni: NetworkInterface) -> int:
    """What counts against the limit of an interface: a prefix takes the place of one address (the same guide)."""
    return len(eni.private_ip_addresses) + len(prefixes_of(eni))


def on_interfaces(backend: EC2Backend, subnet: Subnet) -> list[IPv4Network]:
    """The prefixes that interfaces in a subnet have."""
    enis = (eni for eni in backend.enis.values() if eni.subnet.id == subnet.id)
    return [IPv4Network(prefix) for eni in enis for prefix in prefixes_of(eni)]


def reserved(subnet: Subnet, kind: str = "") -> list[IPv4Network]:
    """The IPv4 subnet CIDR reservations of a subnet, or those of one type."""
    wanted = (one for one in subnet._cidr_reservations if kind in ("", one.reservation_type))
    return [one.cidr for one in wanted if isinstance(one.cidr, IPv4Network)]


def check(backend: EC2Backend, subnet: Subnet, address: str) -> None:
    """Whether somebody may name an address: one of a prefix is in use, and of a reservation of type `prefix` EC2 chooses.

    That of type `explicit` is for those who name addresses (VPC guide, "Subnet CIDR reservations").

    Raises:
        EC2ClientError: InvalidParameterValue: no.
    """
    number = IPv4Address(address)
    if any(number in block for block in on_interfaces(backend, subnet)):
        raise EC2ClientError("InvalidParameterValue", f"Address {address} is in use.")
    if any(number in block for block in reserved(subnet, "prefix")):
        raise EC2ClientError("InvalidParameterValue", f"Address {address} is in a reservation for prefixes.")


def automatic(backend: EC2Backend, subnet: Subnet) -> Iterator[str]:
    """The addresses that EC2 hands out by itself, lowest first: none of prefixes, and none of reservations, which keep
    AWS from assigning them (VPC guide, "Subnet CIDR reservations"); without the five that every subnet loses.

    Raises:
        EC2ClientError: InsufficientFreeAddressesInSubnet: no more is free.
    """
    used = {address for eni in backend.enis.values() if eni.subnet.id == subnet.id for address in addresses_of(eni)}
    blocks = [*on_interfaces(backend, subnet), *reserved(subnet)]
    for number in range(4, subnet.cidr.num_addresses - 1):
        address = subnet.cidr.network_address + number
        if str(address) not in used and not any(address in block for block in blocks):
            yield str(address)
    raise EC2ClientError("InsufficientFreeAddressesInSubnet", f"The subnet {subnet.id} has not enough free addresses.")


def free_prefix(backend: EC2Backend, subnet: Subnet, wanted: str = "") -> str:
    """A free prefix of a subnet, this one or any; any is of a reservation of type `prefix` if there is one.

    Raises:
        EC2ClientError: InsufficientCidrBlocks: none is free; InvalidParameterValue: this one is not.
    """
    used = [
        IPv4Address(item) for eni in backend.enis.values() if eni.subnet.id == subnet.id for item in addresses_of(eni)
    ]
    aws = {
        IPv4Address(int(subnet.cidr.network_address) + number)
        for number in (0, 1, 2, 3, -1 % subnet.cidr.num_addresses)
    }
    taken = on_interfaces(backend, subnet)
    blocks = [IPv4Network(wanted)] if wanted else [*reserved(subnet, "prefix"), subnet.cidr]
    for block in blocks:
        for prefix in block.subnets(new_prefix=_LENGTH):
            mine = any(address in prefix for address in [*used, *([] if wanted else aws)])
            if not mine and not any(prefix.overlaps(other) for other in taken):
                return str(prefix)
    if wanted:
        raise EC2ClientError("InvalidParameterValue", f"Prefix {wanted} is in use.")
    raise EC2ClientError("InsufficientCidrBlocks", f"The subnet {subnet.id} has not enough free CIDR blocks.")
