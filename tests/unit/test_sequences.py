"""Whatever OpenNebula does in whatever order, and wherever it is interrupted: what must hold on the nodes holds."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from tests.sequences import HOSTS, Cloud, Operation
from tests.unit.ovs_model import Faults, FlowTables, Interrupted, Model, model
from tests.world.guests import document
from tests.world.recording import Step, load
from vnm_aws import vm
from vnm_aws.driver import clean, main, post, pre, restore, state
from vnm_aws.driver import node as node_module
from vnm_aws.errors import AwsOvsError
from vnm_aws.names import OVERLAY
from vnm_aws.overlay import tunnels
from vnm_aws.overlay.guest_port import GuestPort
from vnm_aws.overlay.pipeline import flow
from vnm_aws.underlay import eni

LENGTH = 200
VERBS: dict[str, Any] = {
    "pre": pre.run,
    "clean": clean.run,
    "post": post.run,
    "update_sg": post.run,
    "update_nic": post.run,
}


class World:
    """Three model nodes, and the guests' ports on them.

    Args:
        directory: for the nodes' files.
        patch: how the driver's modules are told of them.
    """

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._directory, self._patch = directory, patch
        self._faults = Faults()
        save = state.save

        def touching_save(vm_id: int, ports: list[GuestPort]) -> None:
            self._faults.touch()
            save(vm_id, ports)

        patch.setattr(tunnels, "load", lambda: tunnels.PeerList([]))
        patch.setattr(eni, "is_local", lambda address: False)
        patch.setattr(state, "save", touching_save)
        self.nodes = {name: model(f"10.0.0.{number}", self._faults) for number, name in enumerate(HOSTS, 11)}
        for name, (node, _, _) in self.nodes.items():
            (directory / f"{name}.json").write_text(json.dumps(node.marker()))
        self._documents: dict[int, document.Document] = {}
        self.plugged: dict[int, dict[str, document.Card]] = {}

    def at(self, host: str) -> Model:
        """The node of a host, whose files are from now on those that the driver sees."""
        self._patch.setattr(state, "DIRECTORY", str(self._directory / host))
        self._patch.setattr(node_module, "MARKER", str(self._directory / f"{host}.json"))
        return self.nodes[host]

    def snapshot(self) -> object:
        """All that is on the nodes."""
        return [
            copy.deepcopy((state.everything(), node.flows.bridges, node.database.interfaces()))
            for node in map(self.at, HOSTS)
        ]

    def call(self, step: Step, point: int | None = None) -> None:
        """Carry out a step.

        Args:
            step: a call of the driver or of the hypervisor.
            point: where the driver is interrupted: odd numbers kill it, even ones let a change fail.

        Raises:
            AwsOvsError: the driver refused it, or was made to fail.
            Interrupted: it was killed.
        """
        if step.runs_on is None:
            self._hypervisor(step)
            return
        node = self.at(step.runs_on)
        if point is not None:
            self._faults.arm(point // 2, kills=point % 2 == 1)
        try:
            read: Any = getattr(vm, main.VERBS[step.action].reader)
            VERBS[step.action](node.node, read(step.xml or b""))
        finally:
            self._faults.arm(None)
        seen = document.parse(step.xml or b"")
        self._documents[seen.vm_id] = seen

    def _hypervisor(self, step: Step) -> None:
        number, host = int(step.argv[-2]), self.nodes[step.argv[-1]].database
        mine, verb = self.plugged.setdefault(number, {}), step.action.removeprefix("vmm-")
        if verb in ("deploy", "attach_nic"):
            for card in self._documents[number].cards:
                if verb == "deploy" or card.mac == step.argv[1]:
                    host.plug(card.bridge, card.target)
                    mine[card.target] = card
        elif verb == "migrate":
            for card in mine.values():
                host.unplug(card.target)
                self.nodes[step.argv[1]].database.plug(card.bridge, card.target)
        else:
            assert verb in ("detach_nic", "cancel")
            for target in [name for name, card in mine.items() if verb == "cancel" or card.mac == step.argv[1]]:
                host.unplug(target)
                del mine[target]


def carry_out(world: World, cloud: Cloud, operation: Operation) -> None:
    """Carry out an operation as OpenNebula does, also when something in it fails."""
    calls, killed = 0, False
    for index, step in enumerate(operation.steps):
        driven = step.runs_on is not None
        point = operation.interrupted[1] if operation.interrupted and operation.interrupted[0] == calls else None
        calls += driven
        try:
            world.call(step, point if driven else None)
        except (AwsOvsError, Interrupted) as failure:
            killed = isinstance(failure, Interrupted)
            if not killed and "a change failed" not in str(failure) and not cloud.conflicts:
                raise  # refused without reason
            recover, machine = operation.after_failure(index)
            for one in recover:
                world.call(one)
            cloud.done(machine)
            break
    else:
        cloud.done(operation.machine)
    machine = cloud.machines[operation.machine.vm_id]
    if killed and machine.host:  # it may have left something undone: then the next action on the VM puts it right
        world.call(cloud.update(machine.vm_id))


def check(world: World, cloud: Cloud) -> None:
    """What must hold on every node, whatever came before."""
    for host in HOSTS:
        node = world.at(host)
        stored = state.everything()
        ports = stored.ports
        here = {
            (machine.vm_id, nic.nic_id)
            for machine in cloud.machines.values()
            if machine.host == host
            for nic in machine.nics()
        }
        assert {(port.vm_id, port.nic_id) for port in ports} == here, "no state of a VM where it is not"
        check_claims(node, ports)
        check_flows(node, ports)
        assert [reason for plan in restore.plans(node.node, stored) for reason in plan.reasons] == [], (
            "a second plan changes nothing"
        )


def check_claims(node: Model, ports: list[GuestPort]) -> None:
    """Nothing is given twice, and everybody can see what is taken."""
    addresses = Counter((port.vni, address) for port in ports for address in (port.mac, *port.addresses))
    assert [one for one, count in addresses.items() if count > 1] == [], "addresses are unique in their network"
    outside = Counter(mapping.outside for port in ports for mapping in port.mappings)
    outside += Counter(one.private_ip for port in ports for one in port.shared if one.ports is None)
    assert [one for one, count in outside.items() if count > 1] == [], "a node-side address is given once"
    slots = Counter(port.slot for port in ports)
    assert [slot for slot, count in slots.items() if count > 1 or not slot] == [], "a slot is given once"
    shared = [one for port in ports for one in port.shared if one.ports]
    spans = Counter(
        (one.private_ip, one.ports.external + n) for one in shared if one.ports for n in range(one.ports.size)
    )
    assert [one for one, count in spans.items() if count > 1] == [], "a port of a shared address is given once"
    claims = {
        name: ids["aws_ovs-claims"] for name, (_, ids) in node.database.interfaces().items() if "aws_ovs-claims" in ids
    }
    assert claims == {port.name: " ".join(map(str, port.claims)) for port in ports}


def check_flows(node: Model, ports: list[GuestPort]) -> None:
    """The flows are those of the ports that there are, and a VM's come from its own port only."""
    wanted = FlowTables()
    wanted.apply(restore.all_flows(node.node, state.Stored(ports, {})), node.database.bridges())
    for bridge in wanted.bridges:
        assert of_vms(node.flows, bridge, ports) == of_vms(wanted, bridge, ports), bridge
    numbers = {name: number for name, (number, _) in node.database.interfaces().items()}
    owners = {numbers[port.name]: (port.vm_id, port.nic_id) for port in ports}
    bridge_of = {numbers[port.name]: port.bridge for port in ports}
    for bridge, flows in node.flows.bridges.items():
        for match, (cookie, _) in flows.items():
            owner, entry = flow.owner(cookie), re.search(r"in_port=(\d+)", match)
            if owner:
                assert owner in owners.values(), "a flow outlives its port"
            if entry and bridge != OVERLAY and int(entry[1]) in owners:
                assert owner == owners[int(entry[1])], "a flow of one VM at the port of another"
                assert bridge_of[int(entry[1])] == bridge
            elif entry and bridge != OVERLAY:
                assert owner is None, "a flow at a port that is not there"


