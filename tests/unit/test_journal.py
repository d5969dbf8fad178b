"""What becomes of an error that nobody has foreseen: a sentence for the user, the traceback in the journal."""

from __future__ import annotations

import base64
import io
import socket
import subprocess
import sys
import syslog
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.documents import recorded
from vnm_aws import cli, journal
from vnm_aws.errors import AwsOvsError
from vnm_aws.frontend import hook, settings, vnet

REPOSITORY = Path(__file__).parents[2]
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


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that reach the journal."""
    lines: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _, line: lines.append(line))
    return lines


@pytest.mark.parametrize(
    "value", ["a\nERROR: b", "\r\x1b[2J", "\x9b2J", "\u2028", "\x85", "\u202egro.live", "\0", "\udcff"]
)
def test_a_value_cannot_begin_another_line_or_act_upon_a_terminal(value: str, lines: list[str]) -> None:
    """journald takes a line with line breaks as it is, and OpenNebula reads stderr line by line."""
    journal.log(journal.ERROR, f"post {value}")
    sentence = journal.explain(AwsOvsError(f"value {value} is bad", "correct it"), "post")
    unforeseen = journal.explain(ValueError(value), f"post {value}")
    for text in (*lines, sentence, unforeseen):
        assert text.isprintable()
        text.encode()
    assert lines[0].startswith("post ")
    assert all(line.startswith("post ") for line in lines)


def test_a_long_value_does_not_keep_a_line_from_being_written() -> None:
    """A datagram has an end: what does not fit was lost, with all that it told."""
    script = "import syslog; from vnm_aws import journal; journal.log(journal.ERROR, 'post ' + 'x' * 10_000_000)"
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"{directory}/log")
        listener.settimeout(10)
        command = [sys.executable, "-c", script]
        bound = 'mount --bind "$0" /dev && exec "$@"'
        subprocess.run(["unshare", "--mount", "sh", "-ec", bound, directory, *command], check=True, cwd=REPOSITORY)
        assert listener.recv(1 << 20).split(b": ", 1)[1].startswith(b"post xxx")
