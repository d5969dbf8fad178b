"""Give each VM or host, of many, a lock of a kind; what changes both worlds as a whole waits for its turn in `reconcile`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from .. import lock
from .settings import Settings


def lock_of(settings: Settings, kind: str, number: int, what: str) -> AbstractContextManager[None]:
    """Hold the lock of this kind for the thing with an ID; `what` says who waits, or holds it.

    Few files serve all IDs, so that a few wait for each other without need.

    Raises:
        AwsOvsError: whoever holds it does not end.
    """
    return lock.held(what, settings.lock_timeout, f"{settings.state_directory}/{kind}/{number % 256}.lock")
