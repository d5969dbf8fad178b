"""The mesh: whose peers are whose, who is told when, and what happens when one cannot be told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.world.ec2.region import Instance
from vnm_aws.frontend import reconcile
from vnm_aws.frontend.objects import STATE_DISABLED, STATE_MONITORED, STATE_OFFLINE
from vnm_aws.frontend.oned import Oned as Client
from vnm_aws.frontend.plan import Outcome
from vnm_aws.overlay import tunnels
from vnm_aws.overlay.tunnels import Peer, PeerList, digest

from .cloud import HOST, Cloud

FIRST, LATER = 30, 1800
"""Seconds since a host was told: its own probe has not run since, or it has."""


def add_host(cloud: Cloud, number: int, cluster: int = 0, **values: str) -> int:
    """A host `h<number>` with the endpoint 10.0.0.<number>; its ID."""
    given = {"VXLAN_TEP": f"10.0.0.{number}", **values}
    text = "\n".join(f'{key}="{value}"' for key, value in given.items())
    return cloud.oned.add_host(f"h{number}", cluster_id=cluster, template=text)


@pytest.fixture
def three(cloud: Cloud) -> list[int]:
    """The IDs of h1, h2 and h3, which a network of the driver makes a mesh; nobody is told yet."""
    cloud.add_network("private")
    return [add_host(cloud, number) for number in (1, 2, 3)]


def sync(cloud: Cloud, everybody: bool = False) -> Outcome:
    """What `oneaws mesh sync` does, in this process."""
    outcome, world = Outcome(), cloud.world()
    reconcile.carry_out(world, reconcile.of_mesh(everybody), outcome)
    return outcome


def called(cloud: Cloud, everybody: bool = False) -> list[str]:
    """The hosts that a sync calls, none of which makes trouble."""
    before = len(cloud.ssh_calls())
    assert sync(cloud, everybody).problems == []
    return sorted(cloud.ssh_calls()[before:])


def lists(cloud: Cloud) -> dict[str, list[str]]:
    """The peers that each host was told last."""
    return {path.stem: sorted(cloud.told(path.stem)) for path in sorted(cloud.ssh.glob("*.list"))}


def shown(cloud: Cloud) -> dict[str, Any]:
    """What `oneaws mesh show` prints as JSON."""
    printed: dict[str, Any] = json.loads(cloud.oneaws("mesh", "show", "--json").stdout)
    return printed


def told_lists(cloud: Cloud, name: str) -> dict[str, list[str]]:
    """What a host was told last beside its peers."""
    document = json.loads((cloud.ssh / f"{name}.list").read_text())
    return {key: value for key, value in document.items() if key != "peers"}


def forget_told(cloud: Cloud, seconds: int) -> None:
    """Let that much time go by since the hosts were told."""
    path = cloud.directory / "state" / "mesh.json"
    told = {key: (mark, time.time() - seconds) for key, (mark, _) in json.loads(path.read_text()).items()}
    path.write_text(json.dumps(told))


def own_digest(*numbers: int) -> str:
    """What a host's probe says of these peers."""
    return digest(PeerList([Peer(f"h{number}", f"10.0.0.{number}") for number in numbers]))


# Who is in it


def test_the_peers_are_the_hosts_of_clusters_that_have_a_network_of_the_driver(cloud: Cloud) -> None:
    served, other, third = (cloud.oned.add_cluster(name) for name in ("served", "other", "third"))
    for number, cluster in ((1, served), (2, other), (3, third), (4, 0)):
        add_host(cloud, number, cluster)
    cloud.oned.add_host("virtual", cluster_id=served)
    assert called(cloud) == []
    cloud.oned.add_vnet('NAME="a" VN_MAD="aws_ovs" BRIDGE="a"', clusters=[served, other])
    cloud.oned.add_vnet('NAME="b" VN_MAD="ovswitch" BRIDGE="b"', clusters=[third])
    assert called(cloud) == ["h1", "h2"]
    assert cloud.told("h1") == cloud.told("h2") == {"h1": "10.0.0.1", "h2": "10.0.0.2"}


