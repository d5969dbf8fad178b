"""`oneaws hooks`: the driver's hooks in OpenNebula, beside those of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vnm_aws.frontend.hook_objects import Hook
from vnm_aws.frontend.oned import Oned as Client

from .cloud import RECORDINGS, Cloud

TEMPLATES = sorted((Path(__file__).parents[2] / "share/hooks").glob("*.hook"))
NAMES = sorted(f"aws_ovs-{path.stem}" for path in TEMPLATES)
FOREIGN = 14
"""Hooks of others in the recording."""


@pytest.fixture
def others(cloud: Cloud) -> list[Hook]:
    """The hooks of others that OpenNebula has."""
    cloud.oned.load((RECORDINGS / "cli/onehook_list_-x.txt").read_bytes())
    found = Client().hooks()
    assert len(found) == FOREIGN
    cloud.forget_calls()
    return found


def ours() -> dict[str, Hook]:
    return {hook.name: hook for hook in Client().hooks() if hook.name.startswith("aws_ovs-")}


def foreign() -> list[Hook]:
    return [hook for hook in Client().hooks() if not hook.name.startswith("aws_ovs-")]


def states(cloud: Cloud) -> dict[str, str]:
    return {line["NAME"]: line["STATUS"] for line in json.loads(cloud.oneaws("hooks", "list", "--json").stdout)}


def test_hooks_are_registered_once_and_removed_again(cloud: Cloud, others: list[Hook]) -> None:
    assert states(cloud) == dict.fromkeys(NAMES, "missing")
    dry = cloud.oneaws("hooks", "register", "--dry-run").stdout.splitlines()
    assert dry == [f"hook {name}: would register it" for name in NAMES]
    assert cloud.mutating_calls() == []

    done = cloud.oneaws("hooks", "register").stdout.splitlines()
    assert done == [f"hook {name}: register it" for name in NAMES]
    assert states(cloud) == dict.fromkeys(NAMES, "registered")
    assert cloud.mutating_calls() == ["one.hook.allocate"] * len(NAMES)

    cloud.forget_calls()
    assert cloud.oneaws("hooks", "register").stdout == "Nothing to change.\n"
    assert cloud.mutating_calls() == []
    assert foreign() == others

    dry = cloud.oneaws("hooks", "remove", "--dry-run").stdout.splitlines()
    assert dry == [f"hook {name}: would remove it" for name in NAMES]
    assert list(ours()) == NAMES[::-1]
    cloud.oneaws("hooks", "remove")
    assert (ours(), foreign()) == ({}, others)
    assert cloud.oneaws("hooks", "remove").stdout == "Nothing to change.\n"


def test_hooks_are_registered_as_their_templates_say(cloud: Cloud) -> None:
    cloud.oneaws("hooks", "register")
    for name, hook in ours().items():
        assert hook.template["COMMAND"].startswith("aws_ovs/"), name
        assert (hook.template["ARGUMENTS_STDIN"], hook.template["REMOTE"]) == ("YES", "NO"), name
        assert hook.template["ARGUMENTS"] == {"api": "$API", "state": "$TEMPLATE"}[hook.kind], name
    assert ours()["aws_ovs-vm-running"].template["LCM_STATE"] == "RUNNING"


def test_a_changed_hook_is_replaced_and_an_unknown_one_removed(cloud: Cloud, others: list[Hook]) -> None:
    cloud.oneaws("hooks", "register")
    before = ours()
    client = Client()
    changed, retyped = before["aws_ovs-vm-running"], before["aws_ovs-host-delete"]
    client.remove_hook(changed.hook_id)
    client.add_hook(
        'NAME="aws_ovs-vm-running" TYPE="state" RESOURCE="VM" ON="RUNNING" COMMAND="aws_ovs/vm_running" '
        'ARGUMENTS="$TEMPLATE" ARGUMENTS_STDIN="NO" REMOTE="NO"'
    )
    client.remove_hook(retyped.hook_id)
    client.add_hook('NAME="aws_ovs-host-delete" TYPE="state" RESOURCE="HOST" STATE="ERROR" COMMAND="x" REMOTE="NO"')
    client.add_hook('NAME="aws_ovs-old" TYPE="api" CALL="one.vm.deploy" COMMAND="aws_ovs/old"')
    wrong = {"aws_ovs-vm-running": "differs", "aws_ovs-host-delete": "differs", "aws_ovs-old": "unknown"}
    assert states(cloud) == {**dict.fromkeys(NAMES, "registered"), **wrong}
    cloud.oneaws("check", code=1)

    cloud.forget_calls()
    done = json.loads(cloud.oneaws("hooks", "register", "--json").stdout)
    assert [line["target"] for line in done["changes"]] == [
        "hook aws_ovs-host-delete",
        "hook aws_ovs-host-delete",
        "hook aws_ovs-old",
        "hook aws_ovs-vm-running",
        "hook aws_ovs-vm-running",
    ]
    assert done["problems"] == []
    assert states(cloud) == dict.fromkeys(NAMES, "registered")
    kept = {name: hook for name, hook in before.items() if name not in wrong}
    assert {name: ours()[name] for name in kept} == kept
    assert foreign() == others


def test_hooks_that_oned_refuses_are_named_and_the_others_registered(cloud: Cloud) -> None:
    cloud.oned.fail_next("one.hook.allocate")
    done = cloud.oneaws("hooks", "register", code=1)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"oneaws: hook {NAMES[0]}: oned refused: ")
    assert set(ours()) == set(NAMES[1:])
    cloud.oneaws("hooks", "register")
    assert set(ours()) == set(NAMES)


def test_the_list_is_a_table(cloud: Cloud) -> None:
    cloud.oneaws("hooks", "register")
    cloud.oneaws("hooks", "list")
    cloud.oned.forget("HOOK", 0)
    lines = cloud.oneaws("hooks", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATUS"]
    assert lines[1].split() == ["-", NAMES[0], "missing"]
    assert lines[2].split() == ["1", NAMES[1], "registered"]
    assert len(lines) == len(NAMES) + 1
