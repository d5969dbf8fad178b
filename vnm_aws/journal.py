"""What goes to the journal, a line each: `journalctl -t aws_ovs` shows them."""

from __future__ import annotations

import os
import syslog
from typing import IO

from .errors import AwsOvsError
from .table import printable

ERROR, WARNING, INFO = syslog.LOG_ERR, syslog.LOG_WARNING, syslog.LOG_INFO
_LONGEST = 8192
"""Characters of a line; one that is too long for a datagram would be lost."""


def log(priority: int, line: str) -> None:
    """Write a line; what is in it can neither begin another one nor keep it from being written."""
    syslog.openlog("aws_ovs", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(priority, printable(line[:_LONGEST]))


def is_fed_by(stream: IO[str]) -> bool:
    """Say whether systemd leads what goes to a stream into the journal: a service's output, which JOURNAL_STREAM names."""
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"


def explain(error: Exception, doing: str) -> str:
    """Say in one sentence what went wrong; when nobody has foreseen it, the journal gets the traceback.

    Each line of the traceback begins with what the program was `doing`. The sentence, for the user, has no line breaks and
    is printable.
    """
    sentence = str(error)
    if not isinstance(error, AwsOvsError):
        import traceback  # costs 4 ms, and a VM's start needs none

        for line in "".join(traceback.format_exception(error)).splitlines():
            log(ERROR, f"{doing}: {line}")
        sentence = f"internal error, {type(error).__name__}: {error}; report it with 'journalctl -t aws_ovs'"
    return printable(" ".join(sentence.split()))
