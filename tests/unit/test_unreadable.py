"""A VM whose file cannot be read: it goes on as it is, and the next action on it writes all of it anew."""

from __future__ import annotations

import contextlib
import copy
import re
from pathlib import Path

import pytest
from lxml import etree

from tests.unit.documents import changed
from tests.unit.ovs_model import Interrupted
from tests.unit.test_sequences import World
from tests.world.recording import Step, load, substitute
from vnm_aws.driver import restore, state
from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay.pipeline import flow

NEIGHBOUR = substitute(
    load("deploy"),
    vm_id=2,
    ips={"192.168.0.10": "192.168.0.102", "192.168.0.250": "192.168.0.202"},
    strip=("AWS_PRIVATE_IP", "AWS_ALLOCATION_ID", "EXTERNAL_IP"),
)
LIFE = ("deploy", "update", "attach-nic", "attach-alias-external", "detach-alias", "detach-nic", "terminate")
PLUGGING = ("vmm-deploy", "vmm-attach_nic", "vmm-detach_nic", "vmm-cancel")


def steps(name: str) -> list[Step]:
    """One part of the life, on h1 wherever it was recorded."""
    if name == "update":
        return [steps("deploy")[-1]._replace(action="update_sg", argv=("one-1",))]
    recording = substitute(load(name), hosts={"h2": "h1"})
    return [step for step in recording.steps if step.runs_on or step.action in PLUGGING]


def grown(tmp_path: Path, patch: pytest.MonkeyPatch, until: str) -> World:
    """A node with VM 2, and with VM 1 as it is before something happens in its life."""
    tmp_path.mkdir(exist_ok=True)
    world = World(tmp_path, patch)
    for step in [step for step in NEIGHBOUR.steps if step.runs_on or step.action in PLUGGING]:
        world.call(step)
    for name in LIFE[: LIFE.index(until)]:
        for step in steps(name):
            world.call(step)
    world.at("h1")
    return world


def damage() -> None:
    Path(state.DIRECTORY, "1.json").write_text("{")
    assert state.load(1) is None


def restored(world: World) -> None:
    node = world.at("h1").node
    stored = state.everything()
    for changes in restore.plans(node, stored):
        node.commit(changes)
    node.flow(restore.all_flows(node, stored))


def told(world: World) -> list[str]:
    """What there is on h1, but for which transit addresses: they are chosen anew."""
    node = world.at("h1")
    lines = [str(port) for port in state.everything().ports]
    lines += [f"{name}: {values}" for name, values in node.database.interfaces().items()]
    lines += [f"{bridge}: {item}" for bridge, flows in node.flows.bridges.items() for item in flows.items()]
    return sorted(re.sub(r"198\.18\.\d+\.\d+", "TRANSIT", line) for line in lines)


@pytest.mark.parametrize("before", LIFE[1:])
def test_restore_changes_nothing_of_it(before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = grown(tmp_path, monkeypatch, before)
    node = world.at("h1")
    wanted = copy.deepcopy((node.flows.bridges, node.database.interfaces()))
    damage()
    restored(world)
    assert (node.flows.bridges, node.database.interfaces()) == wanted
    Path(state.DIRECTORY, "1.json").unlink()
    restored(world)
    assert (node.flows.bridges, node.database.interfaces()) != wanted, "a VM without a file is cut off"


@pytest.mark.parametrize("name", LIFE[1:])
def test_what_happens_to_it_ends_as_if_the_file_had_been_readable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for damaged in (False, True):
        with monkeypatch.context() as patch:
            world = grown(tmp_path / str(damaged), patch, name)
            if damaged:
                damage()
            for step in steps(name):
                world.call(step)
            ends.append(told(world))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("name", ["attach-nic", "update", "detach-nic"])
def test_an_action_on_it_that_fails_leaves_the_file_or_a_whole_one(
    name: str, kills: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for point in range(8):
        with monkeypatch.context() as patch:
            world = grown(tmp_path / str(point), patch, name)
            whole = state.load(1)
            damage()
            with contextlib.suppress(Interrupted if kills else AwsOvsError):
                for step in steps(name):
                    world.call(step, 2 * point + kills if step.runs_on and step.action != "pre" else None)
            world.at("h1")
            kept = state.load(1)
            assert kept is None or len(kept) >= 2, (point, kept, whole)


@pytest.mark.parametrize("name", ["attach-alias-external", "detach-alias"])
def test_a_nic_that_the_document_lacks_is_gone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(root: etree._Element) -> None:
        for nic in [nic for nic in root.iterfind("TEMPLATE/NIC") if nic.findtext("NIC_ID") == "2"]:
            parent = nic.getparent()
            assert parent is not None
            parent.remove(nic)

    world = grown(tmp_path, monkeypatch, name)
    damage()
    for step in steps(name):
        world.call(step._replace(xml=changed(step.xml or b"", remove)))
    node = world.at("h1")
    assert [port.nic_id for port in state.load(1) or ()] == [0, 1]
    assert "aws_ovs-port" not in node.database.interfaces()["one-1-2"][1]
    owners = {flow.owner(cookie) for flows in node.flows.bridges.values() for cookie, _ in flows.values()}
    assert {owner for owner in owners if owner and owner[0] == 1} == {(1, 0), (1, 1)}
