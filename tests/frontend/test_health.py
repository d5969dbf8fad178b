"""`oneaws check`: what it sees of hosts, of the account in AWS and of OpenNebula, each with its remedy."""

from __future__ import annotations

import json
import os
import shlex
import time

import pytest
from lxml import etree

from tests.world.ec2.region import Instance
from tests.world.oned import vm as oned_vm
from vnm_aws import __version__
from vnm_aws.frontend.objects import STATE_DISABLED, STATE_ERROR, STATE_OFFLINE
from vnm_aws.frontend.oned import Oned as Client

from .cloud import Cloud
from .test_calls import allowed
from .test_security_groups import WORLD, group, let_in

Line = tuple[str, str, str]


@pytest.fixture
def instances(cloud: Cloud) -> list[Instance]:
    """Three hosts with an Elastic IP pool, where all is well; nothing that a test does there changes a thing."""
    made = cloud.add_metal("h1", "h2", "h3")
    cloud.add_eips(2)
    cloud.add_pool()
    cloud.reconcile()
    cloud.probed("h1", "h2", "h3")
    cloud.oneaws("hooks", "register")
    cloud.forget_calls()
    return made


def said(cloud: Cloud, *words: str, code: int = 1) -> list[Line]:
    """The lines that are not ok, of a check that changes nothing."""
    before = cloud.mutating_calls()
    lines = json.loads(cloud.oneaws("check", "--json", *words, code=code).stdout)
    assert cloud.mutating_calls() == before
    for line in lines:
        assert set(line) == {"CHECK", "STATUS", "DETAIL"}
        assert line["STATUS"] == "ok" or ";" in line["DETAIL"], "with a remedy"
    return [(line["CHECK"], line["STATUS"], line["DETAIL"]) for line in lines if line["STATUS"] != "ok"]


# Hosts, by what they report


def test_what_hosts_report_is_said_by_kind(cloud: Cloud, instances: list[Instance]) -> None:
    cloud.probed("h1", VERSION="0.0.9", PEERS_DOWN=2)
    cloud.probed("h2", ERROR="ovs-vswitchd does not run; start it: systemctl start openvswitch-switch", PEERS_DOWN=1)
    cloud.probed("h3", TIME=int(time.time()) - 3660)
    assert said(cloud) == [
        ("host h2", "failed", "it reports: ovs-vswitchd does not run; start it: systemctl start openvswitch-switch"),
        (
            "nodes",
            "failed",
            f"host h1 ran version 0.0.9 of the driver, this front-end has {__version__}; run 'install.sh --node' of version "
            f"{__version__} there, then 'onehost sync -f' here",
        ),
        (
            "nodes",
            "failed",
            "host h3 reported last 61 minutes ago; run 'oneaws check --nodes'; if it answers there, see 'onehost show "
            f"{cloud.host('h3').host_id}'",
        ),
        (
            "nodes",
            "failed",
            "tunnels are down on 2 of 3 hosts (h1: 2 h2: 1); run 'oneaws check --nodes', by which these hosts name them",
        ),
    ]
    cloud.oned.set_host_state(cloud.host("h2").host_id, STATE_OFFLINE)
    assert [line for line in said(cloud) if line[0] == "host h2"] == [], "what an offline host said is old"


def test_a_host_whose_clock_is_ahead_is_named(cloud: Cloud, instances: list[Instance]) -> None:
    cloud.probed("h2", TIME=int(time.time()) + 600)
    ((name, status, detail),) = said(cloud)
    assert (name, status) == ("nodes", "failed")
    assert detail == "the clock of host h2 is ahead of this one; run 'timedatectl set-ntp true' there"


def test_hosts_that_have_reported_nothing_are_named(cloud: Cloud, instances: list[Instance]) -> None:
    cloud.add_metal("h4", "h5")
    cloud.reconcile()
    ((name, status, detail),) = said(cloud, code=0)
    assert (name, status) == ("nodes", "warning"), "OpenNebula has just begun with them"
    assert detail.startswith("hosts h4 h5 reported nothing yet, for OpenNebula has not monitored it so far; ")
    for name in ("h4", "h5"):
        cloud.oned.set_host_state(cloud.host(name).host_id, 2)
    ((name, status, detail),) = said(cloud)
    assert (name, status) == ("nodes", "failed")
    assert detail.startswith("hosts h4 h5 reported nothing of this driver yet; run 'install.sh --node' there")
    cloud.oned.set_host_state(cloud.host("h4").host_id, STATE_ERROR)
    assert ("host h4", "failed") in {line[:2] for line in said(cloud)}


