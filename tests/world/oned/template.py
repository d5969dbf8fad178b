"""Templates as oned understands and prints them: attributes by name, each a text or a set of named texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from lxml import etree

Value = str | dict[str, str]

_BLANK = re.compile(r"(?:[ \t]*#.*(?:\n|$)|[ \t\r\n]+)*")
_NAME = re.compile(r"([A-Za-z0-9_]+)[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"((?:\\"|[^"])*)"')
_PLAIN = re.compile(r"[^=#\s,\[\]]+")


class TemplateError(ValueError):
    """The text is no template; the message is what oned says about it."""


def cdata(text: object) -> str:
    """The text as oned prints it in an element."""
    return "<![CDATA[" + str(text).replace("]]>", "]]]]><![CDATA[>") + "]]>"


def element(name: str, text: object) -> str:
    """An element that holds text."""
    return f"<{name}>{cdata(text)}</{name}>"


def vector(name: str, values: Mapping[str, str]) -> str:
    """An element that holds named texts, in the order of their names, as oned keeps them."""
    return f"<{name}>" + "".join(element(key, values[key]) for key in sorted(values)) + f"</{name}>"


class Template:
    """Attributes, several of a name allowed."""

    def __init__(self, attributes: Iterable[tuple[str, Value]] = ()) -> None:
        self._attributes = list(attributes)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def text(self, name: str) -> str:
        """The first text of that name, "" when there is none."""
        return next((value for key, value in self if key == name and isinstance(value, str)), "")

    def vectors(self, name: str) -> list[dict[str, str]]:
        """The sets of named texts of that name."""
        return [value for key, value in self if key == name and isinstance(value, dict)]

    def add(self, name: str, value: Value) -> None:
        """Add an attribute behind those of its name."""
        self._attributes.append((name, value))

    def remove(self, name: str) -> str:
        """Remove every attribute of that name; the first one's text, "" when there is none."""
        text = self.text(name)
        self._attributes = [(key, value) for key, value in self if key != name]
        return text

    def replace(self, name: str, value: Value) -> None:
        """Make this the only attribute of that name."""
        self.remove(name)
        self.add(name, value)

    def merge(self, other: Template) -> None:
        """Append `other` as `onehost update --append` does: its names replace those that are here."""
        names = {key for key, _ in other}
        kept = [(key, value) for key, value in self if key not in names]
        self._attributes = kept + [(key, value) for key, value in other if value != {}]

    def xml(self, name: str = "TEMPLATE") -> str:
        """The template as an element, its attributes in the order of their names."""
        if not self._attributes:
            return f"<{name}/>"
        parts = [
            vector(key, value) if isinstance(value, dict) else element(key, value)
            for key, value in sorted(self._attributes, key=lambda item: item[0])
        ]
        return f"<{name}>" + "".join(parts) + f"</{name}>"


def from_element(node: etree._Element) -> Template:
    """The template that an element holds."""
    template = Template()
    for child in node:
        if isinstance(child.tag, str):
            if len(child):
                template.add(child.tag, {str(item.tag): item.text or "" for item in child})
            else:
                template.add(child.tag, child.text or "")
    return template


def parse(text: str) -> Template:
    """What a client sent, in OpenNebula's syntax or as XML.

    Raises:
        TemplateError: it is neither.
    """
    if text.startswith("<"):
        try:
            root = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, strip_cdata=True))
        except etree.XMLSyntaxError:
            raise TemplateError("Parse error: XML Template malformed.") from None
        template = from_element(root)
        return Template((key.upper(), value) for key, value in template)
    return _Reader(text).template()


class _Reader:
    """Reads OpenNebula's syntax: NAME = value, NAME = "value" and NAME = [ A = "v", B = w ]."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def template(self) -> Template:
        template = Template()
        self._skip()
        while self._at < len(self._text):
            name = self._name()
            template.add(name, self._vector() if self._take("[") else self._value())
            self._skip()
        return template

    def _vector(self) -> dict[str, str]:
        values: dict[str, str] = {}
        if self._take("]"):
            return values
        while True:
            # Of a name that is there twice, oned takes the first value.
            values.setdefault(self._name(), self._value())
            if self._take("]"):
                return values
            if not self._take(","):
                raise self._error("expecting COMMA or CBRACKET")

    def _name(self) -> str:
        self._skip()
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._error("expecting VARIABLE")
        self._at = match.end()
        return match[1].upper()

    def _value(self) -> str:
        quoted = _QUOTED.match(self._text, self._at)
        plain = _PLAIN.match(self._text, self._at)
        if quoted is not None:
            self._at = quoted.end()
            return quoted[1].replace('\\"', '"')
        if plain is not None and plain[0][0] != '"':
            self._at = plain.end()
            return plain[0]
        if self._text[self._at : self._at + 1] in ("", "\n", "\r"):
            return ""
        raise self._error("expecting OBRACKET or STRING")

    def _take(self, character: str) -> bool:
        at = self._at
        self._skip()
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        self._at = at
        return False

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _error(self, what: str) -> TemplateError:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - (self._text.rfind("\n", 0, self._at) + 1)
        return TemplateError(f"Parse error: syntax error, {what} at line {line}, columns {column}:{column + 1}")
