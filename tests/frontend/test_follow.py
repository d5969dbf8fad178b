"""Following VMs: their private addresses, and Elastic IPs with them, are where they run; who cannot have them says why."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from lxml import etree

from tests.world.oned import vm as oned_vm
from vnm_aws.errors import AwsOvsError

from .cloud import RUNNING_VM, Cloud
from .following import ASSIGN, ASSOCIATE, Site, settle


@pytest.fixture
def site(cloud: Cloud) -> Site:
    """Two hosts and a pool of two Elastic IPs."""
    return settle(cloud)


def fails(site: Site, vm_id: int, reason: str, changes: int = 0) -> None:
    """Following must fail for this reason, after so many changes in EC2; again too, and then without any."""
    for allowed in (changes, 0):
        site.cloud.forget_calls()
        with pytest.raises(AwsOvsError, match=reason) as failed:
            site.follow(vm_id)
        assert len(site.cloud.ec2.mutating_calls()) == allowed
        assert site.error(vm_id) == f"aws_ovs: {failed.value}"
        assert site.status(vm_id) == f"FAILED: {failed.value}"
    site.cloud.forget_calls()
    assert str(failed.value) in " ".join(one.text for one in site.reconcile().problems)
    said = {"one.vn.update", "one.host.update"}
    assert {*site.cloud.mutating_calls()} <= said, (
        "nothing but what a network says of itself, and the room that is left"
    )


# When a VM runs somewhere


def test_addresses_of_a_deployed_vm_come_to_its_host_and_then_go_where_it_migrates(site: Site) -> None:
    host = site.elsewhere(site.address(0))
    vm_id = site.run(host, 0)
    assert site.hook(vm_id) == (0, "")
    site.is_right(vm_id, host)
    host = site.elsewhere(site.address(0))
    site.move(vm_id, host)
    assert site.hook(vm_id) == (0, "")
    site.is_right(vm_id, host)
    site.settled()


def test_an_attached_nic_and_an_external_alias_are_followed(site: Site) -> None:
    here = site.elsewhere(site.address(1))
    vm_id = site.run(here, 0)
    site.follow(vm_id)
    site.attach_recorded_alias(vm_id, site.address(1))
    site.cloud.forget_calls()
    assert site.hook(vm_id) == (0, "")
    assert site.cloud.ec2.mutating_calls() == [ASSIGN]
    site.is_right(vm_id, here)
    assert len(site.cloud.vm(vm_id).addresses) == 2
    site.settled()


def test_all_addresses_of_a_vm_are_moved_in_one_call_and_their_elastic_ips_go_along(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    for host in ("h2", "h1"):
        site.move(vm_id, host)
        site.cloud.forget_calls()
        site.follow(vm_id)
        assert site.cloud.ec2.mutating_calls() == [ASSIGN]
        site.is_right(vm_id, host)


def test_nothing_is_changed_in_ec2_when_all_is_there_already(site: Site) -> None:
    address = site.address(0)
    host = next(name for name in site.hosts if address.private_ip in site.at(name))
    vm_id = site.run(host, 0)
    for changes in (["one.vm.update"], []):
        site.cloud.forget_calls()
        site.follow(vm_id)
        assert site.cloud.mutating_calls() == changes
        site.is_right(vm_id, host)


def test_an_elastic_ip_that_leads_nowhere_is_associated(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    site.cloud.ec2.client.disassociate_address(PublicIp=site.address(0).external_ip)
    site.cloud.forget_calls()
    site.follow(vm_id)
    assert site.cloud.ec2.mutating_calls() == [ASSOCIATE]
    site.is_right(vm_id, "h1")


def test_a_private_address_that_is_on_no_eni_and_has_no_elastic_ip_is_assigned(site: Site) -> None:
    vm_id = site.run_with("h1", "10.0.0.77")
    assert site.follow(vm_id)
    assert (site.at("h1") >= {"10.0.0.77"}, site.status(vm_id)) == (True, "OK: 10.0.0.77 on h1")


def test_free_addresses_of_both_hosts_are_right_after_a_hook(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    assert site.free() == {"h1": "47", "h2": "49"}
    site.move(vm_id, "h2")
    assert site.hook(vm_id) == (0, "")
    assert site.free() == {"h1": "49", "h2": "47"}


def test_free_addresses_that_cannot_be_noted_are_no_failure_of_the_vm(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.oned.fail_next("one.host.update")
    site.follow(vm_id)
    site.is_right(vm_id, "h1")
    site.reconcile()
    assert site.free() == {"h1": "47", "h2": "49"}


@pytest.mark.parametrize(("state", "lcm_state"), [(8, 0), (9, 0), (6, 0), (3, 4), (3, 2)])  # (3, 4): MIGRATE
def test_a_vm_that_does_not_run_on_its_host_keeps_its_addresses_where_they_are(
    site: Site, state: int, lcm_state: int
) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.oned.set_vm_state(vm_id, state, lcm_state)
    assert site.follow(vm_id) is None
    site.settled()


@pytest.mark.parametrize("lcm_state", [5, 12, 16, 25, 57, 62, 66, 69])
def test_a_vm_that_is_unknown_saved_ended_or_worked_upon_is_on_its_host(site: Site, lcm_state: int) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.oned.set_vm_state(vm_id, 3, lcm_state)
    assert site.follow(vm_id)
    site.is_right(vm_id, "h1")


def test_a_vm_that_is_gone_or_does_not_run_is_no_failure_of_the_hook(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    document = site.cloud.oned.document("VM", vm_id)
    site.cloud.oned.set_vm_state(vm_id, 8)
    assert site.cloud.hook("vm_running", document).returncode == 0
    site.cloud.oned.remove_vm(vm_id)
    done = site.cloud.hook("vm_running", document)
    assert (done.returncode, done.stderr, site.cloud.mutating_calls()) == (0, "", [])


def test_a_front_end_that_follows_another_one_does_nothing(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.oned.set_raft_state(2)
    assert site.hook(vm_id) == (0, "")
    site.cloud.oneaws("reconcile")
    site.cloud.oneaws("eip", "follow", str(vm_id))
    assert (site.cloud.ec2.calls(), site.cloud.mutating_calls()) == ([], [])
    site.cloud.oned.set_raft_state(3)
    assert site.hook(vm_id) == (0, "")
    site.is_right(vm_id, "h1")


def test_the_hook_of_an_unrelated_vm_ends_without_boto3_and_pyone(cloud: Cloud) -> None:
    root = oned_vm.read(RUNNING_VM)
    for element in root.iterfind("TEMPLATE/*"):
        for found in element.findall("AWS_PRIVATE_IP"):
            element.remove(found)
    code = (
        "import sys; from vnm_aws.frontend.hook import main; code = main(['vm_running']);"
        "print(*sorted(sys.modules)); sys.exit(code)"
    )
    imported = {}
    for name, document in (("unrelated", etree.tostring(root)), ("related", RUNNING_VM)):
        text = base64.b64encode(document).decode()
        done = subprocess.run(
            [sys.executable, "-c", code], env=cloud.environment, input=text, capture_output=True, text=True, check=True
        )
        imported[name] = set(done.stdout.split()) & {"boto3", "pyone", "click", "yaml", "vnm_aws.frontend.oned"}
    assert imported["unrelated"] == set()
    assert imported["related"] >= {"boto3", "pyone"}
    assert cloud.ec2.calls() == []


# What an administrator sees


def test_follow_with_a_dry_run_prints_the_moves_and_does_nothing(site: Site) -> None:
    first, second = site.address(0), site.address(1)
    holder = next(name for name in site.hosts if first.private_ip in site.at(name))
    here = site.elsewhere(first)
    site.cloud.ec2.client.disassociate_address(PublicIp=first.external_ip)
    site.cloud.ec2.move_private_ip(second.private_ip, site.hosts[here].eni_id)
    vms = site.run(here, 0), site.run(here, 1)
    site.follow(vms[1])
    before = site.cloud.everything()
    site.cloud.forget_calls()
    move = (
        f"move {first.private_ip} from {holder} ({site.hosts[holder].eni_id}) to {here} ({site.hosts[here].eni_id}), "
        f"associate Elastic IP {first.external_ip} with {first.private_ip}"
    )
    for words, target in (((), f"host {here}"), ((str(vms[0]), str(vms[1])), f"VM {vms[0]}")):
        printed = json.loads(site.cloud.oneaws("eip", "follow", *words, "--dry-run", "--json").stdout)
        moves = [each for each in printed["changes"] if not each["change"].startswith("set EC2_FREE_ADDRESSES")]
        assert (printed["dry_run"], moves, printed["problems"]) == (True, [{"target": target, "change": move}], [])
    assert (site.cloud.everything(), site.cloud.mutating_calls()) == (before, [])
    assert site.reconcile().done[0] == (f"host {here}", move)
    site.is_right(vms[0], here)


def test_a_dry_run_says_which_moves_cannot_be_made(site: Site) -> None:
    here = site.elsewhere(site.address(0))
    right = site.run(here, 0)
    wrong = site.run_with(here, site.hosts["h1" if here == "h2" else "h2"].private_ip)
    site.follow(right)
    late = site.run("h1" if here == "h2" else "h2", 0, pool=site.twin(site.address(0)))
    before = site.cloud.everything()
    for words, target in (((), f"host {here}: VM {wrong}"), ((str(wrong), str(late)), f"VM {wrong}")):
        done = site.cloud.oneaws("eip", "follow", *words, "--dry-run", code=1)
        problems = [line for line in done.stderr.splitlines() if line.startswith("oneaws: ")]
        assert len(problems) == 2
        assert any(line.startswith(f"oneaws: {target}: ") and "is the primary address" in line for line in problems)
        assert any(line.startswith(f"oneaws: VM {late}: ") and f"in use by VM {right}" in line for line in problems)
        assert "move" not in done.stdout
    assert site.cloud.everything() == before


def test_follow_of_chosen_vms_leaves_the_others_alone_and_says_what_is_wrong_with_each(site: Site) -> None:
    host = site.elsewhere(site.address(0))
    right, other, bare = site.run(host, 0), site.run("h1", 1), site.run("h1")
    off = site.run_with("h1", "10.0.0.78")
    site.cloud.oned.set_vm_state(off, 8)
    done = site.cloud.oneaws("eip", "follow", "999", str(bare), str(off), str(right), code=1)
    assert f"VM {bare}: has no address in AWS" in done.stderr
    assert f"VM {off}: does not run" in done.stderr
    assert "999" in done.stderr
    site.is_right(right, host)
    assert site.status(other) == ""
    assert site.free() == {name: str(49 - len(site.at(name))) for name in site.hosts}


def test_follow_of_a_vm_that_is_right_says_that_there_is_nothing_to_change(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    assert "h1" in site.cloud.oneaws("eip", "follow", str(vm_id)).stdout
    site.is_right(vm_id, "h1")
    assert site.cloud.oneaws("eip", "follow", str(vm_id)).stdout == "Nothing to change.\n"


# Many at once


def test_the_reconciler_moves_the_addresses_of_all_vms_of_a_host_in_one_call(cloud: Cloud) -> None:
    site = settle(cloud, eips=6)
    wanted = {ar_id: site.elsewhere(site.address(ar_id)) for ar_id in range(6)}
    vms = {site.run(host, ar_id): host for ar_id, host in wanted.items()}
    printed = cloud.reconcile()
    assert cloud.ec2.mutating_calls() == [ASSIGN, ASSIGN]
    assert printed["problems"] == []
    for vm_id, host in vms.items():
        site.is_right(vm_id, host)
    assert site.free() == {"h1": "46", "h2": "46"}
    for vm_id, host in vms.items():
        site.move(vm_id, {"h1": "h2", "h2": "h1"}[host])
    cloud.forget_calls()
    site.reconcile()
    assert cloud.ec2.mutating_calls() == [ASSIGN, ASSIGN]
    assert cloud.ec2.calls().count("DescribeNetworkInterfaces") <= 6
    site.settled()


@pytest.mark.parametrize(
    ("address", "said"),
    [("10.0.0.5", "is the primary address of eni-"), ("10.0.0.300", "is not in 10.0.0.0/24")],
    ids=["of-a-host", "none"],
)
def test_one_bad_vm_does_not_keep_the_others_from_their_addresses(cloud: Cloud, address: str, said: str) -> None:
    site = settle(cloud, eips=5)
    good = [site.run("h1", ar_id) for ar_id in (1, 2, 3, 4)]
    bad = site.run_with("h1", address)
    printed = json.loads(cloud.oneaws("reconcile", "--json", code=1).stdout)
    assert f"VM {bad}: {address} {said}" in str(printed["problems"])
    for vm_id in good:
        site.is_right(vm_id, "h1")
    cloud.forget_calls()
    assert len(site.reconcile().problems) == 1
    assert cloud.mutating_calls() == []


def test_the_failures_of_several_vms_are_several_problems(cloud: Cloud) -> None:
    site = settle(cloud)
    host = cloud.host("h1")
    texts = {}
    for number, address in enumerate((site.hosts["h2"].private_ip, "10.1.0.9")):
        text = f'AR=[TYPE="IP4", IP="192.168.3.{10 + number}", SIZE="1", AWS_PRIVATE_IP="{address}"]'
        texts[site.run("h1", 0, pool=cloud.add_network(f"by-hand{number}", AR=text))] = address
    printed = json.loads(cloud.oneaws("eip", "follow", "--json", code=1).stdout)
    assert [problem["target"] for problem in printed["problems"]] == [f"host {host.name}"] * 2
    for vm_id, address in texts.items():
        (text,) = [one["problem"] for one in printed["problems"] if one["problem"].startswith(f"VM {vm_id}: ")]
        assert site.error(vm_id) == f"aws_ovs: {text.removeprefix(f'VM {vm_id}: ')}"
        assert address in text


def test_a_host_with_room_for_some_of_its_vms_gives_it_to_them(cloud: Cloud) -> None:
    site = settle(cloud, eips=3, hosts=("h1", "h2", "h3"), instance_type="d3.xlarge")  # three addresses an ENI
    vms = [site.run("h1", ar_id) for ar_id in range(3)]
    (problem,) = site.reconcile().problems
    (late,) = [vm_id for vm_id in vms if site.error(vm_id)]
    assert f"VM {late}: host h1 (d3.xlarge) has 3 of 3 addresses" in problem.text
    for vm_id in set(vms) - {late}:
        site.is_right(vm_id, "h1")
    site.move(late, "h2")
    assert site.reconcile().problems == []
    site.is_right(late, "h2")


# What cannot be


def test_a_failure_is_on_the_vm_until_its_cause_is_gone(site: Site) -> None:
    primary = site.hosts["h2"].private_ip
    vm_id = site.run_with("h1", primary)
    code, said = site.hook(vm_id)
    assert code == 1
    assert said == f"aws_ovs: {site.error(vm_id).removeprefix('aws_ovs: ')}\n"
    assert f"aws_ovs: {primary} is the primary address" in site.error(vm_id)
    site.cloud.set_nics(vm_id, site.pool, [site.cloud.network(site.pool).ranges[0].attributes])
    assert site.hook(vm_id) == (0, "")
    site.is_right(vm_id, "h1")
    site.settled()


def test_an_error_that_is_not_ours_stays(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.world().oned.update_vm(vm_id, {"ERROR": "Sat Nov 21 : Error executing image transfer", "MINE": 'a "b"'})
    site.follow(vm_id)
    assert site.error(vm_id) == "Sat Nov 21 : Error executing image transfer"
    assert site.cloud.vm(vm_id).user_template["MINE"] == 'a "b"'
    assert site.status(vm_id).startswith("OK: ")


def test_a_full_eni_is_refused_before_ec2_is_asked(cloud: Cloud) -> None:
    site = settle(cloud, instance_type="t3.micro")  # two addresses an ENI
    vm_id = site.run("h1", 0, 1)
    cloud.forget_calls()
    fails(
        site, vm_id, r"host h1 \(t3.micro\) has 2 of 2 addresses, no room for 10\..*; migrate the VM, or let it require"
    )


def test_an_address_without_elastic_ip_cannot_leave_its_subnet(site: Site) -> None:
    site.cloud.add_metal("far", subnet=site.cloud.ec2.add_subnet("10.0.7.0/24"))
    site.reconcile()
    vm_id = site.run_with("far", "10.0.0.99")
    fails(site, vm_id, r"10\.0\.0\.\d+ is not in 10\.0\.7\.0/24, the subnet of host far.*; migrate the VM")


def test_the_primary_address_of_an_eni_never_moves(site: Site) -> None:
    primary = site.hosts["h2"].private_ip
    vm_id = site.run_with("h1", primary)
    fails(site, vm_id, f"{primary} is the primary address of {site.hosts['h2'].eni_id} .*; correct AWS_PRIVATE_IP")


def test_an_address_that_the_network_of_the_nic_does_not_give_is_not_followed(site: Site) -> None:
    """oned gives NICs what the owner of a network hides there: MTU=[ AWS_PRIVATE_IP="10.0.0.254" ]."""
    stolen = site.address(0)
    here = site.elsewhere(stolen)
    own = site.cloud.add_network("own", AR='AR=[TYPE="IP4", IP="192.168.9.10", SIZE="1"]')
    vm_id = site.run(here, 0, pool=own)
    values = {"AWS_PRIVATE_IP": stolen.private_ip, "AWS_ALLOCATION_ID": stolen.allocation_id}
    site.cloud.set_nics(vm_id, own, [{"IP": "192.168.9.10", **values}])
    reason = f"{stolen.private_ip} is not what an address range of network {own} gives now; detach the NIC"
    with pytest.raises(AwsOvsError, match=reason):
        site.follow(vm_id)
    assert reason in site.error(vm_id)
    site.run("h1", 1)  # the reconciler reads VMs in pages that have one with an address in AWS
    assert [reason in one.text for one in site.reconcile().problems] == [True]
    assert stolen.private_ip not in site.at(here)


def test_an_address_is_not_taken_from_what_is_no_host(site: Site) -> None:
    other = site.cloud.ec2.add_instance("database", "10.0.0.200", eip=False)
    site.cloud.ec2.move_private_ip("10.0.0.201", other.eni_id)
    vm_id = site.run_with("h1", "10.0.0.201")
    fails(site, vm_id, f"10.0.0.201 is on {other.eni_id}, which is no OpenNebula host; take it away there")
    assert site.cloud.addresses(other) == {"10.0.0.201"}


def test_an_elastic_ip_that_was_released_is_named_and_the_private_address_is_still_followed(site: Site) -> None:
    host = site.elsewhere(site.address(0))
    vm_id, address = site.run(host, 0), site.address(0)
    site.cloud.ec2.client.disassociate_address(PublicIp=address.external_ip)
    site.cloud.ec2.client.release_address(AllocationId=address.allocation_id)
    reason = rf"{address.external_ip} \({address.allocation_id}\) is not in this account and Region; detach it"
    site.cloud.forget_calls()
    for changes in (1, 0, 0):
        with pytest.raises(AwsOvsError, match=reason):
            site.follow(vm_id)
        assert len(site.cloud.ec2.mutating_calls()) == changes
        assert address.private_ip in site.at(host)
        assert "is not in this account" in site.error(vm_id)
        site.cloud.forget_calls()
    assert any("is not in this account" in one.text for one in site.reconcile().problems)
    assert site.cloud.mutating_calls() == []


def test_an_elastic_ip_is_not_taken_from_what_is_no_host(site: Site) -> None:
    other = site.cloud.ec2.add_instance("web", "10.0.0.200", eip=False)
    address = site.address(0)
    client = site.cloud.ec2.client
    client.disassociate_address(PublicIp=address.external_ip)
    client.associate_address(AllocationId=address.allocation_id, NetworkInterfaceId=other.eni_id)
    vm_id = site.run(site.elsewhere(address), 0)
    fails(
        site, vm_id, f"{address.external_ip} is associated with {other.eni_id}, which is no OpenNebula host", changes=1
    )
    assert site.cloud.leads_to(address.external_ip) == (other.eni_id, "10.0.0.200")


def test_an_elastic_ip_is_not_taken_from_a_host_whose_own_public_address_it_is(site: Site) -> None:
    address, owner = site.address(0), site.hosts["h2"]
    client = site.cloud.ec2.client
    client.disassociate_address(PublicIp=address.external_ip)
    client.associate_address(AllocationId=address.allocation_id, NetworkInterfaceId=owner.eni_id)
    vm_id = site.run(site.elsewhere(address), 0)
    fails(site, vm_id, f"{address.external_ip} is the public address of host h2 itself; disassociate it", changes=1)
    assert site.cloud.leads_to(address.external_ip) == (owner.eni_id, owner.private_ip)


def test_another_elastic_ip_at_the_private_address_is_not_displaced(site: Site) -> None:
    (spare,) = site.cloud.ec2.allocate_eips([{}])
    address, client = site.address(0), site.cloud.ec2.client
    holder = next(one for one in site.hosts.values() if address.private_ip in site.cloud.addresses(one))
    client.disassociate_address(PublicIp=address.external_ip)
    client.associate_address(
        AllocationId=spare.allocation_id, NetworkInterfaceId=holder.eni_id, PrivateIpAddress=address.private_ip
    )
    host = site.elsewhere(address)
    vm_id = site.run(host, 0)
    fails(
        site, vm_id, f"{address.private_ip} has the Elastic IP {spare.public_ip} already.*; disassociate one", changes=1
    )
    assert site.cloud.leads_to(spare.public_ip) == (site.hosts[host].eni_id, address.private_ip)
    assert site.cloud.leads_to(address.external_ip) == ("", "")


def test_a_host_without_an_eni_or_with_one_that_is_gone_is_named(site: Site) -> None:
    site.cloud.oned.add_host("plain")
    vm_id = site.run("plain", 0)
    fails(site, vm_id, "host plain has no EC2_ENI_ID; tag its instance")
    site.cloud.world().oned.update_host(site.cloud.host("plain").host_id, {"EC2_ENI_ID": "eni-0123456789abcdef0"})
    with pytest.raises(AwsOvsError, match="EC2 does not know eni-0123456789abcdef0, the ENI of host plain"):
        site.follow(vm_id)


def test_a_vm_whose_host_is_unknown_to_oned_fails_and_does_not_pass_for_one_that_is_gone(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.oned.forget("HOST", site.cloud.host("h1").host_id)
    with pytest.raises(AwsOvsError, match="Error getting host"):
        site.follow(vm_id)
    assert site.error(vm_id).startswith("aws_ovs: ")
