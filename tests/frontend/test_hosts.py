"""Metal hosts: which hosts EC2 instances become, and what becomes of a host when its instance changes, ends or is hidden."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.world.ec2.region import Instance
from vnm_aws.frontend import hosts, reconcile
from vnm_aws.frontend.objects import STATE_DISABLED, STATE_INIT, STATE_MONITORED, STATE_OFFLINE, Host
from vnm_aws.frontend.oned import Oned as Client
from vnm_aws.frontend.plan import Outcome

from .cloud import HOST, RUNNING_VM, Cloud

UNKNOWN = "i-0123456789abcdef0"
STATE, FREE, INSTANCE = "EC2_INSTANCE_STATE", "EC2_FREE_ADDRESSES", "EC2_INSTANCE_ID"


def sync(cloud: Cloud) -> Outcome:
    """What `oneaws host sync` does, in this process."""
    outcome, world = Outcome(), cloud.world()
    reconcile.carry_out(world, reconcile.of_hosts(world), outcome)
    return outcome


def in_order(cloud: Cloud) -> None:
    """Sync, which finds nothing wrong, and again, which changes nothing."""
    assert sync(cloud).problems == []
    cloud.forget_calls()
    again = sync(cloud)
    assert (again.done, again.problems, cloud.mutating_calls()) == ([], [], [])


def complaints(cloud: Cloud) -> list[str]:
    """What `oneaws host sync` says is wrong, with exit code 1; a second one says the same and changes nothing."""
    lines = cloud.oneaws("host", "sync", code=1).stderr.splitlines()
    cloud.forget_calls()
    again = sync(cloud).problems
    assert lines == [f"oneaws: {problem}" for problem in again]
    assert cloud.mutating_calls() == []
    return [line.removeprefix("oneaws: ") for line in lines]


def names() -> list[str]:
    return sorted(one.name for one in Client().hosts())


def states(cloud: Cloud, name: str) -> tuple[int, str]:
    """The state of a host, and that of its instance as its template has it."""
    return cloud.host(name).state, cloud.host(name).template[STATE]


def monitored(cloud: Cloud, name: str) -> Host:
    """A host that OpenNebula's monitoring has reached."""
    cloud.oned.set_host_state(cloud.host(name).host_id, STATE_MONITORED)
    return cloud.host(name)


def private_dns(cloud: Cloud, instance: Instance) -> str:
    (found,) = cloud.ec2.client.describe_instances(InstanceIds=[instance.instance_id])["Reservations"]
    return str(found["Instances"][0]["PrivateDnsName"])


def test_instances_with_the_tags_become_hosts_of_the_configured_cluster(cloud: Cloud) -> None:
    cluster = cloud.oned.add_cluster("metal")
    cloud.configure(cluster="metal", im_mad="x", vm_mad="y", host_filter="tag:opennebula=host,tag:Stage=live")
    instance, _ = cloud.add_metal("h1", "other")
    (third,) = cloud.ec2.add_instances(["third"], tags={"opennebula": "no"})
    for one in (instance, third):
        cloud.ec2.tag(one.instance_id, Stage="live")
    assert cloud.oneaws("host", "sync").stdout.splitlines() == [
        f"host h1: create it for instance {instance.instance_id}",
        f"host h1: set {FREE}=49",
    ]
    (host,) = Client().hosts()
    assert (host.name, host.state, host.cluster_id) == ("h1", STATE_INIT, cluster)
    assert host.template == {
        "IM_MAD": "x",
        "VM_MAD": "y",
        "RESERVED_CPU": "",
        "RESERVED_MEM": "",
        INSTANCE: instance.instance_id,
        "EC2_INSTANCE_TYPE": "c5n.metal",
        "EC2_VIRTUALIZATION": "metal",
        "EC2_AZ": f"{cloud.ec2.region}a",
        "EC2_SUBNET_ID": cloud.ec2.subnet_id,
        "EC2_ENI_ID": instance.eni_id,
        "VXLAN_TEP": instance.private_ip,
        STATE: "running",
        FREE: "49",
    }
    in_order(cloud)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("private-dns", private_dns),
        ("private-ip", lambda cloud, instance: instance.private_ip),
        ("tag:Rack", lambda cloud, instance: "r1.example.org"),
    ],
)
def test_a_host_is_named_by_the_rule(cloud: Cloud, rule: str, name: Callable[[Cloud, Instance], str]) -> None:
    cloud.configure(host_name=rule)
    (instance,) = cloud.add_metal("h1")
    cloud.ec2.tag(instance.instance_id, Rack="r1.example.org")
    in_order(cloud)
    assert names() == [name(cloud, instance)] != [""]


