"""The lab's EC2 where accounts are not plain: prefixes, reservations, border groups, network cards, and what others have."""

from __future__ import annotations

from typing import Any

import pytest

from tests.world.ec2.region import Ec2World, elastic_ip, private_ips, refused, where

NAT: dict[str, object] = {
    "RequesterManaged": True,
    "InterfaceType": "natGateway",
    "Description": "Interface for NAT Gateway nat-0abc",
}


def _shown(ec2: Any, eni_id: str) -> dict[str, Any]:
    (found,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni_id])["NetworkInterfaces"]
    return dict(found)


def test_a_prefix_takes_the_place_of_one_address_and_nobody_can_name_those_in_it(ec2_world: Ec2World, ec2: Any) -> None:
    (host, other) = ec2_world.add_instances(["h1", "h2"], "t3.small")  # four addresses an interface
    ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, Ipv4Prefixes=["10.0.0.240/28"])
    with refused("InvalidParameterValue"):
        ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, Ipv4Prefixes=["10.0.0.240/28"])
    made = ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, Ipv4PrefixCount=1)
    assert [one["Ipv4Prefix"] for one in made["AssignedIpv4Prefixes"]] == ["10.0.0.16/28"]
    assert [one["Ipv4Prefix"] for one in _shown(ec2, host.eni_id)["Ipv4Prefixes"]] == ["10.0.0.240/28", "10.0.0.16/28"]
    for allowed in (False, True):
        with refused("InvalidParameterValue"):
            ec2.assign_private_ip_addresses(
                NetworkInterfaceId=other.eni_id, PrivateIpAddresses=["10.0.0.250"], AllowReassignment=allowed
            )
    ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.100"])
    with refused("PrivateIpAddressLimitExceeded"):
        ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.101"])
    (subnet,) = ec2.describe_subnets(SubnetIds=[ec2_world.subnet_id])["Subnets"]
    assert subnet["AvailableIpAddressCount"] == 251 - 3 - 2 * 16
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=host.eni_id, Ipv4Prefixes=["10.0.0.240/28"])
    ec2.assign_private_ip_addresses(NetworkInterfaceId=other.eni_id, PrivateIpAddresses=["10.0.0.250"])


def test_aws_assigns_nothing_of_a_reservation_and_who_names_an_address_gets_it_of_an_explicit_one(
    ec2_world: Ec2World, ec2: Any
) -> None:
    explicit, prefix = ec2_world.reserve("10.0.0.0/28"), ec2_world.reserve("10.0.0.16/28", "prefix")
    (host,) = ec2_world.add_instances(["h1"])
    assert host.private_ip == "10.0.0.32"
    there = ec2.get_subnet_cidr_reservations(SubnetId=ec2_world.subnet_id)["SubnetIpv4CidrReservations"]
    assert [(one["SubnetCidrReservationId"], one["ReservationType"], one["Cidr"]) for one in there] == [
        (explicit, "explicit", "10.0.0.0/28"),
        (prefix, "prefix", "10.0.0.16/28"),
    ]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.10"])
    with refused("InvalidParameterValue"):
        ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.20"])
    made = ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, Ipv4PrefixCount=1)
    assert [one["Ipv4Prefix"] for one in made["AssignedIpv4Prefixes"]] == ["10.0.0.16/28"]


def test_an_elastic_ip_stays_in_its_border_group(ec2_world: Ec2World, ec2: Any) -> None:
    (host,) = ec2_world.add_instances(["h1"])
    (eip,) = ec2_world.allocate_eips([{}])
    ec2_world.mark(eip.allocation_id, NetworkBorderGroup="eu-west-1-ham-1")
    assert elastic_ip(ec2, eip.allocation_id)["NetworkBorderGroup"] == "eu-west-1-ham-1"
    with refused("InvalidParameterValue"):
        ec2.associate_address(AllocationId=eip.allocation_id, NetworkInterfaceId=host.eni_id)


def test_what_a_service_has_is_shown_and_cannot_be_led_elsewhere(ec2_world: Ec2World, ec2: Any) -> None:
    (host,) = ec2_world.add_instances(["h1"])
    managed, of_nat = ec2_world.allocate_eips([{}, {}])
    eni_id = ec2_world.add_interface("10.0.0.77", subnet=None, **NAT)
    ec2_world.client.associate_address(AllocationId=of_nat.allocation_id, NetworkInterfaceId=eni_id)
    assert NAT.items() <= _shown(ec2, eni_id).items()
    assert ec2.describe_network_interfaces(Filters=where("requester-managed", "true"))["NetworkInterfaces"]
    ec2_world.mark(managed.allocation_id, ServiceManaged="nlb")
    assert elastic_ip(ec2, managed.allocation_id)["ServiceManaged"] == "nlb"
    for eip, code, status in ((managed, "OperationNotPermitted", 400), (of_nat, "AuthFailure", 401)):
        with refused(code, status):
            ec2.associate_address(
                AllocationId=eip.allocation_id, NetworkInterfaceId=host.eni_id, AllowReassociation=True
            )


