"""The evaluator of security groups, and how cases are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import verdicts
from tests.verdicts import cases, evaluator
from tests.verdicts.chance import by_chance
from tests.verdicts.edges import edges

SAMPLE = Path(verdicts.__file__).with_name("sample.json")


@pytest.mark.parametrize("case", cases.load(SAMPLE), ids=lambda case: case.name)
def test_the_evaluator_says_what_each_sample_expects(case: cases.Case) -> None:
    assert evaluator.verdict(case) == case.expect


@pytest.mark.parametrize("case", edges(), ids=lambda case: case.name)
def test_the_evaluator_says_what_each_edge_expects(case: cases.Case) -> None:
    assert evaluator.verdict(case) == case.expect


def test_cases_by_chance_are_the_same_each_time() -> None:
    assert by_chance(20, 1) == by_chance(20, 1) != by_chance(20, 2)


def _entry(**changes: Any) -> dict[str, Any]:
    """A case that makes sense, but for what is changed of its packet."""
    packet = {"direction": "in", "remote": "192.168.0.12", "protocol": "tcp", **changes}
    return {"name": "mine", "groups": {}, "nic": {"SECURITY_GROUPS": "0"}, "packet": packet, "expect": "pass"}


def _told(file: Path) -> str:
    with pytest.raises(cases.CasesError) as told:
        cases.load(file)
    return str(told.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"direction": "inwards"}, "direction is 'inwards'; it must be in or out"),
        ({"remote": "192.168.0.300"}, "remote is '192.168.0.300'; it must be an IP address"),
        ({"remote": "224.0.0.5"}, "remote is '224.0.0.5'; it must be the address of one machine"),
        ({"local": "2001:db8::10"}, "local 2001:db8::10 and remote 192.168.0.12 are of two families"),
        (
            {"protocol": "igmp"},
            "protocol is 'igmp'; it must be icmp, tcp, udp, esp, icmpv6, sctp or a number up to 255",
        ),
        ({"protocol": 256}, "protocol is 256; it must be icmp, tcp, udp, esp, icmpv6, sctp or a number up to 255"),
        ({"port": 65536}, "port is 65536; it must be a number up to 65535"),
        ({"source_port": -1}, "source_port is -1; it must be a number up to 65535"),
        ({"where": "there"}, "where is 'there'; it must be same or other or internet"),
        (
            {"remote": "2001:db8::1", "where": "internet"},
            "remote 2001:db8::1 is on the Internet, where the lab has IPv4 only",
        ),
        (
            {"protocol": "icmp", "type": 3, "reply": True},
            "type 3 of protocol 1 has no answer, so reply makes no sense",
        ),
    ],
)
def test_a_packet_that_makes_no_sense_gives_one_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([_entry(), _entry(**changes)]))
    assert _told(file) == f"{file}, case mine: {sentence}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('{"name": "mine"}', "is not a list of cases"),
        ('["mine"]', ", case number 1: it is not an object"),
        ('[{"name": "mine"}]', ", case mine: groups is missing"),
        ('[{"name": "mine", "groups": []}]', ", case mine: groups is not an object"),
        ('[{"name": "mine", "groups": {"100": [7]}}]', ", case mine: a rule is not an object"),
    ],
)
def test_a_file_that_makes_no_sense_gives_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "cases.json"
    file.write_text(content)
    assert _told(file).replace(f"{file} ", "").replace(str(file), "") == sentence


def test_a_file_that_cannot_be_read_gives_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "cases.json"
    assert _told(file) == f"{file}: No such file or directory; name a file with a list of cases"


def test_a_nic_has_the_addresses_that_the_case_does_not_name(tmp_path: Path) -> None:
    other = {**_entry(remote="2001:db8::12"), "nic": {"IP": "192.168.0.77", "SECURITY_GROUPS": "0"}}
    assert cases.parse(_entry()).packet.local == "192.168.0.10"
    assert cases.parse(other).nic["IP"] == "192.168.0.77"
    assert cases.parse(other).packet.local == "2001:db8::10"


def test_every_oned_has_a_group_0_that_accepts_everything() -> None:
    assert [rule["PROTOCOL"] for rule in cases.parse(_entry()).groups["0"]] == ["ALL", "ALL"]
