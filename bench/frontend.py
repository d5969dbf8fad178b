"""The front-end half at scale: what a reconcile costs that finds nothing to do, with more and more Elastic IPs.

Both worlds are stand-ins over HTTP that answer at once, so the time is that of the program and of what it asks for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.frontend.cloud import Cloud
from tests.frontend.scale import settle
from tests.world.ec2.region import Ec2World
from tests.world.oned.server import Oned

HOSTS, VMS = 500, 8000
EIPS = (10, 100, 1000)
ROUNDS = 3
_SUBNET = "10.0.0.0/20"
_SAMPLE_S = 0.02


class Figures(NamedTuple):
    """What a reconcile takes: calls to each world, seconds, and its peak memory."""

    ec2_calls: int
    oned_calls: int
    seconds: float
    memory_mb: float


def _peak_kib(pid: int) -> int:
    """Read VmHWM, the peak of a process's own memory; `ru_maxrss` has that of the process which started it, too."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _once(cloud: Cloud) -> Figures:
    cloud.forget_calls()
    began = time.perf_counter()
    process = cloud.start("reconcile")
    peak_kib = 0
    while process.poll() is None:
        peak_kib = _peak_kib(process.pid) or peak_kib
        time.sleep(_SAMPLE_S)
    seconds = time.perf_counter() - began
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode or printed != "Nothing to change.\n" or cloud.mutating_calls():
        raise subprocess.CalledProcessError(process.returncode, "oneaws reconcile", printed)
    return Figures(len(cloud.ec2.calls()), len(cloud.oned.calls()), seconds, peak_kib / 1024)


def measure() -> dict[int, Figures]:
    """The figures by number of Elastic IPs: of several runs, the one of median time."""
    figures = {}
    with Ec2World(subnet_cidr=_SUBNET) as ec2, Oned() as oned, tempfile.TemporaryDirectory() as directory:
        for eips in EIPS:
            ec2.reset()
            oned.reset()
            place = Path(directory) / str(eips)
            place.mkdir()
            cloud = Cloud(ec2, oned, place)
            os.environ.update(cloud.environment)
            settle(cloud, HOSTS, VMS, eips)
            runs = sorted((_once(cloud) for _ in range(ROUNDS)), key=lambda one: one.seconds)
            figures[eips] = runs[ROUNDS // 2]
    return figures


def report(figures: dict[int, Figures]) -> dict[str, dict[str, float | str]]:
    """The results in the form in which they are kept."""
    results: dict[str, dict[str, float | str]] = {}
    for eips, found in figures.items():
        name = f"reconcile.eips_{eips}"
        results[f"{name}.seconds"] = {"value": round(found.seconds, 2), "unit": "s"}
        results[f"{name}.calls"] = {"value": found.ec2_calls + found.oned_calls, "unit": "calls"}
        results[f"{name}.memory_mb"] = {"value": round(found.memory_mb, 1), "unit": "MB"}
    return results


def show(figures: dict[int, Figures]) -> None:
    """Print a table."""
    print(f"\n{HOSTS} hosts, {VMS} VMs; a reconcile that finds nothing to do:\n")
    print(f"{'EIPS':>5}  {'CALLS TO EC2':>12}  {'CALLS TO ONED':>13}  {'SECONDS':>7}  {'PEAK MEMORY':>11}")
    for eips, found in figures.items():
        memory = f"{found.memory_mb:.0f} MB"
        print(f"{eips:>5}  {found.ec2_calls:>12}  {found.oned_calls:>13}  {found.seconds:>7.2f}  {memory:>11}")


def main() -> dict[str, dict[str, float | str]]:
    """Measure and print; the results."""
    print(f"==> reconciling {HOSTS} hosts, {VMS} VMs and {' '.join(map(str, EIPS))} Elastic IPs", flush=True)
    figures = measure()
    show(figures)
    return report(figures)


if __name__ == "__main__":
    main()
    sys.exit(0)
