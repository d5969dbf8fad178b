"""EC2 for the lab: a moto server whose backend is corrected where it differs from EC2 in what the lab stands on.

Run as `python -m tests.lab.world.moto_server PORT`; it listens on loopback only. Each correction says what
Amazon's API reference states. Clients are never patched.
"""

from __future__ import annotations

import sys
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.server import main as serve


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def _addresses(eni: NetworkInterface) -> list[str]:
    return [str(item["PrivateIpAddress"]) for item in eni.private_ip_addresses]


def _assign_private_ip_addresses(self: Any) -> ActionResult:
    """AssignPrivateIpAddresses: an address of another interface is refused unless AllowReassignment, which moves it.

    A primary address never moves. An Elastic IP stays with its private address. Addresses that are there already
    are assigned again without effect.
    """
    backend: EC2Backend = self.ec2_backend
    eni = backend.get_network_interface(self._get_param("NetworkInterfaceId"))
    wanted = self._get_param("PrivateIpAddresses", [])
    allowed = _true(self._get_param("AllowReassignment", False))
    owners = {address: other for other in backend.enis.values() for address in _addresses(other)}
    for address in wanted:
        owner = owners.get(address)
        if owner is None or owner is eni:
            continue
        if owner.private_ip_address == address or not allowed:
            raise EC2ClientError("InvalidParameterValue", f"[{address}] assigned, but move is not allowed.")
    for address in wanted:
        owner = owners.get(address)
        if owner is eni:
            continue
        if owner is not None:
            owner.private_ip_addresses[:] = [
                item for item in owner.private_ip_addresses if item["PrivateIpAddress"] != address
            ]
        eni.private_ip_addresses.append({"Primary": False, "PrivateIpAddress": address})
        for eip in backend.addresses:
            if eip.private_ip_address == address:
                eip.eni, eip.instance = eni, eni.instance
    count = self._get_int_param("SecondaryPrivateIpAddressCount", 0)
    if count:
        backend.assign_private_ip_addresses(eni.id, [], count)
    assigned = [{"PrivateIpAddress": address} for address in wanted]
    return ActionResult({"NetworkInterfaceId": eni.id, "AssignedPrivateIpAddresses": assigned})


_associate = ElasticIPAddresses.associate_address


def _associate_address(self: Any) -> ActionResult:
    """AssociateAddress: PrivateIpAddress chooses the address of the interface, else it is the primary one.

    An address that has another Elastic IP is refused unless AllowReassociation, which takes the other one away.
    """
    backend: EC2Backend = self.ec2_backend
    allocation, eni_id = self._get_param("AllocationId"), self._get_param("NetworkInterfaceId")
    if not eni_id:
        return _associate(self)
    eni = backend.get_network_interface(eni_id)
    private_ip = self._get_param("PrivateIpAddress") or eni.private_ip_address
    if private_ip not in _addresses(eni):
        raise EC2ClientError(
            "InvalidParameterValue", f"The address {private_ip} does not belong to interface {eni_id}."
        )
    allowed = _true(self._get_param("AllowReassociation", False))
    for other in backend.addresses:
        if other.allocation_id != allocation and other.eni is not None and other.private_ip_address == private_ip:
            if not allowed:
                raise EC2ClientError(
                    "Resource.AlreadyAssociated", f"The address {private_ip} already has {other.public_ip}."
                )
            other.eni = other.instance = other.association_id = None
    result = _associate(self)
    (eip,) = backend.address_by_allocation([allocation])
    eip.chosen_private_ip = private_ip
    eip.instance = eni.instance
    return result


def _private_ip_address(self: Any) -> str | None:
    """DescribeAddresses: the private address that the Elastic IP is associated with."""
    if self.eni is None:
        return None
    return str(getattr(self, "chosen_private_ip", None) or self.eni.private_ip_address)


def correct() -> None:
    """Put the corrections in force."""
    ElasticNetworkInterfaces.assign_private_ip_addresses = _assign_private_ip_addresses
    ElasticIPAddresses.associate_address = _associate_address
    ElasticAddress.private_ip_address = property(_private_ip_address)


if __name__ == "__main__":
    correct()
    serve(["-H", "127.0.0.1", "-p", sys.argv[1]])
