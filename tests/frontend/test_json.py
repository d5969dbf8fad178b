"""`--json` of every command: valid, typed, and of the same shape whatever there is; and what a wrong name leads to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import click
import pytest

from vnm_aws.cli import main
from vnm_aws.frontend.oned import Oned as Client

from . import in_process
from .cloud import Cloud
from .mixed import mixed


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands that do something, with their words."""
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from leaves(below, (*path, name))
    else:
        yield path, command


COMMANDS = {
    (*path, *(["--dry-run"] if any(option.name == "dry_run" for option in command.params) else []))
    for path, command in leaves(main)
}
_TEXTS = {"NAME", "REASON", "DETAIL", "PROBLEMS", "target", "change", "problem", "VPC", "RAW"}
"""What may be any text; the rest of the texts are words, ids or addresses, and never numbers or signs."""


def shapes(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The place of each value in a document, and its type; those of a list's items are one place."""
    if isinstance(value, dict):
        yield place, "object " + " ".join(value)
        for key, below in value.items():
            yield from shapes(below, f"{place}/{key}")
    elif isinstance(value, list):
        yield place, "list"
        for below in value:
            yield from shapes(below, f"{place}/*")
    elif value is not None:
        yield place, type(value).__name__
        if isinstance(value, str) and place.rpartition("/")[2] not in _TEXTS:
            assert value != "-", place
            assert not value.isdecimal(), (place, value)


def printed(cloud: Cloud, words: tuple[str, ...]) -> dict[str, set[str]]:
    """Which types of values there are at each place of what a command prints."""
    done = in_process.run(partial(main, prog_name="oneaws"), [*words, "--json"], cloud.environment)
    types: dict[str, set[str]] = {}
    for place, kind in shapes(json.loads(done.stdout)):
        types.setdefault(place, set()).add(kind)
    return types


def test_it_is_typed_and_has_one_shape_whatever_there_is(cloud: Cloud) -> None:
    empty = {words: printed(cloud, words) for words in COMMANDS}
    mixed(cloud)
    cloud.add_pool("broken", AWS_EIP_POOL="Pool=web", VLAN_ID="many")
    young = {words: printed(cloud, words) for words in COMMANDS}
    cloud.reconcile(code=1)
    cloud.oneaws("hooks", "register")
    cloud.oned.monitored(
        0, 'AWS_OVS_PEERS_UP="1"\nAWS_OVS_PEERS_DOWN="x"\nAWS_OVS_GUEST_MTU="1450"\nAWS_OVS_ERROR="no"'
    )
    for words in COMMANDS:
        settled = printed(cloud, words)
        for types in (empty[words], young[words], settled):
            for place, kinds in types.items():
                assert len(kinds) == 1, (words, place, kinds)
                assert kinds == {**empty[words], **young[words], **settled}[place], (words, place)


@pytest.mark.parametrize(
    "words",
    [
        *(["eip", "list", "nothing"], ["eip", "sync", "nothing"], ["vnet", "check", "nothing"], ["vnet", "check", "7"]),
        *(["eip", "follow", "999"], ["eip", "follow", str(10**12)]),
    ],
    ids=" ".join,
)
def test_an_unknown_network_vm_or_host_is_one_sentence(cloud: Cloud, words: list[str]) -> None:
    cloud.add_metal("h1")
    cloud.add_network("blue")
    cloud.oneaws("host", "sync")
    for more in ([], ["--json"]):
        done = cloud.oneaws(*words, *more, code=1)
        (line,) = done.stderr.splitlines() or [json.loads(done.stdout)["problems"][0]["problem"]]
        assert words[-1] in line or words[-1] in done.stdout
        assert ";" in line, "with a remedy"


def test_what_a_host_cannot_report_as_a_number_is_not_known(cloud: Cloud) -> None:
    cloud.add_metal("h1")
    cloud.add_network("blue")
    cloud.reconcile()
    Client().update_host(cloud.host("h1").host_id, {"AWS_OVS_PEERS_UP": "many", "EC2_FREE_ADDRESSES": ""})
    (line,) = json.loads(cloud.oneaws("mesh", "show", "--json").stdout)["hosts"]
    assert (line["UP"], line["DOWN"], line["MTU"], line["ERROR"]) == (None, None, None, None)
    (line,) = json.loads(cloud.oneaws("host", "list", "--json").stdout)
    assert (line["FREE"], line["TVM"]) == (None, 0)
