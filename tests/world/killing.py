"""Ending a process at one of its calls."""

from __future__ import annotations

import os
import select
import signal

_SECONDS = 10.0


def end(pid: int) -> None:
    """End a process, and return when it is gone: it must not run on while its call is dealt with."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], _SECONDS)
    finally:
        os.close(process)
