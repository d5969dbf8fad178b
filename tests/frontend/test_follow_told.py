"""What a VM says of its addresses is true: OK when EC2 has them, nothing when it has none, and what is wrong with one of them."""

from __future__ import annotations

import pytest
from lxml import etree

from vnm_aws.errors import AwsOvsError

from .cloud import Cloud
from .following import ASSOCIATE, Site, settle


@pytest.fixture
def site(cloud: Cloud) -> Site:
    """Two hosts and a pool of two Elastic IPs."""
    return settle(cloud)


def by_name(site: Site, external_ip: str, private_ip: str) -> int:
    """Create a network whose range names its Elastic IP by the public address alone."""
    text = f'AR=[TYPE="IP4", IP="192.168.5.10", SIZE="1", EXTERNAL_IP="{external_ip}", AWS_PRIVATE_IP="{private_ip}"]'
    return site.cloud.add_network("by-name", AR=text)


@pytest.mark.parametrize("way", ["hook", "reconcile"])
def test_an_elastic_ip_without_its_allocation_is_found_by_its_address_and_associated(site: Site, way: str) -> None:
    (spare,) = site.cloud.ec2.allocate_eips([{}])
    vm_id = site.run("h1", 0, pool=by_name(site, spare.public_ip, "10.0.0.88"))
    if way == "hook":
        assert site.hook(vm_id) == (0, "")
    else:
        assert site.reconcile().problems == []
    site.is_right(vm_id, "h1")
    site.cloud.ec2.client.disassociate_address(PublicIp=spare.public_ip)
    site.cloud.forget_calls()
    site.reconcile()
    assert site.cloud.ec2.mutating_calls() == [ASSOCIATE]
    site.is_right(vm_id, "h1")
    site.settled()


def test_an_elastic_ip_that_is_not_in_the_account_is_not_said_to_be_there(site: Site) -> None:
    vm_id = site.run("h1", 0, pool=by_name(site, "203.0.113.77", "10.0.0.88"))
    with pytest.raises(AwsOvsError, match=r"Elastic IP 203\.0\.113\.77 is not in this account and Region"):
        site.follow(vm_id)
    assert site.status(vm_id).startswith("FAILED: ")
    assert "10.0.0.88" in site.at("h1")


def test_two_vms_that_name_one_elastic_ip_differently_are_told_apart(site: Site) -> None:
    address = site.address(0)
    first = site.run("h1", 0)
    site.follow(first)
    second = site.run("h1", 0, pool=by_name(site, address.external_ip, "10.0.0.88"))
    with pytest.raises(AwsOvsError, match=f"in use by VM {first}"):
        site.follow(second)
    site.is_right(first, "h1")


def test_the_owner_of_a_network_cannot_take_an_elastic_ip_by_hiding_its_address(site: Site) -> None:
    """As he could not take a private address: see test_follow.py."""
    stolen = site.address(0).external_ip
    vm_id = site.run_with("h1", "10.0.0.88")
    nic = {"AWS_PRIVATE_IP": "10.0.0.88", "EXTERNAL_IP": stolen, "AWS_ALLOCATION_ID": ""}
    site.cloud.set_nics(vm_id, site.cloud.vm(vm_id).addresses[0].network_id, [nic])
    before = site.cloud.leads_to(stolen)
    with pytest.raises(AwsOvsError, match=f"'{stolen}' is not the Elastic IP that network . gives"):
        site.follow(vm_id)
    assert site.cloud.leads_to(stolen) == before


@pytest.mark.parametrize("way", ["hook", "reconcile", "follow"])
def test_a_vm_says_nothing_when_its_last_address_is_gone(site: Site, way: str) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    site.cloud.set_nics(vm_id, site.pool, [{}])
    for ar_id in (0, 1):
        site.cloud.oned.unlease(site.pool, ar_id, vm_id)
    if way == "hook":
        assert site.hook(vm_id) == (0, "")
    elif way == "reconcile":
        assert (f"VM {vm_id}", "empty AWS_EIP_STATUS: it has no address in AWS any more") in site.reconcile().done
    else:
        site.follow(vm_id)
    template = site.cloud.vm(vm_id).user_template
    assert [template.get(key, "") for key in ("AWS_EIP_STATUS", "AWS_EIP_HOST", "ERROR")] == ["", "", ""]
    site.settled()


def test_an_external_alias_of_a_nic_without_a_way_out_is_named_and_the_nic_keeps_its_own(site: Site) -> None:
    vm_id = site.run("h1", 0)
    site.attach_recorded_alias(vm_id, site.address(1))

    def drop(root: etree._Element) -> None:
        for gateway in root.findall("TEMPLATE/NIC/GATEWAY"):
            gateway.getparent().remove(gateway)  # type: ignore[union-attr]

    site.cloud.oned.edit_vm(vm_id, drop)
    reason = f"is of an EXTERNAL alias of NIC 0, whose network {site.pool} has no GATEWAY, so nothing leaves there"
    with pytest.raises(AwsOvsError, match=reason):
        site.follow(vm_id)
    assert site.address(0).private_ip in site.at("h1")
    assert site.status(vm_id).startswith(f"FAILED: {site.address(1).private_ip} {reason}")
    site.reconcile()
    site.cloud.forget_calls()
    assert [reason in str(problem) for problem in site.reconcile().problems] == [True]
    assert {*site.cloud.mutating_calls()} <= {"one.vn.update"}


