"""What others have named or answered does nothing to the terminal of an administrator, and begins no line of its own."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from vnm_aws.frontend.terminal import Progress

from .cloud import Cloud

# What XML lets through; ssh and a tag of EC2 would give more.
HARM = "a\u202egro\x7f\x9b2J\u2028\x85\noneaws: all is well"
ESCAPES = "\roneaws: all is well\x08\x1b[2J\x1b]0;x\x07"


def _is_harmless(done: subprocess.CompletedProcess[str]) -> bool:
    lines = (done.stdout + done.stderr).split("\n")
    return all(line.isprintable() for line in lines) and "oneaws: all is well" not in lines


def test_what_a_host_answers_over_ssh_is_shown_and_not_acted_upon(cloud: Cloud) -> None:
    cloud.add_network("private")
    cloud.oned.add_host("h1", template='VXLAN_TEP="10.0.0.1"')
    (cloud.ssh / "h1.down").write_text(f"first\nWelcome {ESCAPES}\n")
    for words in (["mesh", "sync"], ["reconcile", "-v"], ["mesh", "sync", "--json"]):
        done = cloud.oneaws(*words, code=1)
        assert _is_harmless(done)
        assert "1b[2J" in done.stdout + done.stderr, "JSON is exact"
    state = [path.read_text() for path in (cloud.directory / "state").iterdir()]
    assert not [text for text in state if "\x1b" in text]


@pytest.mark.parametrize(
    "words",
    [
        "vnet check",
        "mesh show",
        "mesh sync --dry-run",
        "host list",
        "host sync --dry-run",
        "eip list",
        "eip sync -v",
        "check",
    ],
)
def test_names_in_opennebula_and_ec2_are_shown_and_not_acted_upon(cloud: Cloud, words: str) -> None:
    _name_everything(cloud)
    done = _any(cloud, words)
    assert _is_harmless(done), done
    if words in ("vnet check", "mesh show", "host list"):
        assert json.dumps(HARM) in _any(cloud, f"{words} --json").stdout, "JSON is exact"


def _any(cloud: Cloud, words: str) -> subprocess.CompletedProcess[str]:
    """Run `oneaws`, whatever its exit code."""
    process = cloud.start(*words.split())
    out, error = process.communicate(timeout=60)
    assert "internal error" not in error
    return subprocess.CompletedProcess(words, process.returncode, out, error)


def _name_everything(cloud: Cloud) -> None:
    """Let a network, hosts, an instance and the errors about them have a name that means harm."""
    cloud.add_pool(HARM)
    cloud.add_network("other", BRIDGE="a bridge" + HARM)
    cloud.oned.add_host(HARM, template='VXLAN_TEP="10.0.0.1" EC2_INSTANCE_ID="i-0" AWS_OVS_ERROR="x\u202e"')
    cloud.add_metal("h1")
    (instance,) = cloud.add_metal("h2")
    cloud.ec2.tag(instance.instance_id, Name=HARM)
    cloud.add_eips(1)


def test_progress_is_a_line_whatever_it_tells_of(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(verbose=True)(f"host {HARM}{ESCAPES}")
    assert capsys.readouterr().err[:-1].isprintable()


def test_a_hook_says_it_in_a_line(cloud: Cloud) -> None:
    cloud.add_network("private")
    host_id = cloud.oned.add_host("h1", template='VXLAN_TEP="10.0.0.1"')
    (cloud.ssh / "h1.down").write_text(f"Welcome {ESCAPES}\n")
    done = cloud.hook("host_state", cloud.oned.document("HOST", host_id))
    assert done.returncode == 1
    assert _is_harmless(done)


def test_a_crash_leaves_no_core_file_which_would_hold_the_credentials(cloud: Cloud) -> None:
    cloud.oned.latency = 0.5
    process = cloud.start("check")
    try:
        deadline = time.monotonic() + 20
        limits = Path(f"/proc/{process.pid}/limits")
        while not [
            line
            for line in limits.read_text().splitlines()
            if line.split()[:6] == ["Max", "core", "file", "size", "0", "0"]
        ]:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
        cloud.oned.latency = 0
