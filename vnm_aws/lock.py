"""A lock around read, plan and apply: one for a node, one for a front-end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from .errors import AwsOvsError

RUN = "/run/aws_ovs"
PATH = f"{RUN}/lock"


@contextlib.contextmanager
def held(what: str, timeout: float, path: str = PATH) -> Iterator[None]:
    """Hold a lock, by default the node's; the kernel releases it when the process dies, however it dies.

    Args:
        what: who holds it, as the error of one that waits in vain shows it.
        timeout: seconds to wait.
        path: the lock file.

    Raises:
        AwsOvsError: another action held the lock all the time.
    """
    with _opened(path) as descriptor:
        deadline = time.monotonic() + timeout
        while not _take(descriptor, what):
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "an unknown process"
                raise AwsOvsError(f"busy: {holder} has held {path} for over {timeout:.0f} s; look at that process")
            time.sleep(0.005)
        yield


@contextlib.contextmanager
def tried(what: str, path: str) -> Iterator[bool]:
    """Hold a lock if it is free; False when it is not."""
    with _opened(path) as descriptor:
        yield _take(descriptor, what)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, what: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{what} (pid {os.getpid()})\n".encode(), 0)
    return True