def test_every_host_is_asked_on_demand_and_one_that_does_not_answer_is_a_line(
    cloud: Cloud, instances: list[Instance]
) -> None:
    found = [{"what": "route to the VMs is missing", "remedy": "run 'aws-ovs restore'"}]
    (cloud.ssh / "h1.check").write_text(json.dumps(found))
    (cloud.ssh / "h2.down").touch()
    before = len(cloud.ssh_calls())
    assert said(cloud, "--nodes") == [
        ("host h1", "failed", "route to the VMs is missing; run 'aws-ovs restore'"),
        (
            "host h2",
            "failed",
            "'aws-ovs check' cannot be run there: ssh: connect to host h2 port 22: Connection refused; as oneadmin, see what "
            "'ssh h2 sudo -n /usr/sbin/aws-ovs check --json' says",
        ),
    ]
    assert sorted(cloud.ssh_calls()[before:]) == ["h1", "h2", "h3"]
    assert said(cloud, code=0) == [], "nobody is called without being asked to"
    assert len(cloud.ssh_calls()) == before + 3
    shown = [line.split(maxsplit=3) for line in cloud.oneaws("check", "--nodes", code=1).stdout.splitlines()]
    assert ["host", "h3", "ok", "its own check finds nothing wrong"] in shown


def test_a_host_that_hangs_delays_the_check_no_longer_than_the_timeout(cloud: Cloud, instances: list[Instance]) -> None:
    cloud.configure(ssh_timeout=1)
    for name in ("h1", "h2"):
        (cloud.ssh / f"{name}.delay").write_text("20")
    started = time.monotonic()
    lines = said(cloud, "--nodes")
    assert time.monotonic() - started < 15
    assert [line[0] for line in lines if "did not answer within 1 s" in line[2]] == ["host h1", "host h2"]


# The account in AWS


def test_a_stopped_instance_is_named_with_the_command_that_starts_it(cloud: Cloud, instances: list[Instance]) -> None:
    (spare,) = cloud.add_metal("spare")
    cloud.ec2.client.stop_instances(InstanceIds=[instances[0].instance_id, spare.instance_id])
    lines = {line[1]: line[2] for line in said(cloud) if line[0] == "instances"}
    assert lines["failed"].startswith(f"instance {instances[0].instance_id} (h1) of host h1 is stop")
    assert f"'aws ec2 start-instances --instance-ids {instances[0].instance_id}'" in lines["failed"]
    assert lines["warning"].startswith(f"instance {spare.instance_id} (spare) is stop")
    cloud.reconcile()
    cloud.oned.set_host_state(cloud.host("h1").host_id, STATE_DISABLED)
    assert said(cloud, code=0)[0][:2] == ("instances", "warning"), "an administrator has disabled it"


@pytest.mark.parametrize(
    "action", ["AssignPrivateIpAddresses", "UnassignPrivateIpAddresses", "AssociateAddress", "DescribeAddresses"]
)
def test_a_right_that_is_missing_is_named(cloud: Cloud, instances: list[Instance], action: str) -> None:
    cloud.ec2.fail_next(action, "UnauthorizedOperation", times=99)
    assert ("rights", "failed", f"EC2 does not allow {action}; allow it with share/aws/iam-policy.json") in said(cloud)


def test_every_right_of_the_policy_is_tried(cloud: Cloud, instances: list[Instance]) -> None:
    lines = json.loads(cloud.oneaws("check", "--json").stdout)
    (detail,) = (line["DETAIL"] for line in lines if line["CHECK"] == "rights")
    assert detail == f"EC2 allows {', '.join(sorted(allowed() - {'CreateTags'}))}"  # which write_tags alone needs
    assert cloud.ec2.mutating_calls() == []


