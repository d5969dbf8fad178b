"""The hooks: what each event makes of both worlds, what concerns nobody, and how many of them end."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from vnm_aws import lock
from vnm_aws.frontend.objects import STATE_DISABLED, STATE_ERROR, STATE_MONITORED, STATE_OFFLINE
from vnm_aws.frontend.oned import Oned as Client

from .cloud import POOL, RECORDINGS, Cloud

FOLLOWER = 2
EVENTS = {
    "host-monitored": "host_state",
    "host-offline": "host_state",
    "net-ready": "vnet_ready",
    "one.host.allocate": "host_allocate",
    "one.host.delete": "host_delete",
    "one.vn.add_ar": "vnet_add_ar",
    "one.vn.update": "vnet_update",
    "vm-running": "vm_running",
}
"""Which hook gets which recorded document."""

_HEAVY = ("boto3", "botocore", "pyone", "requests", "yaml", "click")
_LOADED = (
    "import sys; from vnm_aws.frontend.hook import main; code = main(sys.argv[1:]); "
    f"print(*(name for name in {_HEAVY} if name in sys.modules)); sys.exit(code)"
)


def recorded(name: str, *changes: tuple[str, str]) -> bytes:
    """A recorded document, with certain texts replaced."""
    text = (RECORDINGS / "hooks" / f"{name}.xml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


def loaded(cloud: Cloud, event: str, document: bytes) -> tuple[int, list[str]]:
    """Run a hook; its exit code, and what it imported of what takes long."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, f"/somewhere/{event}"],
        env=cloud.environment,
        input=base64.b64encode(document),
        capture_output=True,
        timeout=120,
    )
    assert done.stderr == b""
    return done.returncode, done.stdout.decode().split()


def hosted(cloud: Cloud, *names: str) -> list[Any]:
    """Instances that are hosts and know one another; nobody has been called since."""
    instances = cloud.add_metal(*names)
    cloud.add_network("blue", VLAN_ID="100")
    cloud.reconcile()
    for name in names:
        cloud.oned.set_host_state(cloud.host(name).host_id, STATE_MONITORED)
    (cloud.ssh / "calls").unlink()
    cloud.forget_calls()
    return instances


def document(cloud: Cloud, name: str) -> bytes:
    """A host as a state hook gets it."""
    return cloud.oned.document("HOST", cloud.host(name).host_id)


def deleted(cloud: Cloud, name: str) -> bytes:
    """Let an administrator delete a host; what the hook gets."""
    host = cloud.host(name)
    text = cloud.oned.document("HOST", host.host_id)
    cloud.oned.forget("HOST", host.host_id)
    return b"<CALL_INFO><RESULT>1</RESULT><PARAMETERS/><EXTRA>" + text + b"</EXTRA></CALL_INFO>"


def added_range(vnet_id: int, text: str) -> bytes:
    """What the hook gets after `onevnet addar`."""
    recording = "AR=[TYPE=IP4,IP=192.168.9.10,SIZE=1,EXTERNAL_IP=54.0.0.9]"
    return recorded("one.vn.add_ar", ("<VALUE>4</VALUE>", f"<VALUE>{vnet_id}</VALUE>"), (recording, text))


# What concerns nobody

UNCONCERNED = {
    "a VM without addresses in AWS": ("vm-running", [("AWS_PRIVATE_IP>", "OTHER>")]),
    "a VM of another driver": ("vm-running", [("<VN_MAD><![CDATA[aws_ovs]]>", "<VN_MAD><![CDATA[bridge]]>")]),
    "a host that is monitored": ("host-monitored", []),
    "a host that is offline": ("host-offline", []),
    "a host that is no KVM host": ("one.host.allocate", [("CDATA[kvm]", "CDATA[lxc]")]),
    "a host that is deleted": ("one.host.delete", []),
    "a network of another driver": ("net-ready", [("aws_ovs", "bridge")]),
    "a range without addresses in AWS": ("one.vn.add_ar", []),
    "a range of no network": ("one.vn.add_ar", [("EXTERNAL_IP=", "AWS_PRIVATE_IP="), ("<VALUE>4<", "<VALUE>x<")]),
    "a range that somebody without the right tried to add": (
        "one.vn.add_ar",
        [("EXTERNAL_IP=", "AWS_PRIVATE_IP="), ("<RESULT>1<", "<RESULT>0<")],
    ),
    "an update that failed": ("one.vn.update", [("<RESULT>1<", "<RESULT>0<")]),
    "what the driver says on a network": (
        "one.vn.update",
        [('AWS_EIP_POOL="tag:Pool=web"', 'AWS_OVS_ERROR="VLAN_ID 1 of \\"x\\" = y"')],
    ),
    "a call that failed": ("one.host.allocate", [("EXTRA>", "NOTHING>")]),
}


