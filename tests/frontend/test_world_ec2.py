"""What changes in the lab's EC2, against what Amazon's API reference states: one test for each correction of moto."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.world.ec2.region import Ec2World, Instance, elastic_ip, private_ips, refused

_SECONDARY_ON_T3_MICRO = 1


def _assign(ec2: Any, host: Instance, addresses: Sequence[str], move: bool = False) -> Any:
    return ec2.assign_private_ip_addresses(
        NetworkInterfaceId=host.eni_id, PrivateIpAddresses=addresses, AllowReassignment=move
    )


def _fill(ec2_world: Ec2World, subnet: str, cidr_prefix: str, numbers: range) -> None:
    eni = ec2_world.client.create_network_interface(SubnetId=subnet, PrivateIpAddress=f"{cidr_prefix}{numbers[0]}")
    ec2_world.client.assign_private_ip_addresses(
        NetworkInterfaceId=eni["NetworkInterface"]["NetworkInterfaceId"],
        PrivateIpAddresses=[f"{cidr_prefix}{number}" for number in numbers[1:]],
    )


# Private addresses


def test_an_eni_holds_as_many_addresses_as_its_type_allows(ec2_world: Ec2World, ec2: Any) -> None:
    """AssignPrivateIpAddresses: "The number of secondary IP addresses that you can assign to an instance varies by
    instance type"."""
    host = ec2_world.add_instance("h1", "10.0.0.11", "t3.micro")
    (told,) = ec2.describe_instance_types(InstanceTypes=["t3.micro"])["InstanceTypes"]
    assert told["NetworkInfo"]["Ipv4AddressesPerInterface"] == 1 + _SECONDARY_ON_T3_MICRO
    with refused("PrivateIpAddressLimitExceeded"):
        _assign(ec2, host, ["10.0.0.41", "10.0.0.42"])
    assert private_ips(ec2, host.eni_id) == ["10.0.0.11"]
    _assign(ec2, host, ["10.0.0.41"])
    with refused("PrivateIpAddressLimitExceeded"):
        ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, SecondaryPrivateIpAddressCount=1)
    _assign(ec2, host, ["10.0.0.41"])
    assert private_ips(ec2, host.eni_id) == ["10.0.0.11", "10.0.0.41"]


def test_a_move_counts_against_the_limit_of_its_target(ec2_world: Ec2World, ec2: Any) -> None:
    """The number "varies by instance type": an address that moves is one more of the instance it moves to."""
    big, small = ec2_world.add_instance("h1", "10.0.0.11"), ec2_world.add_instance("h2", "10.0.0.12", "t3.micro")
    _assign(ec2, big, ["10.0.0.41", "10.0.0.42"])
    _assign(ec2, small, ["10.0.0.41"], move=True)
    with refused("PrivateIpAddressLimitExceeded"):
        _assign(ec2, small, ["10.0.0.42"], move=True)
    assert private_ips(ec2, big.eni_id) == ["10.0.0.11", "10.0.0.42"]


def test_an_eni_without_instance_has_no_limit(ec2_world: Ec2World, ec2: Any) -> None:
    """The number is one "that you can assign to an instance": an ENI by itself has no type."""
    eni = ec2.create_network_interface(SubnetId=ec2_world.subnet_id, PrivateIpAddress="10.0.0.20")["NetworkInterface"]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=eni["NetworkInterfaceId"], SecondaryPrivateIpAddressCount=60)
    assert len(private_ips(ec2, eni["NetworkInterfaceId"])) == 61


@pytest.mark.parametrize("address", ["10.0.1.5", "10.0.0.0", "10.0.0.1", "10.0.0.3", "10.0.0.255", "10.0.0.300"])
def test_an_address_must_be_a_usable_one_of_the_subnet(ec2_world: Ec2World, ec2: Any, address: str) -> None:
    """Subnets: "The first four IP addresses and the last IP address in each subnet CIDR block are not available"."""
    host = ec2_world.add_instance("h1", "10.0.0.11")
    with refused("InvalidParameterValue"):
        _assign(ec2, host, [address])
    assert private_ips(ec2, host.eni_id) == ["10.0.0.11"]