def test_metal_hosts_are_told_by_the_sync_that_makes_them(cloud: Cloud) -> None:
    cloud.add_network("private")
    one, other = cloud.add_metal("h1", "h2")
    cloud.oneaws("host", "sync")
    assert cloud.told("h1") == cloud.told("h2") == {"h1": one.private_ip, "h2": other.private_ip}
    calls = (cloud.ssh / "calls").read_text().splitlines()
    assert sorted(calls) == [f"{name} sudo -n /usr/sbin/aws-ovs peers" for name in ("h1", "h2")]
    cloud.ec2.terminate(one.instance_id)
    cloud.oneaws("host", "sync")
    assert cloud.told("h2") == {"h2": other.private_ip}
    assert sorted(cloud.ssh_calls()) == ["h1", "h2", "h2"], "nobody calls a host that is no more"


# Who is told


def test_a_host_that_joins_leaves_or_changes_is_told_to_every_host_once(cloud: Cloud, three: list[int]) -> None:
    assert called(cloud) == ["h1", "h2", "h3"]
    assert called(cloud) == []
    add_host(cloud, 4)
    assert called(cloud) == ["h1", "h2", "h3", "h4"]
    cloud.oned.forget("HOST", three[0])
    assert called(cloud) == ["h2", "h3", "h4"]
    Client().update_host(three[1], {"VXLAN_TEP": "10.0.0.22"})
    assert called(cloud) == ["h2", "h3", "h4"]
    assert cloud.told("h3") == {"h2": "10.0.0.22", "h3": "10.0.0.3", "h4": "10.0.0.4"}
    Client().rename_host(three[2], "h33")
    assert called(cloud) == ["h2", "h33", "h4"]
    Client().update_host(three[2], {"EC2_INSTANCE_STATE": "terminated"})
    assert called(cloud) == ["h2", "h4"]
    assert called(cloud) == []
    assert lists(cloud)["h4"] == ["h2", "h4"]


def test_a_host_deleted_and_made_anew_is_told_though_the_peers_are_the_same(cloud: Cloud, three: list[int]) -> None:
    called(cloud)
    cloud.oned.forget("HOST", three[0])
    add_host(cloud, 1)
    assert called(cloud) == ["h1"]


def test_all_tells_also_those_that_know(cloud: Cloud, three: list[int]) -> None:
    everybody = cloud.oneaws("mesh", "sync", "--all")
    assert everybody.stdout == "3 of 3 hosts (h1 h2 h3): send the list of 3 peers\n"
    assert cloud.oneaws("mesh", "sync").stdout == "Nothing to change.\n"
    cloud.oneaws("mesh", "sync", "--all")
    assert sorted(cloud.ssh_calls()) == ["h1", "h1", "h2", "h2", "h3", "h3"]


def test_an_offline_host_is_told_when_it_is_back_and_a_disabled_one_at_once(cloud: Cloud, three: list[int]) -> None:
    cloud.oned.set_host_state(three[0], STATE_OFFLINE)
    cloud.oned.set_host_state(three[1], STATE_DISABLED)
    assert called(cloud) == ["h2", "h3"]
    assert called(cloud, everybody=True) == ["h2", "h3"]
    assert cloud.told("h2").keys() == {"h1", "h2", "h3"}
    cloud.oned.set_host_state(three[0], STATE_MONITORED)
    assert called(cloud) == ["h1"]


def test_a_dry_run_sends_nothing(cloud: Cloud, three: list[int]) -> None:
    said = cloud.oneaws("mesh", "sync", "--dry-run").stdout
    assert said == "3 of 3 hosts (h1 h2 h3): would send the list of 3 peers\n"
    assert (cloud.ssh_calls(), called(cloud)) == ([], ["h1", "h2", "h3"])


def test_two_syncs_at_once_tell_each_host_once(cloud: Cloud, three: list[int]) -> None:
    (cloud.ssh / "h1.delay").write_text("1")
    run = [lambda: cloud.oneaws("mesh", "sync").stdout] * 2
    sent, nothing = sorted(cloud.together(*run))
    assert (sent, nothing) == ("3 of 3 hosts (h1 h2 h3): send the list of 3 peers\n", "Nothing to change.\n")
    assert sorted(cloud.ssh_calls()) == ["h1", "h2", "h3"]


@pytest.mark.parametrize("content", ["", "[]", '{"0 10.0.0.1": 1}', '{"0 10.0.0.1": ["x", null]}', "\udcff"])
def test_a_damaged_record_of_who_was_told_only_means_that_all_are_told(
    cloud: Cloud, three: list[int], content: str
) -> None:
    called(cloud)
    (cloud.directory / "state" / "mesh.json").write_bytes(content.encode(errors="surrogateescape"))
    assert called(cloud) == ["h1", "h2", "h3"]
    assert called(cloud) == []


