"""The oned stand-in on the wire: every recorded call, what is no call, and what a test arranges for calls."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.world.oned import wire as oned_wire
from tests.world.oned.control import When
from tests.world.oned.server import SESSION, Oned
from vnm_aws.errors import AwsOvsError
from vnm_aws.frontend.oned import Oned as Client

ROOT = Path(__file__).parents[2]
XMLRPC = ROOT / "tests" / "recordings" / "xmlrpc"
RUNNING_VM = (XMLRPC.parent / "hooks" / "vm-running.xml").read_bytes()
PAIRS = sorted(path.name.removesuffix(".request.xml") for path in XMLRPC.glob("*.request.xml"))


def recorded(pair: str, kind: str) -> bytes:
    return (XMLRPC / f"{pair}.{kind}.xml").read_bytes()


NETWORKS = {
    "public-eip": """
        BRIDGE="ovsbr0" VLAN_ID="100" GUEST_MTU="1450" FILTER_IP_SPOOFING="YES" FILTER_MAC_SPOOFING="YES"
        AR=[ TYPE="IP4", IP="192.168.0.250", SIZE="1",
             AWS_PRIVATE_IP="10.0.0.41", EXTERNAL_IP="54.10.20.41", AWS_ALLOCATION_ID="eipalloc-0a1" ]
        AR=[ TYPE="IP4", IP="192.168.0.251", SIZE="1",
             AWS_PRIVATE_IP="10.0.0.42", EXTERNAL_IP="54.10.20.42", AWS_ALLOCATION_ID="eipalloc-0a2" ]""",
    "private": """
        AUTOMATIC_VLAN_ID="YES" MTU="1400" INBOUND_AVG_BW="1000"
        AR=[ TYPE="IP4", IP="192.168.0.10", SIZE="100" ]""",
}


def as_recorded(oned: Oned) -> None:
    """Bring a fresh stand-in into the state in which the recordings begin."""
    for name in ("h1", "h2"):
        oned.add_host(name, template='HOSTNAME="vm"')
    oned.set_next_id("HOST", 3)
    common = 'VN_MAD="aws_ovs" GATEWAY="192.168.0.1" NETWORK_ADDRESS="192.168.0.0" NETWORK_MASK="255.255.255.0"'
    for name, template in NETWORKS.items():
        vnet = oned.add_vnet(f'NAME="{name}" {common} DNS="10.0.0.2" {template}')
        for ar_id in range(template.count("AR=")):
            oned.lease(vnet, ar_id, 1)  # there were VMs, which leave an empty list of leases
            oned.unlease(vnet, ar_id, 1)
    oned.set_next_id("VNET", 5)
    hooks = etree.fromstring(recorded("037-one.hookpool.info", "response")).findtext(".//string", "")
    oned.load(hooks.encode())


def test_every_recorded_call_is_answered_as_recorded(oned: Oned) -> None:
    as_recorded(oned)
    connection = http.client.HTTPConnection(oned.endpoint.split("/")[2], timeout=10)
    connection.connect()
    socket = connection.sock
    assert len(PAIRS) == 38
    for pair in PAIRS:
        if pair.startswith("017"):
            oned.finish_vnet_create(5)
        body = recorded(pair, "request")
        if pair.endswith("bad-auth"):
            body = body.replace(SESSION.encode(), b"oneadmin:wrong")
        connection.request("POST", "/RPC2", body)
        assert connection.getresponse().read() == recorded(pair, "response"), pair
        assert connection.sock is socket, "a connection serves several calls"
    connection.close()


def call(oned: Oned, method: str, *arguments: Any) -> list[Any]:
    """What oned answers to a call: whether it succeeded, a value or message, and a code."""
    with xmlrpc.client.ServerProxy(oned.endpoint) as proxy:
        answer = getattr(proxy, method)(oned.session, *arguments)
    assert isinstance(answer, list)
    return answer


@pytest.mark.parametrize(
    ("method", "arguments", "code"),
    [
        ("one.vn.nonsense", (), oned_wire.NO_SUCH_METHOD),
        ("one.host.info", ("0",), oned_wire.WRONG_TYPE),
        ("one.host.rename", (0, 1), oned_wire.WRONG_TYPE),
        ("one.vn.info", (0, 1), oned_wire.WRONG_TYPE),
        ("one.host.info", (), oned_wire.WRONG_TYPE),
    ],
)
def test_what_is_no_call_is_a_fault(oned: Oned, method: str, arguments: tuple[Any, ...], code: int) -> None:
    oned.add_host("h1")
    with pytest.raises(xmlrpc.client.Fault) as caught:
        call(oned, method, *arguments)
    assert caught.value.faultCode == code


def test_a_template_keeps_all_but_the_escape_of_a_quote(oned: Oned) -> None:
    """As oned's own lexer, which replaces \\" and nothing else."""
    host_id = oned.add_host("h1")
    text = r'A="say \"x\"" B="a\\b" C="[1, 2] = #3"' + '\nD="two\nlines"\nE = plain\nF=\n# comment\n'
    assert call(oned, "one.host.update", host_id, text, 0)[0] is True
    root = etree.fromstring(oned.document("HOST", host_id))
    found = {name: root.findtext(f"TEMPLATE/{name}") for name in "ABCDEF"}
    assert found == {"A": 'say "x"', "B": r"a\\b", "C": "[1, 2] = #3", "D": "two\nlines", "E": "plain", "F": ""}


