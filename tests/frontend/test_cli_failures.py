"""What `oneaws` and the hooks say when a world is not there or does not let them in, and that no secret is ever shown."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vnm_aws.frontend.oned import Oned as Client

from .cloud import Cloud

SECRET = "S3cretMarker"
COMMANDS = ["eip list --json", "check", "reconcile -v"]

_SSH = """#!/bin/sh
echo "$@" >>"{directory}/ssh/arguments"
cat >>"{directory}/ssh/arguments"
"""


@pytest.fixture
def guarded(cloud: Cloud) -> Iterator[Cloud]:
    """A cloud whose credentials, all of them, hold the marker."""
    session = cloud.oned.session
    cloud.oned.session = f"oneadmin:{SECRET}"
    cloud.environment |= {**cloud.oned.environment(cloud.directory), "AWS_SECRET_ACCESS_KEY": SECRET}
    cloud.environment |= {"AWS_SESSION_TOKEN": SECRET, "AWS_MAX_ATTEMPTS": "2"}
    (cloud.directory / "bin/ssh").write_text(_SSH.format(directory=cloud.directory))
    cloud.add_metal("h1")
    cloud.add_eips(1)
    cloud.add_pool()
    yield cloud
    cloud.oned.session = session


def _processes() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue  # it has ended


def run(cloud: Cloud, words: str) -> subprocess.CompletedProcess[str]:
    """Run `oneaws`."""
    process = cloud.start(*words.split())
    out, error = process.communicate(timeout=120)
    return subprocess.CompletedProcess(words, process.returncode, out, error)


def watched(cloud: Cloud, words: str) -> subprocess.CompletedProcess[str]:
    """Run `oneaws`, and look at every command line meanwhile."""
    process = cloud.start(*words.split())
    while True:
        assert not [line for line in _processes() if SECRET in line]
        try:
            out, error = process.communicate(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        return subprocess.CompletedProcess(words, process.returncode, out, error)


def files_with_it(cloud: Cloud) -> list[str]:
    """The files that hold the marker; OpenNebula's own must."""
    return [
        str(path.relative_to(cloud.directory))
        for path in sorted(cloud.directory.rglob("*"))
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


def _no_one_auth(cloud: Cloud) -> None:
    cloud.environment["ONE_AUTH"] = str(cloud.directory / "nothing")


def _wrong_one_auth(cloud: Cloud) -> None:
    (cloud.directory / "one_auth").write_text(f"oneadmin:{SECRET}-wrong\n")


def _oned_down(cloud: Cloud) -> None:
    cloud.environment["ONE_XMLRPC"] = "http://127.0.0.1:9/RPC2"


def _no_oned(cloud: Cloud) -> None:
    cloud.environment["ONE_XMLRPC"] = "nonsense"


def _not_oned(cloud: Cloud) -> None:
    cloud.environment["ONE_XMLRPC"] = cloud.ec2.endpoint + "/moto-api/data.json"


def _ec2_down(cloud: Cloud) -> None:
    cloud.environment["AWS_ENDPOINT_URL_EC2"] = "http://127.0.0.1:9"


def _no_credentials(cloud: Cloud) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        del cloud.environment[name]


def _half_credentials(cloud: Cloud) -> None:
    del cloud.environment["AWS_ACCESS_KEY_ID"]
    (cloud.directory / ".aws").mkdir()
    (cloud.directory / ".aws/credentials").write_text("[default]\naws_access_key_id = abc\n")


def _refused(cloud: Cloud) -> None:
    for action in ("DescribeInstances", "DescribeAddresses"):
        cloud.ec2.fail_next(action, "AuthFailure", 50)


def _no_region(cloud: Cloud) -> None:
    del cloud.environment["AWS_DEFAULT_REGION"]


def _no_profile(cloud: Cloud) -> None:
    cloud.environment["AWS_PROFILE"] = "nobody"


FAILURES: list[tuple[Callable[[Cloud], None], str]] = [
    (_no_one_auth, "OpenNebula's credentials"),
    (_wrong_one_auth, "does not accept the credentials in ONE_AUTH"),
    (_oned_down, "does not answer (ConnectionError); is opennebula.service running?"),
    (_no_oned, "ONE_XMLRPC 'nonsense' is not an address like http://localhost:2633/RPC2"),
    (_not_oned, "does not answer"),
    (_ec2_down, "EC2 cannot be reached"),
    (_no_credentials, "there are no AWS credentials for this user"),
    (_half_credentials, "Partial credentials found"),
    (_refused, "EC2 refused Describe"),
    (_no_region, "no AWS Region is configured; set region"),
    (_no_profile, "nobody"),
]


@pytest.mark.parametrize(("arrange", "said"), FAILURES)
def test_a_failure_is_a_sentence_without_secrets(guarded: Cloud, arrange: Callable[[Cloud], None], said: str) -> None:
    arrange(guarded)
    before = guarded.mutating_calls()
    ran = guarded.together(*(lambda words=words: run(guarded, words) for words in COMMANDS))
    for done in ran:
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
        assert done.returncode == 1, done
        assert said in done.stdout + done.stderr, done
    assert guarded.mutating_calls() == before
    assert files_with_it(guarded) == ["one_auth"]


def test_success_shows_no_secret_anywhere(guarded: Cloud) -> None:
    guarded.oned.latency = 0.02
    for words in ("reconcile -v", "hooks register", "check", "settings", "config", "eip list", "mesh sync --all"):
        done = watched(guarded, words)
        assert SECRET not in done.stdout + done.stderr
        assert done.returncode == 0, done
    vnet_id = guarded.add_network("blue", ready=False)
    created = guarded.vnet_create(vnet_id)
    hook = guarded.hook("vnet_ready", guarded.oned.document("VNET", vnet_id))
    assert SECRET not in created.stdout + created.stderr + hook.stdout + hook.stderr

    assert (guarded.ssh / "arguments").read_text().count("aws-ovs peers") >= 2
    assert files_with_it(guarded) == ["one_auth"]
    client = Client()
    assert SECRET not in json.dumps([guarded.everything(), client.hooks(), client.networks(), client.hosts()])


@pytest.mark.parametrize(("arrange", "said"), [one for one in FAILURES if one[0] in (_wrong_one_auth, _ec2_down)])
def test_hooks_and_vnet_create_show_no_secret_either(
    guarded: Cloud, arrange: Callable[[Cloud], None], said: str
) -> None:
    vnet_id = guarded.add_pool("more", ready=False, AWS_EIP_POOL="tag:Pool=more")
    document = guarded.oned.document("VNET", 0)
    arrange(guarded)
    for done in (guarded.vnet_create(vnet_id), guarded.hook("vnet_ready", document)):
        assert done.returncode == 1
        assert said in done.stderr
        assert SECRET not in done.stdout + done.stderr
    assert SECRET.encode() not in guarded.oned.document("VNET", vnet_id)
    assert files_with_it(guarded) == ["one_auth"]


def test_a_state_directory_that_cannot_be_used_is_named(cloud: Cloud) -> None:
    cloud.configure(state_directory=str(cloud.directory / "aws_ovs.yaml" / "state"))
    said = cloud.oneaws("host", "sync", code=1).stderr
    assert "aws_ovs.yaml/state/lock cannot be opened (Not a directory); run this as its owner: oneadmin" in said
