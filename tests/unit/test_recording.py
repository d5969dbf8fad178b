"""The lab's reading of recordings: a mistake here would test the driver with what OpenNebula never sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.world import recording
from tests.world.guests import document
from tests.world.recording import RECORDINGS, Recording, load, substitute

NAMES = sorted(path.parent.name for path in RECORDINGS.glob("*/sequence.json"))


def documents(of: Recording) -> list[bytes]:
    return [step.xml for step in of.steps if step.xml]


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_call_is_loaded(name: str) -> None:
    entries = json.loads((RECORDINGS / name / "sequence.json").read_text())
    steps = load(name).steps
    assert [(step.action, step.runs_on, list(step.argv)) for step in steps] == [
        (entry["action"], entry["runs_on"], entry["argv"]) for entry in entries
    ]
    for step, entry in zip(steps, entries, strict=True):
        assert (step.xml is not None) == (".xml" in entry.get("stdin", ""))


@pytest.mark.parametrize("name", NAMES)
def test_without_changes_documents_stay_as_they_are_to_the_byte(name: str) -> None:
    assert substitute(load(name)) == load(name)


def test_a_path_is_loaded_too(tmp_path: Path) -> None:
    (tmp_path / "sequence.json").write_text(
        '[{"action": "pre", "runs_on": "h1", "argv": [], "stdin": "01-pre.xml (x)"}]'
    )
    (tmp_path / "01-pre.xml").write_bytes(b"<VM><ID>3</ID></VM>")
    assert load(tmp_path).steps == (recording.Step("pre", "h1", (), b"<VM><ID>3</ID></VM>"),)


@pytest.mark.parametrize("text", ["[", "[{}]", '{"a": 1}', '[{"action": "pre", "runs_on": "h1", "argv": "x"}]'])
def test_a_sequence_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sequence.json").write_text(text)
    with pytest.raises(ValueError, match=r"sequence\.json"):
        load(tmp_path)


def test_another_vm_shares_nothing_with_the_first() -> None:
    ips = {"192.168.0.10": "192.168.0.20", "192.168.0.250": "192.168.0.240", "192.168.0.11": "192.168.0.21"}
    ips |= {"10.0.0.41": "10.0.0.43", "54.10.20.41": "54.10.20.43"}
    ours = substitute(load("attach-nic"), vm_id=7, hosts={"h2": "h3"}, ips=ips, values={"eipalloc-0a1": "eipalloc-0a3"})
    everything = [text for step in ours.steps for text in step.argv] + [xml.decode() for xml in documents(ours)]
    old = ["one-1", "h2", *ips, "02:00:c0:a8:00:0a", "02:00:c0:a8:00:fa", "02:00:c0:a8:00:0b", "eipalloc-0a1"]
    for text in everything:
        for gone in old:
            assert not re.search(rf"\b{re.escape(gone)}\b", text), f"{gone} is still in {text}"
    seen = document.parse(documents(ours)[0])
    assert seen.vm_id == 7
    assert [card.target for card in seen.cards] == ["one-7-0", "one-7-1", "one-7-2"]
    assert [card.addresses for card in seen.cards] == [
        ("192.168.0.20/24",),
        ("192.168.0.240/24",),
        ("192.168.0.21/24",),
    ]
    assert seen.cards[2].mac == "02:00:c0:a8:00:15"
    attach = ours.steps[1]
    assert attach.argv == ("one-7", "02:00:c0:a8:00:15", "onebr1", "-", "aws_ovs", "one-7-2", "7", "h3")


def test_the_checkpoint_of_a_suspended_vm_follows_its_id() -> None:
    restore = substitute(load("resume"), vm_id=12).steps[1]
    assert restore.argv == ("/var/lib/one//datastores/0/12/checkpoint", "h1", "one-12", "12", "h1")


def test_stripping_takes_attributes_from_nics_and_aliases_only() -> None:
    ours = substitute(load("live-migrate-alias"), strip=["AWS_PRIVATE_IP", "EXTERNAL", "IP"])
    for xml in documents(ours):
        assert b"AWS_PRIVATE_IP" not in xml
        assert b"<EXTERNAL>" not in xml
        assert b"ETH0_IP" in xml
        assert document.parse(xml).elastic == ()


def test_security_group_rules_keep_their_addresses() -> None:
    (xml,) = documents(substitute(load("sg-update"), ips={"192.168.0.10": "192.168.0.20"}))
    rules = re.findall(rb"<SECURITY_GROUP_RULE>.*?</SECURITY_GROUP_RULE>", xml)
    assert any(b"192.168.0.10" in rule for rule in rules)
    assert not any(b"192.168.0.20" in rule for rule in rules)


def test_cards_are_what_the_context_says() -> None:
    first, second, third = document.parse(documents(load("attach-alias-external"))[0]).cards
    assert first == document.Card(
        0, "one-1-0", "onebr1", "02:00:c0:a8:00:0a", ("192.168.0.10/24",), "192.168.0.1", 1500, False
    )
    assert (second.device, second.mtu) == ("eth1", 1450)
    assert third.addresses == ("192.168.0.11/24",)


def test_without_a_context_the_nics_serve() -> None:
    first, second = document.parse(documents(load("deploy-ports"))[0]).cards
    assert (first.addresses, first.gateway, first.mtu) == (("192.168.0.120/24",), "192.168.0.1", 1500)
    assert (second.addresses, second.mtu) == (("192.168.0.10/24",), 1400)


def test_the_guest_configures_an_alias_unless_it_is_external() -> None:
    xml = documents(load("attach-alias-external"))[0]
    inside = re.sub(rb"(EXTERNAL>)<!\[CDATA\[YES\]\]>", rb"\1", xml)
    assert document.parse(inside).cards[0].addresses == ("192.168.0.10/24", "192.168.0.251/24")
    plain = re.sub(rb"<CONTEXT>.*</CONTEXT>", b"", inside)
    assert document.parse(plain).cards[0].addresses == ("192.168.0.10/24", "192.168.0.251/24")
    assert document.parse(re.sub(rb"<CONTEXT>.*</CONTEXT>", b"", xml)).cards[0].addresses == ("192.168.0.10/24",)


def test_other_drivers_nics_are_not_the_labs() -> None:
    xml = documents(load("deploy"))[0].replace(b"aws_ovs", b"bridge", 1)
    assert [card.nic_id for card in document.parse(xml).cards] == [1]


def test_what_detaches_is_gone_afterwards() -> None:
    seen = document.parse(documents(load("detach-nic"))[0])
    assert [card.nic_id for card in seen.cards] == [0, 1, 2]
    assert [card.nic_id for card in seen.without_attaching().cards] == [0, 1]
    alias = document.parse(documents(load("detach-alias"))[0])
    assert [one.private_ip for one in alias.elastic] == ["10.0.0.41", "10.0.0.42"]
    assert [one.private_ip for one in alias.without_attaching().elastic] == ["10.0.0.41"]
