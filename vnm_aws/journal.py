"""One line in the journal: `journalctl -t aws_ovs` shows them."""

from __future__ import annotations

import syslog

ERROR, INFO = syslog.LOG_ERR, syslog.LOG_INFO


def log(priority: int, line: str) -> None:
    """Write a line."""
    syslog.openlog("aws_ovs", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(priority, line)