@pytest.mark.parametrize(("name", "changes"), UNCONCERNED.values(), ids=UNCONCERNED)
def test_what_concerns_nobody_ends_before_anything_heavy_is_imported(
    cloud: Cloud, name: str, changes: list[tuple[str, str]]
) -> None:
    (cloud.directory / "aws_ovs.yaml").write_text("not even: [valid")
    assert loaded(cloud, EVENTS[name], recorded(name, *changes)) == (0, [])
    assert (cloud.oned.calls(), cloud.ec2.calls(), cloud.ssh_calls()) == ([], [], [])


def test_recorded_events_of_what_is_no_more_change_nothing(cloud: Cloud) -> None:
    hosted(cloud, "h1")
    before = cloud.everything()
    cloud.forget_calls()
    for done in cloud.together(*(lambda name=name: cloud.hook(EVENTS[name], recorded(name)) for name in EVENTS)):
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
    assert cloud.mutating_calls() == []
    assert cloud.everything() == before


def test_a_hook_that_is_concerned_needs_no_click(cloud: Cloud) -> None:
    hosted(cloud, "h1")
    code, modules = loaded(cloud, "host_state", document(cloud, "h1"))
    assert code == 0
    assert "pyone" in modules
    assert "click" not in modules


# Hosts


def test_a_host_that_is_monitored_is_told_its_peers_and_no_other(cloud: Cloud) -> None:
    instances = hosted(cloud, "h1", "h2", "h3")
    (cloud.ssh / "h2.list").unlink()  # made anew
    done = cloud.hook("host_state", document(cloud, "h2"))
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.ssh_calls() == ["h2"]
    assert cloud.told("h2") == {one.name: one.private_ip for one in instances}
    assert cloud.mutating_calls() == []


def test_a_host_without_a_network_of_the_driver_in_its_cluster_is_told_nothing(cloud: Cloud) -> None:
    cloud.add_metal("h1")
    cloud.reconcile()
    cloud.oned.set_host_state(cloud.host("h1").host_id, STATE_MONITORED)
    assert cloud.hook("host_state", document(cloud, "h1")).returncode == 0
    assert cloud.ssh_calls() == []


@pytest.mark.parametrize(("state", "then"), [(STATE_ERROR, STATE_DISABLED), (STATE_OFFLINE, STATE_OFFLINE)])
def test_a_host_whose_instance_is_terminated_is_retired(cloud: Cloud, state: int, then: int) -> None:
    h1, h2 = hosted(cloud, "h1", "h2")
    cloud.ec2.terminate(h2.instance_id)
    cloud.oned.set_host_state(cloud.host("h2").host_id, state)
    done = cloud.hook("host_state", document(cloud, "h2"))
    assert (done.returncode, done.stderr) == (0, "")
    host = cloud.host("h2")
    assert (host.state, host.template["EC2_INSTANCE_STATE"]) == (then, "terminated")
    assert cloud.told("h1") == {"h1": h1.private_ip}
    assert cloud.ssh_calls() == ["h1"]


def test_a_host_in_error_whose_instance_runs_is_left_alone(cloud: Cloud) -> None:
    hosted(cloud, "h1", "h2")
    cloud.oned.set_host_state(cloud.host("h2").host_id, STATE_ERROR)
    assert cloud.hook("host_state", document(cloud, "h2")).returncode == 0
    assert cloud.mutating_calls() == []


def test_a_host_made_by_hand_is_adopted_and_joins_the_mesh(cloud: Cloud) -> None:
    h1, _ = hosted(cloud, "h1", "h2")
    (h3,) = cloud.add_metal("h3")
    assert cloud.oned.add_host("h3") == 2  # as recorded
    done = cloud.hook("host_allocate", recorded("one.host.allocate"))
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.host("h3").template["EC2_INSTANCE_ID"] == h3.instance_id
    assert cloud.told("h1")["h3"] == h3.private_ip
    assert cloud.told("h3")["h1"] == h1.private_ip