def test_the_first_and_last_usable_addresses_areassigned(ec2_world: Ec2World, ec2: Any) -> None:
    host = ec2_world.add_instance("h1", "10.0.0.11")
    done = _assign(ec2, host, ["10.0.0.4", "10.0.0.254"])
    assert [one["PrivateIpAddress"] for one in done["AssignedPrivateIpAddresses"]] == ["10.0.0.4", "10.0.0.254"]


def test_an_address_moves_within_its_subnet_only(ec2_world: Ec2World, ec2: Any) -> None:
    """Secondary addresses are "within the subnet range" of their ENI, so an address of another subnet cannot come."""
    subnet = ec2_world.add_subnet("10.0.1.0/24")
    one, other = ec2_world.add_instance("h1", "10.0.0.11"), ec2_world.add_instance("h2", "10.0.1.11", subnet=subnet)
    _assign(ec2, one, ["10.0.0.41"])
    with refused("InvalidParameterValue"):
        _assign(ec2, other, ["10.0.0.41"], move=True)
    assert private_ips(ec2, one.eni_id) == ["10.0.0.11", "10.0.0.41"]


def test_an_address_in_use_moves_only_if_allowed_and_takes_its_eip_along(ec2_world: Ec2World, ec2: Any) -> None:
    """AllowReassignment: "whether to allow an IP address that is already assigned to another network interface or
    instance to be reassigned"; "any Elastic IP address that is associated with the IP address is also moved"."""
    one, other = ec2_world.add_instance("h1", "10.0.0.11"), ec2_world.add_instance("h2", "10.0.0.12")
    _assign(ec2, one, ["10.0.0.41"])
    allocation = ec2_world.allocate_eip("54.10.20.41")
    ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=one.eni_id, PrivateIpAddress="10.0.0.41")
    with refused("InvalidParameterValue"):
        _assign(ec2, other, ["10.0.0.41"])
    with refused("InvalidParameterValue"):
        _assign(ec2, other, ["10.0.0.42", one.private_ip], move=True)
    _assign(ec2, other, ["10.0.0.41"], move=True)
    assert (private_ips(ec2, one.eni_id), private_ips(ec2, other.eni_id)) == (
        ["10.0.0.11"],
        ["10.0.0.12", "10.0.0.41"],
    )
    eip = elastic_ip(ec2, allocation)
    assert (eip["NetworkInterfaceId"], eip["InstanceId"], eip["PrivateIpAddress"]) == (
        other.eni_id,
        other.instance_id,
        "10.0.0.41",
    )


def test_a_number_of_addresses_takes_free_ones_until_there_are_none(ec2_world: Ec2World, ec2: Any) -> None:
    """AssignPrivateIpAddresses: "you can specify the number of secondary IP addresses to be automatically assigned from
    the subnet's CIDR block range"."""
    subnet = ec2_world.add_subnet("10.0.9.0/28")

    def available() -> int:
        return int(ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"])

    assert available() == 11
    host = ec2_world.add_instance("h1", "10.0.9.5", subnet=subnet)
    _fill(ec2_world, subnet, "10.0.9.", range(6, 13))
    assert available() == 3
    done = ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, SecondaryPrivateIpAddressCount=2)
    got = [one["PrivateIpAddress"] for one in done["AssignedPrivateIpAddresses"]]
    assert set(got) < {"10.0.9.4", "10.0.9.13", "10.0.9.14"}
    with refused("InsufficientFreeAddressesInSubnet"):
        ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, SecondaryPrivateIpAddressCount=2)
    assert private_ips(ec2, host.eni_id) == ["10.0.9.5", *got]
    assert available() == 1


