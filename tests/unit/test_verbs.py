"""The node's program: its table of verbs, what it refuses, and how it reports."""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import re
import subprocess
import sys
import syslog
import types
from pathlib import Path

import pytest

from tests.unit.documents import recorded
from vnm_aws import config, lock
from vnm_aws.driver import main, node, show
from vnm_aws.driver.main import VERBS
from vnm_aws.errors import AwsOvsError

REPOSITORY = Path(__file__).parents[2]
DEPLOY = recorded("deploy", "03-post.xml")
ATTACH = recorded("attach-alias-external", "02-post.xml")
FOR_OPENNEBULA = ("pre", "post", "clean", "update_sg", "update_nic")


@pytest.fixture
def journalled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that reach the journal."""
    lines: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _, line: lines.append(line))
    return lines


@pytest.fixture
def unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose configuration is not usable."""

    def load() -> None:
        raise AwsOvsError("aws_ovs.yaml: no\nsuch thing", "mend it")

    monkeypatch.setattr(config, "load", load)


def call(monkeypatch: pytest.MonkeyPatch, *words: str, stdin: bytes = b"") -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(base64.b64encode(stdin) if stdin else b"")))
    return main.main(["aws-ovs", *words])


def test_the_usage_names_every_verb_with_its_words() -> None:
    text = main.usage()
    for name, verb in VERBS.items():
        options = [
            *([f"[{verb.option}]"] if verb.option else []),
            *([f"[{verb.vm_option} VM_ID]"] if verb.vm_option else []),
        ]
        words = [re.escape(word) for word in (*verb.arguments, *options)]
        assert re.search(rf"(?m)^  {' '.join([name, *words])}( {{2,}}\S|$)", text), name
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_a_module_that_takes_what_the_table_says(name: str) -> None:
    verb = VERBS[name]
    run = importlib.import_module(f"vnm_aws.driver.{verb.module or name}").run
    second = "vm" if verb.stdin == "VM document" else "document" if verb.stdin else "as_json" if verb.option else ""
    last = ["origin"] * (verb.module == "post" or name == "post") + ["vm_id"] * bool(verb.vm_option)
    assert list(inspect.signature(run).parameters) == ["node"] * verb.locks + [second] * bool(second) + last


@pytest.mark.parametrize(
    "words",
    [
        ("prepare",), ("pre", "one-1"), ("post", "one-1", "h1", "more"), ("check", "--apply"), ("restore", "--json"),
        ("peers", "--json"), ("post", "one 1", "h1"), ("clean", "../h1"), ("clean", ""), ("clean", "h1\n"), ("show", "--"),
        ("show", "5"), ("show", "--rules"), ("show", "--rules", "x"), ("show", "--rules", "5", "6"), ("show", "--rules", "-5"),
        ("show", "--rules", "5", "--rules", "6"), ("show", "--rules", "--json"), ("check", "--rules", "5"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_the_table_does_not_know_is_wrong_usage(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], journalled: list[str]
) -> None:
    assert call(monkeypatch, *words) == 2
    assert re.fullmatch(r"aws-ovs: cannot take '.*'; see 'aws-ovs --help'\n", capsys.readouterr().err)
    assert journalled == []


@pytest.mark.usefixtures("journalled")
@pytest.mark.parametrize(
    ("words", "given"),
    [
        ((), [False]), (("--json",), [True]), (("--rules", "5"), [False, "5"]), (("--rules", "5", "--json"), [True, "5"]),
        (("--json", "--rules", "5"), [True, "5"]),
    ],
)  # fmt: skip
def test_show_gets_the_vm_whose_rules_it_is_to_print(
    words: tuple[str, ...], given: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    got: list[object] = []
    monkeypatch.setattr(config, "load", config.Config)
    monkeypatch.setattr(lock, "PATH", str(tmp_path / "lock"))
    monkeypatch.setattr(node.Node, "find", lambda *_, **__: "node")
    monkeypatch.setattr(show, "run", lambda *arguments: got.extend(arguments))
    assert call(monkeypatch, "show", *words) == 0
    assert got == ["node", *given]


@pytest.mark.usefixtures("unusable")
@pytest.mark.parametrize("name", [name for name in VERBS if name != "probe"])
def test_an_error_is_printed_twice_only_where_opennebula_reads_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], journalled: list[str]
) -> None:
    assert call(monkeypatch, name, stdin=DEPLOY) == 1
    sentence = f"{name}: aws_ovs.yaml: no such thing; mend it"
    twice = f"ERROR: {sentence}\n{sentence}\n"
    assert capsys.readouterr().err == (twice if name in FOR_OPENNEBULA else f"aws-ovs: {sentence}\n")
    assert len(journalled) == 1


@pytest.mark.usefixtures("unusable", "journalled")
def test_on_a_terminal_an_error_is_printed_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert call(monkeypatch, "pre", stdin=DEPLOY) == 1
    assert capsys.readouterr().err == "aws-ovs: pre: aws_ovs.yaml: no such thing; mend it\n"


@pytest.mark.usefixtures("unusable")
@pytest.mark.parametrize(
    ("words", "document", "line"),
    [
        (("post", "one-1", "h1"), DEPLOY, "post one-1 h1: VM 1 NIC 0,1: aws_ovs.yaml: no such thing; mend it"),
        (("pre",), ATTACH, "pre: VM 1 NIC 0: aws_ovs.yaml: no such thing; mend it"),
        (("clean", "h1"), b"<VM>", "clean h1: the VM document is not well-formed XML"),
        (("peers", "--apply"), b"", "peers: aws_ovs.yaml: no such thing; mend it"),
    ],
)
def test_a_failure_in_the_journal_names_the_vm_and_its_nics(
    words: tuple[str, ...], document: bytes, line: str, monkeypatch: pytest.MonkeyPatch, journalled: list[str]
) -> None:
    assert call(monkeypatch, *words, stdin=document) == 1
    assert [entry.startswith(line) for entry in journalled] == [True], journalled


def test_success_in_the_journal_names_the_vm_and_its_nics(
    monkeypatch: pytest.MonkeyPatch, journalled: list[str]
) -> None:
    monkeypatch.setattr(main, "_run", lambda *_: 0)
    assert call(monkeypatch, "post", "one-1", "h1", stdin=DEPLOY) == 0
    assert re.fullmatch(r"post one-1 h1: VM 1 NIC 0,1: done in \d+ ms", journalled[0])


@pytest.mark.parametrize("name", ["post", "check"])
def test_what_nobody_has_foreseen_is_a_sentence_and_its_traceback_is_in_the_journal(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], journalled: list[str]
) -> None:
    monkeypatch.setattr(config, "load", lambda: vars()["nothing"])
    assert call(monkeypatch, name, stdin=DEPLOY) == 1
    error = capsys.readouterr().err
    assert error.endswith(f"{name}: internal error, KeyError: 'nothing'; report it with 'journalctl -t aws_ovs'\n")
    prefix = "post: VM 1 NIC 0,1: " if name == "post" else "check: "
    assert f"{prefix}Traceback (most recent call last):" in journalled
    assert all(line.startswith(prefix) for line in journalled)


