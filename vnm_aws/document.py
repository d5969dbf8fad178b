"""Read the XML document of a VM that OpenNebula sends to a network driver, down to the texts of its elements.

The document that `pre`, `post` and `clean` get keeps every element in a parent of its own (many sibling TEMPLATE),
the one for `update_sg` and `update_nic` may be whole; reading all TEMPLATE children serves both. The text is a user's:
it is limited in size, may not declare entities, and every value is checked before anything uses it.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Any

from lxml import etree

from . import addresses
from .errors import AwsOvsError

SIZE_LIMIT = 8 * 1024 * 1024
"""Bytes of XML; a VM with 50 NICs and 10,000 security group rules needs 4 MiB."""

_MARKED = ("NIC", "NIC_ALIAS", "PCI", "DISK")
"""Elements that oned marks with ATTACH=YES while they come or go. In others the word would be a user's own."""


def decode(stdin: bytes) -> bytes:
    """Decode the XML that OpenNebula sends on stdin.

    Raises:
        AwsOvsError: it is too large or not base64.
    """
    if len(stdin) > SIZE_LIMIT * 4 // 3 + 4:
        raise AwsOvsError(f"the VM document on stdin is larger than {SIZE_LIMIT} bytes", "reduce the VM's template")
    try:
        return binascii.a2b_base64(b"".join(stdin.split()), strict_mode=True)
    except binascii.Error as error:
        what = f"the VM document on stdin is not base64 ({str(error).lower()})"
        raise AwsOvsError(what, "send what OpenNebula sends") from None


def tree(document: bytes) -> etree._Element:
    """Parse the XML of a VM, in either of OpenNebula's shapes.

    Raises:
        AwsOvsError: it is not well-formed, has a document type, or is not a VM.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise AwsOvsError(f"the VM document is not well-formed XML ({str(error)[:100]})", "send it whole") from None
    info: Any = root.getroottree().docinfo
    if info.doctype:
        raise AwsOvsError("the VM document declares a document type, which OpenNebula never does", "send plain XML")
    if root.tag != "VM":
        raise AwsOvsError(f"the document is a {addresses.shown(str(root.tag))}, not a VM", "send what OpenNebula sends")
    return root


def vm_id(root: etree._Element) -> int:
    """Read the VM's ID.

    Raises:
        AwsOvsError: it is none.
    """
    return addresses.number(root.findtext("ID") or "", "the VM's ID", 0, 2**31 - 1)


def attached(root: etree._Element) -> list[etree._Element]:
    """List the elements that are marked as coming or going; the action concerns the whole VM when there are none."""
    elements = (element for kind in _MARKED for element in root.iterfind(f"TEMPLATE/{kind}"))
    return [element for element in elements if is_attached(element)]


def is_attached(element: etree._Element) -> bool:
    """Tell whether an element is marked as coming or going."""
    return any((mark.text or "").strip().upper() == "YES" for mark in element.iterfind("ATTACH"))


def texts(element: etree._Element) -> Iterator[tuple[str, str]]:
    """Go through the child elements: name and stripped text."""
    for child in element:
        if isinstance(child.tag, str):
            yield child.tag, (child.text or "").strip()


def enabled(text: str, what: str, default: bool) -> bool:
    """Read YES or NO; `default` for an empty text."""
    word = text.upper()
    if word not in ("", "YES", "NO"):
        raise AwsOvsError(f"{what} {addresses.shown(word)} is neither YES nor NO", "set one of them")
    return word == "YES" if word else default


class Fields:
    """Give the child elements of a NIC or NIC_ALIAS as text or as a checked value.

    Attributes:
        name: the element's, for errors.

    Raises:
        AwsOvsError: a child is there twice, or its value is not what is asked for.
    """

    def __init__(self, element: etree._Element) -> None:
        self._texts: dict[str, str] = {}
        for key, text in texts(element):
            if key in self._texts:
                raise AwsOvsError(f"a {element.tag} has {key} twice", "give it once")
            self._texts[key] = text
        self.name = f"{element.tag} {addresses.shown(self.text('NIC_ID'))[1:-1]}"

    def text(self, key: str) -> str:
        """Give the text of a child, nothing when there is none."""
        return self._texts.get(key, "")

    def what(self, key: str) -> str:
        """Name a child for an error."""
        return f"{self.name}: {key}"

    def number(self, key: str, low: int, high: int) -> int:
        """Read a number."""
        return addresses.number(self.text(key), self.what(key), low, high)

    def address(self, key: str) -> str | None:
        """Read an IPv4 address, which may be missing."""
        return addresses.ipv4(self.text(key), self.what(key)) if self.text(key) else None

    def enabled(self, key: str, default: bool) -> bool:
        """Read YES or NO; `default` when it is missing."""
        return enabled(self.text(key), self.what(key), default)
