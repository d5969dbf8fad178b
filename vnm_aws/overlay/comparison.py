"""Compare the flows of a bridge with those that it should have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

from . import openflow
from .pipeline import OverlayTable, flow

_ADD = "flow add "
_LEARNED = (f"table={OverlayTable.LEARNED} ", f"cookie={flow.LEARNED_COOKIE:#x} ")
"""What a flow has that the pipeline itself adds when it learns where a MAC is."""


def compare(bridge: str, bundle: Iterable[str]) -> list[str]:
    """Compare a bridge with the flows that a bundle adds; learned flows are no difference.

    Returns:
        lines of `ovs-ofctl diff-flows`: + for what is missing on the bridge, - for what should not be there.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".flows") as file:
        file.writelines(f"{line.removeprefix(_ADD)}\n" for line in bundle if line.startswith(_ADD))
        file.flush()
        lines = openflow.ask("diff-flows", bridge, file.name, answers=(0, 2))
    return [line for line in lines if not (line[1:].startswith(_LEARNED[0]) and _LEARNED[1] in line)]