def test_free_addresses_are_the_limit_of_the_type_without_those_in_use(cloud: Cloud) -> None:
    (metal,), (small,) = cloud.add_metal("h1"), cloud.add_metal("h2", instance_type="t3.micro")
    in_order(cloud)
    assert [cloud.host(name).template[FREE] for name in ("h1", "h2")] == ["49", "1"]
    for eni, address in ((metal.eni_id, "10.0.0.201"), (metal.eni_id, "10.0.0.202"), (small.eni_id, "10.0.0.203")):
        cloud.ec2.move_private_ip(address, eni)
    in_order(cloud)
    assert [cloud.host(name).template[FREE] for name in ("h1", "h2")] == ["47", "0"]


def test_a_host_made_by_hand_with_the_name_is_adopted(cloud: Cloud) -> None:
    made = cloud.oned.add_host("h1", STATE_DISABLED, template='RACK="r1"')
    (instance,) = cloud.add_metal("h1")
    in_order(cloud)
    host = cloud.host("h1")
    assert (host.host_id, host.template["RACK"], host.template[INSTANCE]) == (made, "r1", instance.instance_id)
    assert host.state == STATE_DISABLED, "who disabled it had a reason"


def test_attributes_changed_by_hand_are_put_right_and_others_stay(cloud: Cloud) -> None:
    (instance,) = cloud.add_metal("h1")
    in_order(cloud)
    changed = {"VXLAN_TEP": "10.9.9.9", FREE: "1000", "RACK": 'r"1'}
    Client().update_host(cloud.host("h1").host_id, changed)
    in_order(cloud)
    template = cloud.host("h1").template
    assert (template["VXLAN_TEP"], template[FREE], template["RACK"]) == (instance.private_ip, "49", 'r"1')


def test_a_stopped_instance_gets_no_host_and_keeps_the_one_it_has(cloud: Cloud) -> None:
    one, other = cloud.add_metal("h1", "h2")
    cloud.ec2.client.stop_instances(InstanceIds=[other.instance_id])
    in_order(cloud)
    assert names() == ["h1"]
    monitored(cloud, "h1")
    cloud.ec2.client.stop_instances(InstanceIds=[one.instance_id])
    in_order(cloud)
    assert states(cloud, "h1") == (STATE_MONITORED, "stopped")
    cloud.ec2.client.start_instances(InstanceIds=[one.instance_id, other.instance_id])
    in_order(cloud)
    assert (names(), states(cloud, "h1")) == (["h1", "h2"], (STATE_MONITORED, "running"))


def test_more_instances_than_a_page(cloud: Cloud) -> None:
    wide = cloud.ec2.add_subnet("10.0.128.0/20")
    cloud.add_metal(*(f"n{number}" for number in range(1100)), subnet=wide)
    plan = hosts.plan(cloud.world())
    assert sorted(change.target for change in plan.changes) == sorted(f"host n{number}" for number in range(1100))
    assert (plan.problems, cloud.ec2.calls().count("DescribeInstances")) == ([], 2)
    assert cloud.oned.calls() == ["one.hostpool.info", "one.clusterpool.info"]