# What the hosts' own probes report


@pytest.mark.parametrize(
    ("reported", "since", "expected"),
    [
        (own_digest(1, 2), LATER, ["h1"]),
        (own_digest(1, 2), FIRST, []),
        (own_digest(1, 2, 3), LATER, []),
        ("", LATER, []),
    ],
)
def test_a_host_that_reports_another_list_long_after_it_was_told_is_told_again(
    cloud: Cloud, three: list[int], reported: str, since: int, expected: list[str]
) -> None:
    called(cloud)
    Client().update_host(three[0], {"AWS_OVS_MESH": reported})
    forget_told(cloud, since)
    assert called(cloud) == expected
    assert called(cloud) == [], "until its probe has run again, what it reports is old"


def test_a_host_that_has_lost_its_list_gets_it_with_the_next_reconcile(cloud: Cloud, three: list[int]) -> None:
    called(cloud)
    early, late = int(time.time()) - 5, int(time.time()) + 5
    cloud.oned.monitored(three[0], f'AWS_OVS_MESH="{own_digest()}"\nAWS_OVS_TIME="{early}"')
    assert called(cloud) == [], "it reported before it was told"
    cloud.oned.monitored(three[0], f'AWS_OVS_MESH="{own_digest(1)}"\nAWS_OVS_TIME="{late}"')
    assert [line["LIST"] for line in shown(cloud)["hosts"]] == ["behind", "ok", "ok"]
    assert [line["REPORTED"] for line in shown(cloud)["hosts"]] == [late, None, None]
    said = cloud.reconcile()["changes"]
    assert said == [{"target": "1 of 3 hosts (h1)", "change": "send the list of 3 peers"}]
    Client().update_host(three[1], {"AWS_OVS_MESH": own_digest()})
    assert called(cloud) == ["h1", "h2"], "h1 is to report later than that; h2 is of a version that does not say when"


def test_a_host_that_reports_the_present_list_need_not_be_told(cloud: Cloud, three: list[int]) -> None:
    """Another front-end told it, before it handed over."""
    Client().update_host(three[0], {"AWS_OVS_MESH": own_digest(1, 2, 3)})
    assert called(cloud) == ["h2", "h3"]


# Who cannot be told


def test_an_unreachable_host_is_named_and_only_it_is_called_again(cloud: Cloud, three: list[int]) -> None:
    down = cloud.ssh / "h2.down"
    down.touch()
    failed = cloud.oneaws("mesh", "sync", code=1)
    assert failed.stderr == (
        "oneaws: 3 of 3 hosts (h1 h2 h3): 1 of 3 hosts did not take the peer list (h2: ssh: connect to host h2 port 22: "
        "Connection refused); the next 'oneaws reconcile' tries them again\n"
    )
    assert lists(cloud) == {name: ["h1", "h2", "h3"] for name in ("h1", "h3")}
    assert [line["LIST"] for line in shown(cloud)["hosts"]] == ["ok", "behind", "ok"]
    down.unlink()
    assert called(cloud) == ["h2"]
    assert called(cloud) == []


def test_only_the_first_of_many_unreachable_hosts_are_named(cloud: Cloud) -> None:
    cloud.add_network("private")
    for number in range(1, 13):
        add_host(cloud, number)
        (cloud.ssh / f"h{number}.down").touch()
    (problem,) = sync(cloud).problems
    assert problem.target == f"12 of 12 hosts ({' '.join(f'h{number}' for number in range(1, 11))} …)"
    assert problem.text.startswith("12 of 12 hosts did not take the peer list (")
    assert (problem.text.count("refused"), "; and 7 more)" in problem.text) == (5, True)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"Warning: added\naws-ovs: peers: busy\n\n", "h1: aws-ovs: peers: busy)"),
        (b"Zugriff verweigert f\xfcr oneadmin\n", "h1: Zugriff verweigert f\ufffdr oneadmin)"),
        (b"x" * 5000, "h1: " + "x" * 200 + ")"),
        (b"\n", "h1: ssh ended with code 255)"),
    ],
    ids=["last-line", "latin-1", "long", "nothing"],
)
def test_the_reason_is_what_the_host_printed_last(cloud: Cloud, three: list[int], printed: bytes, shown: str) -> None:
    (cloud.ssh / "h1.down").write_bytes(printed)
    (problem,) = sync(cloud).problems
    assert shown in problem.text
    assert sorted(lists(cloud)) == ["h2", "h3"]


