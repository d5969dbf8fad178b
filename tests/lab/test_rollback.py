"""An action that fails half-way, whatever it is that fails, leaves the node as it was, and succeeds when tried again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from subprocess import CompletedProcess

import pytest

from tests.lab.support import scenes
from tests.lab.support.faults import (
    TOOL_FAILURES,
    Action,
    complaint,
    difference,
    done,
    effects,
    fail,
    failing_tool,
    missing_tool,
    run,
    to_fail,
)
from tests.lab.support.scenes import HOST, Scene
from tests.sampling import Sampler
from tests.world.lab import Lab

_BUNDLES = ("bundle aws_ovs -", "bundle onebr1 -")


class Trial:
    """An action that is made to fail again and again; after each failure it is tried again, and undone.

    Args:
        lab: the lab.
        action: which.
        undo: takes the host back.
        unchanged: a failure must leave the host as it was before.

    Attributes:
        effects: of the action when nothing disturbs it.
        left: what failures have left, as dumps.
    """

    def __init__(self, lab: Lab, action: Action, undo: Callable[[], None], unchanged: bool) -> None:
        self._lab, self._host, self._action, self._undo = lab, lab.hosts[HOST], action, undo
        self._before = lab.dump(HOST) if unchanged else None
        self.effects = effects(self._host, action)
        self._after = lab.dump(HOST)
        self._undo()
        self._wrong: list[str] = []
        self.left: set[str] = set()

    def _disturb(self, name: str, disturbed: Callable[[], CompletedProcess[str]]) -> None:
        problems = {"what it says": complaint(self._action, disturbed())}
        left = self._lab.dump(HOST)
        self.left.add(left)
        if self._before is not None:
            problems["what it leaves"] = difference(self._before, left)
        problems["the next try"] = run(self._host, self._action).stderr
        problems["what that leaves"] = difference(self._after, self._lab.dump(HOST))
        self._wrong += [f"{name}: {key}: {value}" for key, value in problems.items() if value]
        self._undo()

    def each_effect(self, sampler: Sampler, reads: bool) -> None:
        """Let each effect, or a sample, fail in turn; without `reads`, of those that change nothing the first of a kind."""
        for effect in sampler.of(to_fail(self.effects, reads), lambda effect: (effect.call, effect.changes)):
            self._disturb(str(effect), partial(fail, self._host, self._action, effect, self._undo))

    def missing(self, tool: str) -> None:
        """Let a tool be not there."""
        self._disturb(f"{tool} is missing", partial(self._under, missing_tool(self._host, tool)))

    def tool(self, tool: str, *calls: str) -> None:
        """Let the calls of a tool with these arguments fail in each way that they can."""
        for words in calls:
            for how in TOOL_FAILURES:
                fault = failing_tool(self._host, tool, words, how)
                self._disturb(f"{tool} {words} {how}", partial(self._under, fault))

    def _under(self, fault: AbstractContextManager[None]) -> CompletedProcess[str]:
        with fault:
            return run(self._host, self._action)

    def end(self) -> None:
        """Check that nothing was wrong, and that the last undoing has undone all."""
        assert self._wrong == []
        if self._before is not None:
            assert difference(self._before, self._lab.dump(HOST)) == ""


def _trial(lab: Lab, scene: Scene, unchanged: bool) -> Trial:
    return Trial(lab, scene.action, scene.undo, unchanged)


@pytest.mark.parametrize("scene", scenes.POSTS)
def test_a_post_that_fails_half_way_leaves_the_node_as_before(fresh_lab: Lab, sampler: Sampler, scene: str) -> None:
    trial = _trial(fresh_lab, scenes.POSTS[scene](fresh_lab), unchanged=True)
    trial.each_effect(sampler, reads=scene == "deploy")
    trial.missing("ovs-ofctl")
    trial.tool("ovs-ofctl", *_BUNDLES)
    trial.end()


@pytest.mark.parametrize("scene", scenes.CLEANS)
def test_a_clean_that_fails_half_way_is_completed_by_a_second(fresh_lab: Lab, sampler: Sampler, scene: str) -> None:
    trial = _trial(fresh_lab, scenes.CLEANS[scene](fresh_lab), unchanged=False)
    trial.each_effect(sampler, reads=scene == "whole VM")
    trial.missing("ovs-ofctl")
    trial.tool("ovs-ofctl", *_BUNDLES)
    trial.end()


def test_a_clean_of_an_unknown_vm_that_fails_leaves_nothing_of_it(fresh_lab: Lab) -> None:
    scene = scenes.clean(fresh_lab)
    host = fresh_lab.hosts[HOST]
    done(host, scene.action)
    gone = fresh_lab.dump(HOST)
    with failing_tool(host, "ovs-ofctl", _BUNDLES[0], TOOL_FAILURES[0]):
        assert complaint(scene.action, run(host, scene.action)) == ""
    assert difference(gone, fresh_lab.dump(HOST)) == ""


@pytest.mark.parametrize("scene", [scenes.peers, scenes.stand_ins])
def test_a_list_that_fails_half_way_leaves_the_node_as_before(
    fresh_lab: Lab, sampler: Sampler, scene: Callable[[Lab], Scene]
) -> None:
    trial = _trial(fresh_lab, scene(fresh_lab), unchanged=True)
    trial.each_effect(sampler, reads=True)
    trial.tool("ovs-ofctl", _BUNDLES[0])
    trial.end()


def test_a_pre_that_fails_half_way_leaves_at_most_empty_bridges(fresh_lab: Lab, sampler: Sampler) -> None:
    """What it makes is one transaction of Open vSwitch's database, so there is all of it or nothing."""
    scenes.forget_bridges(fresh_lab)
    nothing = fresh_lab.dump(HOST)
    done(fresh_lab.hosts[HOST], scenes.pre())
    everything = fresh_lab.dump(HOST)
    scenes.forget_bridges(fresh_lab)
    trial = Trial(fresh_lab, scenes.pre(), lambda: scenes.forget_bridges(fresh_lab), unchanged=False)
    trial.each_effect(sampler, reads=True)
    trial.end()
    assert trial.left == {nothing, everything}


def test_setting_up_a_node_that_fails_half_way_is_completed_by_the_next_action(
    fresh_lab: Lab, sampler: Sampler
) -> None:
    """What is there already stays: it belongs to no VM, and passes nothing."""
    scenes.forget_base(fresh_lab)
    trial = Trial(fresh_lab, scenes.pre(), lambda: scenes.forget_base(fresh_lab), unchanged=False)
    trial.each_effect(sampler, reads=False)
    trial.missing("nft")
    trial.tool("nft", "-f -")
    trial.tool("ovs-ofctl", _BUNDLES[0])
    trial.end()