def test_the_host_of_a_renamed_instance_is_renamed(cloud: Cloud) -> None:
    (instance,) = cloud.add_metal("h1")
    in_order(cloud)
    (before,) = Client().hosts()
    cloud.ec2.tag(instance.instance_id, Name="h9")
    in_order(cloud)
    assert Client().hosts() == [before._replace(name="h9")]


@pytest.mark.parametrize("taken", ["alive", "terminated", "by hand"])
def test_a_host_is_not_renamed_to_the_name_of_another(cloud: Cloud, taken: str) -> None:
    one, other = cloud.add_metal("h1", "h2")
    name = "h3" if taken == "by hand" else "h2"
    if taken == "by hand":
        cloud.oned.add_host(name)
    in_order(cloud)
    cloud.ec2.tag(one.instance_id, Name=name)
    said = f"exists already; run 'onehost delete {cloud.host(name).host_id}', or rename the instance"
    if taken == "terminated":
        cloud.ec2.terminate(other.instance_id)
    elif taken == "alive":
        cloud.ec2.tag(other.instance_id, Name="h1")
        said = f"exists already for instance {other.instance_id}; rename one of the two instances"
    assert f"instance {one.instance_id}: host {name} {said}" in complaints(cloud)
    assert cloud.host("h1").template[INSTANCE] == one.instance_id


def test_the_host_of_a_terminated_instance_is_disabled_and_flagged(cloud: Cloud) -> None:
    one, _ = cloud.add_metal("h1", "h2")
    in_order(cloud)
    monitored(cloud, "h1")
    cloud.ec2.terminate(one.instance_id)
    in_order(cloud)
    assert (names(), states(cloud, "h1")) == (["h1", "h2"], (STATE_DISABLED, "terminated"))
    assert states(cloud, "h2") == (STATE_INIT, "running")


def test_vms_on_the_host_of_a_terminated_instance_are_reported(cloud: Cloud) -> None:
    (instance,) = cloud.add_metal("h1")
    in_order(cloud)
    host = monitored(cloud, "h1").host_id
    vms = [cloud.oned.add_vm(RUNNING_VM, host_id=host) for _ in range(2)]
    cloud.ec2.terminate(instance.instance_id)
    assert complaints(cloud) == [
        f"host h1: its instance {instance.instance_id} is terminated, but it still has the VMs {vms[0]} {vms[1]}; recover "
        f"them with 'onevm recover', then run 'onehost delete {host}'"
    ]
    assert states(cloud, "h1") == (STATE_DISABLED, "terminated")
    for vm_id in vms:
        cloud.oned.remove_vm(vm_id)
    in_order(cloud)


def test_a_host_that_is_set_offline_stays_so_when_its_instance_is_terminated(cloud: Cloud) -> None:
    (instance,) = cloud.add_metal("h1")
    in_order(cloud)
    cloud.oned.set_host_state(cloud.host("h1").host_id, STATE_OFFLINE)
    cloud.ec2.terminate(instance.instance_id)
    in_order(cloud)
    assert states(cloud, "h1") == (STATE_OFFLINE, "terminated")


@pytest.mark.parametrize("vpc", [False, True])
@pytest.mark.parametrize("retired", [False, True])
def test_an_instance_made_anew_takes_the_host_of_the_old_one_in_one_sync(
    cloud: Cloud, retired: bool, vpc: bool
) -> None:
    """EC2 shows a terminated instance for an hour, but as one of no VPC."""
    cloud.configure(vpc_id=cloud.ec2.vpc_id if vpc else "")
    (old,) = cloud.add_metal("h1")
    in_order(cloud)
    before = monitored(cloud, "h1")
    cloud.ec2.terminate(old.instance_id)
    if retired:
        in_order(cloud)
        assert states(cloud, "h1") == (STATE_DISABLED, "terminated")
    (new,) = cloud.add_metal("h1")
    in_order(cloud)
    (after,) = Client().hosts()
    assert (after.host_id, after.state, after.template[STATE]) == (before.host_id, STATE_MONITORED, "running")
    assert (after.template[INSTANCE], after.template["EC2_ENI_ID"]) == (new.instance_id, new.eni_id)


