"""An action that is killed anywhere is completed by the same action, as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.support import scenes
from tests.lab.support.faults import (
    SLOW,
    Action,
    difference,
    effects,
    failing_tool,
    kill,
    kill_while_its_tool_works,
    quiet,
    run,
    to_die,
)
from tests.lab.support.scenes import HOST, Scene
from tests.sampling import Sampler
from tests.world.lab import Lab

_VM_SCENES = {**scenes.POSTS, **scenes.CLEANS, **scenes.UPDATES}


def killed_everywhere(lab: Lab, sampler: Sampler, action: Action, undo: Callable[[], None]) -> None:
    """Kill an action around each of its changes, or a sample; after each death carry it out again, compare, and undo it."""
    host = lab.hosts[HOST]
    found = effects(host, action)
    wanted = lab.dump(HOST)
    undo()
    wrong = []
    deaths = sampler.of(to_die(found), lambda effect: effect.call)
    for effect in deaths:
        kill(host, action, effect, undo)
        problem = run(host, action).stderr
        quiet(host)
        problem += difference(wanted, lab.dump(HOST))
        if problem:
            wrong.append(f"{effect}: {problem}")
        undo()
    assert wrong == []
    assert len(deaths) >= 3


@pytest.mark.parametrize("scene", _VM_SCENES)
def test_an_action_that_was_killed_is_completed_by_the_same_again(fresh_lab: Lab, sampler: Sampler, scene: str) -> None:
    action, undo = _VM_SCENES[scene](fresh_lab)
    killed_everywhere(fresh_lab, sampler, action, undo)


@pytest.mark.parametrize("scene", [scenes.peers, scenes.stand_ins])
def test_a_list_that_was_killed_is_completed_by_the_same_again(
    fresh_lab: Lab, sampler: Sampler, scene: Callable[[Lab], Scene]
) -> None:
    action, undo = scene(fresh_lab)
    killed_everywhere(fresh_lab, sampler, action, undo)


def test_a_pre_that_was_killed_is_completed_by_the_same_again(fresh_lab: Lab, sampler: Sampler) -> None:
    scenes.forget_bridges(fresh_lab)
    killed_everywhere(fresh_lab, sampler, scenes.pre(), lambda: scenes.forget_bridges(fresh_lab))


def test_setting_up_a_node_that_was_killed_is_completed_by_the_next_action(fresh_lab: Lab, sampler: Sampler) -> None:
    scenes.forget_base(fresh_lab)
    killed_everywhere(fresh_lab, sampler, scenes.pre(), lambda: scenes.forget_base(fresh_lab))


def test_nothing_else_begins_while_a_tool_of_a_killed_action_works_on(fresh_lab: Lab) -> None:
    scene, host = scenes.deploy(fresh_lab), fresh_lab.hosts[HOST]
    before = fresh_lab.dump(HOST)
    with failing_tool(host, "ovs-ofctl", "bundle onebr1 -", SLOW):
        kill_while_its_tool_works(host, scene.action)
        scene.undo()
        quiet(host)
    assert difference(before, fresh_lab.dump(HOST)) == ""
