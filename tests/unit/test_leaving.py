"""The end of a VM, a NIC or an alias whose document has become odd: what this node holds of it goes, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.unit.documents import changed
from tests.unit.test_sequences import World
from tests.unit.test_unreadable import damage, grown, steps
from vnm_aws import vm
from vnm_aws.driver import clean, state
from vnm_aws.overlay.pipeline import flow

_TEXTS = [
    "",
    "0",
    "-1",
    "x",
    "true",
    "YES",
    "one-2-0",
    "aws_gw",
    "169.254.1.1",
    "192.168.0.10",
    "10.0.0.41",
    "9001",
    "\t\u20ac",
]
DAMAGE = st.lists(
    st.tuples(st.sampled_from(["set", "remove", "double", "drop"]), st.integers(0, 10**6), st.sampled_from(_TEXTS)),
    min_size=1,
    max_size=4,
)
MANY = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def odd(document: bytes, damages: list[tuple[str, int, str]], spared: tuple[str, ...] = ("ATTACH",)) -> bytes:
    """A document after some damage: values set, doubled and removed, whole elements dropped; not the VM's ID."""

    def change(root: etree._Element) -> None:
        for kind, number, text in damages:
            values = [one for one in root.iterfind("TEMPLATE/*/*") if one.tag not in spared]
            value = values[number % len(values)] if values else root
            parent = value.getparent()
            if parent is None:
                continue
            if kind == "set":
                value.text = text
            elif kind == "remove":
                parent.remove(value)
            elif kind == "double":
                etree.SubElement(parent, str(value.tag)).text = text
            elif "ATTACH" not in [child.tag for child in parent]:
                above = parent.getparent()
                assert above is not None
                above.remove(parent)

    return changed(document, change)


def end(world: World, document: bytes) -> None:
    """Let the driver clean on h1."""
    clean.run(world.at("h1").node, vm.parse_leaving(document))


def of_vm(world: World, vm_id: int = 1) -> list[object]:
    """What h1 holds of a VM: ports of its file, marks, flows."""
    node = world.at("h1")
    marked = [
        name
        for name, (_, ids) in node.database.interfaces().items()
        if ids.get("aws_ovs-port", "").startswith(f"{vm_id}/")
    ]
    cookies = {cookie for flows in node.flows.bridges.values() for cookie, _ in flows.values()}
    owners = [owner for cookie in cookies if (owner := flow.owner(cookie)) and owner[0] == vm_id]
    return [*(state.load(vm_id) or ()), *marked, *owners]


@given(damages=DAMAGE, lost=st.booleans())
@MANY
def test_the_end_of_a_vm_leaves_nothing_of_it(damages: list[tuple[str, int, str]], lost: bool) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        world = grown(Path(directory), patch, "detach-alias")
        others = of_vm(world, 2)
        if lost:
            damage()
        end(world, odd(steps("terminate")[-1].xml or b"", damages))
        assert of_vm(world) == []
        assert of_vm(world, 2) == others


@given(damages=DAMAGE)
@MANY
def test_a_nic_that_is_detached_is_gone_and_the_others_stay(damages: list[tuple[str, int, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        world = grown(Path(directory), patch, "detach-nic")
        before, others = state.load(1) or [], of_vm(world, 2)
        assert [port.nic_id for port in before] == [0, 1, 2]
        document = odd(steps("detach-nic")[-1].xml or b"", damages, ("ATTACH", "NIC_ID"))
        end(world, document)
        assert state.load(1) == before[:2]
        assert {one[1] for one in of_vm(world) if isinstance(one, tuple) and len(one) == 2} == {0, 1}
        assert of_vm(world, 2) == others


@given(damages=DAMAGE)
@MANY
def test_an_alias_that_is_detached_gives_its_address_back(damages: list[tuple[str, int, str]]) -> None:
    """As long as the document tells which alias of which NIC it is."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        world = grown(Path(directory), patch, "detach-alias")
        (before, *more), others = state.load(1) or [], of_vm(world, 2)
        assert "10.0.0.42" in dict(before.mappings).values()
        spared = ("ATTACH", "PARENT_ID", "NIC_ID", "AWS_PRIVATE_IP", "IP", "GATEWAY", "EXTERNAL")
        document = odd(steps("detach-alias")[-1].xml or b"", damages, spared)
        end(world, document)
        (parent, *rest) = state.load(1) or []
        assert rest == more
        assert (parent.addresses, parent.name) == (before.addresses, before.name)
        assert [inside for inside, _ in parent.mappings] == [inside for inside, _ in before.mappings]
        assert dict(parent.mappings)["192.168.0.10"].startswith("198.18.")
        assert "10.0.0.42" not in str(of_vm(world))
        assert of_vm(world, 2) == others
