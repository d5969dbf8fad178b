"""An `update_sg` that fails or dies anywhere leaves the old rules or the new ones, and the next one completes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.support import scenes
from tests.lab.support.faults import Action, difference, done, effects, kill, on_vm, quiet, run, to_die
from tests.lab.support.scenes import HOST
from tests.lab.test_rollback import Trial
from tests.sampling import Sampler
from tests.world.lab import Lab

BRIDGES = ("onebr1", "ovsbr0")


def _in_force(lab: Lab) -> dict[str, str]:
    """The flows of VM 1 on each of its bridges, but for those that are there for a time."""
    cookie = f"cookie={0xA5 << 56 | 1 << 16:#x}/0xffffffffffff0000"
    script = f"ovs-ofctl --no-stats dump-flows $0 {cookie} | grep cookie= | sort"
    return {bridge: lab.hosts[HOST].run(["sh", "-c", script, bridge]).stdout for bridge in BRIDGES}


@pytest.mark.parametrize("scene", scenes.GROUPS)
def test_an_update_that_fails_half_way_leaves_the_old_rules(fresh_lab: Lab, sampler: Sampler, scene: str) -> None:
    situation = scenes.GROUPS[scene](fresh_lab)
    trial = Trial(fresh_lab, situation.action, situation.undo, unchanged=True)
    trial.each_effect(sampler, reads=False)
    trial.missing("ovs-ofctl")
    trial.tool("ovs-ofctl", "bundle onebr1 -", "bundle ovsbr0 -")
    trial.end()


@pytest.mark.parametrize("scene", scenes.GROUPS)
def test_an_update_that_is_killed_leaves_old_or_new_rules_on_each_bridge(
    fresh_lab: Lab, sampler: Sampler, scene: str
) -> None:
    lab, host = fresh_lab, fresh_lab.hosts[HOST]
    action, undo = scenes.GROUPS[scene](lab)
    old = _in_force(lab)
    found = effects(host, action)
    new, wanted = _in_force(lab), lab.dump(HOST)
    undo()
    assert _in_force(lab) == old
    wrong, seen = [], set()
    for effect in sampler.of(to_die(found), lambda effect: effect.call):
        kill(host, action, effect, undo)
        quiet(host)
        now = _in_force(lab)
        for bridge in BRIDGES:
            if now[bridge] not in (old[bridge], new[bridge]):
                wrong.append(f"{effect}: {bridge}: {difference(new[bridge], now[bridge])}")
        seen.add(now == new)
        problem = run(host, action).stderr + difference(wanted, lab.dump(HOST))
        if problem:
            wrong.append(f"{effect}: {problem}")
        undo()
    assert wrong == []
    assert seen == {False, True}


def test_updates_and_restores_at_once_end_with_the_rules_of_one_update(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts[HOST]
    action, undo = scenes.new_rules(lab)
    old = _in_force(lab)
    done(host, action)
    new = _in_force(lab)
    undo()
    before = action._replace(stdin=on_vm("update_sg", scenes.GROUPED_BEFORE).stdin)
    for _ in range(3):
        actions = [action, Action("restore", (), b""), before, Action("restore", (), b"")]
        with ThreadPoolExecutor(len(actions)) as pool:
            assert [ended.stderr for ended in pool.map(lambda one: run(host, one), actions)] == [""] * len(actions)
        assert _in_force(lab) in (old, new)