def of_vms(flows: FlowTables, bridge: str, ports: list[GuestPort]) -> dict[str, tuple[int, str]]:
    """The flows of a bridge without those of networks that have no VM: `pre` makes their ports, but only `post` their
    flows. Where a VNI has several bridges that concerns the overlay bridge's way to them, too."""
    busy = {port.vni for port in ports if bridge in (OVERLAY, port.bridge)}

    def counts(match: str, cookie: int) -> bool:
        if cookie >> 56 != 0xA6:
            return True
        return cookie & 0xFFFFFFFF in busy and (bridge != OVERLAY or match.startswith("table=0,priority=50"))

    return {match: entry for match, entry in flows.bridges.get(bridge, {}).items() if counts(match, entry[0])}


@given(conflicts=st.booleans(), choices=st.lists(st.integers(0, 2**32 - 1), min_size=LENGTH, max_size=LENGTH))
@settings(
    max_examples=8, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_whatever_happens_the_nodes_are_right(conflicts: bool, choices: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        world, cloud = World(Path(directory), patch), Cloud(conflicts)
        history = []
        for choice in choices:
            operation = cloud.operation(choice)
            if operation is None:
                continue
            history.append((operation.name, operation.machine.vm_id, operation.interrupted))
            repeated = operation.name in ("again", "clean again")
            before = world.snapshot() if repeated else None
            carry_out(world, cloud, operation)
            note(str(history[-1]))
            check(world, cloud)
            if repeated:
                assert world.snapshot() == before, "what was done already changes nothing"
        kinds = Counter(name for name, _, _ in history)
        event(f"kinds of operations: {len(kinds)}")


def test_the_clean_of_a_vm_that_was_never_here_changes_nothing() -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), patch)
        before = world.snapshot()
        world.call(load("poweroff-hard").steps[-1])
        assert world.snapshot() == before
