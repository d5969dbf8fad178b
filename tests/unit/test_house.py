"""The house rules that a program can see: the order of the rooms, and the size of what is in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vnm_aws

PACKAGE = Path(vnm_aws.__file__).parent
REPOSITORY = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def rooms() -> list[list[str]]:
    """The rooms in the order that the package's docstring gives, those of one line beside each other."""
    lines = re.findall(r"^    ([a-z_, ]+?)(?:  .*)?$", vnm_aws.__doc__ or "", re.MULTILINE)
    return [line.split(", ") for line in lines]


def room(name: str) -> str:
    """The room of a module of the package: `overlay` for `overlay.pipeline.flow`."""
    return name.partition(".")[0]


def imports(path: Path) -> Iterator[str]:
    """The names of what a module imports from the package, wherever in it."""
    package = list(path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            yield from [".".join([*base, alias.name]) for alias in node.names]


def test_every_room_has_its_place_in_the_order() -> None:
    placed = sorted(name for line in rooms() for name in line)
    there = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    assert placed == sorted(there - {"__init__", "__pycache__"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    place = {name: number for number, line in enumerate(rooms()) for name in line}
    own = room(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    for name in imports(path):
        other = room(name)
        if other in place and other != own:
            assert place[other] < place[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_and_files_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FUNCTIONS):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 40, f"{node.name} has more than 40 lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_of_functions_begin_with_a_verb(path: Path) -> None:
    """As far as a program can tell: not with an article, a pronoun or a question word. Those of commands are help texts."""
    clause = re.compile(r"(The|A|An|All|Each|Every|What|Which|Whether|Where|How|Who|Why|When|It|This|True|False)\b")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, FUNCTIONS):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            assert "cli" in path.parts or not clause.match(first), f"{node.name}: {first}"