@pytest.mark.parametrize("way", ["follow", "reconcile"])
def test_an_address_that_is_none_says_where_to_correct_it_and_the_others_of_the_vm_come(site: Site, way: str) -> None:
    here = site.elsewhere(site.address(0))
    wrong = site.cloud.add_network(
        "typo", AR='AR=[TYPE="IP4", IP="192.168.5.10", SIZE="1", AWS_PRIVATE_IP="10.0.0.999"]'
    )
    vm_id = site.run(here, 0)
    nics = [dict(site.cloud.network(site.pool).ranges[0].attributes), {"AWS_PRIVATE_IP": "10.0.0.999", "AR_ID": "0"}]
    site.cloud.set_nics(vm_id, site.pool, [nics[0], {"NETWORK_ID": str(wrong), **nics[1]}])
    other = site.run(here, 1)
    remedy = f"correct AWS_PRIVATE_IP of network {wrong} with 'onevnet updatear {wrong} 0'"
    if way == "follow":
        with pytest.raises(AwsOvsError, match=remedy):
            site.follow(vm_id)
        site.follow(other)
    else:
        assert any(remedy in str(problem) for problem in site.reconcile().problems)
    assert site.cloud.leads_to(site.address(0).external_ip) == (site.hosts[here].eni_id, site.address(0).private_ip)
    assert f"10.0.0.999 is not in 10.0.0.0/24, for it is no IPv4 address; {remedy}" in site.error(vm_id)
    site.is_right(other, here)
    site.cloud.forget_calls()
    site.reconcile()
    assert {*site.cloud.mutating_calls()} <= {"one.vn.update"}, "the next run finds nothing to do"


# A shared address


def shared(site: Site, private_ip: str) -> int:
    """Create a network whose only address several VMs may have, with an Elastic IP."""
    (eip,) = site.cloud.ec2.allocate_eips([{}])
    text = (
        f'AR=[TYPE="IP4", IP="192.168.6.10", SIZE="1", SHARED="YES", AWS_PRIVATE_IP="{private_ip}", '
        f'EXTERNAL_IP="{eip.public_ip}", AWS_ALLOCATION_ID="{eip.allocation_id}"]'
    )
    return site.cloud.add_network("shared", AR=text)


def run_with_shared(site: Site, network: int, host: str, ar_id: int) -> int:
    """Run a VM with an address of its own, and the shared one."""
    vm_id = site.run(host, ar_id)
    own = dict(site.cloud.network(site.pool).ranges[ar_id].attributes)
    item = site.cloud.network(network).ranges[0]
    site.cloud.oned.lease(network, 0, vm_id)
    alias = {"NETWORK_ID": str(network), "SHARED": "YES", "IP": item.ip, **item.attributes}
    site.cloud.set_nics(vm_id, site.pool, [own, alias])
    return vm_id


@pytest.mark.parametrize("way", ["hook", "reconcile"])
def test_a_shared_address_is_one_vm_s_and_the_others_keep_their_own_without_a_failure(site: Site, way: str) -> None:
    network = shared(site, "10.0.0.90")
    vms = {run_with_shared(site, network, host, ar_id): host for ar_id, host in enumerate(("h1", "h2"))}
    first, second = vms
    for vm_id in vms if way == "hook" else ():
        assert site.hook(vm_id) == (0, "")
    assert site.reconcile().problems == []
    assert "10.0.0.90" in site.at("h1")
    site.is_right(first, "h1")
    assert site.status(second) == f"OK: {site.address(1).external_ip} on h2"
    assert site.cloud.leads_to(site.address(1).external_ip)[0] == site.hosts["h2"].eni_id
    site.settled()
    site.cloud.oned.set_vm_state(first, 8)
    assert site.reconcile().problems == []
    assert "10.0.0.90" in site.at("h2")
    site.is_right(second, "h2")
    site.settled()


def test_a_vm_whose_only_address_is_with_another_says_so_and_fails_not(site: Site) -> None:
    network = shared(site, "10.0.0.90")
    vms = []
    for host in ("h1", "h2"):
        vms.append(site.run(host, 0, pool=network))
        item = site.cloud.network(network).ranges[0]
        site.cloud.set_nics(vms[-1], network, [{"SHARED": "YES", **item.attributes}])
    first, second = vms
    for vm_id in vms:
        assert site.hook(vm_id) == (0, "")
    assert site.status(second) == f"WAITING: 10.0.0.90 is shared, VM {first} on h1 has it"
    assert site.error(second) == ""
    site.settled()