def test_an_address_transfer_is_listed(ec2_world: Ec2World, ec2: Any) -> None:
    first, _ = ec2_world.allocate_eips([{}, {}])
    assert ec2.describe_address_transfers()["AddressTransfers"] == []
    ec2_world.mark(first.allocation_id, AddressTransferStatus="pending")
    (transfer,) = ec2.describe_address_transfers()["AddressTransfers"]
    assert (transfer["AllocationId"], transfer["AddressTransferStatus"]) == (first.allocation_id, "pending")


def test_in_a_shared_subnet_the_interfaces_of_others_are_not_shown_and_keep_their_addresses(
    ec2_world: Ec2World, ec2: Any
) -> None:
    (host,) = ec2_world.add_instances(["h1"])
    ec2_world.mark(ec2_world.subnet_id, OwnerId="210987654321")
    (subnet,) = ec2.describe_subnets(SubnetIds=[ec2_world.subnet_id])["Subnets"]
    assert subnet["OwnerId"] == "210987654321"
    theirs = ec2_world.add_interface("10.0.0.254", OwnerId="210987654321")
    assert len(ec2.describe_network_interfaces()["NetworkInterfaces"]) == 1
    for allowed in (False, True):
        with refused("InvalidParameterValue"):
            ec2.assign_private_ip_addresses(
                NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.254"], AllowReassignment=allowed
            )
    with refused("InvalidNetworkInterfaceID.NotFound"):
        ec2.assign_private_ip_addresses(NetworkInterfaceId=theirs, PrivateIpAddresses=["10.0.0.200"])
    assert private_ips(ec2, host.eni_id) == [host.private_ip]


def test_two_interfaces_have_device_index_0_when_they_are_on_two_network_cards(ec2_world: Ec2World, ec2: Any) -> None:
    (host,) = ec2_world.add_instances(["h1"])
    second, further = ec2_world.add_interface(), ec2_world.add_interface()
    ec2_world.attach(second, host.instance_id, device=0, card=1)
    ec2_world.attach(further, host.instance_id, device=1)
    with refused("InvalidParameterValue"):
        ec2.attach_network_interface(NetworkInterfaceId=second, InstanceId=host.instance_id, DeviceIndex=1)
    (reservation,) = ec2.describe_instances(InstanceIds=[host.instance_id])["Reservations"]
    (instance,) = reservation["Instances"]
    places = [
        (one["NetworkInterfaceId"], one["Attachment"]["NetworkCardIndex"], one["Attachment"]["DeviceIndex"])
        for one in instance["NetworkInterfaces"]
    ]
    assert places == [(second, 1, 0), (further, 0, 1), (host.eni_id, 0, 0)]
    assert instance["PrivateIpAddress"] == host.private_ip
    # Those that were attached later stay when the instance ends.
    ec2_world.terminate(host.instance_id)
    assert {one["NetworkInterfaceId"] for one in ec2.describe_network_interfaces()["NetworkInterfaces"]} == {
        second,
        further,
    }


def test_an_ipv6_only_interface_has_no_ipv4_address(ec2_world: Ec2World, ec2: Any) -> None:
    (host,) = ec2_world.add_instances(["h1"])
    ec2_world.mark(host.eni_id, Ipv6Native=True)
    shown = _shown(ec2, host.eni_id)
    assert "PrivateIpAddress" not in shown
    assert (shown["PrivateIpAddresses"], len(shown["Ipv6Addresses"])) == ([], 1)
    (reservation,) = ec2.describe_instances(InstanceIds=[host.instance_id])["Reservations"]
    assert "PrivateIpAddress" not in reservation["Instances"][0]


def test_a_type_that_is_not_known_fails_in_a_list_and_matches_nothing_in_a_filter(ec2: Any) -> None:
    with refused("InvalidInstanceType"):
        ec2.describe_instance_types(InstanceTypes=["c5n.metal", "x9z.metal"])
    found = ec2.describe_instance_types(Filters=where("instance-type", "c5n.metal", "x9z.metal"))["InstanceTypes"]
    assert [one["InstanceType"] for one in found] == ["c5n.metal"]


@pytest.mark.parametrize("code", ["RequestExpired", "UnauthorizedOperation"])
def test_every_call_can_be_made_to_fail(ec2_world: Ec2World, ec2: Any, code: str) -> None:
    ec2_world.fail_next("*", code, times=2)
    status = 403 if code == "UnauthorizedOperation" else 400
    with refused(code, status):
        ec2.describe_vpcs()
    with refused(code, status):
        ec2.describe_addresses()
    ec2.describe_vpcs()


def test_what_a_changing_call_asked_for_is_recorded(ec2_world: Ec2World, ec2: Any) -> None:
    (host,) = ec2_world.add_instances(["h1"])
    ec2.assign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.9"])
    (request,) = ec2_world.requests("AssignPrivateIpAddresses")
    assert (request["NetworkInterfaceId"], request["PrivateIpAddress.1"]) == (host.eni_id, "10.0.0.9")
