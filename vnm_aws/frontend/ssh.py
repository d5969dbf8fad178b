"""Run a command on hosts as oneadmin, by ssh, on several at once."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .deadline import OverError
from .objects import Host
from .world import World


class Answer(NamedTuple):
    """What came back from a host.

    Attributes:
        output: what the command printed; nothing when the host did not answer.
        reason: why the command did not succeed, in one line; empty when it did.
    """

    output: str
    reason: str


def run(world: World, hosts: Sequence[Host], command: str, text: str | Sequence[str] = "") -> list[Answer]:
    """Run a command on hosts, with a text on its stdin, or one for each host; the answers come in the order of the hosts."""
    texts = [text] * len(hosts) if isinstance(text, str) else text
    with ThreadPoolExecutor(world.settings.ssh_parallel) as pool:
        return list(pool.map(lambda host, own: _run(world, host.name, command, own), hosts, texts))


def _run(world: World, name: str, command: str, text: str) -> Answer:
    try:
        world.deadline.check()
    except OverError:
        return Answer("", "not called, for the time of the run is over")
    timeout = math.ceil(world.deadline.left(world.settings.ssh_timeout))
    argv = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={timeout}", "--", name, command]
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return Answer("", f"did not answer within {timeout} s")
    except OSError as error:
        return Answer("", f"ssh cannot be run ({error.strerror})")
    if done.returncode == 0:
        return Answer(done.stdout, "")
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"ssh ended with code {done.returncode}"]
    return Answer(done.stdout, lines[-1].strip()[:200])
