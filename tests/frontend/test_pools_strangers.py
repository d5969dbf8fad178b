"""Elastic IP pools in accounts that are not plain: addresses and Elastic IPs of others are left to them, and said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.world.ec2.region import Instance
from vnm_aws.frontend import pools
from vnm_aws.frontend.oned import Oned as Client
from vnm_aws.frontend.plan import Outcome
from vnm_aws.names import ENI_ID, INSTANCE_STATE, TERMINATED

from .cloud import Cloud
from .test_pools import ASSIGN, allocation, disassociate, fine, metal, private_ip, reports, sync

OTHER_ACCOUNT = "210987654321"
NAT: dict[str, object] = {
    "RequesterManaged": True,
    "InterfaceType": "natGateway",
    "Description": "Interface for NAT Gateway nat-0abc",
}


# Private addresses.


def test_an_address_that_ec2_refuses_is_replaced_in_the_same_run_and_not_tried_again(cloud: Cloud) -> None:
    """In a subnet that AWS RAM shares, the interfaces of other accounts are not shown."""
    (host,) = metal(cloud, "h1")
    for address in ("10.0.0.254", "10.0.0.252"):
        cloud.ec2.add_interface(address, OwnerId=OTHER_ACCOUNT)
    pool = cloud.add_pool()
    eips = cloud.add_eips(2)
    assert [text.split()[4] for text in fine(sync(cloud))] == ["10.0.0.251", "10.0.0.253"]
    assert [cloud.leads_to(eip) for eip in eips] == [(host.eni_id, "10.0.0.251"), (host.eni_id, "10.0.0.253")]
    assert [private_ip(cloud, pool, eip) for eip in eips] == ["10.0.0.251", "10.0.0.253"]
    assert {one["AllowReassignment"] for one in cloud.ec2.requests(ASSIGN)} == {"false"}
    cloud.add_eips(1)
    fine(sync(cloud))
    assert cloud.ec2.mutating_calls().count(ASSIGN) == 1


@pytest.mark.parametrize("code", ["InvalidParameterValue", "PrivateIpAddressInUse"])
def test_of_several_addresses_one_is_found_that_ec2_refuses_without_naming_it(cloud: Cloud, code: str) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    eips = cloud.add_eips(3)
    cloud.ec2.fail_next(ASSIGN, code, times=3)  # the whole, a half, and of that the first
    fine(sync(cloud))
    addresses = {private_ip(cloud, pool, eip) for eip in eips}
    assert len(addresses) == 3
    assert addresses != {"10.0.0.252", "10.0.0.253", "10.0.0.254"}
    assert {cloud.leads_to(eip)[1] for eip in eips} == addresses


def test_an_address_that_somebody_takes_in_that_moment_is_left_to_him(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    (stranger,) = cloud.ec2.add_instances(["database"])
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    world = cloud.world()
    plan = pools.plan(world, world.with_leases(pool))
    cloud.ec2.move_private_ip("10.0.0.254", stranger.eni_id)
    outcome = Outcome()
    outcome.carry_out("pool", plan, lambda: True)
    assert fine(outcome) == ["add range 192.168.0.2 with 10.0.0.253 to network public"]
    assert (cloud.addresses(stranger), cloud.leads_to(eip)) == ({"10.0.0.254"}, (host.eni_id, "10.0.0.253"))


def test_no_range_can_be_leased_before_ec2_has_agreed(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    cloud.add_eips(2)
    cloud.ec2.fail_next(ASSIGN, "PrivateIpAddressLimitExceeded")
    assert len(sync(cloud).problems) == 2
    assert cloud.network(pool).ranges == ()
    assert len(fine(sync(cloud))) == 2


def test_prefixes_on_interfaces_and_reservations_are_left_out(cloud: Cloud) -> None:
    first, second = metal(cloud, "h1", "h2")
    cloud.ec2.client.assign_private_ip_addresses(NetworkInterfaceId=second.eni_id, Ipv4Prefixes=["10.0.0.240/28"])
    cloud.ec2.reserve("10.0.0.224/28", "prefix")
    cloud.ec2.reserve("10.0.0.208/28")
    pool = cloud.add_pool()
    eips = cloud.add_eips(1)
    fine(sync(cloud))
    assert [private_ip(cloud, pool, eip) for eip in eips] == ["10.0.0.207"]
    assert cloud.ec2.mutating_calls().count(ASSIGN) == 1
    # The prefix counts as one address; the address that no VM has makes room when one needs it.
    free = {one.name: cloud.host(one.name).template["EC2_FREE_ADDRESSES"] for one in (first, second)}
    assert free == {"h1": "49", "h2": "48"}


def test_a_pool_takes_its_addresses_from_the_reservation_that_it_names(cloud: Cloud) -> None:
    metal(cloud, "h1")
    source = cloud.ec2.reserve("10.0.0.16/30")
    pool = cloud.add_pool(AWS_EIP_RESERVATION=source)
    eips = cloud.add_eips(5)
    outcome = sync(cloud)
    assert [private_ip(cloud, pool, eip) for eip in eips[:4]] == [f"10.0.0.{last}" for last in (19, 18, 17, 16)]
    (text,) = reports(outcome, f"Elastic IP {eips[4]}")
    assert text == (
        f"the subnets {cloud.ec2.subnet_id} have no free address in a reservation of type explicit that AWS_EIP_RESERVATION "
        f"names ({source}); add one to AWS_EIP_RESERVATION of network public, see 'aws ec2 create-subnet-cidr-reservation help'"
    )


@pytest.mark.parametrize(("kind", "name"), [("prefix", ""), ("explicit", "scr-0123456789abcdef0")])
def test_a_reservation_that_is_no_source_gives_no_address(cloud: Cloud, kind: str, name: str) -> None:
    metal(cloud, "h1")
    made = cloud.ec2.reserve("10.0.0.16/28", "prefix" if kind == "prefix" else "explicit")
    pool = cloud.add_pool(AWS_EIP_RESERVATION=name or made)
    (eip,) = cloud.add_eips(1)
    (text,) = reports(sync(cloud), f"Elastic IP {eip}")
    assert "in a reservation of type explicit that AWS_EIP_RESERVATION names" in text
    assert (cloud.network(pool).ranges, cloud.mutating_calls()) == ((), [])


def test_a_pool_takes_addresses_only_where_the_hosts_of_its_clusters_are(cloud: Cloud) -> None:
    cloud.oned.add_cluster("west")
    there = cloud.ec2.add_subnet("10.0.1.0/24")
    cloud.configure(cluster="west")
    cloud.add_metal("w1", "w2", subnet=there)
    cloud.oneaws("host", "sync")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    (text,) = reports(sync(cloud), f"Elastic IP {eip}")
    where = "in the clusters of network public"
    assert text == (
        f"no host {where} has room for another private address; add a host {where}, or remove Elastic IPs from the pool"
    )
    cloud.configure(cluster="default")
    (host,) = cloud.add_metal("a1", instance_type="m5.xlarge")  # with less room than the others
    cloud.oneaws("host", "sync")
    fine(sync(cloud))
    assert cloud.leads_to(eip) == (host.eni_id, private_ip(cloud, pool, eip)) == (host.eni_id, "10.0.0.254")


def test_an_idle_address_that_had_to_leave_waits_without_a_word_until_there_is_room(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1", instance_type="t3.micro")  # room for one
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    cloud.ec2.client.unassign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.254"])
    cloud.ec2.move_private_ip("10.0.0.9", host.eni_id)
    sync(cloud)
    outcome = sync(cloud)
    assert (outcome.done, outcome.problems, private_ip(cloud, pool, eip)) == ([], [], "10.0.0.254")
    cloud.ec2.client.unassign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=["10.0.0.9"])
    fine(sync(cloud))
    assert cloud.leads_to(eip) == (host.eni_id, "10.0.0.254")


# Elastic IPs.


def _border(cloud: Cloud, eip: str, host: Instance) -> None:
    cloud.ec2.mark(allocation(cloud, eip), NetworkBorderGroup="eu-west-1-ham-1")


def _managed(cloud: Cloud, eip: str, host: Instance) -> None:
    cloud.ec2.mark(allocation(cloud, eip), ServiceManaged="nlb")


def _transferred(cloud: Cloud, eip: str, host: Instance) -> None:
    cloud.ec2.mark(allocation(cloud, eip), AddressTransferStatus="pending")


def _nat(cloud: Cloud, eip: str, host: Instance) -> None:
    eni_id = cloud.ec2.add_interface("10.0.0.77", subnet=None, **NAT)
    cloud.ec2.client.associate_address(AllocationId=allocation(cloud, eip), NetworkInterfaceId=eni_id)


def _second(cloud: Cloud, eip: str, host: Instance) -> None:
    eni_id = cloud.ec2.add_interface("10.0.0.78")
    cloud.ec2.attach(eni_id, host.instance_id)
    cloud.ec2.client.associate_address(AllocationId=allocation(cloud, eip), NetworkInterfaceId=eni_id)


def _left(cloud: Cloud, eip: str, host: Instance) -> None:
    eni_id = cloud.ec2.add_interface("10.0.0.79")
    values = f'{ENI_ID}="{eni_id}"\n{INSTANCE_STATE}="{TERMINATED}"\nEC2_INSTANCE_ID="i-0gone"'
    cloud.oned.add_host("gone", template=values)
    cloud.ec2.client.associate_address(AllocationId=allocation(cloud, eip), NetworkInterfaceId=eni_id)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            _border,
            "is of the network border group eu-west-1-ham-1, but the hosts in the clusters of network public are in ",
        ),
        (
            _managed,
            "is in a pool, but a service of AWS manages it (nlb); run 'aws ec2 delete-tags --resources eipalloc-",
        ),
        (_transferred, "is in a pool, but offered to another account"),
        (_nat, "which is no OpenNebula host but made by a service of AWS (Interface for NAT Gateway nat-0abc)"),
        (_second, "which is an ENI of host h1, but not one for its VMs"),
        (_left, "which the terminated instance of host gone has left behind; run 'aws ec2 delete-network-interface "),
    ],
)
def test_an_elastic_ip_that_is_not_for_vms_is_named_and_not_touched(
    cloud: Cloud, make: Callable[[Cloud, str, Instance], None], says: str
) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    theirs, good = cloud.add_eips(2)
    make(cloud, theirs, host)
    before = cloud.leads_to(theirs)
    outcome = sync(cloud)
    assert [says in text for text in reports(outcome, f"Elastic IP {theirs}")] == [True]
    assert cloud.leads_to(good)[0] == host.eni_id
    for _ in range(2):
        assert [says in one.text for one in sync(cloud).problems] == [True]
        assert cloud.mutating_calls() == []
    assert cloud.network(pool).values_of_ranges("EXTERNAL_IP") == [good]
    assert cloud.leads_to(theirs) == before


def test_elastic_ips_of_a_local_zone_serve_the_hosts_there(cloud: Cloud) -> None:
    (here, there) = metal(cloud, "h1", "h2")
    Client().update_host(cloud.host("h2").host_id, {"EC2_AZ": "eu-west-1-ham-1a"})
    pool = cloud.add_pool()
    far, near = cloud.add_eips(2)
    cloud.ec2.mark(allocation(cloud, far), NetworkBorderGroup="eu-west-1-ham-1")
    outcome = sync(cloud)
    # The stand-in keeps the subnet in a zone of the Region, so EC2 refuses the association itself.
    assert far in "".join(one.target for one in outcome.problems)
    assert private_ip(cloud, pool, far) in cloud.addresses(there)
    assert private_ip(cloud, pool, near) in cloud.addresses(here)


def test_the_same_address_in_another_vpc_is_another_address(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    client = cloud.ec2.client
    vpc = client.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zone = f"{cloud.ec2.region}a"
    subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
    eni_id = cloud.ec2.add_interface("10.0.0.254", subnet=subnet)
    (other,) = cloud.ec2.allocate_eips([{}])
    client.associate_address(AllocationId=other.allocation_id, NetworkInterfaceId=eni_id)
    disassociate(cloud, eip)
    fine(sync(cloud))
    assert cloud.leads_to(eip) == (host.eni_id, "10.0.0.254") == (host.eni_id, private_ip(cloud, pool, eip))
    assert cloud.leads_to(other.public_ip) == (eni_id, "10.0.0.254")


# Hosts.


def test_a_type_that_ec2_does_not_know_concerns_its_own_host_only(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    cloud.oned.add_host(
        "odd", template='EC2_INSTANCE_ID="i-0odd"\nEC2_INSTANCE_TYPE="x9z.metal"\nEC2_ENI_ID="eni-0odd"'
    )
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    fine(sync(cloud))
    assert cloud.leads_to(eip) == (host.eni_id, private_ip(cloud, pool, eip))
    assert cloud.host("h1").template["EC2_FREE_ADDRESSES"] == "49"


def test_an_instance_without_ipv4_is_told_so_and_hinders_no_other(cloud: Cloud) -> None:
    first, second = cloud.add_metal("h1", "h2")
    subnet = cloud.ec2.add_subnet("10.0.1.0/24")
    cloud.add_metal("h3", subnet=subnet)
    cloud.ec2.mark(subnet, CidrBlock=None, Ipv6Native=True)
    third = cloud.ec2.client.describe_instances()["Reservations"][-1]["Instances"][0]
    cloud.ec2.mark(third["NetworkInterfaces"][0]["NetworkInterfaceId"], Ipv6Native=True)
    outcome = cloud.reconcile(code=1)
    (problem,) = outcome["problems"]
    assert "has no IPv4 address, and hosts need one for their tunnels" in str(problem)
    assert {cloud.host(name).template["VXLAN_TEP"] for name in ("h1", "h2")} == {first.private_ip, second.private_ip}
    assert cloud.mutating_calls()


def test_the_primary_interface_is_that_of_network_card_0(cloud: Cloud) -> None:
    (host,) = cloud.add_metal("h1")
    second = cloud.ec2.add_interface()
    cloud.ec2.attach(second, host.instance_id, device=0, card=1)
    cloud.oneaws("host", "sync")
    template = cloud.host("h1").template
    assert (template[ENI_ID], template["VXLAN_TEP"]) == (host.eni_id, host.private_ip)
