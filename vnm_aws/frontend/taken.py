"""Remember which private addresses this front-end has put onto ENIs, where they were on none before.

Only these may be given back: nothing in EC2 tells who has assigned an address. A front-end that has lost the file, or leads
since another one has failed, knows of none, and reports them instead.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from .. import files, lock


class Taken:
    """Keep the file in a state directory.

    Args:
        directory: where it is.
        patience: seconds to wait for another process that writes it.
    """

    def __init__(self, directory: str, patience: float) -> None:
        self._directory, self._patience = directory, patience
        self._path = f"{directory}/addresses.json"

    def enis(self) -> dict[str, str]:
        """Read the addresses, and on which ENI each was put last."""
        try:
            with open(self._path, encoding="utf-8") as file:
                return {str(address): str(eni_id) for address, eni_id in json.load(file).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def note(self, eni_id: str, new: Collection[str], moved: Iterable[str]) -> None:
        """Note addresses that were put onto an ENI: new ones, and those of which it was known already."""
        known = self.enis()
        if new or any(address in known for address in moved):
            self._change({**dict.fromkeys(moved, eni_id), **dict.fromkeys(new, eni_id)}, new)

    def forget(self, addresses: Collection[str]) -> None:
        """Forget addresses that are on no ENI any more, or on one of somebody else."""
        if any(address in self.enis() for address in addresses):
            self._change(dict.fromkeys(addresses, ""), ())

    def _change(self, wanted: dict[str, str], new: Collection[str]) -> None:
        with lock.held("noting addresses", self._patience, f"{self._directory}/addresses.lock"):
            known = self.enis()
            known |= {address: eni_id for address, eni_id in wanted.items() if address in known or address in new}
            kept = {address: eni_id for address, eni_id in sorted(known.items()) if eni_id}
            files.replace(self._path, json.dumps(kept))
