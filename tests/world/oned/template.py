"""Templates as oned understands and prints them: attributes by name, each a text or a set of named texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lxml import etree

from .wire import INTERNAL, RPC_API, OneError

Value = str | dict[str, str]

_BLANK = r"(?:\s|#[^\n]*(?:\n|$))*"
# Without a value, its line ends. Of the characters in quotes, only the quote can be escaped.
_VALUE = r'"(?:\\"|[^"])*"|[^=#\s,\[\]"][^=#\s,\[\]]*|(?=[\r\n]|$)'
_NAME = r"[A-Za-z0-9_]+"
_PAIR = rf"{_NAME}[ \t]*=[ \t]*(?:{_VALUE})"
_INNER = rf"{_BLANK}(?:{_PAIR}(?:{_BLANK},{_BLANK}{_PAIR})*{_BLANK})?"
_NOTHING = re.compile(_BLANK)
_ATTRIBUTE = re.compile(rf"{_BLANK}({_NAME})[ \t]*=[ \t]*(?:{_BLANK}\[({_INNER})\]|({_VALUE}))")
_NEXT_PAIR = re.compile(rf"{_BLANK},?{_BLANK}({_NAME})[ \t]*=[ \t]*({_VALUE})")


def element(name: str, value: Value | int) -> str:
    """Write an element that holds a text, or named texts in the order of their names, as oned keeps them."""
    if isinstance(value, dict):
        return f"<{name}>" + "".join(element(key, text) for key, text in sorted(value.items())) + f"</{name}>"
    return f"<{name}><![CDATA[" + str(value).replace("]]>", "]]]]><![CDATA[>") + f"]]></{name}>"


def ids(name: str, numbers: Iterable[int]) -> str:
    """Write a collection of IDs."""
    return f"<{name}>" + "".join(f"<ID>{number}</ID>" for number in sorted(numbers)) + f"</{name}>"


class Template(list[tuple[str, Value]]):
    """Attributes, several of a name allowed."""

    def text(self, name: str) -> str:
        """Give the first text of that name, "" when there is none."""
        return next((value for key, value in self if key == name and isinstance(value, str)), "")

    def vectors(self, name: str) -> list[dict[str, str]]:
        """List the sets of named texts of that name."""
        return [value for key, value in self if key == name and isinstance(value, dict)]

    def take(self, name: str) -> str:
        """Remove every attribute of that name; the first one's text, "" when there is none."""
        text = self.text(name)
        self[:] = [(key, value) for key, value in self if key != name]
        return text

    def put(self, name: str, value: Value) -> None:
        """Make this the only attribute of that name."""
        self.take(name)
        self.append((name, value))

    def merge(self, other: Template) -> None:
        """Append `other` as `onehost update --append` does: its names replace those that are here."""
        names = {key for key, _ in other}
        self[:] = [(key, value) for key, value in self if key not in names]
        self.extend((key, value) for key, value in other if value != {})

    def updated(self, text: str, how: int, before: str = "Cannot update template. ", code: int = INTERNAL) -> Template:
        """Give the template after an update that replaces it (0) or is appended to it (1)."""
        if how not in (0, 1):
            raise OneError(RPC_API, "Wrong update type")
        merged = Template(self if how == 1 else ())
        merged.merge(parse(text, before, code))
        return merged

    def xml(self, name: str = "TEMPLATE") -> str:
        """Write the template as an element, its attributes in the order of their names."""
        if not self:
            return f"<{name}/>"
        attributes = sorted(self, key=lambda attribute: attribute[0])
        return f"<{name}>" + "".join(element(key, value) for key, value in attributes) + f"</{name}>"


def from_element(node: etree._Element | None) -> Template:
    """Read the template that an element holds; an empty one when there is no element."""
    return Template(
        (child.tag, {item.tag: item.text or "" for item in child} if len(child) else child.text or "")
        for child in (() if node is None else node)
    )


def parse(text: str, before: str = "", code: int = INTERNAL) -> Template:
    """Read what a client sent in OpenNebula's syntax: NAME = value, NAME = "value", NAME = [ A = "v", B = w ].

    Raises:
        OneError: it is no template; its message, with `before` in front, begins as oned's.
    """
    template, at = Template(), 0
    while not _NOTHING.fullmatch(text, at):
        match = _ATTRIBUTE.match(text, at)
        if match is None:
            raise OneError(code, f"{before}Parse error: syntax error at line {text.count(chr(10), 0, at) + 1}")
        name, inner, value = match.groups()
        if inner is None:
            template.append((name.upper(), _unquoted(value)))
        else:
            # Of a name that is there twice, oned takes the first value.
            pairs = reversed(_NEXT_PAIR.findall(inner))
            template.append((name.upper(), {key.upper(): _unquoted(text) for key, text in pairs}))
        at = match.end()
    return template


def _unquoted(value: str) -> str:
    return value[1:-1].replace('\\"', '"') if value.startswith('"') else value
