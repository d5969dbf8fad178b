"""The calls of the lab's EC2 that move private addresses and Elastic IPs. Each says what Amazon's API reference states."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import add_tag_specification, random_eip_association_id

from . import blocks
from .marks import elsewhere, marked
from .views import addresses_of, prefixes_of, private_ip_of, slot


class Limits:
    """What the account may have.

    Attributes:
        elastic_ips: addresses; a Region's quota is five unless raised.
    """

    elastic_ips = 5


LIMITS = Limits()


def _invalid(message: str) -> EC2ClientError:
    return EC2ClientError("InvalidParameterValue", message)


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def release_binding(eip: ElasticAddress) -> None:
    """Take an Elastic IP away from its private address."""
    eip.eni = eip.instance = eip.association_id = None


def bind(eip: ElasticAddress, eni: NetworkInterface, private_ip: str) -> None:
    """Associate an Elastic IP with a private address."""
    eip.eni, eip.instance, eip.chosen_private_ip = eni, eni.instance, private_ip
    eip.association_id = random_eip_association_id()


def _holders(backend: EC2Backend, subnet: Subnet) -> dict[str, NetworkInterface]:
    return {
        address: eni for eni in backend.enis.values() if eni.subnet.id == subnet.id for address in addresses_of(eni)
    }


def check_address(subnet: Subnet, address: str) -> None:
    """Of a subnet, the first four addresses and the last are reserved.

    Raises:
        EC2ClientError: InvalidParameterValue: it is one of those, or not of this subnet.
    """
    try:
        number = int(IPv4Address(address)) - int(subnet.cidr.network_address)
    except ValueError:
        raise _invalid(f"'{address}' is not an IPv4 address.") from None
    if not 0 <= number < subnet.cidr.num_addresses:
        raise _invalid(f"Address {address} is not of the subnet {subnet.id}.")
    if number < 4 or number == subnet.cidr.num_addresses - 1:
        raise _invalid(f"Address {address} is reserved.")


def _check_limit(eni: NetworkInterface, more: int) -> None:
    """An interface holds as many IPv4 addresses, the primary and each prefix included, as DescribeInstanceTypes tells for the
    type of its instance; one that is not attached is not limited."""
    if eni.instance is None:
        return
    known = INSTANCE_TYPES.get(eni.instance.instance_type)
    limit = known["NetworkInfo"]["Ipv4AddressesPerInterface"] if known else None
    if limit is not None and blocks.held_by(eni) + more > limit:
        raise EC2ClientError("PrivateIpAddressLimitExceeded", f"{eni.id} may have {limit} private addresses.")


def _assign_private_ip_addresses(self: Any) -> ActionResult:
    """AssignPrivateIpAddresses takes a list of addresses of the interface's subnet, or a number of them to choose; or prefixes,
    or a number of those.

    An address of another interface is refused unless AllowReassignment, which moves it; a primary one never
    moves, nor one of another account's interface. Because the address must be of the interface's own subnet, it moves within a
    subnet only. An Elastic IP goes along with its private address. Addresses that are there already are assigned again without
    effect. All of the list is assigned, or nothing.
    """
    backend: EC2Backend = self.ec2_backend
    eni = _own(backend.get_network_interface(self._get_param("NetworkInterfaceId")))
    wanted = list(dict.fromkeys(self._get_param("PrivateIpAddresses", [])))
    count = self._get_int_param("SecondaryPrivateIpAddressCount", 0)
    prefixes, prefix_count = self._get_param("Ipv4Prefixes", []), self._get_int_param("Ipv4PrefixCount", 0)
    ways = sum(map(bool, (wanted, count, prefixes, prefix_count)))
    if ways > 1:
        raise EC2ClientError(
            "InvalidParameterCombination", "Addresses, prefixes and numbers of them exclude each other."
        )
    if not ways:
        raise EC2ClientError("MissingParameter", "Neither addresses nor a number of them.")
    if prefixes or prefix_count:
        return _assign_prefixes(backend, eni, prefixes or [""] * prefix_count)
    new = _may_come(backend, eni, wanted, _true(self._get_param("AllowReassignment", False)))
    _check_limit(eni, len(new) + count)
    if count:
        free = blocks.automatic(backend, eni.subnet)
        wanted = new = [next(free) for _ in range(count)]
    for address in new:
        holder = _holders(backend, eni.subnet).get(address)
        if holder is not None:
            _remove(holder, [address])
            for eip in _eips(backend, holder, [address]):
                eip.eni, eip.instance = eni, eni.instance
        eni.private_ip_addresses.append({"Primary": False, "PrivateIpAddress": address})
    assigned = [{"PrivateIpAddress": address} for address in wanted]
    return ActionResult({"NetworkInterfaceId": eni.id, "AssignedPrivateIpAddresses": assigned})


def _own(eni: NetworkInterface) -> NetworkInterface:
    """One of this account. Of another's, EC2 says what it says of one that does not exist."""
    if elsewhere(eni.id):
        raise EC2ClientError("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{eni.id}' does not exist")
    return eni


