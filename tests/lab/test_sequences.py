"""The same random sequences of operations in the lab: after each, `aws-ovs check` finds nothing on any host."""

from __future__ import annotations

import base64
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sequences import Cloud, Operation
from tests.world.hosts.host import Host
from tests.world.lab import DriverError, Lab
from tests.world.recording import Recording, Step

LENGTH = 25
BFD_S = 30


def play(lab: Lab, *steps: Step) -> None:
    lab.play(Recording("sequence", steps), follow=False)


def interrupt(host: Host, step: Step, point: int) -> None:
    """Call the driver and kill it soon after it has loaded its modules; it may have ended by itself."""
    began = time.monotonic()
    host.run(["/usr/sbin/aws-ovs", "--version"])
    seconds = (time.monotonic() - began) * (1 + point / 2)
    argv = ["timeout", "-s", "KILL", f"{seconds:.3f}", "/usr/sbin/aws-ovs", step.action, *step.argv]
    host.run(argv, stdin=base64.b64encode(step.xml or b""), check=False)


def carry_out(lab: Lab, cloud: Cloud, operation: Operation) -> None:
    """Carry out an operation, which may be interrupted: then what OpenNebula does after a failure follows."""
    calls = 0
    for index, step in enumerate(operation.steps):
        driven = step.runs_on is not None
        if driven and operation.interrupted and operation.interrupted[0] == calls:
            assert step.runs_on
            interrupt(lab.hosts[step.runs_on], step, operation.interrupted[1])
            recover, machine = operation.after_failure(index)
            cloud.done(machine)
            attached = any(one.action == "vmm-attach_nic" for one in operation.steps[:index])
            play(lab, *(one for one in recover if attached or one.action != "vmm-detach_nic"))
            if machine.host:
                play(lab, cloud.update(machine.vm_id))
            return
        calls += driven
        play(lab, step)
    cloud.done(operation.machine)


def differences(lab: Lab) -> dict[str, str]:
    """What `check` says on the hosts where it does not say that all is well."""

    def check(host: Host) -> str:
        done = host.run(["aws-ovs", "check"], check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        found = dict(zip(lab.hosts, pool.map(check, lab.hosts.values()), strict=True))
    return {name: text for name, text in found.items() if text}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_check_is_clean_after_every_operation(fresh_lab: Lab, seed: int) -> None:
    deadline = time.monotonic() + BFD_S
    while (settling := differences(fresh_lab)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert settling == {}
    chance, cloud = random.Random(seed), Cloud()
    done = 0
    while done < LENGTH:
        operation = cloud.operation(chance.getrandbits(32))
        if operation is None:
            continue
        done += 1
        vm = operation.machine
        print(
            f"seed {seed}, operation {done}: {operation.name} of VM {vm.vm_id} {vm.host} {operation.interrupted or ''}"
        )
        try:
            carry_out(fresh_lab, cloud, operation)
        except DriverError as bad:
            pytest.fail(f"{operation.name}: {bad}")
        assert differences(fresh_lab) == {}, operation.name
