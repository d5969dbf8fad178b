"""The oned stand-in as tests use it: production's client against it, and all that a test plays with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world.oned import vm as oned_vm
from tests.world.oned.server import Oned
from vnm_aws.errors import AwsOvsError
from vnm_aws.frontend import objects
from vnm_aws.frontend.oned import NotFoundError
from vnm_aws.frontend.oned import Oned as Client

ROOT = Path(__file__).parents[2]
RUNNING_VM = (ROOT / "tests" / "recordings" / "hooks" / "vm-running.xml").read_bytes()
MONITORED, OFFLINE = objects.STATE_MONITORED, objects.STATE_OFFLINE
NET = 'NAME="public" VN_MAD="aws_ovs" BRIDGE="br0"'
RANGE = 'AR=[TYPE="IP4", IP="192.168.0.250", SIZE="2", AWS_PRIVATE_IP="10.0.0.41", EXTERNAL_IP="198.51.100.41"]'
HOOK = 'NAME="h" TYPE="api" CALL="one.vn.add_ar" COMMAND="aws_ovs/x" ARGUMENTS="$API" ARGUMENTS_STDIN="YES"'


# Production's client


@pytest.mark.parametrize(("state", "leads"), [(0, True), (1, False), (2, False), (3, True)])
def test_leads(oned: Oned, client: Client, state: int, leads: bool) -> None:
    oned.set_raft_state(state)
    assert client.leads() is leads


def test_hosts(oned: Oned, client: Client) -> None:
    aws = oned.add_cluster("aws")
    assert client.clusters() == {0: "default", aws: "aws"}
    first = oned.add_host("h1", cluster_id=aws, template='AWS_INSTANCE_ID="i-1"')
    second = oned.add_host("h2", state=OFFLINE)
    vms = [oned.add_vm(RUNNING_VM, host_id=first) for _ in range(2)]
    found = {host.host_id: host for host in client.hosts()}
    assert set(found) == {first, second}
    assert (found[first].name, found[first].state, found[first].vms) == ("h1", MONITORED, tuple(vms))
    assert (found[first].cluster_id, found[first].cluster) == (aws, "aws")
    assert found[first].template["AWS_INSTANCE_ID"] == "i-1"
    assert (found[second].state, found[second].vms, found[second].cluster) == (OFFLINE, (), "default")
    assert client.host(first) == found[first]


def test_a_host_is_added_changed_and_disabled(oned: Oned, client: Client) -> None:
    host_id = client.add_host("h1", "kvm", "kvm", 0)
    client.update_host(host_id, {"A": "1", "B": 'say "x", [y] = #z'})
    client.update_host(host_id, {"A": "2"})
    client.rename_host(host_id, "h2")
    oned.set_host_state(host_id, MONITORED)
    client.disable_host(host_id)
    host = client.host(host_id)
    assert (host.name, host.state) == ("h2", objects.STATE_DISABLED)
    assert (host.template["A"], host.template["B"], host.template["IM_MAD"]) == ("2", 'say "x", [y] = #z', "kvm")
    client.enable_host(host_id)
    assert client.host(host_id).state == MONITORED
    assert client.changes == 6


def test_a_host_needs_a_name_of_its_own(oned: Oned, client: Client) -> None:
    oned.add_host("h1")
    oned.add_host("h2")
    with pytest.raises(AwsOvsError, match="NAME is already taken by HOST 0"):
        client.add_host("h1", "kvm", "kvm", 0)
    with pytest.raises(AwsOvsError, match="collides with host 0"):
        client.rename_host(1, "h1")
    assert {host.name for host in client.hosts()} == {"h1", "h2"}


def test_networks(oned: Oned, client: Client) -> None:
    aws = oned.add_cluster("aws")
    mine = oned.add_vnet(f"{NET} MTU=1450 {RANGE}", (0, aws))
    other = oned.add_vnet('NAME="other" VN_MAD="bridge"')
    oned.lease(mine, 0, 7)
    found = {network.network_id: network for network in client.networks()}
    assert {number: network.ours for number, network in found.items()} == {mine: True, other: False}
    network = client.network(mine)
    assert (network.name, network.state, network.bridge) == ("public", objects.NETWORK_READY, "br0")
    assert (network.clusters, network.template["MTU"]) == ((0, aws), "1450")
    (held,) = network.ranges
    assert (held.ar_id, held.ip, held.size, held.used, held.leases) == (0, "192.168.0.250", 2, 1, (7,))
    assert held.attributes == {"AWS_PRIVATE_IP": "10.0.0.41", "EXTERNAL_IP": "198.51.100.41"}
    (pooled,) = found[mine].ranges
    assert pooled == held._replace(leases=(), used=0)


def test_an_update_replaces_every_custom_attribute_of_a_range(oned: Oned, client: Client) -> None:
    vnet = oned.add_vnet(NET)
    client.add_range(vnet, {"TYPE": "IP4", "IP": "10.1.0.1", "SIZE": "3", "A": "1", "B": '"2"'})
    client.add_range(vnet, {"TYPE": "IP4", "IP": "10.2.0.1", "SIZE": "1", "A": "other"})
    client.update_range(vnet, 0, {"B": "3", "IP": "10.9.9.9", "TYPE": "ETHER"})
    first, second = client.network(vnet).ranges
    assert (first.ip, first.size, first.attributes) == ("10.1.0.1", 3, {"B": "3"})
    assert (second.ar_id, second.attributes) == (1, {"A": "other"})
    with pytest.raises(AwsOvsError, match="Address Range with ID 2 was not found"):
        client.update_range(vnet, 2, {})


def test_a_range_in_use_changes_but_neither_goes_nor_shrinks(oned: Oned, client: Client) -> None:
    vnet = oned.add_vnet(f"{NET} {RANGE}")
    assert [oned.lease(vnet, 0, vm_id) for vm_id in (7, 8)] == ["192.168.0.250", "192.168.0.251"]
    client.update_range(vnet, 0, {"A": "1"})
    with pytest.raises(AwsOvsError, match="used leases that would fall outside"):
        client.update_range(vnet, 0, {"SIZE": "1"})
    with pytest.raises(AwsOvsError, match="Address Range has leases in use"):
        client.remove_range(vnet, 0)
    assert client.network(vnet).ranges[0].attributes == {"A": "1"}
    oned.unlease(vnet, 0, 7)
    oned.unlease(vnet, 0, 8)
    client.remove_range(vnet, 0)
    assert client.network(vnet).ranges == ()


def test_active_vms_with_certain_ids(oned: Oned, client: Client) -> None:
    oned.populate(RUNNING_VM, hosts=2, vms=61)
    assert oned.add_vm(RUNNING_VM, state=oned_vm.DONE, lcm_state=0) == 61
    for first, last, count in ((0, 49, 50), (50, 99, 11), (61, 70, 0), (7, 7, 1), (0, -1, 61)):
        oned.forget_calls()
        found = list(client.vms(first, last))
        assert sorted(vm.vm_id for vm in found) == list(range(first, first + count))
        assert {vm.host for vm in found} <= {"host0", "host1"}
        assert oned.calls() == ["one.vmpool.infoextended"]


def test_a_vm_of_the_pool_is_that_of_its_own_call(oned: Oned, client: Client) -> None:
    vm_id = oned.add_vm(RUNNING_VM, host_id=oned.add_host("h1"))
    oned.move_vm(vm_id, oned.add_host("h2"))
    (pooled,) = client.vms(0, -1)
    assert pooled == client.vm(vm_id)
    assert (pooled.host, pooled.on_host, len(pooled.addresses) > 0) == ("h2", True, True)


def test_an_update_of_a_vm_keeps_its_other_attributes(oned: Oned, client: Client) -> None:
    vm_id = oned.add_vm(RUNNING_VM)
    client.update_vm(vm_id, {"A": "1", "B": "line\nline"})
    client.update_vm(vm_id, {"A": ""})
    found = client.vm(vm_id).user_template
    assert (found["A"], found["B"]) == ("", "line\nline")
    assert found.items() > objects.read_vm(oned_vm.read(RUNNING_VM)).user_template.items()


def test_hooks(client: Client) -> None:
    number = client.add_hook(HOOK)
    (hook,) = client.hooks()
    assert (hook.hook_id, hook.name, hook.kind) == (number, "h", "api")
    texts = hook.template
    assert (texts["CALL"], texts["ARGUMENTS"], texts["REMOTE"]) == ("one.vn.add_ar", "$API", "NO")
    with pytest.raises(AwsOvsError, match="NAME is already taken by Hook"):
        client.add_hook(HOOK)
    client.remove_hook(number)
    assert client.hooks() == []
    assert client.add_hook(HOOK) == number + 1


def test_a_hook_on_vms_says_when(client: Client) -> None:
    """STATE and LCM_STATE alone do not register one, though they are what updates need and documents show."""
    hook = 'NAME="h" TYPE="state" RESOURCE="VM" STATE="ACTIVE" LCM_STATE="RUNNING" COMMAND="x" '
    with pytest.raises(AwsOvsError, match="Unkown state condition"):
        client.add_hook(hook)
    client.add_hook(hook + 'ON="CUSTOM"')
    client.add_hook('NAME="g" TYPE="state" RESOURCE="VM" ON="RUNNING" COMMAND="x"')
    newer, older = client.hooks()
    assert newer.template == older.template
    assert (newer.template["STATE"], newer.template["LCM_STATE"]) == ("ACTIVE", "RUNNING")


MISSING = [
    *(("host",), ("update_host", {"A": "1"}), ("rename_host", "x"), ("disable_host",), ("enable_host",)),
    *(("network",), ("add_range", {"TYPE": "ETHER", "SIZE": "1"}), ("update_range", 0, {}), ("remove_range", 0)),
    *(("vm",), ("update_vm", {"A": "1"}), ("remove_hook",)),
]


@pytest.mark.parametrize(("call", "arguments"), [(call, arguments) for call, *arguments in MISSING])
def test_what_is_missing_is_not_found(client: Client, call: str, arguments: list[object]) -> None:
    with pytest.raises(NotFoundError, match=r"\[9\].*gone"):
        getattr(client, call)(9, *arguments)


def test_a_host_of_a_missing_cluster_is_not_added(client: Client) -> None:
    with pytest.raises(NotFoundError, match=r"\[9\].*gone"):
        client.add_host("x", "kvm", "kvm", 9)


def test_wrong_credentials_are_refused(oned: Oned, tmp_path: Path) -> None:
    (tmp_path / "one_auth").write_text("oneadmin:wrong\n")
    with pytest.raises(AwsOvsError, match="does not accept the credentials"):
        Client().add_host("h1", "kvm", "kvm", 0)
    assert oned.calls() == []


def test_an_oned_that_stopped_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Oned() as gone:
        for name, value in gone.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        client = Client()
        assert client.version() == "7.2.0"
        gone.stop()
        with pytest.raises(AwsOvsError, match="does not answer"):
            client.version()


# What drivers, monitoring and users do


def test_a_network_is_locked_until_its_driver_is_through(oned: Oned, client: Client) -> None:
    vnet = oned.add_vnet(f"{NET} {RANGE}", ready=False)
    network = client.network(vnet)
    assert (network.state, network.ranges) == (objects.NETWORK_LOCK_CREATE, ())
    assert [asked["IP"] for asked in network.asked] == ["192.168.0.250"]
    with pytest.raises(AwsOvsError, match="LOCK_CREATE"):
        client.add_range(vnet, {"TYPE": "ETHER", "SIZE": "1"})
    oned.finish_vnet_create(vnet)
    assert client.network(vnet).asked == ()
    client.add_range(vnet, {"TYPE": "ETHER", "SIZE": "1"})
    assert [held.ar_id for held in client.network(vnet).ranges] == [0, 1]


def test_what_vnet_create_printed_becomes_of_the_network(oned: Oned, client: Client) -> None:
    vnet = oned.add_vnet(NET, ready=False)
    second = 'AR = [ TYPE = "ETHER", SIZE = "5" ]'
    oned.finish_vnet_create(vnet, f'VLAN_ID="77"\nMTU = 8950\n{RANGE}\n{second}\n')
    network = client.network(vnet)
    assert (network.state, network.vlan_id, network.template["MTU"]) == (objects.NETWORK_READY, "77", "8950")
    assert [(held.ar_id, held.ip, held.size) for held in network.ranges] == [(0, "192.168.0.250", 2), (1, "", 5)]
    assert network.ranges[0].attributes["EXTERNAL_IP"] == "198.51.100.41"
    with pytest.raises(ValueError, match="nothing creates it"):
        oned.finish_vnet_create(vnet)


@pytest.mark.parametrize(
    ("printed", "state"),
    [("no template", "LOCK_CREATE"), ('AR=[TYPE="IP4", SIZE="1", IP="nonsense"]', "ERROR")],
    ids=["no template", "a range that cannot be"],
)
def test_a_network_is_not_ready_when_vnet_create_prints_nonsense(
    oned: Oned, client: Client, printed: str, state: str
) -> None:
    vnet = oned.add_vnet(NET, ready=False)
    oned.finish_vnet_create(vnet, printed)
    assert client.network(vnet).state == getattr(objects, f"NETWORK_{state}")
    with pytest.raises(AwsOvsError, match=state):
        client.add_range(vnet, {"TYPE": "ETHER", "SIZE": "1"})


def test_a_network_fails_with_the_driver_s_message(oned: Oned, client: Client) -> None:
    vnet = oned.add_vnet(f"{NET} {RANGE}", ready=False)
    oned.fail_vnet_create(vnet, "no VNI is free")
    network = client.network(vnet)
    assert (oned.document("VNET", vnet).count(b"<AR>"), network.ranges) == (1, ())
    assert (network.state, network.template["ERROR"].endswith(" : no VNI is free")) == (objects.NETWORK_ERROR, True)


def test_a_vm_runs_moves_and_ends(oned: Oned, client: Client) -> None:
    first, second = oned.add_host("h1"), oned.add_host("h2")
    vm_id = oned.add_vm(RUNNING_VM, host_id=first)
    oned.move_vm(vm_id, second)
    vm = client.vm(vm_id)
    assert (vm.on_host, vm.host_id, vm.host) == (True, second, "h2")
    assert (client.host(first).vms, client.host(second).vms) == ((), (vm_id,))
    oned.set_vm_state(vm_id, 8)
    assert client.vm(vm_id).on_host is False
    assert client.host(second).vms == (vm_id,)
    assert [vm.vm_id for vm in client.vms(0, -1)] == [vm_id]
    oned.set_vm_state(vm_id, oned_vm.DONE)
    assert list(client.vms(0, -1)) == []
    assert client.host(second).vms == ()
    oned.remove_vm(vm_id)
    with pytest.raises(NotFoundError):
        client.vm(vm_id)
    assert oned.add_vm(RUNNING_VM) == vm_id + 1


def test_leases(oned: Oned, client: Client) -> None:
    vnet = oned.add_vnet(f"{NET} {RANGE}")
    assert oned.lease(vnet, 0, 7) == "192.168.0.250"
    assert oned.lease(vnet, 0, -1) == "192.168.0.251"
    with pytest.raises(RuntimeError, match="no free address"):
        oned.lease(vnet, 0, 8)
    assert client.network(vnet).ranges[0].leases == (7, -1)
    oned.unlease(vnet, 0, 7)
    assert client.network(vnet).ranges[0].leases == (-1,)
