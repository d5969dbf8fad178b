"""Real VMs: libvirt and qemu instead of the lab's hypervisor, so libvirt plugs the VM in, and it migrates live by itself."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.support import promise
from tests.lab.support.alive import remains, unhealthy
from tests.lab.support.checks import Check, Report
from tests.lab.support.pings import Ping, bound, recovered
from tests.lab.test_operations import last
from tests.world.guests import busybox, document
from tests.world.guests.libvirt import Libvirt
from tests.world.hosts import debian
from tests.world.lab import DriverError, Lab
from tests.world.recording import RECORDINGS, Recording, load
from tests.world.vpc.vpc import CLIENT

Hypervisors = dict[str, Libvirt]

DOCUMENT = last("deploy")
DOMAIN = RECORDINGS / "deploy" / "02-vmm-deploy.domain.xml"
VM = document.parse(DOCUMENT)
(ELASTIC,) = VM.elastic
pytestmark = pytest.mark.only_on("userspace", reason="a machine within the emulated machine would be too slow")
PUBLIC = ELASTIC.public_ip or ""
SPACING_S = 0.1
PATIENCE_S = 30


@pytest.fixture
def libvirt(fresh_lab: Lab) -> Iterator[Hypervisors]:
    """libvirt on h1 and h2."""
    kernel = debian.kernel()
    initramfs = busybox.initramfs(kernel)
    h1, h2 = (Libvirt(fresh_lab.hosts[name], kernel, initramfs) for name in ("h1", "h2"))
    with h1, h2:
        h1.ready()
        h2.ready()
        yield {"h1": h1, "h2": h2}


def _play(lab: Lab, hypervisors: Hypervisors, recording: Recording) -> None:
    """Carry out the steps of a recording."""
    for step in recording.steps:
        if step.runs_on:
            done = lab.driver(step.runs_on, step.action, step.argv, step.xml or b"")
            if done.returncode:
                raise DriverError(step, done)
        elif step.action == "vmm-deploy":
            hypervisors[step.argv[-1]].create(DOMAIN.read_bytes(), busybox.command_line(VM.cards))
        elif step.action == "vmm-migrate":
            name, destination, source = step.argv[:3]
            hypervisors[source].migrate(name, hypervisors[destination])
        else:
            name, host = step.argv[:2]
            hypervisors[host].destroy(name)


def _eventually(what: str, true: Callable[[], bool], story: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s; the VM's console:\n{story()}"
        time.sleep(0.05)


def _fetch(page: str) -> list[str]:
    return ["curl", "-sS", "--interface", CLIENT, f"http://{PUBLIC}/cgi-bin/{page}"]


@contextmanager
def _spawned(lab: Lab, argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command on the Internet, which ends with the block."""
    process = lab.vpc.internet_spawn(argv)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _whole(text: str) -> bool:
    lines = text.splitlines()
    return lines == [*map(str, range(1, len(lines))), busybox.END]


def test_a_real_vm_migrates_live_during_a_download_from_it(
    fresh_lab: Lab, libvirt: Hypervisors, tmp_path: Path, report: Report
) -> None:
    lab, file = fresh_lab, tmp_path / "numbers"
    started = time.monotonic()
    _play(lab, libvirt, load("deploy"))
    console = libvirt["h1"].console
    _eventually("boot", lambda: busybox.UP in console(), console)
    booted = time.monotonic() - started
    lab.ec2.give_eip(lab.ec2.allocate_eip(PUBLIC), lab.hosts["h1"].instance.eni_id, ELASTIC.private_ip)
    lab.vpc.settle()
    with _spawned(lab, ["ping", "-n", "-D", "-i", str(SPACING_S), "-I", CLIENT, PUBLIC]) as pinging:
        pings = Ping(pinging)
        recovered({"Internet": pings})
        with _spawned(lab, [*_fetch("numbers"), "-o", str(file)]) as download:
            _eventually("the download's beginning", lambda: file.exists() and file.stat().st_size > 0, console)
            started = time.monotonic()
            _play(lab, libvirt, load("live-migrate"))
            migrated = time.monotonic() - started
            lab.ec2.move_private_ip(ELASTIC.private_ip, lab.hosts["h2"].instance.eni_id)
            lab.vpc.settle()
            recovered({"Internet": pings})
            lost, size = pings.end(), file.stat().st_size
            _eventually("the download's continuation", lambda: file.stat().st_size > size, libvirt["h2"].console)
            assert download.poll() is None, f"the download ended too early: {download.communicate()}"
            answer = lab.vpc.internet([*_fetch("enough"), "--max-time", "20"], check=False)
            errors = download.communicate(timeout=PATIENCE_S)[1]
    text = file.read_text(encoding="ascii")
    places = {name: one.running() for name, one in libvirt.items()}
    moved = places == {"h1": [], "h2": ["one-1"]}
    arrived = f"{len(text)} bytes, {size} of them by the end of the migration {errors}"
    found = [
        Check("VM 1 runs on h2 only", moved, f"booted in {booted:.1f} s, migrated in {migrated:.1f} s"),
        Check(f"pings Internet → {PUBLIC}", lost.outage <= bound(lab), str(lost)),
        Check("a download from it is whole", _whole(text) and not errors, arrived.strip()),
        Check(f"a new connection to {PUBLIC}", answer.stdout == busybox.AGREED, answer.stdout + answer.stderr),
    ]
    report(found)
    assert [str(check) for check in found if not check.passed] == []
    assert remains(lab, DOCUMENT, ["h1", "h3"]) + unhealthy(lab) == []
    _play(lab, libvirt, promise.terminate(DOCUMENT, "h2"))
    assert remains(lab, DOCUMENT) + unhealthy(lab) == []
