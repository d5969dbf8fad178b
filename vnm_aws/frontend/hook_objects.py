"""Read hooks and their executions, as oned describes them, into typed values."""

from __future__ import annotations

import binascii
from typing import NamedTuple

from lxml import etree


class Hook(NamedTuple):
    """A registered hook."""

    hook_id: int
    name: str
    kind: str
    template: dict[str, str]


class Execution(NamedTuple):
    """An execution of a hook. `said` is the last line that it printed on stderr."""

    hook_id: int
    execution_id: int
    time: int
    said: str


def read_hook(element: etree._Element) -> Hook:
    """Read a HOOK element."""
    values = {str(item.tag): item.text or "" for item in element.iterfind("TEMPLATE/*")}
    return Hook(_number(element, "ID"), element.findtext("NAME") or "", element.findtext("TYPE") or "", values)


def _number(element: etree._Element, path: str) -> int:
    return int(element.findtext(path) or -1)


def read_execution(element: etree._Element) -> Execution:
    """Read a HOOK_EXECUTION_RECORD element, in which outputs are encoded."""
    try:
        printed = binascii.a2b_base64(element.findtext("EXECUTION_RESULT/STDERR") or "").decode(errors="replace")
    except binascii.Error:
        printed = ""
    said = [line.strip() for line in printed.splitlines() if line.strip()]
    return Execution(
        _number(element, "HOOK_ID"),
        _number(element, "EXECUTION_ID"),
        _number(element, "TIMESTAMP"),
        said[-1][:300] if said else "",
    )
