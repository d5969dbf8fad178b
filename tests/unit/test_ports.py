"""What an action asks of Open vSwitch and of the node's files, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.documents import recorded
from tests.unit.ovs_model import Database, Faults
from tests.unit.test_guest_port import ports
from vnm_aws import vm
from vnm_aws.config import Config
from vnm_aws.driver import clean, post, pre, restore, state
from vnm_aws.driver.node import Node
from vnm_aws.driver.ports import require
from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay import tunnels
from vnm_aws.overlay.guest_port import GuestPort
from vnm_aws.overlay.ovsdb import Operation
from vnm_aws.underlay import eni

DEPLOY = recorded("deploy", "03-post.xml")


class Counting(Database):
    """A database that counts its transactions."""

    transactions = 0

    def transact(self, operations: list[Operation]) -> list[Any]:
        self.transactions += 1
        return super().transact(operations)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    """A dry node: what it has been asked to do is all that matters."""
    monkeypatch.setattr(tunnels, "load", lambda: tunnels.PeerList([]))
    monkeypatch.setattr(eni, "is_local", lambda address: False)
    monkeypatch.setattr(state, "DIRECTORY", str(tmp_path))
    node = Node(Config(), eni.Underlay("ens5", "10.0.0.11", "10.0.0.0/24", 9001), Counting(Faults()), dry_run=True)
    for changes in restore.plans(node, state.Stored(ports(DEPLOY), {})):
        node.db.commit(changes.operations)
    return node


def test_the_ports_of_all_nics_are_looked_up_in_one_transaction(node: Node) -> None:
    wanted = ports(DEPLOY)
    assert len(wanted) == 2
    assert isinstance(node.db, Counting)
    for port in wanted:
        node.db.plug(port.bridge, port.name)
    before = node.db.transactions
    require(node, wanted)
    assert node.db.transactions == before + 1


def test_the_nic_that_is_not_plugged_in_is_named(node: Node) -> None:
    first, second = ports(DEPLOY)
    assert isinstance(node.db, Counting)
    node.db.plug(first.bridge, first.name)
    with pytest.raises(AwsOvsError, match=f"^port {second.name} of NIC {second.nic_id} is not on bridge"):
        require(node, [first, second])


@pytest.mark.parametrize("verb", [pre, post, clean])
def test_an_action_loads_the_state_of_its_vm_once(node: Node, monkeypatch: pytest.MonkeyPatch, verb: Any) -> None:
    loaded = []

    def load(vm_id: int) -> list[GuestPort]:
        loaded.append(vm_id)
        return ports(DEPLOY)

    assert isinstance(node.db, Counting)
    for port in ports(DEPLOY):
        node.db.plug(port.bridge, port.name)
    monkeypatch.setattr(state, "load", load)
    machine = (vm.parse_leaving if verb is clean else vm.parse)(DEPLOY)
    verb.run(node, machine)
    assert loaded == [machine.vm_id]
