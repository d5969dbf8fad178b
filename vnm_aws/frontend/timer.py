"""Say whether something runs the reconciler again and again: systemd's timer, or whatever else is there."""

from __future__ import annotations

import os
import subprocess
import time

from .. import files
from ..errors import AwsOvsError
from .world import World

_UNIT = "aws_ovs-reconcile"
_LATE_S = 1800
"""Seconds after which a run must have ended: the timer starts one two minutes after the one before, which may take 15."""


def note(world: World) -> None:
    """Keep in mind that a run of the reconciler has ended now."""
    files.replace(_path(world), f"{int(time.time())}\n")


def _path(world: World) -> str:
    return f"{world.settings.state_directory}/reconciled"


def look(world: World) -> str:
    """Look at the timer, and when a run ended last.

    Raises:
        AwsOvsError: no run is to come, or none has come for too long.
    """
    state = _state()
    if state not in ("", "active"):
        what = f"{_UNIT}.timer is {state}, so nothing runs 'oneaws reconcile'"
        raise AwsOvsError(what, f"run 'systemctl enable --now {_UNIT}.timer' as root")
    runs = f"{_UNIT}.timer is active" if state else "systemd does not run here"
    if not world.oned.leads():
        return f"{runs}; another front-end leads"
    see = f"see 'systemctl status {_UNIT}.service'" if state else "let cron or the like run 'oneaws reconcile'"
    try:
        ago = time.time() - os.stat(_path(world)).st_mtime
    except OSError:
        raise AwsOvsError(f"{runs}, but no 'oneaws reconcile' has ended yet", see) from None
    if ago > _LATE_S:
        raise AwsOvsError(f"{runs}, but the last 'oneaws reconcile' ended {ago // 60:.0f} minutes ago", see)
    return f"{runs}; the last 'oneaws reconcile' ended {ago:.0f} s ago"


def _state() -> str:
    """Ask systemd for the state of the timer; empty where it does not run."""
    try:
        command = ["systemctl", "show", "--property=ActiveState", "--value", f"{_UNIT}.timer"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
