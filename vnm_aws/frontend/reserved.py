"""Remember the private addresses that a network which is being created is about to have.

oned stores what `vnet_create` prints only after it has ended, so two pools created at once would choose the same
ones. The file is written and read with the front-end's lock held; what is not in oned after some minutes has failed and
is free again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable

from .. import files

_SECONDS = 600


class Reserved:
    """Keep the file in a state directory."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/reserved.json"
        try:
            with open(self._path, encoding="utf-8") as file:
                self._until: dict[str, float] = dict(json.load(file))
        except (OSError, ValueError, TypeError):
            self._until = {}

    def holds(self, address: str) -> bool:
        """Say whether somebody else is about to use it."""
        return self._until.get(address, 0) > time.time()

    def add(self, addresses: Iterable[str]) -> None:
        """Reserve addresses."""
        now = time.time()
        kept = {key: until for key, until in self._until.items() if until > now}
        self._until = {**kept, **dict.fromkeys(addresses, now + _SECONDS)}
        os.makedirs(os.path.dirname(self._path), mode=0o750, exist_ok=True)
        files.replace(self._path, json.dumps(self._until))
