"""What a run does when a world hangs, is slow, or does not serve the account: it ends in time, says so, and the next goes on."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import syslog
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from vnm_aws.frontend import told
from vnm_aws.frontend.ec2_errors import refused
from vnm_aws.frontend.settings import Settings

from .cloud import Cloud
from .following import ASSIGN, Site, settle

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hung() -> Iterator[str]:
    """A server that accepts what comes and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _ended(cloud: Cloud, within: float, *words: str) -> str:
    """Run `oneaws`, which has to fail within so many seconds; what it said."""
    began = time.monotonic()
    done = cloud.oneaws(*words, code=1)
    assert time.monotonic() - began < within
    assert "Nothing to change" not in done.stdout
    return done.stderr


# Worlds that hang


def test_an_oned_that_never_answers_is_waited_for_once(cloud: Cloud, hung: str) -> None:
    cloud.environment["ONE_XMLRPC"] = f"{hung}/RPC2"
    cloud.configure(oned_timeout=1)
    said = _ended(cloud, 5, "reconcile")
    assert f"oned at {hung}/RPC2 has not answered zone.raftstatus within 1 s; look at /var/log/one/oned.log" in said


def test_a_second_run_behind_one_that_hangs_says_why(cloud: Cloud, hung: str) -> None:
    cloud.environment["ONE_XMLRPC"] = f"{hung}/RPC2"
    cloud.configure(oned_timeout=2)
    first = cloud.start("reconcile")
    _appears(cloud.directory / "state/next-reconcile.lock")
    assert "has not answered zone.raftstatus within 2 s" in _ended(cloud, 10, "reconcile")
    assert first.communicate(timeout=30)[0] == ""
    assert first.returncode == 1


def test_a_third_run_names_the_first_that_does_not_end(cloud: Cloud) -> None:
    cloud.configure(lock_timeout=1)
    state = cloud.directory / "state"
    (state / "lock").touch(0o600)
    hour_ago = time.time() - 3600
    with open(state / "lock", "r+") as work, open(state / "next-reconcile.lock", "w") as queue:
        subprocess.run(["flock", "-n", str(work.fileno())], pass_fds=[work.fileno()], check=True)
        subprocess.run(["flock", "-n", str(queue.fileno())], pass_fds=[queue.fileno()], check=True)
        work.write("oneaws reconcile (pid 4711)\n")
        work.flush()
        os.utime(state / "lock", (hour_ago, hour_ago))
        said = _ended(cloud, 5, "reconcile")
    assert re.search(r"busy: oneaws reconcile \(pid 4711\) has held \S+/lock for 360\d s, and another run waits", said)