def test_a_host_that_hangs_delays_the_others_no_longer_than_the_timeout(cloud: Cloud, three: list[int]) -> None:
    cloud.configure(ssh_timeout=1)
    (cloud.ssh / "h2.delay").write_text("5")
    started = time.monotonic()
    (problem,) = sync(cloud).problems
    assert 1 <= time.monotonic() - started < 4
    assert "1 of 3 hosts did not take the peer list (h2: did not answer within 1 s)" in problem.text
    assert sorted(lists(cloud)) == ["h1", "h3"]


def test_no_more_hosts_than_configured_are_called_at_the_same_time(cloud: Cloud) -> None:
    cloud.configure(ssh_parallel=3)
    cloud.add_network("private")
    for number in range(1, 10):
        add_host(cloud, number)
        (cloud.ssh / f"h{number}.delay").write_text("0.3")
    assert len(called(cloud)) == 9
    at_once = [int(line) for line in (cloud.ssh / "at-once").read_text().split()]
    assert (len(at_once), max(at_once)) == (9, 3)


def test_without_ssh_every_host_is_named(
    cloud: Cloud, three: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (problem,) = sync(cloud).problems
    assert "h1: ssh cannot be run (No such file or directory); h2: " in problem.text


# What keeps the list from being sent


def test_of_two_hosts_with_one_endpoint_which_are_reported_the_first_stays_and_the_others_need_no_call(
    cloud: Cloud, three: list[int]
) -> None:
    called(cloud)
    add_host(cloud, 4, VXLAN_TEP="10.0.0.2")
    before = cloud.ssh_calls()
    said = "oneaws: hosts h2 h4: have the same VXLAN endpoint 10.0.0.2; delete the host that is no more\n"
    assert cloud.oneaws("mesh", "sync", code=1).stderr == said
    assert cloud.ssh_calls() == before


@pytest.mark.parametrize("vtep", ["10.0.0.256", "fd00::1", "h4", "10.0.0.4/24", "0.0.0.0"])
def test_an_endpoint_that_no_host_would_accept_is_reported_and_the_other_hosts_are_told(
    cloud: Cloud, three: list[int], vtep: str
) -> None:
    add_host(cloud, 4, VXLAN_TEP=vtep)
    (problem,) = sync(cloud).problems
    assert problem.target == "host h4"
    assert vtep in problem.text
    assert f"onehost update {cloud.host('h4').host_id}" in problem.remedy
    assert sorted(cloud.ssh_calls()) == ["h1", "h2", "h3"]
    assert "h4" not in cloud.told("h1")


# Which addresses are whose

RANGE = 'AR=[ TYPE="IP4", IP="192.168.9.{0}", SIZE="1", AWS_PRIVATE_IP="{1}" ]'


def ranges(*addresses: str) -> str:
    """Address ranges, one for each of these private addresses."""
    return "\n".join(RANGE.format(number, address) for number, address in enumerate(addresses, 10))


@pytest.fixture
def metal(cloud: Cloud) -> list[Instance]:
    """h1, with a public address and a second ENI, and h2, in a mesh that has been told."""
    h1 = cloud.ec2.add_instance("h1", "10.0.0.11", tags=HOST)
    (h2,) = cloud.add_metal("h2")
    eni = cloud.ec2.client.create_network_interface(SubnetId=cloud.ec2.subnet_id, PrivateIpAddress="10.0.0.77")
    eni_id = eni["NetworkInterface"]["NetworkInterfaceId"]
    cloud.ec2.client.attach_network_interface(NetworkInterfaceId=eni_id, InstanceId=h1.instance_id, DeviceIndex=1)
    cloud.add_network("blue", AR=ranges("10.0.0.101", "10.0.0.9"))
    cloud.oneaws("reconcile")
    return [h1, h2]


def test_hosts_are_told_the_blocks_of_the_vpc_all_addresses_of_hosts_and_those_of_vms(
    cloud: Cloud, metal: list[Instance]
) -> None:
    h1, _ = metal
    (blue,) = (network.network_id for network in Client().networks() if network.name == "blue")
    expected = {
        "vpc_cidrs": ["10.0.0.0/16"],
        "node_addresses": ["10.0.0.77", h1.public_ip],
        "private_ips": ["10.0.0.9", "10.0.0.101"],
        "grants": [f"{blue} AWS_PRIVATE_IP 10.0.0.101", f"{blue} AWS_PRIVATE_IP 10.0.0.9"],
    }
    assert told_lists(cloud, "h1") == told_lists(cloud, "h2") == expected
    assert {key: shown(cloud)[key] for key in expected} == expected
    node = tunnels.parse((cloud.ssh / "h1.list").read_bytes())
    assert {line["LIST"] for line in shown(cloud)["hosts"]} == {"ok"}
    Client().update_host(cloud.host("h1").host_id, {"AWS_OVS_MESH": digest(node)})
    forget_told(cloud, LATER)
    assert shown(cloud)["hosts"][0]["LIST"] == "ok", "what a node computes of the list is what the front-end expects"


def test_a_block_that_the_vpc_gets_later_is_told_and_one_that_it_loses_too(cloud: Cloud, metal: list[Instance]) -> None:
    made = cloud.ec2.client.associate_vpc_cidr_block(VpcId=cloud.ec2.vpc_id, CidrBlock="10.1.0.0/16")
    assert called(cloud) == ["h1", "h2"]
    assert told_lists(cloud, "h2")["vpc_cidrs"] == ["10.0.0.0/16", "10.1.0.0/16"]
    cloud.ec2.client.disassociate_vpc_cidr_block(AssociationId=made["CidrBlockAssociation"]["AssociationId"])
    assert called(cloud) == ["h1", "h2"]
    assert told_lists(cloud, "h2")["vpc_cidrs"] == ["10.0.0.0/16"]


def test_the_ranges_of_a_pool_are_told_by_the_sync_that_makes_them(cloud: Cloud, metal: list[Instance]) -> None:
    cloud.add_pool()
    cloud.add_eips(1)
    cloud.oneaws("eip", "sync")
    assert told_lists(cloud, "h1")["private_ips"] == ["10.0.0.9", "10.0.0.101", "10.0.0.254"]
    assert called(cloud) == []


def test_an_address_of_a_host_or_of_something_else_is_never_told_as_one_of_vms(
    cloud: Cloud, metal: list[Instance]
) -> None:
    h1, h2 = metal
    other = cloud.ec2.add_instance("database", "10.0.0.50", eip=False)
    cloud.ec2.move_private_ip("10.0.0.51", other.eni_id)
    cloud.ec2.move_private_ip("10.0.0.102", h1.eni_id)
    wrong = [h1.private_ip, h2.private_ip, "10.0.0.77", "10.0.0.50", "10.0.0.51", "10.0.0.300", "127.0.0.1"]
    cloud.add_network("green", AR=ranges(*wrong, "10.0.0.102"))
    cloud.add_network("other", VN_MAD="bridge", AR=ranges("10.0.0.103"))
    assert called(cloud) == ["h1", "h2"]
    assert told_lists(cloud, "h1")["private_ips"] == ["10.0.0.9", "10.0.0.101", "10.0.0.102"]
    assert tunnels.parse((cloud.ssh / "h1.list").read_bytes()).peers, "a host takes the list"


def test_hosts_are_told_what_networks_grant_their_nics(cloud: Cloud, metal: list[Instance]) -> None:
    granting: Any = {"GATEWAY": "192.168.7.1", "DNS": "10.0.0.2 192.0.2.53", "AWS_VPC_ACCESS": "10.0.0.5, 10.9.0.0/16"}
    green = cloud.add_network("green", AR=RANGE.format(10, "10.0.0.103"), FILTER_MAC_SPOOFING="no", **granting)
    cloud.add_network("other", VN_MAD="bridge", FILTER_IP_SPOOFING="NO")
    # The owner of a network may write vectors, whose values OpenNebula hands down to NICs as if they were the network's.
    vector = 'MTU=[ AWS_PRIVATE_IP="10.0.0.103", AWS_VPC_ACCESS="YES" ]'
    cloud.add_network("red", AR=vector, AWS_VPC_ACCESS="NO", AWS_RAW_ETHERNET="NO", FILTER_IP_SPOOFING="YES", DNS="::1")
    assert called(cloud) == ["h1", "h2"]
    assert [line for line in told_lists(cloud, "h1")["grants"] if not line.endswith((".101", ".9"))] == [
        f"{green} AWS_PRIVATE_IP 10.0.0.103",
        f"{green} AWS_VPC_ACCESS 10.0.0.5/32",
        f"{green} AWS_VPC_ACCESS 10.9.0.0/16",
        f"{green} DNS 10.0.0.2",
        f"{green} DNS 192.0.2.53",
        f"{green} FILTER_MAC_SPOOFING NO",
        f"{green} GATEWAY 192.168.7.1",
    ]


@pytest.mark.parametrize("action", ["DescribeInstances", "DescribeNetworkInterfaces", "DescribeVpcs"])
def test_while_ec2_fails_hosts_keep_what_it_said_and_the_mesh_is_still_shown(
    cloud: Cloud, metal: list[Instance], action: str
) -> None:
    green = cloud.add_network("green", AR=ranges("10.0.0.103"))
    before = told_lists(cloud, "h1")
    cloud.ec2.fail_next(action, "AuthFailure", times=2)
    (problem,) = sync(cloud).problems
    assert problem.target == "mesh"
    assert "AuthFailure" in problem.text
    assert [line["LIST"] for line in shown(cloud)["hosts"]] == ["ok", "ok"]
    grants = [*before["grants"], f"{green} AWS_PRIVATE_IP 10.0.0.103"]
    assert told_lists(cloud, "h1") == {**before, "grants": grants}, "only what oned says is new"
    assert called(cloud) == ["h1", "h2"]


def test_a_new_peer_is_told_while_ec2_fails_beside_what_ec2_said_last(cloud: Cloud, metal: list[Instance]) -> None:
    before = told_lists(cloud, "h1")
    add_host(cloud, 33)
    cloud.ec2.fail_next("DescribeVpcs", "AuthFailure")
    assert len(sync(cloud).problems) == 1
    assert sorted(cloud.told("h1")) == ["h1", "h2", "h33"]
    assert told_lists(cloud, "h1") == before
    assert called(cloud) == [], "with EC2 it is the same list"


def test_a_filter_that_matches_no_instance_takes_nothing_from_what_the_hosts_know(
    cloud: Cloud, metal: list[Instance]
) -> None:
    before = cloud.ssh_calls()
    cloud.configure(host_filter="tag:opennebula=hsot")
    (problem,) = sync(cloud).problems
    assert problem.text.startswith("EC2 shows no VPC of the hosts, nor an instance that matches tag:opennebula=hsot")
    assert cloud.ssh_calls() == before


def test_a_host_that_is_back_is_told_what_the_others_know_without_a_call_to_ec2(
    cloud: Cloud, metal: list[Instance]
) -> None:
    expected = told_lists(cloud, "h2")
    (cloud.ssh / "h2.list").unlink()
    cloud.oned.set_host_state(cloud.host("h2").host_id, STATE_MONITORED)
    cloud.forget_calls()
    done = cloud.hook("host_state", cloud.oned.document("HOST", cloud.host("h2").host_id))
    assert (done.returncode, done.stderr) == (0, "")
    assert told_lists(cloud, "h2") == expected
    assert cloud.ec2.calls() == []
    assert called(cloud) == []


# What is shown


def test_show_lists_the_hosts_with_what_their_probes_report(cloud: Cloud, three: list[int]) -> None:
    assert called(cloud) == ["h1", "h2", "h3"]
    probed = {
        "AWS_OVS_PEERS_UP": "1",
        "AWS_OVS_PEERS_DOWN": "1",
        "AWS_OVS_GUEST_MTU": "8951",
        "AWS_OVS_VERSION": "0.1",
        "AWS_OVS_ERROR": "ovs-vswitchd does not run",
    }
    Client().update_host(three[0], {**probed, "AWS_OVS_MESH": own_digest(1)})
    forget_told(cloud, LATER)
    cloud.oned.set_host_state(three[2], STATE_OFFLINE)
    before = cloud.ssh_calls()
    hosts = shown(cloud)["hosts"]
    assert {line["NAME"]: (line["LIST"], line["UP"], line["STAT"], line["ERROR"]) for line in hosts} == {
        "h1": ("behind", 1, "on", "ovs-vswitchd does not run"),
        "h2": ("ok", None, "on", None),
        "h3": ("ok", None, "off", None),
    }
    table = [line.split(maxsplit=9) for line in cloud.oneaws("mesh", "show").stdout.splitlines()]
    assert table[0] == ["ID", "NAME", "VTEP", "LIST", "UP", "DOWN", "MTU", "VERSION", "STAT", "ERROR"]
    first = f"{three[0]} h1 10.0.0.1 behind 1 1 8951 0.1 on".split()
    assert [line for line in table if line[1] == "h1"] == [[*first, "ovs-vswitchd does not run"]]
    assert (cloud.ssh_calls(), len(table)) == (before, 4)
