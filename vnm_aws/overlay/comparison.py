"""Compare the flows of a bridge with those that it should have."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable

from . import openflow
from .pipeline import flow

_ADD = "flow add "


def compare(bridge: str, bundle: Iterable[str]) -> list[str]:
    """Compare a bridge with the flows that a bundle adds; flows that go by themselves are no difference.

    Returns:
        lines of `ovs-ofctl diff-flows`: + for what is missing on the bridge, - for what should not be there.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".flows") as file:
        file.writelines(f"{_as_shown(line.removeprefix(_ADD))}\n" for line in bundle if line.startswith(_ADD))
        file.flush()
        lines = openflow.ask("diff-flows", bridge, file.name, answers=(0, 2))
    return [line for line in lines if not flow.is_passing(cookie(line))]


def cookie(line: str) -> int:
    """Read the cookie out of the text of a flow; 0 when it has none."""
    text = re.search(r"\bcookie=(0x[0-9a-f]+)", line.partition(" actions=")[0])
    return int(text[1], 16) if text else 0


def _as_shown(flow: str) -> str:
    """Write a flow as OpenFlow 1.3 shows it, the first version that knows meters: it has one action to set any field."""
    names = {"dl": "eth", "nw": "ip"}
    return re.sub(r"mod_(dl|nw)_(src|dst):([^,]+)", lambda it: f"set_field:{it[3]}->{names[it[1]]}_{it[2]}", flow)