def _appears(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_ec2_that_never_answers_costs_no_more_than_the_time_of_the_run(cloud: Cloud, hung: str) -> None:
    cloud.environment["AWS_ENDPOINT_URL_EC2"] = hung
    cloud.configure(run_timeout=2)
    said = _ended(cloud, 8, "reconcile")
    assert "this run has taken 2 s, all that run_timeout allows, and did not do the rest" in said


def test_a_host_that_accepts_ssh_and_says_nothing_is_named_and_the_others_are_told(cloud: Cloud) -> None:
    cloud.configure(ssh_timeout=1)
    cloud.add_metal("h1", "h2")
    cloud.add_network("blue")
    (cloud.ssh / "h1.delay").write_text("60")
    assert "h1: did not answer within 1 s" in _ended(cloud, 10, "reconcile")
    assert set(cloud.told("h2")) == {"h1", "h2"}


def test_hosts_that_the_run_has_no_time_for_are_told_by_the_next(cloud: Cloud) -> None:
    cloud.configure(ssh_parallel=1, run_timeout=780)
    cloud.add_metal("h1", "h2", "h3")
    cloud.oneaws("reconcile")
    cloud.add_network("blue")
    cloud.configure(ssh_parallel=1, run_timeout=3)
    (cloud.ssh / "h1.delay").write_text("60")
    said = _ended(cloud, 10, "mesh", "sync")
    assert "h3: not called, for the time of the run is over" in said
    (cloud.ssh / "h1.delay").unlink()
    cloud.oneaws("mesh", "sync")
    assert set(cloud.told("h3")) == {"h1", "h2", "h3"}


def test_what_a_run_has_done_when_its_time_is_over_stays_and_the_next_goes_on(cloud: Cloud) -> None:
    names = [f"h{number}" for number in range(20)]
    cloud.add_metal(*names)
    cloud.oned.latency = 0.2
    cloud.configure(run_timeout=3)
    said = _ended(cloud, 8, "reconcile")
    assert said.count("\n") == 1, "once, not for each host that is left"
    made = len(cloud.oned.mutating_calls())
    assert 2 < made < 40
    cloud.oned.latency = 0.0
    cloud.configure()
    cloud.forget_calls()
    cloud.oneaws("reconcile")
    assert cloud.oned.mutating_calls().count("one.host.allocate") == 20 - (made + 1) // 2
    assert cloud.oneaws("reconcile").stdout == "Nothing to change.\n"


def test_systemd_waits_longer_than_the_longest_run() -> None:
    unit = (ROOT / "share/systemd/frontend/aws_ovs-reconcile.service").read_text()
    (minutes,) = re.findall(r"^TimeoutStartSec=(\d+)min$", unit, re.MULTILINE)
    longest = 780
    # The last step of a run: boto3's pause of 20 s, 10 s to connect and 30 s to read; oned 60 s; ssh no longer than is left.
    assert int(minutes) * 60 - longest >= 120
    assert Settings().run_timeout <= longest


# Errors that concern the account


CODES = {
    "RequestExpired": "set the clock of the front-end right",
    "ExpiredToken": "renew the AWS credentials",
    "InvalidClientTokenId": "correct the access key",
    "SignatureDoesNotMatch": "correct the access key",
    "AuthFailure": "check the AWS credentials",
    "OptInRequired": "enable EC2 and this Region",
    "Blocked": "aws-verification@amazon.com",
    "RequestLimitExceeded": "EC2 throttles this account",
    "Throttling": "EC2 throttles this account",
}
"""What EC2's API reference, "Common client error codes", lists of no thing that a call names; and what is to be done."""


def test_what_concerns_the_account_is_asked_once_and_is_no_error_of_a_vm(cloud: Cloud) -> None:
    cloud.environment["AWS_MAX_ATTEMPTS"] = "1"
    site = settle(cloud, eips=4)
    vms = [site.run(site.elsewhere(site.address(ar_id)), ar_id) for ar_id in range(4)]
    for code, remedy in CODES.items():
        cloud.forget_calls()
        cloud.ec2.fail_next(ASSIGN, code, 50)
        said = cloud.oneaws("reconcile", code=1).stderr
        assert remedy in said
        assert (code, cloud.ec2.mutating_calls()) == (code, [ASSIGN])
        assert [site.error(vm_id) for vm_id in vms] == [""] * 4
        assert {site.status(vm_id).partition(":")[0] for vm_id in vms} == {"WAITING"}
    done = cloud.hook("vm_running", cloud.oned.document("VM", vms[0]))
    assert (done.returncode, "Throttling" in done.stderr, site.error(vms[0])) == (1, True, "")
    cloud.ec2.fail_next(ASSIGN, "none", 0)
    cloud.oneaws("reconcile")
    assert all(site.status(vm_id).startswith("OK: ") for vm_id in vms)


def test_credentials_that_have_expired_cost_one_call_and_are_told_once(cloud: Cloud) -> None:
    site = settle(cloud, eips=4)
    for ar_id in range(4):
        site.run(site.elsewhere(site.address(ar_id)), ar_id)
    cloud.forget_calls()
    cloud.ec2.fail_next("*", "ExpiredToken", 50)
    said = cloud.oneaws("reconcile", code=1).stderr
    assert (said.count("ExpiredToken"), cloud.ec2.calls()) == (1, ["DescribeInstances"])


def test_an_elastic_ip_of_another_account_is_the_trouble_of_its_vm_alone() -> None:
    """EC2 says AuthFailure also of an Elastic IP that is not the account's: "The address … does not belong to you."."""

    def of(message: str) -> bool:
        error = {"Error": {"Code": "AuthFailure", "Message": message}}
        return refused("AssociateAddress", ClientError(error, "AssociateAddress")).concerns_account

    assert of("AWS was not able to validate the provided access credentials")
    assert not of("The address '198.51.100.7' does not belong to you.")
    assert not of("You do not have permission to access the specified resource.")


# What is told


def _journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: lines.append(line) if priority == 3 else None)
    return lines


