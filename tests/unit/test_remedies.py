"""What an error tells one to do can be done to the letter: no command lacks what it is about."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vnm_aws

MODULES = sorted(Path(vnm_aws.__file__).parent.rglob("*.py"))

# After each of these comes a name, a number or an address; a `{}` is a value.
_NEEDS_ONE_MORE = (
    *(
        "ovs-vsctl del-br",
        "ovs-vsctl list-ports",
        "ovs-vsctl set Interface",
        "ip link del",
        "ip address del",
        "ip route del",
    ),
    *(
        "ip address show to",
        "nft delete table",
        "nft insert rule",
        "kill",
        "rm",
        "systemctl status",
        "sysctl -w",
        "virsh domiflist",
    ),
)
_NEEDS_TWO_MORE = ("ovs-vsctl del-port",)  # of which bridge: the same name could be on another one by then
_CUT_OFF = [rf"\b{words}\b(?! [\w{{/])" for words in _NEEDS_ONE_MORE]
_CUT_OFF += [rf"\b{words}\b(?! [\w{{]\S* [\w{{])" for words in _NEEDS_TWO_MORE]
# Nobody is told to take away what the driver itself has made.
_OF_THE_DRIVER = r"(del-port|del-br)( \w+)? (aws_|vx-)"


def texts(path: Path) -> Iterator[str]:
    """The strings of a module that are sentences, with `{}` where a value is put in; no docstrings."""
    tree = ast.parse(path.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_command_that_one_is_told_to_run_is_whole(path: Path) -> None:
    for text in texts(path):
        if " " in text:
            assert [pattern for pattern in _CUT_OFF if re.search(pattern, text)] == [], text
            assert not re.search(_OF_THE_DRIVER, text), text
