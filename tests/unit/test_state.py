"""The files in which a node keeps its guest ports: read by every version, whichever wrote them."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from tests.unit.documents import RECORDINGS, recorded
from vnm_aws import config, vm
from vnm_aws.addresses import Prefix
from vnm_aws.driver import state
from vnm_aws.overlay.guest_port import GuestPort, Mapping, SharedAddress, plan
from vnm_aws.vm import PortRange

FROZEN = RECORDINGS / "state"
"""Written by each release for VMs of the recordings; kept for ever, because nodes have such files when they are updated."""

OF_0_1_0 = {
    1: [
        GuestPort(
            1, 0, "one-1-0", "onebr1", 1048577, "02:00:c0:a8:00:0a", ("192.168.0.10",), (), ("192.168.0.1",), True, True,
            (Mapping("192.168.0.10", "10.0.0.42"),), (),
        ),
        GuestPort(
            1, 1, "one-1-1", "ovsbr0", 100, "02:00:c0:a8:00:fa", ("192.168.0.250",), (), ("192.168.0.1",), True, True,
            (Mapping("192.168.0.250", "10.0.0.41"),), (),
        ),
        GuestPort(
            1, 2, "one-1-2", "onebr1", 1048577, "02:00:c0:a8:00:0b", ("192.168.0.11",), (), ("192.168.0.1",), True, True,
            (Mapping("192.168.0.11", "198.18.0.1"),), (),
        ),
    ],
    5: [
        GuestPort(
            5, 0, "one-5-0", "ovsbr0", 100, "02:00:c0:a8:00:78", ("192.168.0.120",), (), ("192.168.0.1",), True, True,
            (Mapping("192.168.0.120", "198.18.0.2"),),
            (SharedAddress("10.0.0.45", "198.18.0.2", PortRange(9001, 1, 10)),),
        ),
        GuestPort(
            5, 1, "one-5-1", "onebr1", 1048577, "02:00:c0:a8:00:0a", ("192.168.0.10",), (), ("192.168.0.1",), True, True,
            (Mapping("192.168.0.10", "198.18.0.3"),), (),
        ),
    ],
}  # fmt: skip


made: Any = namedtuple
Newer = made("Newer", [*GuestPort._fields, "speed"], defaults=[*GuestPort._field_defaults.values(), 1000])
"""A guest port of a version that has one field more."""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files are."""
    monkeypatch.setattr(state, "DIRECTORY", str(tmp_path))
    return tmp_path


def kept(directory: Path) -> dict[str, Any]:
    """The file of VM 5 as it is written now."""
    state.save(5, OF_0_1_0[5])
    document: dict[str, Any] = json.loads((directory / "5.json").read_text())
    return document


def numbered(ports: list[GuestPort]) -> list[GuestPort]:
    """The ports with the slots that files without them get."""
    return [port._replace(slot=slot) for slot, port in enumerate(ports, start=1)]


def test_files_of_0_1_0_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "DIRECTORY", str(FROZEN / "0.1.0"))
    assert {vm_id: state.load(vm_id) for vm_id in OF_0_1_0} == OF_0_1_0
    assert state.everything() == (numbered([*OF_0_1_0[1], *OF_0_1_0[5]]), {})


@pytest.mark.usefixtures("directory")
def test_a_port_without_a_slot_gets_one_that_nobody_has() -> None:
    first, second, third = OF_0_1_0[1]
    state.save(1, [first, second._replace(slot=1), third])
    state.save(5, [port._replace(slot=slot) for port, slot in zip(OF_0_1_0[5], (2, 7), strict=True)])
    assert [port.slot for port in state.everything().ports] == [3, 1, 4, 2, 7]


@pytest.mark.parametrize(
    "operation", ["deploy/03-post.xml", "deploy-ports/03-post.xml", "live-migrate-alias/04-post.xml"]
)
@pytest.mark.usefixtures("directory")
def test_what_is_kept_is_read_as_it_was(operation: str) -> None:
    machine, settings = vm.parse(recorded(*operation.split("/"))), config.Config()
    transit = Prefix(settings.transit_range, "transit_range")
    ports = [plan(machine.vm_id, nic, nic.vni(settings.vni_base), transit, {}, set()) for nic in machine.nics]
    state.save(machine.vm_id, ports)
    assert state.load(machine.vm_id) == ports
    assert state.everything() == (numbered(ports), {})
    state.save(machine.vm_id, [])
    assert state.load(machine.vm_id) == []
    assert state.everything() == ([], {})