def test_an_interruption_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], journalled: list[str]
) -> None:
    def load() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", load)
    assert call(monkeypatch, "show") == 1
    assert capsys.readouterr().err == "aws-ovs: show: interrupted; run it again\n"
    assert journalled == ["show: interrupted; run it again"]


@pytest.mark.usefixtures("unusable", "journalled")
def test_stdin_is_read_only_by_verbs_that_get_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, verb in VERBS.items():
        stdin = types.SimpleNamespace(buffer=io.BytesIO(base64.b64encode(DEPLOY)))
        monkeypatch.setattr(sys, "stdin", stdin)
        if verb.locks:
            main.main(["aws-ovs", name])
            assert (stdin.buffer.tell() > 0) == bool(verb.stdin), name
            stdin.buffer.seek(0)
            main.main(["aws-ovs", name, *([verb.option] if verb.option else [])])
            assert (stdin.buffer.tell() > 0) == (bool(verb.stdin) and not verb.option), name


def test_the_program_loads_no_verb_before_it_runs() -> None:
    script = "import sys; from vnm_aws.driver import main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    modules = {f"vnm_aws.driver.{verb.module or name}" for name, verb in VERBS.items()}
    assert not {*modules, "vnm_aws.driver.node", "vnm_aws.vm", "vnm_aws.lock"} & set(done.stdout.split())


def test_what_a_verb_prints_is_held_back_until_the_lock_is_free_and_does_nothing_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader that is slow, such as a pager, must not keep VMs from starting."""
    seen = []

    def run(*_: object) -> int:
        print("port a\x1b[2J\u202e\rb\nok")
        seen.append(capsys.readouterr().out)
        return 0

    monkeypatch.setattr(main, "_run", run)
    assert call(monkeypatch, "check") == 0
    assert (seen, capsys.readouterr().out) == ([""], "port a\\x1b[2J\\u202e\\rb\nok\n")


@pytest.mark.usefixtures("journalled")
def test_what_a_verb_has_printed_before_it_failed_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> int:
        print("ovsdb []")
        raise AwsOvsError("the rest is\nrefused", "mend it")

    monkeypatch.setattr(main, "_run", run)
    assert call(monkeypatch, "restore", "--dry-run") == 1
    assert capsys.readouterr() == ("ovsdb []\n", "aws-ovs: restore: the rest is refused; mend it\n")