def test_a_deleted_host_leaves_the_mesh(cloud: Cloud) -> None:
    h1, h2 = hosted(cloud, "h1", "h2")
    cloud.ec2.terminate(h2.instance_id)
    done = cloud.hook("host_delete", deleted(cloud, "h2"))
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.told("h1") == {"h1": h1.private_ip}


# Networks and VMs


def test_the_first_network_of_a_cluster_makes_its_hosts_a_mesh(cloud: Cloud) -> None:
    h1, h2 = cloud.add_metal("h1", "h2")
    cloud.reconcile()
    assert cloud.ssh_calls() == []
    vnet_id = cloud.add_network("blue")
    assert cloud.hook("vnet_ready", cloud.oned.document("VNET", vnet_id)).returncode == 0
    assert cloud.told("h1") == cloud.told("h2") == {"h1": h1.private_ip, "h2": h2.private_ip}


def test_a_range_added_by_hand_is_checked(cloud: Cloud) -> None:
    hosted(cloud, "h1")
    values = 'TYPE="IP4", SIZE="1", AWS_PRIVATE_IP="10.0.0.99"'
    green = cloud.add_network("green", AR=f'AR=[ IP="192.168.9.10", {values} ]\nAR=[ IP="192.168.9.11", {values} ]')
    done = cloud.hook("vnet_add_ar", added_range(green, f"AR=[ {values} ]"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("aws_ovs: network green: AWS_PRIVATE_IP 10.0.0.99 is in several address ranges")


def test_a_range_of_an_elastic_ip_added_by_hand_becomes_true(cloud: Cloud) -> None:
    (h1,) = hosted(cloud, "h1")
    (eip,) = cloud.ec2.allocate_eips([POOL])
    text = (
        f'AR=[ TYPE="IP4", IP="192.168.0.77", SIZE="1", EXTERNAL_IP="{eip.public_ip}", AWS_PRIVATE_IP="10.0.0.77", '
        f'AWS_ALLOCATION_ID="{eip.allocation_id}" ]'
    )
    pool = cloud.add_pool(AR=text)
    done = cloud.hook("vnet_add_ar", added_range(pool, text))
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.leads_to(eip.public_ip) == (h1.eni_id, "10.0.0.77")


def updated(vnet_id: int, text: str) -> bytes:
    """What the hook gets after `onevnet update`."""
    return recorded(
        "one.vn.update", ("<VALUE>5</VALUE>", f"<VALUE>{vnet_id}</VALUE>"), ('AWS_EIP_POOL="tag:Pool=web"', text)
    )


@pytest.mark.parametrize("text", ['VLAN_ID="100"', 'AWS_OVS_ERROR="" VLAN_ID="100"', 'AWS_OVS_ERROR=""\nVLAN_ID="100"'])
def test_a_network_that_is_put_onto_the_vni_of_another_says_so_at_once_on_both(cloud: Cloud, text: str) -> None:
    hosted(cloud, "h1")  # network blue has VLAN_ID 100
    green = cloud.add_network("green", VLAN_ID="200")
    Client().update_network(green, {"VLAN_ID": "100"})
    done = cloud.hook("vnet_update", updated(green, text))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "aws_ovs: network green: VLAN_ID 100 is the VNI of network 0 (blue) on bridge brblue already"
    )
    said = {network.name: network.template["AWS_OVS_ERROR"] for network in Client().networks()}
    assert said["green"].startswith("VLAN_ID 100 is the VNI of network 0 (blue) on bridge brblue already; ")
    assert said["blue"].startswith("VLAN_ID 100 is the VNI of network 1 (green) on bridge brgreen already; ")
    Client().update_network(green, {"VLAN_ID": "200"})
    assert cloud.hook("vnet_update", updated(green, 'VLAN_ID="200"')).returncode == 0
    assert {network.template["AWS_OVS_ERROR"] for network in Client().networks()} == {""}


def test_an_update_of_a_network_of_another_driver_changes_nothing(cloud: Cloud) -> None:
    hosted(cloud, "h1")
    other = cloud.oned.add_vnet('NAME="other" VN_MAD="bridge" BRIDGE="br0" VLAN_ID="100"')
    cloud.forget_calls()
    assert cloud.hook("vnet_update", updated(other, 'VLAN_ID="100"')).returncode == 0
    assert (cloud.mutating_calls(), cloud.ec2.calls()) == ([], [])


def test_a_range_added_while_somebody_is_at_work_is_left_to_that(cloud: Cloud) -> None:
    with lock.held("the test", 1, str(cloud.directory / "state/lock")):
        done = cloud.hook("vnet_add_ar", added_range(0, 'AR=[ AWS_PRIVATE_IP="10.0.0.99" ]'))
    assert (done.returncode, done.stderr) == (0, "")
    assert (cloud.oned.calls(), cloud.ec2.calls()) == ([], [])


def test_the_addresses_of_a_vm_follow_it(cloud: Cloud) -> None:
    _, h2 = hosted(cloud, "h1", "h2")
    (eip,) = cloud.add_eips(1)
    pool = cloud.add_pool()
    cloud.reconcile()
    vm_id = cloud.run_vm(pool, [0], "h1")
    cloud.oned.move_vm(vm_id, cloud.host("h2").host_id)
    done = cloud.hook("vm_running", cloud.oned.document("VM", vm_id))
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.leads_to(eip)[0] == h2.eni_id


# Followers, failures, and many at once


def test_a_front_end_that_follows_another_does_nothing(cloud: Cloud) -> None:
    hosted(cloud, "h1")
    cloud.add_metal("h3")
    cloud.add_eips(1)
    pool = cloud.add_pool()
    cloud.oned.set_raft_state(FOLLOWER)
    cloud.forget_calls()
    events = [
        ("vm_running", recorded("vm-running")),
        ("host_state", document(cloud, "h1")),
        ("host_allocate", recorded("one.host.allocate")),
        ("vnet_ready", cloud.oned.document("VNET", pool)),
        ("vnet_add_ar", added_range(pool, 'AR=[ AWS_PRIVATE_IP="10.0.0.99" ]')),
        ("vnet_update", updated(pool, 'VLAN_ID="100"')),
        ("host_delete", deleted(cloud, "h1")),
    ]
    for done in cloud.together(*(lambda one=one: cloud.hook(*one) for one in events)):
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (cloud.mutating_calls(), cloud.ec2.calls(), cloud.ssh_calls()) == ([], [], [])


def test_an_unknown_event_is_said(cloud: Cloud) -> None:
    done = cloud.hook("vm_stopped", recorded("vm-running"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "aws_ovs: vm_stopped is no event of this driver; run 'oneaws hooks register'\n"


@pytest.mark.parametrize("event", sorted(set(EVENTS.values())))
def test_garbage_on_stdin_is_said(cloud: Cloud, event: str) -> None:
    done = cloud.hook(event, b"<VM><ID>")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "stdin does not hold a document of OpenNebula" in done.stderr


def _oned_down(cloud: Cloud) -> None:
    cloud.environment["ONE_XMLRPC"] = "http://127.0.0.1:9/RPC2"


def _host_down(cloud: Cloud) -> None:
    (cloud.ssh / "h1.down").touch()


def _bad_settings(cloud: Cloud) -> None:
    cloud.configure(ssh_parallel="many")


def _no_state_directory(cloud: Cloud) -> None:
    cloud.configure(state_directory="/dev/null/aws_ovs")


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (_oned_down, "does not answer"),
        (_host_down, "h1: ssh: connect to host h1 port 22: Connection refused"),
        (_bad_settings, "ssh_parallel must be a number"),
        (_no_state_directory, "/dev/null/aws_ovs"),
    ],
)
def test_a_hook_that_fails_ends_with_1_and_a_sentence(
    cloud: Cloud, arrange: Callable[[Cloud], None], said: str
) -> None:
    hosted(cloud, "h1")
    given = document(cloud, "h1")
    arrange(cloud)
    done = cloud.hook("host_state", given)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("aws_ovs: ")
    assert said in line


def test_many_hooks_at_once_do_the_work_of_few(cloud: Cloud) -> None:
    hosted(cloud, "h1")
    cloud.add_metal(*(f"new{number}" for number in range(8)))
    cloud.oned.latency = 0.03  # so that they wait for each other
    done = cloud.together(*[lambda: cloud.hook("host_allocate", recorded("one.host.allocate"))] * 20)
    cloud.oned.latency = 0
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 20
    assert len(cloud.told("new0")) == 9
    calls = cloud.oned.calls()
    assert calls.count("one.host.allocate") == 8
    # One works, one more waits, and after those perhaps a few that came late; each reads the hosts for each of its stages.
    assert calls.count("one.hostpool.info") <= 12
    assert not [name for name in cloud.ssh_calls() if cloud.ssh_calls().count(name) > 1]