def _may_come(backend: EC2Backend, eni: NetworkInterface, wanted: list[str], allowed: bool) -> list[str]:
    """Those of the addresses that an interface has not yet, when all may come to it."""
    for address in wanted:
        check_address(eni.subnet, address)
    holders = _holders(backend, eni.subnet)
    new = [address for address in wanted if holders.get(address) is not eni]
    for address in new:
        blocks.check(backend, eni.subnet, address)
        holder = holders.get(address)
        if holder is not None and (holder.private_ip_address == address or not allowed or elsewhere(holder.id)):
            raise _invalid(f"[{address}] assigned, but move is not allowed.")
    return new


def _assign_prefixes(backend: EC2Backend, eni: NetworkInterface, wanted: list[str]) -> ActionResult:
    """Put prefixes on an interface; an empty text is any."""
    _check_limit(eni, len(wanted))
    for one in wanted:
        eni.lab_prefixes = [*prefixes_of(eni), blocks.free_prefix(backend, eni.subnet, one)]
    items = [{"Ipv4Prefix": prefix} for prefix in prefixes_of(eni)[-len(wanted) :]]
    return ActionResult({"NetworkInterfaceId": eni.id, "AssignedIpv4Prefixes": items})


def _remove(eni: NetworkInterface, addresses: list[str]) -> None:
    eni.private_ip_addresses[:] = [
        item for item in eni.private_ip_addresses if item["PrivateIpAddress"] not in addresses
    ]


def _eips(backend: EC2Backend, eni: NetworkInterface, addresses: list[str]) -> list[ElasticAddress]:
    return [eip for eip in backend.addresses if eip.eni is eni and private_ip_of(eip) in addresses]


def _unassign_private_ip_addresses(self: Any) -> EmptyResult:
    """UnassignPrivateIpAddresses takes secondary addresses away, and with each its Elastic IP's association; or prefixes."""
    backend: EC2Backend = self.ec2_backend
    eni = _own(backend.get_network_interface(self._get_param("NetworkInterfaceId")))
    addresses, prefixes = self._get_param("PrivateIpAddresses", []), self._get_param("Ipv4Prefixes", [])
    there = [*addresses_of(eni), *prefixes_of(eni)]
    eni.lab_prefixes = [prefix for prefix in prefixes_of(eni) if prefix not in prefixes]
    for address in addresses:
        if address not in there:
            raise _invalid(f"Address {address} is not assigned to {eni.id}.")
        if address == eni.private_ip_address:
            raise _invalid(f"Address {address} is the primary one of {eni.id}.")
    _remove(eni, addresses)
    for eip in _eips(backend, eni, addresses):
        release_binding(eip)
    return EmptyResult()


