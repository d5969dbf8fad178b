"""What is said on a machine that cannot have the lab's hosts, and that all else is run there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.world.hosts import datapath

from .support.machine import REPOSITORY

pytestmark = pytest.mark.only_on("userspace", reason="it needs no hosts")


def _without_tun(*module: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module where there is no /dev/net/tun."""
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    command = ["unshare", "--mount", "sh", "-ec", hide, "sh", sys.executable, "-m", *module]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_without_tun_tests_of_the_lab_say_so_and_others_run() -> None:
    done = _without_tun("pytest", "-p", "no:cacheprovider", "tests/lab/test_smoke.py", "tests/unit/test_config.py")
    assert done.returncode == 0, done.stdout
    assert "NOT RUN: /dev/net/tun is not there, which every lab needs; load the kernel module tun" in done.stdout
    assert " passed" in done.stdout
    assert " 3 skipped" in done.stdout


def test_without_tun_the_demo_says_so() -> None:
    done = _without_tun("tests.demo")
    assert done.returncode == 2
    assert done.stderr.startswith("demo: /dev/net/tun is not there")
    assert len(done.stderr.splitlines()) == 1


def test_too_little_memory_is_said_with_both_numbers() -> None:
    datapath.require(datapath.USERSPACE, 10_000)
    with pytest.raises(
        datapath.UnavailableError, match=r"needs \d{7} MB of free memory for 10000 hosts, .* has \d+ MB"
    ):
        datapath.require(datapath.KERNEL, 10_000)


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(datapath.UnavailableError, match="DATAPATH is 'kernal'; it must be userspace or kernel"):
        datapath.chosen("kernal")
