"""Live migration: connections survive it in all directions, and the packets lost are counted."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.alive import Neighbours, live_migration, remains, unhealthy
from tests.lab.support.checks import Check, Report
from tests.lab.support.pings import A_EIP, PUBLIC, A, Ping, bound, pinging, recovered
from tests.lab.test_operations import last
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import CLIENT, SERVER

DOCUMENT = last("deploy")
PORT = "7000"
STREAM = ["/usr/bin/python3", "-c", (Path(__file__).parent / "support" / "stream.py").read_text(encoding="utf-8")]


Running = dict[str, "subprocess.Popen[str]"]


def _check(name: str, ping: Ping, most: float) -> Check:
    seen = ping.end()
    return Check(name, seen.outage <= most, str(seen))


def streams(lab: Lab) -> Running:
    """TCP connections in all directions, by what they are; data flows in each."""
    started: Running = {}
    for direction in ("out", "in", "both"):
        for name, process in (
            ("Internet → VM", lab.vpc.internet_spawn([*STREAM, "connect", CLIENT, PUBLIC, PORT, direction])),
            ("VM → Internet", lab.guest(1).spawn([*STREAM, "connect", A_EIP, SERVER, PORT, direction])),
            ("VM on h3 → VM", lab.guest(3).spawn([*STREAM, "connect", "192.168.0.103", A, PORT, direction])),
            ("VM → VM on h1", lab.guest(1).spawn([*STREAM, "connect", A, "192.168.0.102", PORT, direction])),
        ):
            started[f"TCP {name}, data {direction}"] = process
    for name, process in started.items():
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n", f"{name}: {process.stderr.read()}"
    return started


def ended(running: Running) -> Iterator[Check]:
    """End the connections; whether each chunk has arrived."""
    for process in running.values():
        process.terminate()
    for name, process in running.items():
        out, error = process.communicate(timeout=60)
        result = json.loads(out or "{}")
        seen = f"{result['sent'] + result['received']} chunks, silent for up to {result['silence']} s" if out else error
        yield Check(name, bool(result.get("whole")), seen.strip()[-300:])


@pytest.mark.parametrize("late", [0, 1, 2])
def test_connections_in_all_directions_survive(fresh_lab: Lab, report: Report, late: int) -> None:
    """The VM goes to h2; AWS moves its private address `late` seconds after it was told to."""
    lab = fresh_lab
    Neighbours(lab)
    lab.play(load("deploy"))
    with checks.Web() as servers:
        for vm_id in (1, 2):
            servers.serve(lab.guest(vm_id).spawn([*STREAM, "listen", PORT]))
        servers.serve(lab.vpc.internet_spawn([*STREAM, "listen", PORT]))
        running, pings = streams(lab), pinging(lab)
        lab.vpc.set_delay(late)
        started = time.monotonic()
        lab.play(load("live-migrate"))
        took = time.monotonic() - started
        recovered(pings)
        pinged = [_check(f"pings {name}", ping, bound(lab) + late) for name, ping in pings.items()]
        lab.vpc.set_delay(0)
        found = list(ended(running))
    arrived = lab.guest(1).host is lab.hosts["h2"]
    found += [*pinged, Check("the VM is on h2", arrived, f"the migration took {took:.1f} s, the late address included")]
    report(found)
    assert [str(check) for check in found if not check.passed] == []
    assert remains(lab, DOCUMENT, ["h1", "h3"]) + unhealthy(lab) == []


def test_a_clean_that_comes_late_and_twice_disturbs_nothing(fresh_lab: Lab, report: Report) -> None:
    """`post` at the destination is over when the source gets its `clean`."""
    lab = fresh_lab
    neighbours = Neighbours(lab)
    lab.play(load("deploy"))
    recording = load("live-migrate")
    pre, migrate, clean, post = recording.steps
    lab.play(recording._replace(steps=(pre, migrate, post)))
    time.sleep(2)
    # Those on the source itself wait for its `clean`: until then it takes the VM for its own.
    pings = pinging(lab, without="h1")
    time.sleep(0.5)
    for _ in range(2):
        lab.play(recording._replace(steps=(clean,)), follow=False)
        time.sleep(3)  # a peer that was led astray stays so until the VM happens to send something
    found = [_check(f"pings {name}", ping, 2) for name, ping in pings.items()]
    report(found)
    assert [str(check) for check in found if not check.passed] == []
    assert neighbours.alive(DOCUMENT) == []


def test_there_and_back_again(fresh_lab: Lab, report: Report) -> None:
    """Every host that the VM leaves forgets it, and every peer finds it again."""
    lab = fresh_lab
    neighbours = Neighbours(lab)
    lab.play(load("deploy"))
    pings = pinging(lab)
    for source, destination in (("h1", "h2"), ("h2", "h1"), ("h1", "h3"), ("h3", "h2")):
        lab.play(live_migration(DOCUMENT, source, destination))
    recovered(pings)
    found = [_check(f"pings {name}", ping, bound(lab)) for name, ping in pings.items()]
    report(found)
    assert [str(check) for check in found if not check.passed] == []
    assert neighbours.alive(DOCUMENT) == []
    lab.play(promise.terminate(DOCUMENT, "h2"))
    assert remains(lab, DOCUMENT) == []
