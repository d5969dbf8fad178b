"""Lock read, plan and apply: one lock for a node, one for a front-end.

Whoever has to wait does so in the kernel's queue, first come, first served. The kernel also takes out of it, and frees of
the lock, a process that dies, however it dies.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from .errors import AwsOvsError
from .names import RUN

PATH = f"{RUN}/lock"


@contextlib.contextmanager
def held(what: str, timeout: float, path: str = PATH) -> Iterator[None]:
    """Hold a lock, by default the node's; who waits in vain for `timeout` seconds is told `what` holds it.

    Raises:
        AwsOvsError: its turn did not come in time.
    """
    with _opened(path) as descriptor:
        if not _free(descriptor) and not _wait(descriptor, timeout):
            holder, since = _holder(descriptor)
            sentence = f"busy: {holder} has held {path} for {since:.0f} s, and this has waited for {timeout:.0f} s"
            raise AwsOvsError(sentence, "look at that process")
        _sign(descriptor, what)
        yield


@contextlib.contextmanager
def tried(what: str, path: str) -> Iterator[bool]:
    """Hold a lock if it is free; yield whether it was."""
    with _opened(path) as descriptor:
        free = _free(descriptor)
        if free:
            _sign(descriptor, what)
        yield free


def holder(path: str) -> tuple[str, float] | None:
    """Say who has a lock, and for how many seconds; None when nobody has."""
    with _opened(path) as descriptor:
        return None if _free(descriptor) else _holder(descriptor)


def _holder(descriptor: int) -> tuple[str, float]:
    name = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "an unknown process"
    return name, time.time() - os.fstat(descriptor).st_mtime


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)  # whoever can read it can take it
        # A tool that outlives its killed starter is still at work, and so has the lock.
        os.set_inheritable(descriptor, True)
    except OSError as error:
        what = f"{path} cannot be opened ({error.strerror})"
        raise AwsOvsError(what, "run this as its owner: oneadmin on a front-end, root on a node") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _free(descriptor: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(descriptor: int, timeout: float) -> bool:
    """Take the lock when it is our turn. A thread waits, because flock itself knows no timeout."""
    own = os.dup(descriptor)  # the thread's: if its turn comes when nobody waits for it any more, closing it ends that
    turn = _thread.allocate_lock()
    turn.acquire()

    def queue() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
            turn.release()
        finally:
            os.close(own)

    _thread.start_new_thread(queue, ())
    return turn.acquire(timeout=timeout)


def _sign(descriptor: int, what: str) -> None:
    """Say who has the lock; the file's time says since when."""
    with contextlib.suppress(OSError):  # a full disk, a limit: it is for people only
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} (pid {os.getpid()})\n".encode(), 0)
