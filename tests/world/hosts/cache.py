"""What takes long to make and is kept in the user's cache directory: each thing is a directory, complete or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_LOCK = ".lock"


def kept(kind: str, key: str, make: Callable[[Path], None], keep: int) -> Path:
    """The directory of a thing; made now if it is not there. Who wants one of a kind that is being made waits.

    Args:
        kind: what kind of thing it is.
        key: what tells it from others of its kind.
        make: fills an empty directory with it.
        keep: how many of its kind to keep, those that were used last.
    """
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aws_ovs" / "lab" / kind
    place.mkdir(parents=True, exist_ok=True)
    there = place / key
    with open(place / _LOCK, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not there.exists():
            with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as unfinished:
                complete = Path(unfinished, key)
                complete.mkdir()
                make(complete)
                complete.rename(there)
        there.touch()
        others = sorted((path for path in place.iterdir() if path.name != _LOCK), key=lambda path: path.stat().st_mtime)
        for old in others[:-keep]:  # what those left who were killed is among them
            shutil.rmtree(old, ignore_errors=True)
    return there