@pytest.mark.parametrize(("ahead", "says"), [(-400, "400 s ahead of"), (-70, "70 s ahead of"), (90, "90 s behind")])
def test_a_clock_that_is_wrong_is_said(cloud: Cloud, instances: list[Instance], ahead: int, says: str) -> None:
    cloud.ec2.set_clock_ahead(ahead)
    ((name, status, detail),) = said(cloud)
    assert (name, status) == ("clock", "failed")
    assert detail.replace("399", "400").replace("401", "400").replace("71", "70").replace("89", "90") == (
        f"the clock of this machine is {says} that of EC2; run 'timedatectl set-ntp true' as root"
    )


def test_when_ec2_refuses_for_the_time_the_clock_is_said_too(cloud: Cloud, instances: list[Instance]) -> None:
    cloud.ec2.set_clock_ahead(-3600)
    cloud.ec2.fail_next("DescribeInstances", "RequestExpired")
    lines = said(cloud)
    assert [line[:2] for line in lines][:2] == [("EC2", "failed"), ("clock", "failed")]
    assert "RequestExpired" in lines[0][2]


def test_ports_that_a_vm_lets_in_and_aws_does_not_are_named(cloud: Cloud, instances: list[Instance]) -> None:
    for number, name in enumerate(("h1", "h2")):
        vm_id = cloud.run_vm(0, [number], name)
        rules = [("TCP", "22,443,8000:8010"), ("UDP", "53"), ("ICMP", "")] if number == 0 else [("TCP", "443")]
        cloud.oned.edit_vm(vm_id, lambda root, rules=rules: accept(root, rules))  # type: ignore[misc]
    cloud.reconcile()
    own = group(cloud, "own", *instances)
    let_in(cloud, own, "10.0.0.0/16", "-1", 0, 0)
    let_in(cloud, own, WORLD, "tcp", 20, 22)
    let_in(cloud, own, WORLD, "tcp", 8000, 8005)
    lines = [line for line in said(cloud, code=0) if line[0] == "ports of VMs"]
    assert {line[1] for line in lines} == {"warning"}
    whose = "with an Elastic IP: the VM's own security groups let in"
    assert [line[2].split(" from anywhere")[0] for line in lines] == [
        f"VM 0 {whose} ICMP",
        f"VM 0, 1 {whose} TCP port 443",
        f"VM 0 {whose} TCP port 8006-8010",
        f"VM 0 {whose} UDP port 53",
    ]
    for _, _, detail in lines:
        words = shlex.split(detail.split("run '")[1].split("'")[0])
        options = dict(zip(words[3::2], words[4::2], strict=True))
        low, _, high = options["--port"].rpartition("-") if options["--port"] != "-1" else ("", "", "-1")
        let_in(cloud, options["--group-id"], options["--cidr"], options["--protocol"], int(low or high), int(high))
    assert said(cloud, code=0) == []


def accept(root: oned_vm.Element, rules: list[tuple[str, str]]) -> None:
    """Put NICs of a VM into group 100, which has these rules for what comes in."""
    (template,) = root.findall("TEMPLATE")
    for old in (*template.findall("SECURITY_GROUP_RULE"), *template.findall("NIC/SECURITY_GROUPS")):
        parent = old.getparent()
        assert parent is not None
        parent.remove(old)
    for nic in template.findall("NIC"):
        etree.SubElement(nic, "SECURITY_GROUPS").text = "100"
    for protocol, ports in rules:
        rule = etree.SubElement(template, "SECURITY_GROUP_RULE")
        values = {"SECURITY_GROUP_ID": "100", "RULE_TYPE": "INBOUND", "PROTOCOL": protocol, "RANGE": ports}
        for key, value in values.items():
            etree.SubElement(rule, key).text = value


# OpenNebula, and the timer


