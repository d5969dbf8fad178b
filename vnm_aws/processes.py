"""Run the node's tools.

`subprocess` would add 7 ms to the start of every driver call; a tool here needs only arguments, a text on stdin
and its stderr, which two anonymous files serve without any pipe that could fill up.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
"""All that a tool gets."""


class Tool(NamedTuple):
    """Name a tool that has been started."""

    name: str
    pid: int
    errors: int


def since_boot() -> int:
    """Tell the time in seconds since the node's boot, in which /proc tells when processes were started."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))


def start(argv: Sequence[str], stdin: str = "") -> Tool:
    """Start `argv` with `stdin` as its standard input; its standard output is thrown away.

    Raises:
        OSError: it cannot be started.
    """
    source = os.memfd_create("stdin")
    errors = os.memfd_create("stderr")
    try:
        with open(source, "wb", closefd=False) as file:
            file.write(stdin.encode())
        os.lseek(source, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, source, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, errors, 2),
        ]
        pid = os.posix_spawn(_find(argv[0]), list(argv), ENVIRONMENT, file_actions=actions)
    except OSError:
        os.close(errors)
        raise
    finally:
        os.close(source)
    return Tool(argv[0], pid, errors)


def _find(name: str) -> str:
    """Find a tool; `posix_spawnp` would look in the PATH of whoever has started us."""
    for directory in ENVIRONMENT["PATH"].split(":"):
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def finish(tool: Tool) -> str | None:
    """Wait for a tool to end: None when it succeeds, else the first line that it wrote on stderr."""
    _, status = os.waitpid(tool.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os.lseek(tool.errors, 0, os.SEEK_SET)
    with open(tool.errors, encoding="utf-8", errors="replace") as file:
        text = file.read(4096).strip()
    if code == 0:
        return None
    return text.splitlines()[0] if text else f"exit code {code}"