def test_the_host_of_an_instance_that_ec2_has_forgotten_is_retired(cloud: Cloud) -> None:
    cloud.oned.add_host("h1", template=f'{INSTANCE}="{UNKNOWN}" {STATE}="running"')
    cloud.add_metal("h2")
    in_order(cloud)
    assert states(cloud, "h1") == (STATE_DISABLED, "terminated")


def test_an_instance_without_the_tag_is_reported_and_its_host_stays(cloud: Cloud) -> None:
    one, _ = cloud.add_metal("h1", "h2")
    in_order(cloud)
    cloud.ec2.client.delete_tags(Resources=[one.instance_id], Tags=[{"Key": key} for key in HOST])
    assert complaints(cloud) == [
        f"host h1: its instance {one.instance_id} does not match tag:opennebula=host (any more); tag it again, or delete "
        "the host"
    ]
    assert states(cloud, "h1") == (STATE_INIT, "running")
    cloud.ec2.terminate(one.instance_id)
    in_order(cloud)
    assert states(cloud, "h1") == (STATE_DISABLED, "terminated")


@pytest.mark.parametrize("setting", ["host_filter", "vpc_id", "region"])
def test_no_host_is_retired_when_a_wrong_setting_hides_all_instances(cloud: Cloud, setting: str) -> None:
    instances = cloud.add_metal("h1", "h2")
    in_order(cloud)
    if setting == "region":  # where EC2 has never heard of them
        for one in instances:
            Client().update_host(cloud.host(one.name).host_id, {INSTANCE: UNKNOWN[:-1] + one.name[1]})
            cloud.ec2.client.delete_tags(Resources=[one.instance_id], Tags=[{"Key": key} for key in HOST])
        said = ["EC2 knows no instance i-0123456789abcdef", "correct region, vpc_id or host_filter in the settings"]
    elif setting == "vpc_id":
        cloud.configure(vpc_id="vpc-0123456789abcdef0")
        said = [f"is in {cloud.ec2.vpc_id}, not in vpc-0123456789abcdef0", "correct vpc_id in the settings"]
    else:
        cloud.configure(host_filter="tag:opennebula=hots")
        said = ["does not match tag:opennebula=hots", "tag it again, or delete the host"]
    lines = complaints(cloud)
    assert [line.split()[1] for line in lines] == ["h1:", "h2:"]
    assert all(part in line for line in lines for part in said)
    assert {states(cloud, name) for name in ("h1", "h2")} == {(STATE_INIT, "running")}


def test_two_instances_of_one_name_are_reported_and_their_hosts_stay(cloud: Cloud) -> None:
    one, other = cloud.add_metal("h1", "h2")
    in_order(cloud)
    cloud.ec2.tag(other.instance_id, Name="h1")
    cloud.add_metal("h3", "h3")
    lines = complaints(cloud)
    twins = " ".join(sorted([one.instance_id, other.instance_id]))
    assert f"instances {twins}: all are named h1; rename all but one" in lines
    assert (len(lines), names(), states(cloud, "h2")) == (2, ["h1", "h2"], (STATE_INIT, "running"))


@pytest.mark.parametrize("name", ["", "-v", "h1;reboot", "host 1", "h1\n", "grün", "h" * 129])
def test_what_cannot_be_a_host_name_is_reported(cloud: Cloud, name: str) -> None:
    bad, _ = cloud.add_metal(name, "h2")
    said = f"its tag:Name {name[:60]!r} is not a host name; set it, or host_name in the settings"
    assert [str(problem) for problem in sync(cloud).problems] == [f"instance {bad.instance_id}: {said}"]
    assert names() == ["h2"], "the others go on"


def test_two_hosts_of_one_instance_are_reported(cloud: Cloud) -> None:
    (instance,) = cloud.add_metal("h1")
    in_order(cloud)
    cloud.oned.add_host("copy", template=f'{INSTANCE}="{instance.instance_id}"')
    (line, *_) = complaints(cloud)
    assert line == f"host copy: has the same {INSTANCE} {instance.instance_id} as host h1; delete one of the two"