def test_the_file_tells_its_schema(directory: Path) -> None:
    document = kept(directory)
    assert document["schema"] == 1
    assert [port["nic_id"] for port in document["ports"]] == [0, 1]


def test_unknown_fields_are_ignored(directory: Path) -> None:
    document = kept(directory)
    port = document["ports"][0]
    for place in (document, port, port["mappings"][0], port["shared"][0], port["shared"][0]["ports"]):
        place["of_a_newer_version"] = {"any": "thing"}
    (directory / "5.json").write_text(json.dumps(document))
    assert state.load(5) == OF_0_1_0[5]


def test_a_missing_field_gets_its_default(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(directory)
    monkeypatch.setattr(state, "GuestPort", Newer)
    ports: Any = state.load(5)
    assert ports == [Newer(*port) for port in OF_0_1_0[5]]
    monkeypatch.setattr(state, "DIRECTORY", str(FROZEN / "0.1.0"))
    ports = state.load(1)
    assert [port.speed for port in ports] == [1000] * 3


def without(document: dict[str, Any], field: str) -> dict[str, Any]:
    """The file without a field that every version has written."""
    ports = [{key: value for key, value in port.items() if key != field} for port in document["ports"]]
    return {**document, "ports": ports}


def damaged(document: dict[str, Any]) -> list[str]:
    """Texts that no version writes."""
    first = {**document["ports"][0]}
    documents: list[Any] = [
        [], [[]], [{}], {}, {"schema": 1}, {"schema": 1, "ports": []}, {**document, "schema": "1"}, None, 7, "text", True,
        {"ports": document["ports"]}, *({**document, "ports": [value]} for value in ("x", 1, None, [1, 2])),
        *(without(document, field) for field in GuestPort._fields if field not in GuestPort._field_defaults),
        {**document, "ports": [{**first, "vm_id": 1}]},  # of another VM
        *({**document, "ports": [{**first, "name": name}]} for name in ("aws_gw", "one-1-0")),  # and of another's port
        *({**document, "ports": [{**first, key: None}]} for key in ("vni", "nic_id", "mac", "addresses", "mappings")),
        {**document, "ports": [{**first, "gateways": [1]}]},
        *({**document, "ports": [{**first, "groups": value}]} for value in ("0", ["0"], 5)),
        {**document, "ports": [{**first, "shared": [{"private_ip": "10.0.0.45"}]}]},
        {**document, "ports": [{**first, "mappings": [["192.168.0.120"]]}]},
    ]  # fmt: skip
    return ["", "{", "\x00", "[" * 100_000, *(json.dumps(document) for document in documents)]


def test_what_no_version_writes_is_damaged_and_not_unknown(directory: Path) -> None:
    texts = damaged(kept(directory))
    state.save(1, OF_0_1_0[1])
    for text in texts:
        (directory / "5.json").write_text(text)
        assert state.load(5) is None, text[:200]
        ports, unreadable = state.everything()
        assert ports == numbered(OF_0_1_0[1])
        assert [(vm_id, error.what) for vm_id, error in unreadable.items()] == [
            (5, f"the file of VM 5 in {directory} is damaged")
        ]


def test_bytes_that_are_no_text_and_a_directory_are_damaged(directory: Path) -> None:
    (directory / "5.json").write_bytes(b"\xff\xfe")
    (directory / "6.json").mkdir()
    assert [*state.everything().unreadable] == [5, 6]


def test_a_newer_schema_is_left_to_the_version_that_wrote_it(directory: Path) -> None:
    (directory / "5.json").write_text(json.dumps({**kept(directory), "schema": 2}))
    assert state.load(5) is None
    error = state.everything().unreadable[5]
    assert error.what == f"the file of VM 5 in {directory} has schema 2, of a newer version of the driver"
    assert error.remedy.startswith("install that version again, or let OpenNebula send the VM again: ")


@pytest.mark.usefixtures("directory")
def test_a_vm_without_a_file_is_unknown() -> None:
    assert state.load(5) == []
