"""Remember what EC2 was asked for when a pool was filled: addresses that it refused, and those that were meant for Elastic IPs.

An address is on an ENI before a range has it, for a range can be leased at once. Should the run be killed in between, the next
one finds here which Elastic IP the address was taken for. The file is written with the front-end's lock held, and may be
deleted: an address that was refused is tried again then, and one that no range has stays where it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Mapping

from .. import files

_SECONDS = 24 * 3600


class Attempts:
    """Keep the file in a state directory."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/attempts.json"
        self._refused: dict[str, float] = {}
        self._meant: dict[str, tuple[str, float]] = {}
        try:
            with open(self._path, encoding="utf-8") as file:
                stored = json.load(file)
            self._refused = {str(key): float(until) for key, until in stored["refused"].items()}
            self._meant = {str(key): (str(address), float(until)) for key, (address, until) in stored["meant"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass

    def refused(self, address: str) -> bool:
        """Say whether EC2 has refused an address of late."""
        return self._refused.get(address, 0) > time.time()

    def meant(self, allocation_id: str) -> str:
        """Name the private address that was last meant for an Elastic IP, and may be on an ENI; empty when none was."""
        address, until = self._meant.get(allocation_id, ("", 0.0))
        return address if until > time.time() else ""

    def expected(self) -> set[str]:
        """List the private addresses that were meant for Elastic IPs, and may be on an ENI though no range has them yet."""
        return {address for address, until in self._meant.values() if until > time.time()}

    def refuse(self, addresses: Iterable[str]) -> None:
        """Remember addresses that EC2 has refused."""
        self._refused |= dict.fromkeys(addresses, time.time() + _SECONDS)
        self._write()

    def mean(self, addresses: Mapping[str, str]) -> None:
        """Remember the private addresses that are about to be taken for Elastic IPs, by allocation id."""
        until = time.time() + _SECONDS
        self._meant |= {allocation_id: (address, until) for allocation_id, address in addresses.items()}
        self._write()

    def reached(self, allocation_ids: Collection[str]) -> None:
        """Forget what was meant for Elastic IPs, because their ranges have it now."""
        if self._meant.keys() & allocation_ids:
            self._meant = {key: value for key, value in self._meant.items() if key not in allocation_ids}
            self._write()

    def _write(self) -> None:
        now = time.time()
        document = {
            "refused": {address: until for address, until in self._refused.items() if until > now},
            "meant": {key: [address, until] for key, (address, until) in self._meant.items() if until > now},
        }
        os.makedirs(os.path.dirname(self._path), mode=0o750, exist_ok=True)
        files.replace(self._path, json.dumps(document))
