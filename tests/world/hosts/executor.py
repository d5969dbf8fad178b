"""How to run commands on a machine of the lab, whatever it is made of; tests know no other way in."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

PATH_ROOT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATH_USER = "/usr/local/bin:/usr/bin:/bin:/usr/games"
_HOMES = {"root": "/root", "oneadmin": "/var/lib/one"}


class CommandError(Exception):
    """A command on a machine failed; the message holds all that is known."""


Process = subprocess.Popen[str]
"""A process on a machine. Its standard output and error are pipes; signals go to it and to those that it started."""


class Executor(ABC):
    """A machine; a context manager, which ends it.

    Args:
        name: its host name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End all its processes; its file systems and network devices go with them."""

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: bytes | str | None = None,
        timeout: float = 60,
        check: bool = True,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Args:
            argv: the command; no shell is involved.
            user: in whose name: `root` or `oneadmin`, with the environment that sshd gives.
            stdin: what it reads; nothing by default.
            timeout: seconds, after which it is killed.
            check: whether an exit code other than 0 is an error.
            cwd: the working directory; by default / for root, else the user's home.
            env: environment variables in addition.

        Raises:
            CommandError: it failed (with `check`), or took too long.
        """
        text = stdin.decode("utf-8", "surrogateescape") if isinstance(stdin, bytes) else stdin
        process = self._start(argv, user, subprocess.DEVNULL if text is None else subprocess.PIPE, cwd, env)
        try:
            out, err = process.communicate(text, timeout * self.slowness)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise CommandError(self._story(argv, f"still ran after {timeout} s", out, err)) from None
        except BaseException:
            process.kill()
            raise
        if check and process.returncode:
            raise CommandError(self._story(argv, f"exit code {process.returncode}", out, err))
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def spawn(self, argv: Sequence[str], *, user: str = "root", cwd: str | None = None) -> Process:
        """Start a command and leave it running; the caller ends it, or the machine's end does."""
        return self._start(argv, user, subprocess.DEVNULL, cwd, None)

    def connect(self, argv: Sequence[str], connection: int) -> Process:
        """Start a command as root whose input and output are a file descriptor of ours, such as a socket."""
        return self._start(argv, "root", connection, None, None, stdout=connection)

    slowness = 1.0
    """How much longer than on this machine a command may take."""

    @abstractmethod
    def _start(
        self,
        argv: Sequence[str],
        user: str,
        stdin: int,
        cwd: str | None,
        env: Mapping[str, str] | None,
        stdout: int = subprocess.PIPE,
    ) -> Process:
        """Start a command; the arguments are those of `run`, the files those of `Popen`."""

    def _story(self, argv: Sequence[str], what: str, out: str, err: str) -> str:
        return f"{self.name}: {' '.join(argv)}: {what}\nstdout: {(out or '').strip()}\nstderr: {(err or '').strip()}"


def environment(user: str, env: Mapping[str, str] | None) -> dict[str, str]:
    """What sshd gives a user's command, with more variables."""
    path = PATH_ROOT if user == "root" else _PATH_USER
    given = {"PATH": path, "HOME": _HOMES[user], "USER": user, "LOGNAME": user, "SHELL": "/bin/bash"}
    return {**given, "LANG": "C.UTF-8", **(env or {})}


def directory(user: str, cwd: str | None) -> str:
    """Where a user's command starts."""
    return cwd or ("/" if user == "root" else _HOMES[user])