def allocate(backend: EC2Backend, public_ip: str | None, tags: dict[str, str]) -> ElasticAddress:
    """Allocate an Elastic IP, this one or any.

    Raises:
        EC2ClientError: AddressLimitExceeded, or InvalidIPAddress.InUse: this one is allocated already.
    """
    if len(backend.addresses) >= LIMITS.elastic_ips:
        raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    taken = {eip.public_ip for eip in backend.addresses}
    if public_ip in taken:
        raise EC2ClientError("InvalidIPAddress.InUse", f"The address {public_ip} is allocated.")
    if public_ip is None:
        first = int(IPv4Address("54.214.0.1"))
        public_ip = next(ip for ip in (str(IPv4Address(first + n)) for n in range(len(taken) + 1)) if ip not in taken)
    return backend.allocate_address("vpc", address=public_ip, tags=tags)


def _allocate_address(self: Any) -> ActionResult:
    """AllocateAddress gives the account one more Elastic IP, up to its quota in the Region (AddressLimitExceeded)."""
    tags = add_tag_specification(self._get_param("TagSpecifications", []))
    self.error_on_dryrun()
    eip = allocate(self.ec2_backend, self._get_param("Address"), tags)
    return ActionResult({"PublicIp": eip.public_ip, "Domain": eip.domain, "AllocationId": eip.allocation_id})


def _eip(call: Any) -> ElasticAddress:
    """The Elastic IP that a call names by its allocation or its public address."""
    allocation, public = call._get_param("AllocationId"), call._get_param("PublicIp")
    if allocation:
        return call.ec2_backend.address_by_allocation([allocation])[0]
    if public:
        return call.ec2_backend.address_by_ip([public])[0]
    raise EC2ClientError("MissingParameter", "Neither AllocationId nor PublicIp.")


def _associate_address(self: Any) -> ActionResult:
    """AssociateAddress: PrivateIpAddress chooses the address of the interface, else it is the primary one; an instance
    stands for its first interface.

    Where it is associated already, the call changes nothing. An Elastic IP that is associated elsewhere, and an
    address that has another one, are refused unless AllowReassociation, which ends the other association. The reference
    refuses only an explicit false; in the lab, who wants to take an address away has to say so.

    An Elastic IP cannot be associated with an interface of another network border group. One that a service manages, or whose
    interface is a service's, is not the caller's to lead elsewhere.
    """
    backend: EC2Backend = self.ec2_backend
    eip = _eip(self)
    instance_id, eni_id = self._get_param("InstanceId"), self._get_param("NetworkInterfaceId")
    if not instance_id and not eni_id:
        raise EC2ClientError("MissingParameter", "Neither InstanceId nor NetworkInterfaceId.")
    eni = backend.get_network_interface(eni_id) if eni_id else backend.get_instance(instance_id).nics[0]
    private_ip = self._get_param("PrivateIpAddress") or eni.private_ip_address
    if private_ip not in addresses_of(eni):
        raise _invalid(f"The address {private_ip} does not belong to interface {eni.id}.")
    self.error_on_dryrun()
    _check_association(backend, eip, eni)
    others = [other for other in _eips(backend, eni, [private_ip]) if other is not eip]
    same = eip.eni is eni and private_ip_of(eip) == private_ip
    if (others or (eip.eni is not None and not same)) and not _true(self._get_param("AllowReassociation", False)):
        raise EC2ClientError("Resource.AlreadyAssociated", f"{eip.public_ip} or {private_ip} is associated already.")
    for other in others:
        release_binding(other)
    if not same:
        bind(eip, eni, private_ip)
    return ActionResult({"AssociationId": eip.association_id})


def _check_association(backend: EC2Backend, eip: ElasticAddress, eni: NetworkInterface) -> None:
    # The border group of a Region's zones is the Region, that of eu-west-1-ham-1a is eu-west-1-ham-1.
    group = marked(eip.allocation_id, "NetworkBorderGroup") or backend.region_name
    if group != eni.subnet.availability_zone.rstrip("abcdefgh"):
        raise _invalid("The address and the network interface are in different network border groups.")
    if marked(eip.allocation_id, "ServiceManaged"):
        raise EC2ClientError("OperationNotPermitted", f"The address {eip.public_ip} is managed by a service.")
    if eip.eni is not None and (marked(eip.eni.id, "RequesterManaged") or elsewhere(eip.eni.id)):
        raise EC2ClientError("AuthFailure", "You do not have permission to access the specified resource.")


