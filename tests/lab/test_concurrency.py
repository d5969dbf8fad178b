"""Actions at the same time: they end as one after another would, each has its turn, and one that hangs is named."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab.support import checks, promise
from tests.sampling import Sampler
from tests.world.hosts.executor import Process
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import Recording, load, substitute

VMS = range(1, 21)
DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
CONFIG = "/var/tmp/one/etc/vnm/aws_ovs.yaml"
LOCK = "/run/aws_ovs/lock"

# Takes the lock as an action does, and keeps it.
_HOLD = ["flock", "--no-fork", LOCK, "sh", "-c", "echo held; exec sleep 1000"]
# How many wait for the lock.
_WAITING = f'grep -c -e "-> .*:$(stat -c %i {LOCK}) " /proc/locks || true'


def _attach(vm_id: int) -> Recording:
    """A NIC is attached to a VM on h1 that has another, one with an Elastic IP, and no address in common with others."""
    ips = {
        "192.168.0.10": f"192.168.1.{vm_id}", "192.168.0.250": f"192.168.2.{vm_id}", "192.168.0.11": f"192.168.3.{vm_id}",
        "10.0.0.41": f"10.0.0.{vm_id + 100}",
    }  # fmt: skip
    return substitute(load("attach-nic"), vm_id=vm_id, hosts={"h2": "h1"}, ips=ips)


def _deploy(vm_id: int) -> Recording:
    return promise.deploy(promise.without_attached(_attach(vm_id).steps[0].xml or b""), "h1")


def _terminate(vm_id: int) -> Recording:
    return promise.terminate(promise.settled(_attach(vm_id).steps[0].xml or b""), "h1")


def _live(lab: Lab, vm_id: int) -> None:
    """A VM starts and gets a NIC; every other one ends."""
    lab.play(_deploy(vm_id), follow=False)
    lab.play(_attach(vm_id), follow=False)
    if vm_id % 2:
        lab.play(_terminate(vm_id), follow=False)


def _at_once(do: Callable[[int], object], numbers: Iterable[int]) -> None:
    with ThreadPoolExecutor(len(VMS)) as pool:
        list(pool.map(do, numbers))


def _state(lab: Lab) -> list[str]:
    """What is on h1, without what depends on the order: port numbers, transit addresses and slots."""
    text = lab.dump("h1")
    text = re.sub(r"\b198\.1[89]\.\d+\.\d+\b(?!/)", "transit", text)
    text = re.sub(r"load:0x\w+->NXM_NX_REG0\[\]", "load:port->NXM_NX_REG0[]", text)
    text = re.sub(r"(reg3=0x|meter[:=]|aws_ovs-slot=\"?|\"slot\": ?|load:0x(?=\w+->NXM_NX_REG3))\w+", r"\1slot", text)
    text = re.sub(r"(?m)^(external_ids +: ).*", lambda found: found[1] + " ".join(sorted(found[0].split())), text)
    lines, title = [], ""
    for line in text.splitlines():
        title = line if line.startswith("# flows") else title
        lines.append(f"{title}: {line}")
    return sorted(lines)


def test_twenty_vms_at_once_end_as_one_after_another(fresh_lab: Lab) -> None:
    lab = fresh_lab
    running = [vm_id for vm_id in VMS if not vm_id % 2]
    for vm_id in VMS:
        _live(lab, vm_id)
    expected = _state(lab)
    for vm_id in running:
        lab.play(_terminate(vm_id), follow=False)
    expected_end = _state(lab)
    lab.reset()
    _at_once(lambda vm_id: _live(lab, vm_id), VMS)
    assert _state(lab) == expected
    assert len(_transit(lab)) == len(set(_transit(lab))) > 0
    assert checks.reaches(checks.ping(lab.guest(2), "192.168.1.2", "192.168.1.20"))
    _at_once(lambda vm_id: lab.play(_terminate(vm_id), follow=False), running)
    assert _state(lab) == expected_end


def _transit(lab: Lab) -> list[str]:
    """The transit addresses that VMs on h1 have."""
    return re.findall(r'"(198\.1[89]\.\d+\.\d+)"', lab.hosts["h1"].run(["sh", "-c", "cat /run/aws_ovs/vms/*"]).stdout)


def test_the_same_vms_actions_at_once_end_in_a_state_that_one_of_them_leaves(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY, follow=False)
    there = _state(lab)
    assert lab.driver("h1", "clean", ("h1",), DOCUMENT).returncode == 0
    gone = _state(lab)
    actions: dict[str, tuple[str, ...]] = {
        "pre": (),
        "post": ("one-1", "h1"),
        "update_sg": ("one-1",),
        "clean": ("h1",),
    }
    for verbs, ends in (
        (("pre", "pre"), (gone,)),
        (("post", "clean"), (there, gone)),
        (("post", "post"), (there,)),
        (("update_sg", "post", "pre"), (there,)),
        (("clean", "post", "clean", "post"), (there, gone)),
        *3 * [(("clean", "post", "update_sg", "clean"), (there, gone))],
        (("clean", "clean"), (gone,)),
    ):
        with ThreadPoolExecutor(len(verbs)) as pool:
            done = list(pool.map(lambda verb: lab.driver("h1", verb, actions[verb], DOCUMENT), verbs))
        assert [one.stderr for one in done] == [""] * len(verbs), verbs
        assert _state(lab) in ends, verbs


def _start(host: Host, verb: str, arguments: str, document: bytes) -> Process:
    """Start an action, as root, and leave it running."""
    name = f"/tmp/{promise.vm_id(document)}.b64"
    host.run(["sh", "-c", 'cat >"$0"', name], stdin=base64.b64encode(document))
    return host.spawn(["sh", "-c", f"exec aws-ovs {verb} {arguments} <{name}"])


def _until(passed: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not passed():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def _until_waiting(host: Host, number: int) -> None:
    _until(lambda: int(host.run(["sh", "-c", _WAITING]).stdout) == number, f"{number} wait for the lock")


@contextmanager
def _somebody_holds(host: Host) -> Iterator[None]:
    holder = host.spawn(_HOLD)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    try:
        yield
    finally:
        holder.kill()
        holder.wait()


def test_who_comes_first_is_served_first_and_who_is_killed_delays_nobody(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    order = [7, 3, 9, 1, 8, 2]
    documents = {vm_id: _deploy(vm_id).steps[-1].xml or b"" for vm_id in order}
    waiting: dict[int, Process] = {}
    for vm_id in order:
        lab.play(_deploy(vm_id)._replace(steps=_deploy(vm_id).steps[:2]), follow=False)
    with _somebody_holds(host):
        for number, vm_id in enumerate(order, start=1):
            waiting[vm_id] = _start(host, "post", f"one-{vm_id} h1", documents[vm_id])
            _until_waiting(host, number)
        waiting[9].kill()
    done = {vm_id: process.wait(60) for vm_id, process in waiting.items()}
    assert [vm_id for vm_id, code in done.items() if code] == [9]
    served = host.run(["ls", "-tr", "/run/aws_ovs/vms"]).stdout.split()
    assert served == [f"{vm_id}.json" for vm_id in order if vm_id != 9]


def test_one_that_hangs_is_named_by_one_that_gives_up(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    before = host.run(["cat", CONFIG]).stdout
    vswitchd = host.ovs_pids()["ovs-vswitchd"]
    host.run(["kill", "-STOP", str(vswitchd)])
    try:
        host.run(["sh", "-c", 'cat >"$0"', CONFIG], stdin=f"{before}lock_timeout: 1\n")
        hanging = _start(host, "pre", "", DOCUMENT)
        _until(lambda: "pre of VM 1 " in host.run(["cat", LOCK]).stdout, "the first has the lock")
        pid = host.run(["pgrep", "-x", "aws-ovs"]).stdout.strip()
        other = promise.other_vm(DOCUMENT, 0, 2, "192.168.0.60")
        done = lab.driver("h1", "clean", ("h1",), other)
        assert hanging.poll() is None
        sentence = (
            rf"clean: busy: pre of VM 1 \(pid {pid}\) has held {LOCK} for \d+ s, .* for 1 s; look at that process"
        )
        assert done.returncode == 1
        assert re.fullmatch(rf"ERROR: {sentence}\n{sentence}\n", done.stderr), done.stderr
        hanging.kill()
        hanging.wait()
    finally:
        host.run(["kill", "-CONT", str(vswitchd)])
        host.run(["sh", "-c", 'cat >"$0"', CONFIG], stdin=before)
    assert lab.driver("h1", "clean", ("h1",), other).returncode == 0


# Runs an action and kills it after so many seconds; prints how many it took.
_KILL = """
import subprocess, sys, time
process = subprocess.Popen(["aws-ovs", *sys.argv[2:]], stdin=sys.stdin)
began = time.monotonic()
try:
    process.wait(float(sys.argv[1]))
except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
print(time.monotonic() - began)
"""


@pytest.mark.parametrize("verb", ["post", "clean"])
def test_an_action_killed_at_any_instant_is_completed_by_the_next(fresh_lab: Lab, sampler: Sampler, verb: str) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    lab.play(DEPLOY, follow=False)
    arguments = {"post": ["one-1", "h1"], "clean": ["h1"]}
    opposite = {"post": "clean", "clean": "post"}[verb]

    def act(verb: str, seconds: float = 60.0) -> float:
        sent = base64.b64encode(DOCUMENT)
        done = host.run(["/usr/bin/python3", "-c", _KILL, str(seconds), verb, *arguments[verb]], stdin=sent)
        assert seconds < 60 or not done.stderr, done.stderr
        return float(done.stdout)

    act(opposite)
    took = act(verb)
    expected = _state(lab)
    for part in sampler.of(range(1, 25)):
        act(opposite)
        act(verb, took * part / 24)
        act(verb)
        host.run(["sh", "-c", "rm -f /run/aws_ovs/vms/*.tmp"])
        assert _state(lab) == expected, f"killed after {part}/24 of its time"
