"""Recorded VM documents, and small changes to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lxml import etree

RECORDINGS = Path(__file__).parent.parent / "recordings"


def recorded(operation: str, file: str) -> bytes:
    """The document of one recorded action, such as `deploy`, `03-post.xml`."""
    return (RECORDINGS / operation / file).read_bytes()


def changed(document: bytes, change: Callable[[etree._Element], None]) -> bytes:
    """`document` after `change` has worked on its root."""
    root = etree.fromstring(document)
    change(root)
    return etree.tostring(root)


def with_value(document: bytes, path: str, value: str) -> bytes:
    """`document` with the text of the first element at `path` set, or its parent given that element."""

    def change(root: etree._Element) -> None:
        parent_path, _, name = path.rpartition("/")
        parent = root.find(parent_path or ".")
        assert parent is not None, path
        element = parent.find(name)
        if element is None:
            element = etree.SubElement(parent, name)
        element.text = value

    return changed(document, change)
