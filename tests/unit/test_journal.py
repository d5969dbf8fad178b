"""What becomes of an error that nobody has foreseen: a sentence for the user, the traceback in the journal."""

from __future__ import annotations

import base64
import io
import sys
import syslog
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from tests.unit.documents import recorded
from vnm_aws import cli
from vnm_aws.frontend import hook, settings, vnet

SENTENCE = "internal error, KeyError: 'nothing'; report it with 'journalctl -t aws_ovs'\n"


def oneaws() -> tuple[int, str]:
    done = CliRunner().invoke(cli.main, ["settings"])
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("run", "shown", "journalled"),
    [
        (oneaws, "oneaws: ", "oneaws: "),
        (lambda: (hook.main(["/x/vnet_ready"]), ""), "aws_ovs: ", "hook vnet_ready: "),
        (lambda: (vnet.main(["/x/vnet_create", "3"]), ""), "vnet_create: ", "vnet_create 3: "),
    ],
)
def test_a_program_of_the_front_end_explains_it(
    run: Callable[[], tuple[int, str]],
    shown: str,
    journalled: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _, line: lines.append(line))
    monkeypatch.setattr(settings, "load", lambda *_: vars()["nothing"])
    document = base64.b64encode(recorded("hooks", "net-ready.xml"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(document)))
    code, error = run()
    assert (code, error or capsys.readouterr().err) == (1, shown + SENTENCE)
    assert f"{journalled}Traceback (most recent call last):" in lines
    assert all(line.startswith(journalled) for line in lines)