@pytest.mark.parametrize("text", ["A", "A=[B]", "A = [ B=1", "A = [ B=1, ]", 'A="1'])
def test_what_is_no_template_is_refused(oned: Oned, text: str) -> None:
    host_id = oned.add_host("h1")
    before = oned.document("HOST", host_id)
    succeeded, message, code = call(oned, "one.host.update", host_id, text, 1)[:3]
    assert (succeeded, code) == (False, oned_wire.INTERNAL)
    assert message.startswith("[one.host.update] Cannot update template. Parse error: ")
    assert oned.document("HOST", host_id) == before


@pytest.mark.parametrize("kind", ["HOST", "VNET", "VM"])
def test_a_document_is_what_the_call_answers(oned: Oned, kind: str) -> None:
    as_recorded(oned)
    oned.add_vm(RUNNING_VM, vm_id=0)
    oned.forget_calls()
    document = oned.document(kind, 0)
    assert oned.calls() == []
    assert call(oned, f"one.{kind.lower().removesuffix('et')}.info", 0)[:2] == [True, document.decode()]


# What a test arranges

TWO_CHANGES = """
import sys
from vnm_aws.frontend.oned import Oned
client = Oned()
print("ready", flush=True)
sys.stdin.readline()
client.update_host(client.add_host("h1", "kvm", "kvm", 0), {"A": "1"})
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("n", "when", "calls", "hosts", "updated"),
    [(1, "before", 1, 0, False), (1, "after", 1, 1, False), (2, "before", 2, 1, False), (2, "after", 2, 1, True)],
)
def test_a_caller_dies_before_or_after_a_change(
    oned: Oned, client: Client, n: int, when: When, calls: int, hosts: int, updated: bool
) -> None:
    command = [sys.executable, "-c", TWO_CHANGES]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"ready\n"
        oned.kill_at(n, when, caller.pid)
        assert caller.communicate(b"\n", timeout=10)[0] == b""
        assert caller.returncode == -signal.SIGKILL
    assert oned.calls() == ["one.host.allocate", "one.host.update"][:calls]
    assert ["A" in host.template for host in client.hosts()] == [updated] * hosts


def test_calls_fail_as_often_as_arranged(oned: Oned, client: Client) -> None:
    oned.fail_next("one.host.allocate", times=2)
    oned.fail_next("one.host.allocate", oned_wire.ACTION, text="Not now.")
    for message in ("Internal error", "Internal error", "Not now"):
        with pytest.raises(AwsOvsError, match=rf"oned refused: \[one.host.allocate\] {message};"):
            client.add_host("h1", "kvm", "kvm", 0)
    assert client.hosts() == []
    assert client.add_host("h1", "kvm", "kvm", 0) == 0
    assert oned.mutating_calls() == ["one.host.allocate"] * 4


def test_calls_are_recorded(oned: Oned, client: Client) -> None:
    client.add_host("h1", "kvm", "kvm", 0)
    client.hosts()
    with pytest.raises(AwsOvsError):
        client.update_vm(9, {"A": "1"})
    assert oned.calls() == ["one.host.allocate", "one.hostpool.info", "one.vm.update"]
    assert oned.mutating_calls() == ["one.host.allocate", "one.vm.update"]
    oned.forget_calls()
    assert (oned.calls(), oned.mutating_calls()) == ([], [])
    assert len(client.hosts()) == 1


def test_many_objects_are_made_and_a_reset_leaves_none(oned: Oned, client: Client) -> None:
    oned.populate(RUNNING_VM, hosts=500, vms=8000)
    assert [len(host.vms) for host in client.hosts()] == [16] * 500
    assert client.vm(7999).host == "host499"
    oned.fail_next("one.clusterpool.info")
    oned.set_raft_state(2)
    oned.latency = 9
    oned.reset()
    assert (oned.calls(), oned.latency) == ([], 0)
    assert client.clusters() == {0: "default"}
    assert (client.hosts(), client.networks(), list(client.vms(0, -1)), client.hooks()) == ([], [], [], [])
    assert client.leads()
    assert client.add_host("h1", "kvm", "kvm", 0) == 0