def test_unassigning_removes_an_address_and_the_association(ec2_world: Ec2World, ec2: Any) -> None:
    """UnassignPrivateIpAddresses takes "secondary private IP addresses", and what is associated with them with them."""
    host = ec2_world.add_instance("h1", "10.0.0.11")
    allocation = ec2_world.allocate_eip("54.10.20.41")
    ec2_world.give_eip(allocation, host.eni_id, "10.0.0.41")
    for address in (host.private_ip, "10.0.0.77"):
        with refused("InvalidParameterValue"):
            ec2.unassign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.41", address])
    assert private_ips(ec2, host.eni_id) == ["10.0.0.11", "10.0.0.41"]
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.41"])
    assert private_ips(ec2, host.eni_id) == ["10.0.0.11"]
    assert not {"AssociationId", "PrivateIpAddress", "NetworkInterfaceId", "InstanceId"} & set(
        elastic_ip(ec2, allocation)
    )
    _assign(ec2, host, ["10.0.0.41"])
    assert "AssociationId" not in elastic_ip(ec2, allocation)


# Elastic IPs


def test_the_quota_of_elastic_ips_holds_and_is_told(ec2_world: Ec2World, ec2: Any) -> None:
    """vpc-max-elastic-ips: "The maximum number of Elastic IP addresses that you can allocate"."""
    ec2_world.set_elastic_ips(2)
    (told,) = ec2.describe_account_attributes(AttributeNames=["vpc-max-elastic-ips"])["AccountAttributes"]
    assert told["AttributeValues"] == [{"AttributeValue": "2"}]
    first, second = ec2.allocate_address(Domain="vpc"), ec2.allocate_address(Domain="vpc")
    assert first["PublicIp"] != second["PublicIp"]
    with refused("AddressLimitExceeded"):
        ec2.allocate_address(Domain="vpc")
    ec2.release_address(AllocationId=first["AllocationId"])
    ec2.allocate_address(Domain="vpc")


def test_an_elastic_ip_in_use_is_not_released(ec2_world: Ec2World, ec2: Any) -> None:
    """ReleaseAddress: "You must disassociate the Elastic IP address before you can release it. Otherwise, Amazon EC2
    returns an error (InvalidIPAddress.InUse)"."""
    host = ec2_world.add_instance("h1", "10.0.0.11", eip=False)
    allocation = ec2_world.allocate_eip("54.10.20.41")
    ec2_world.give_eip(allocation, host.eni_id, "10.0.0.41")
    with refused("InvalidIPAddress.InUse"):
        ec2.release_address(AllocationId=allocation)
    ec2.disassociate_address(AssociationId=elastic_ip(ec2, allocation)["AssociationId"])
    assert "AssociationId" not in elastic_ip(ec2, allocation)
    assert private_ips(ec2, host.eni_id) == ["10.0.0.11", "10.0.0.41"]
    ec2.release_address(AllocationId=allocation)
    with refused("InvalidAllocationID.NotFound"):
        ec2.describe_addresses(AllocationIds=[allocation])


def test_an_association_is_with_the_address_that_was_named(ec2_world: Ec2World, ec2: Any) -> None:
    """AssociateAddress: "If no private IP address is specified, the Elastic IP address is associated with the primary
    private IP address"."""
    host = ec2_world.add_instance("h1", "10.0.0.11", eip=False)
    _assign(ec2, host, ["10.0.0.41"])
    primary, secondary = ec2_world.allocate_eips([{}, {}])
    with refused("InvalidParameterValue"):
        ec2.associate_address(
            AllocationId=primary.allocation_id, NetworkInterfaceId=host.eni_id, PrivateIpAddress="10.0.0.42"
        )
    ec2.associate_address(AllocationId=primary.allocation_id, InstanceId=host.instance_id)
    ec2.associate_address(
        AllocationId=secondary.allocation_id, NetworkInterfaceId=host.eni_id, PrivateIpAddress="10.0.0.41"
    )
    assert elastic_ip(ec2, primary.allocation_id)["PrivateIpAddress"] == "10.0.0.11"
    assert elastic_ip(ec2, secondary.allocation_id)["PrivateIpAddress"] == "10.0.0.41"


