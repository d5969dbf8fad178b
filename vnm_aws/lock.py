"""One lock a node around read, plan and apply."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from ..errors import AwsOvsError

RUN = "/run/aws_ovs"
PATH = f"{RUN}/lock"


@contextlib.contextmanager
def held(what: str, timeout: float, path: str = PATH) -> Iterator[None]:
    """Hold the node's lock; the kernel releases it when the process dies, however it dies.

    Args:
        what: who holds it, as the error of one that waits in vain shows it.
        timeout: seconds to wait.
        path: the lock file.

    Raises:
        AwsOvsError: another action held the lock all the time.
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "an unknown process"
                    raise AwsOvsError(
                        f"the node is busy: {holder} has held {path} for over {timeout:.0f} s; look at that process"
                    ) from None
                time.sleep(0.005)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