def test_a_hook_that_failed_last_is_named_until_it_succeeds(cloud: Cloud, instances: list[Instance]) -> None:
    hooks = {hook.name: hook.hook_id for hook in Client().hooks()}
    running, ready = hooks["aws_ovs-vm-running"], hooks["aws_ovs-vnet-ready"]
    cloud.oned.ran_hook(running, "aws_ovs: this one is old")
    cloud.oned.ran_hook(running)
    cloud.oned.ran_hook(4711, "somebody else's")
    assert said(cloud, code=0) == []
    cloud.oned.ran_hook(ready, "first\naws_ovs: network web: it is not right; correct it\n", at=1_795_000_000)
    numbers = f"{ready} 0"
    assert said(cloud) == [
        (
            "hooks",
            "failed",
            "aws_ovs-vnet-ready failed when it ran last, at 2026-11-18 11:06:40 UTC: aws_ovs: network web: it is not right; "
            f"correct it; when the cause is gone, run 'onehook retry {numbers}'",
        )
    ]
    cloud.oned.ran_hook(ready)
    assert said(cloud, code=0) == []


def test_attributes_that_nics_do_not_inherit_are_named(cloud: Cloud, instances: list[Instance]) -> None:
    cloud.oned.inherit_no_more("AWS_PRIVATE_IP")
    assert said(cloud) == [
        (
            "inherited attributes",
            "failed",
            "oned does not give NICs AWS_PRIVATE_IP of their networks; run 'install.sh --frontend' as root, then 'systemctl "
            "restart opennebula'",
        )
    ]


def test_a_timer_that_does_not_run_is_said(cloud: Cloud, instances: list[Instance]) -> None:
    for state in ("inactive", "failed"):
        cloud.set_timer(state)
        ((name, status, detail),) = said(cloud)
        assert (name, status) == ("timer", "failed")
        assert detail == (
            f"aws_ovs-reconcile.timer is {state}, so nothing runs 'oneaws reconcile'; run 'systemctl enable --now "
            "aws_ovs-reconcile.timer' as root"
        )
    cloud.set_timer("")
    assert said(cloud, code=0) == [], "without systemd, a run that has ended just now is enough"
    ended = cloud.directory / "state" / "reconciled"
    for state in ("", "active"):
        cloud.set_timer(state)
        os.utime(ended, (time.time() - 3700,) * 2)
        ((name, status, detail),) = said(cloud)
        assert (name, status) == ("timer", "failed")
        assert "the last 'oneaws reconcile' ended 61 minutes ago; " in detail
    ended.unlink()
    assert "no 'oneaws reconcile' has ended yet; see" in said(cloud)[0][2]
    cloud.oned.set_raft_state(2)
    assert said(cloud, code=0) == [], "another front-end leads"


def test_addresses_that_are_not_where_their_vm_runs_are_named_with_since_when(
    cloud: Cloud, instances: list[Instance]
) -> None:
    vm_id = cloud.run_vm(0, [0], "h1")
    cloud.oneaws("eip", "follow", str(vm_id))
    cloud.oned.move_vm(vm_id, cloud.host("h3").host_id)
    began = int(time.time()) - 720
    cloud.oned.edit_vm(vm_id, lambda root: came(root, began))
    lines = [line for line in said(cloud) if line[0] == "addresses" and line[2].startswith(f"VM {vm_id} ")]
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began))
    private_ip = cloud.vm(vm_id).addresses[0].private_ip
    assert lines == [
        (
            "addresses",
            "pending",
            f"VM {vm_id} is on host h3 for 12 minutes, since {at}, and {private_ip} is not; run 'oneaws eip follow {vm_id}'",
        )
    ]
    cloud.oneaws("eip", "follow", str(vm_id))
    assert [line for line in said(cloud, code=0) if line[0] == "addresses"] == []


def came(root: oned_vm.Element, when: int) -> None:
    """Let a VM have come to its host at a time."""
    stime = root.findall("HISTORY_RECORDS/HISTORY")[-1].find("STIME")
    assert stime is not None
    stime.text = str(when)


def test_what_one_look_runs_into_keeps_no_other_from_being_made(cloud: Cloud, instances: list[Instance]) -> None:
    cloud.oned.fail_next("one.hookpool.info")
    cloud.oned.fail_next("one.secgrouppool.info")
    assert [line[:2] for line in said(cloud)] == [("hooks", "failed"), ("groups of VMs", "failed")]