def test_an_address_has_one_elastic_ip(ec2_world: Ec2World, ec2: Any) -> None:
    """Resource.AlreadyAssociated: "The specified resource is already in use"; and to do the same again is no error:
    "This is an idempotent operation"."""
    host = ec2_world.add_instance("h1", "10.0.0.11", eip=False)
    _assign(ec2, host, ["10.0.0.41"])
    one, other = (eip.allocation_id for eip in ec2_world.allocate_eips([{}, {}]))
    where = {"NetworkInterfaceId": host.eni_id, "PrivateIpAddress": "10.0.0.41"}
    first = ec2.associate_address(AllocationId=one, **where)["AssociationId"]
    assert ec2.associate_address(AllocationId=one, **where)["AssociationId"] == first
    with refused("Resource.AlreadyAssociated"):
        ec2.associate_address(AllocationId=other, **where)
    with refused("Resource.AlreadyAssociated"):
        ec2.associate_address(AllocationId=one, NetworkInterfaceId=host.eni_id)
    ec2.associate_address(AllocationId=other, AllowReassociation=True, **where)
    assert "AssociationId" not in elastic_ip(ec2, one)
    assert elastic_ip(ec2, other)["PrivateIpAddress"] == "10.0.0.41"


# Instances


def test_an_instance_shows_its_interface_with_all_addresses(ec2_world: Ec2World, ec2: Any) -> None:
    host = ec2_world.add_instance("h1", "10.0.0.11")
    ec2_world.give_eip(ec2_world.allocate_eip("54.10.20.41"), host.eni_id, "10.0.0.41")
    _assign(ec2, host, ["10.0.0.42"])
    (reservation,) = ec2.describe_instances(InstanceIds=[host.instance_id])["Reservations"]
    (shown,) = reservation["Instances"]
    assert (shown["PrivateIpAddress"], shown["PublicIpAddress"]) == (host.private_ip, host.public_ip)
    (eni,) = shown["NetworkInterfaces"]
    assert (eni["NetworkInterfaceId"], eni["SubnetId"], eni["MacAddress"]) == (
        host.eni_id,
        ec2_world.subnet_id,
        host.mac,
    )
    assert eni["Attachment"]["DeviceIndex"] == 0
    assert [
        (one["PrivateIpAddress"], one["Primary"], one.get("Association", {}).get("PublicIp"))
        for one in eni["PrivateIpAddresses"]
    ] == [("10.0.0.11", True, host.public_ip), ("10.0.0.41", False, "54.10.20.41"), ("10.0.0.42", False, None)]
    (direct,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[host.eni_id])["NetworkInterfaces"]
    assert direct["Attachment"]["InstanceId"] == host.instance_id
    assert direct["PrivateIpAddresses"][1]["Association"]["AllocationId"] == ec2_world.allocate_eip("54.10.20.41")


def test_a_terminated_instance_shows_without_network_and_frees_its_addresses(ec2_world: Ec2World, ec2: Any) -> None:
    """DeleteOnTermination: "the interface is deleted when the instance is terminated"; "if you terminate an instance
    more than once, each call succeeds"."""
    host = ec2_world.add_instance("h1", "10.0.0.11")
    allocation = ec2_world.allocate_eip("54.10.20.41")
    ec2_world.give_eip(allocation, host.eni_id, "10.0.0.41")
    made = ec2.create_network_interface(SubnetId=ec2_world.subnet_id, PrivateIpAddress="10.0.0.50")
    kept = made["NetworkInterface"]["NetworkInterfaceId"]
    ec2.attach_network_interface(NetworkInterfaceId=kept, InstanceId=host.instance_id, DeviceIndex=1)
    with refused("InvalidParameterValue"):
        ec2.delete_network_interface(NetworkInterfaceId=kept)
    for _ in range(2):
        ec2.terminate_instances(InstanceIds=[host.instance_id])
    (reservation,) = ec2.describe_instances(InstanceIds=[host.instance_id])["Reservations"]
    (shown,) = reservation["Instances"]
    assert shown["State"]["Name"] == "terminated"
    assert not shown["NetworkInterfaces"]
    assert "PrivateIpAddress" not in shown
    with refused("InvalidNetworkInterfaceID.NotFound"):
        private_ips(ec2, host.eni_id)
    assert "AssociationId" not in elastic_ip(ec2, allocation)
    ec2_world.add_instance("h2", "10.0.0.41")
    (eni,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[kept])["NetworkInterfaces"]
    assert (eni["Status"], "Attachment" in eni) == ("available", False)
    ec2.delete_network_interface(NetworkInterfaceId=kept)