def test_a_cluster_that_is_missing_is_reported_once(cloud: Cloud) -> None:
    cloud.configure(cluster="metal")
    cloud.add_metal("h1", "h2")
    assert complaints(cloud) == [
        "cluster metal: OpenNebula has none of that name; run 'onecluster create metal', or correct cluster in the settings"
    ]
    assert names() == []


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(cloud: Cloud) -> None:
    one, _ = cloud.add_metal("h1", "h2")
    in_order(cloud)
    cloud.ec2.tag(one.instance_id, Name="h9")
    (new,) = cloud.add_metal("h3")
    before = cloud.everything()
    cloud.forget_calls()
    assert cloud.oneaws("host", "sync", "--dry-run").stdout.splitlines() == [
        "host h1: would rename it to h9",
        f"host h3: would create it for instance {new.instance_id}",
    ]
    assert (cloud.mutating_calls(), cloud.everything() == before) == ([], True)


def test_json_has_changes_and_problems(cloud: Cloud) -> None:
    bad, good = cloud.add_metal("no name", "h1")
    printed = json.loads(cloud.oneaws("host", "sync", "--json", code=1).stdout)
    assert printed.pop("problems")[0]["target"] == f"instance {bad.instance_id}"
    assert printed == {
        "dry_run": False,
        "changes": [
            {"target": "host h1", "change": f"create it for instance {good.instance_id}"},
            {"target": "host h1", "change": f"set {FREE}=49"},
        ],
    }
    (listed,) = json.loads(cloud.oneaws("host", "list", "--json").stdout)
    assert {"NAME": "h1", "INSTANCE": good.instance_id, "FREE": 49, "STAT": "init"}.items() <= listed.items()


CALLS = ["one.host.allocate", "one.host.update", "one.host.status", "one.host.rename"]


def much_to_do(cloud: Cloud) -> list[tuple[str, str, int, str]]:
    """Hosts to enable, to disable, to create and to rename; what the hosts are to be in the end."""
    first, second, named = cloud.add_metal("h1", "h2", "h4")
    in_order(cloud)
    monitored(cloud, "h1")
    cloud.ec2.terminate(first.instance_id)
    in_order(cloud)
    cloud.ec2.terminate(second.instance_id)
    anew, added = cloud.add_metal("h1", "h3")
    cloud.ec2.tag(named.instance_id, Name="h5")
    return [
        ("h1", anew.instance_id, STATE_MONITORED, "running"),
        ("h2", second.instance_id, STATE_DISABLED, "terminated"),
        ("h3", added.instance_id, STATE_INIT, "running"),
        ("h5", named.instance_id, STATE_INIT, "running"),
    ]


def as_they_are() -> list[tuple[str, str, int, str]]:
    return sorted((one.name, one.template[INSTANCE], one.state, one.template[STATE]) for one in Client().hosts())


@pytest.mark.parametrize("call", CALLS)
def test_killed_after_a_call_the_next_sync_does_the_rest(cloud: Cloud, call: str) -> None:
    wanted = much_to_do(cloud)
    process = cloud.start("host", "sync")
    cloud.oned.before(call, lambda: cloud.oned.kill_at(1, "after", process.pid))
    process.communicate(timeout=60)
    assert process.returncode == -9
    in_order(cloud)
    assert as_they_are() == wanted


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_oned_refuses_is_reported_and_the_next_sync_makes_it(cloud: Cloud, call: str) -> None:
    wanted = much_to_do(cloud)
    cloud.oned.fail_next(call)
    outcome = sync(cloud)
    assert [one.text for one in outcome.problems] == [
        f"oned refused: [{call}] Internal error; see /var/log/one/oned.log"
    ]
    assert len({target for target, _ in outcome.done}) == 3, "the other hosts are done"
    in_order(cloud)
    assert as_they_are() == wanted