def test_the_journal_has_a_problem_once_until_it_changes_or_a_day_is_over(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = _journal(monkeypatch)
    cloud.add_metal("h1", "h2")
    cloud.oneaws("reconcile")
    cloud.add_network("blue")
    (cloud.ssh / "h1.down").touch()
    cloud.oneaws("reconcile", code=1)  # tells h2, too
    lines.clear()
    (cloud.ssh / "h1.down").write_text("ssh: one")
    said = [cloud.oneaws("reconcile", code=1).stderr for _ in range(3)]
    assert all("h1: ssh: one" in text for text in said), "whoever asks is told each time"
    assert [line.count("h1: ssh: one") for line in lines] == [1]
    (cloud.ssh / "h1.down").write_text("ssh: two")
    cloud.oneaws("reconcile", code=1)
    assert [("ssh: one" in line, "ssh: two" in line) for line in lines] == [(True, False), (False, True)]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86401)
    cloud.oneaws("reconcile", code=1)
    assert len(lines) == 3
    monkeypatch.undo()
    assert len(_journal(monkeypatch)) == 0


def test_a_problem_that_was_over_is_told_again(tmp_path: Path) -> None:
    def tell(*problems: str) -> list[str]:
        return told.untold(str(tmp_path), "reconcile", problems, everything=True)

    assert tell("a", "b") == ["a", "b"]
    assert tell("a") == []
    assert tell("a", "b") == ["b"]
    assert tell("busy: x (pid 12) has held it for 30 s") == ["busy: x (pid 12) has held it for 30 s"]
    assert tell("busy: x (pid 14) has held it for 60 s") == []
    assert tell("Request has expired. Timestamp date is 2026-11-28T10:00:00Z") != []
    assert tell("Request has expired. Timestamp date is 2026-11-28T10:02:00Z") == []


def test_a_hook_that_fails_the_same_way_tells_the_journal_once_and_its_own_log_always(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = _journal(monkeypatch)
    site: Site = settle(cloud)
    vm_id = site.run(site.elsewhere(site.address(0)), 0)
    cloud.ec2.fail_next(ASSIGN, "ExpiredToken", 50)
    assert ["ExpiredToken" in site.hook(vm_id)[1] for _ in range(3)] == [True] * 3
    assert ["ExpiredToken" in line for line in lines] == [True]


def test_a_timer_s_output_that_systemd_leads_into_the_journal_repeats_nothing(cloud: Cloud) -> None:
    output = cloud.directory / "journal"
    cloud.environment["ONE_XMLRPC"] = "http://127.0.0.1:9/RPC2"
    with open(output, "w") as file:
        about = os.fstat(file.fileno())
        environment = {**cloud.environment, "JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"}
        for _ in range(3):
            done = subprocess.run(
                [str(Path(sys.executable).with_name("oneaws")), "reconcile"],
                env=environment,
                stdout=file,
                stderr=file,
                timeout=60,
            )
            assert done.returncode == 1
    assert output.read_text().count("is opennebula.service running?") == 1


# Pages


def test_every_paged_call_says_how_much_it_takes(cloud: Cloud) -> None:
    """EC2's API reference: MaxResults "to make a separate call for the next items"; without, large accounts wait or fail."""
    settle(cloud)
    requests = _requests(cloud)
    assert requests
    for action, most in requests:
        expected = {"DescribeAddresses": None, "DescribeInstanceTypes": 100}.get(action, 1000)
        assert (action, most) == (action, expected)


def _requests(cloud: Cloud) -> list[tuple[str, int | None]]:
    """The describes of a reconcile, as they leave this process, and their MaxResults."""
    seen: list[tuple[str, int | None]] = []
    made = boto3.client

    def client(*words: Any, **values: Any) -> Any:
        result = made(*words, **values)

        def note(model: object, params: dict[str, dict[str, Any]], **_: object) -> None:
            seen.append((params["body"]["Action"], params["body"].get("MaxResults")))

        result.meta.events.register("before-call.ec2", note)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3, "client", client)
        cloud.oneaws("reconcile", "--dry-run")
    return seen