def _release_address(self: Any) -> EmptyResult:
    """ReleaseAddress: in a VPC that is not the default one, an Elastic IP must be disassociated before it is released,
    else EC2 returns InvalidIPAddress.InUse."""
    eip = _eip(self)
    if eip.eni is not None:
        raise EC2ClientError("InvalidIPAddress.InUse", f"Address {eip.public_ip} is in use.")
    self.error_on_dryrun()
    self.ec2_backend.addresses.remove(eip)
    self.ec2_backend.tags.pop(eip.id, None)
    return EmptyResult()


def _delete_network_interface(self: Any) -> EmptyResult:
    """DeleteNetworkInterface: it must be detached. Its Elastic IPs lose their association."""
    backend: EC2Backend = self.ec2_backend
    eni = backend.get_network_interface(self._get_param("NetworkInterfaceId"))
    if eni.instance is not None:
        raise _invalid(f"Network interface '{eni.id}' is currently in use.")
    self.error_on_dryrun()
    backend.delete_network_interface(eni.id)
    for eip in _eips(backend, eni, addresses_of(eni)):
        release_binding(eip)
    return EmptyResult()


def _attach_network_interface(self: Any) -> ActionResult:
    """AttachNetworkInterface: a device index is unique on a network card, so on two cards there may be two of one index."""
    backend: EC2Backend = self.ec2_backend
    card, device = self._get_int_param("NetworkCardIndex", 0), self._get_int_param("DeviceIndex")
    instance = backend.get_instance(self._get_param("InstanceId"))
    if slot(card, device) in map(int, instance.nics):
        raise _invalid(f"Instance '{instance.id}' already has an interface attached at device index '{device}'.")
    self.error_on_dryrun()
    made = backend.attach_network_interface(
        self._get_param("NetworkInterfaceId"), self._get_param("InstanceId"), slot(card, device)
    )
    return ActionResult({"AttachmentId": made.attachment_id, "NetworkCardIndex": card})


def _terminate_instances(self: Any) -> ActionResult:
    """TerminateInstances: interfaces that are to be deleted with the instance go, the others become available.

    The Elastic IPs of those that go lose their association. To terminate an instance again succeeds.
    """
    backend: EC2Backend = self.ec2_backend
    ids = self._get_param("InstanceIds", [])
    before = {one.id: {"Code": one.state_code, "Name": one.state} for one in backend.get_multi_instances_by_id(ids)}
    self.error_on_dryrun()
    for instance, _ in backend.terminate_instances(ids):
        for eni in list(instance.nics.values()):
            instance.detach_eni(eni)
            if eni.id not in backend.enis:
                for eip in _eips(backend, eni, addresses_of(eni)):
                    release_binding(eip)
    ending = {"Code": 32, "Name": "shutting-down"}
    states = [{"InstanceId": one, "CurrentState": ending, "PreviousState": before[one]} for one in ids]
    return ActionResult({"TerminatingInstances": states})


def correct() -> None:
    """Put these in place of moto's."""
    ElasticNetworkInterfaces.assign_private_ip_addresses = _assign_private_ip_addresses
    ElasticNetworkInterfaces.unassign_private_ip_addresses = _unassign_private_ip_addresses
    ElasticNetworkInterfaces.attach_network_interface = _attach_network_interface
    ElasticNetworkInterfaces.delete_network_interface = _delete_network_interface
    ElasticIPAddresses.allocate_address = _allocate_address
    ElasticIPAddresses.associate_address = _associate_address
    ElasticIPAddresses.release_address = _release_address
    InstanceResponse.terminate_instances = _terminate_instances
