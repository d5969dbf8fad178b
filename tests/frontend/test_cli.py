"""`oneaws` as an administrator meets it: help, exit codes, tables, JSON, completion, and a sentence for each failure."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vnm_aws import __version__, lock
from vnm_aws.cli import main
from vnm_aws.errors import AwsOvsError
from vnm_aws.frontend.settings import Settings

from .cloud import Cloud

FOLLOWER = 2
LISTING = ["host list", "mesh show", "eip list", "vnet check", "hooks list", "settings", "config"]
CHANGING = ["host sync", "mesh sync", "eip sync", "eip follow", "hooks register", "hooks remove", "reconcile"]


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from commands(below, (*path, name))


TREE = dict(commands(main))


def cloudy(cloud: Cloud) -> None:
    """A cloud in which all is well: a host, a pool with an Elastic IP, and the hooks."""
    cloud.add_metal("h1")
    cloud.add_eips(1)
    cloud.add_pool()
    cloud.reconcile()
    cloud.probed("h1")
    cloud.oneaws("hooks", "register")
    cloud.forget_calls()


# Help and completion


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*path, "--help"], prog_name="oneaws")
    shown = done.stdout
    assert (done.exit_code, done.stderr) == (0, "")
    assert shown.startswith(f"Usage: {' '.join(('oneaws', *path))}")
    first = (TREE[path].help or "").strip().splitlines()[0]
    assert re.match(r"[A-Z].{10,}", first), first
    assert (TREE[path].help or "").split("\n\n")[0].rstrip().endswith("."), "not a sentence"
    for option in TREE[path].params:
        if isinstance(option, click.Option):
            assert (option.help or "").endswith("."), option.name
    if isinstance(TREE[path], click.Group):
        assert "Commands:" in shown
    else:
        assert "--json" in shown, "a program may want to read it"


def test_help_needs_neither_world_nor_what_reaches_them(cloud: Cloud) -> None:
    cloud.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    done = cloud.oneaws_process("-h")
    assert "Usage: oneaws" in done.stdout
    assert not re.search(r"\| +(boto3|pyone|lxml)$", done.stderr, re.MULTILINE)


def test_every_command_is_in_one_of_the_lists_of_this_test() -> None:
    leaves = {" ".join(path) for path, one in TREE.items() if not isinstance(one, click.Group)}
    assert leaves == {*LISTING, *CHANGING, "check"}


@pytest.mark.parametrize(
    "words", [["nothing"], ["host"], ["host", "nothing"], ["eip", "follow", "web"], ["host", "list", "--yes"]], ids=str
)
def test_wrong_usage_ends_with_2_and_what_is_right(cloud: Cloud, words: list[str]) -> None:
    done = cloud.oneaws(*words, code=2)
    assert done.stdout == ""
    assert "Usage: oneaws" in done.stderr


def test_the_shell_completes_commands(cloud: Cloud) -> None:
    cloud.environment["_ONEAWS_COMPLETE"] = "bash_source"
    assert "complete -o nosort -F _oneaws_completion oneaws" in cloud.oneaws().stdout
    cloud.environment |= {"_ONEAWS_COMPLETE": "bash_complete", "COMP_WORDS": "oneaws ho", "COMP_CWORD": "1"}
    assert cloud.oneaws().stdout.split() == ["plain,hooks", "plain,host"]


@pytest.mark.parametrize(
    ("words", "code"),
    [("host list", 0), ("reconcile --dry-run -v", 0), ("host nothing", 2), ("eip sync nothing", 1), ("-h", 0)],
)
def test_in_the_test_s_process_it_says_what_it_says_in_its_own(cloud: Cloud, words: str, code: int) -> None:
    cloud.add_metal("h1")
    here, there = cloud.oneaws(*words.split(), code=code), cloud.oneaws_process(*words.split(), code=code)
    assert (here.stdout, here.stderr) == (there.stdout, there.stderr)


# Tables and JSON


def test_tables_are_like_those_of_opennebula(cloud: Cloud) -> None:
    cloudy(cloud)
    (instance,) = cloud.world().instances
    lines = cloud.oneaws("host", "list").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["ID", "NAME", "CLUSTER", "INSTANCE", "TYPE", "ZONE", "EC2", "FREE", "TVM", "STAT"],
        ["0", "h1", "default", instance, "c5n.metal", "eu-west-1a", "running", "49", "0", "on"],
    ]
    assert lines[0].index("INSTANCE") == lines[1].index(instance)
    assert lines[1][: lines[0].index("FREE") + len("FREE")].endswith(" 49")
    lines = cloud.oneaws("mesh", "show").stdout.splitlines()
    assert lines[1].split() == ["0", "h1", "10.0.0.4", "ok", "0", "0", "-", __version__, "on", "-"]
    assert lines[2:] == ["Blocks of the VPC: 10.0.0.0/16", "Private addresses of VMs: 10.0.0.254"]
    lines = cloud.oneaws("eip", "list").stdout.splitlines()
    assert lines[0].split() == ["EXTERNAL_IP", "PRIVATE_IP", "NETWORK", "AR", "IP", "VM", "HOST", "STATUS"]
    assert lines[1].split()[2:] == ["public", "0", "192.168.0.2", "-", "h1", "ok"]
    assert lines[2] == "Elastic IPs in the Region: 1 of 5000, 4999 more can be allocated."


def test_lists_of_nothing_have_a_head(cloud: Cloud) -> None:
    for words in ("host list", "mesh show", "vnet check"):
        (head,) = cloud.oneaws(*words.split()).stdout.splitlines()
        assert head.split()[:2] == ["ID", "NAME"]
        printed = json.loads(cloud.oneaws(*words.split(), "--json").stdout)
        assert (printed["hosts"] if words == "mesh show" else printed) == []


def test_json_is_json_and_alone_on_stdout(cloud: Cloud) -> None:
    cloudy(cloud)
    cloud.add_eips(1)
    lists = [cloud.oneaws(*words.split(), "--json") for words in LISTING]
    for done in (*lists, cloud.oneaws("check", "--json", code=1)):
        assert json.loads(done.stdout), done
    for words in CHANGING:
        done = cloud.oneaws(*words.split(), "--json", "--dry-run", "-v")
        assert set(json.loads(done.stdout)) == {"dry_run", "changes", "problems"}
        assert json.loads(done.stdout)["dry_run"] is True
    assert cloud.mutating_calls() == []
    cloud.oned.set_raft_state(FOLLOWER)
    done = cloud.oneaws("reconcile", "--json")
    assert json.loads(done.stdout) == {"dry_run": False, "changes": [], "problems": []}
    assert "another front-end leads" in done.stderr


def test_verbose_says_each_step_on_stderr(cloud: Cloud) -> None:
    cloud.add_metal("h1")
    done = cloud.oneaws("reconcile", "--verbose")
    assert done.stderr.splitlines()[0].startswith("hosts 1/1: host h1: create it for instance i-")
    assert done.stdout.splitlines()[0].startswith("host h1: create it for instance i-")
    assert cloud.oneaws("reconcile", "--verbose").stdout == "Nothing to change.\n"


def test_output_that_nobody_reads_is_no_error(cloud: Cloud) -> None:
    for words in (["host", "list", "--json"], ["--help"], ["reconcile", "--dry-run"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [str(Path(sys.executable).with_name("oneaws")), *words]
        done = subprocess.run(command, env=cloud.environment, stdout=writer, stderr=subprocess.PIPE, timeout=60)
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, b""), words


def test_an_interrupt_leaves_no_traceback(cloud: Cloud) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupt() -> None:
        while not started:
            time.sleep(0.01)
        started[0].send_signal(signal.SIGINT)
        started[0].wait()  # no reply comes before it has ended

    cloud.oned.before("one.hostpool.info", interrupt)
    started.append(cloud.start("host", "list"))
    out, error = started[0].communicate(timeout=60)
    assert (started[0].returncode, out) == (1, "")
    assert error.strip() == "Aborted!"


# Settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("regoin: eu-west-1", "unknown key 'regoin'; the keys are region, vpc_id"),
        ("ssh_parallel: many", "ssh_parallel must be a number, not 'many'"),
        ("ssh_parallel: true", "ssh_parallel must be a number, not 'True'"),
        ("ssh_parallel: 0", "ssh_parallel must be from 1 to 256, not 0"),
        ("region: 7", "region must be text, not '7'"),
        ("host_filter: opennebula", "host_filter 'opennebula' is not a tag filter like tag:Pool=web"),
        ("host_name: tag", "host_name must be private-dns, private-ip or tag:NAME, not 'tag'"),
        ("host_name: 'tag:'", "host_name must be private-dns"),
        ("state_directory: state", "state_directory must be an absolute path, not 'state'"),
        ("- region", "line 1 is not 'key: value' with a short plain value"),
        ("region: 'a", "line 2 is not valid YAML"),
        ("region: !!python/object/apply:os.system [id]", "line 1 is not 'key: value'"),
        ("a: " + "x" * 70000, "is larger than 65536 bytes"),
    ],
)
def test_settings_that_make_no_sense_are_said(cloud: Cloud, text: str, said: str) -> None:
    (cloud.directory / "aws_ovs.yaml").write_text(text + "\n")
    with pytest.raises(AwsOvsError, match=re.escape(said)) as bad:
        cloud.world()
    assert str(bad.value).startswith(f"{cloud.directory}/aws_ovs.yaml")
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize("words", [["settings"], ["reconcile"], ["check", "--json"]], ids=" ".join)
def test_a_command_with_wrong_settings_does_nothing(cloud: Cloud, words: list[str]) -> None:
    cloud.configure(regoin="eu-west-1")
    done = cloud.oneaws(*words, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith(
        f"oneaws: {cloud.directory}/aws_ovs.yaml: unknown key 'regoin'; the keys are region, "
    )
    assert (cloud.oned.calls(), cloud.ec2.calls()) == ([], [])


def test_without_a_file_the_defaults_are_in_force(cloud: Cloud) -> None:
    for text in (None, ""):
        path = cloud.directory / "other.yaml"
        if text is not None:
            path.write_text(text)
        shown = json.loads(cloud.oneaws("--settings", str(path), "settings", "--json").stdout)
        assert shown == Settings()._asdict()
    lines = cloud.oneaws("--settings", str(path), "settings").stdout.splitlines()
    assert ["host_filter", "tag:opennebula=host"] in [line.split() for line in lines]


def test_the_nodes_configuration_is_checked(cloud: Cloud) -> None:
    path = cloud.directory / "driver.yaml"
    assert json.loads(cloud.oneaws("config", "--json", "--file", str(path)).stdout)["vni_base"] == 1048576
    path.write_text("vni_base: -1\n")
    assert "vni_base must be from 1 to 16000000, not -1" in cloud.oneaws("config", "--file", str(path), code=1).stderr


# Health, and who is at work


def _lines(cloud: Cloud, code: int) -> list[tuple[str, str, str]]:
    found = json.loads(cloud.oneaws("check", "--json", code=code).stdout)
    return [(line["CHECK"], line["STATUS"], line["DETAIL"]) for line in found]


def test_check_says_that_all_is_well(cloud: Cloud) -> None:
    cloudy(cloud)
    lines = _lines(cloud, 0)
    assert {status for _, status, _ in lines} == {"ok"}
    assert [name for name, _, _ in lines] == [
        *(
            "driver configuration",
            "OpenNebula",
            "EC2",
            "clock",
            "hooks",
            "restricted attributes",
            "inherited attributes",
        ),
        *(
            "timer",
            "clusters",
            "nodes",
            "rights",
            "hosts",
            "address ranges",
            "stand-ins",
            "addresses",
            "reserved addresses",
            "pool public",
            "unused addresses",
            "free addresses",
            "networks",
            "mesh",
        ),
        *("network public", "security groups"),
    ]
    assert cloud.mutating_calls() == []


def test_check_names_attributes_that_every_user_may_set(cloud: Cloud) -> None:
    cloudy(cloud)
    for kind, name in (("VM", "NIC_DEFAULT/AWS_PRIVATE_IP"), ("VNET", "AWS_EIP_POOL")):
        cloud.oned.allow(kind, name)
    assert [detail for name, _, detail in _lines(cloud, 1) if name == "restricted attributes"] == [
        "oned lets every user set NIC_DEFAULT/AWS_PRIVATE_IP of VMs, AWS_EIP_POOL of networks; run 'install.sh --frontend' as "
        "root, then 'systemctl restart opennebula'"
    ]


def test_check_says_what_is_to_be_done_and_what_is_wrong(cloud: Cloud) -> None:
    cloudy(cloud)
    (eip,) = cloud.add_eips(1)
    cloud.add_network("green", BRIDGE="br 0")
    cloud.oned.forget("HOOK", 0)
    lines = {name: (status, detail) for name, status, detail in _lines(cloud, 1)}
    assert lines["pool public"][0] == "pending"
    assert re.match(f"Elastic IP {eip}: should add range .*; run 'oneaws reconcile'", lines["pool public"][1])
    assert lines["network green"][0] == "failed"
    assert lines["hooks"] == ("failed", "aws_ovs-host-allocate is missing; run 'oneaws hooks register'")
    shown = cloud.oneaws("check", code=1).stdout.splitlines()
    assert shown[0].split() == ["CHECK", "STATUS", "DETAIL"]
    assert cloud.mutating_calls() == []


def test_whoever_is_at_work_is_named(cloud: Cloud) -> None:
    cloud.configure(lock_timeout=1)
    with lock.held("oneaws reconcile", 1, str(cloud.directory / "state/lock")):
        said = cloud.oneaws("host", "sync", code=1).stderr
        assert f"busy: oneaws reconcile (pid {os.getpid()}) has held " in said
        assert said.endswith("; look at that process\n")
        for words in (["host", "list"], ["reconcile", "--dry-run"], ["check"]):
            cloud.oneaws(*words, code=1 if words == ["check"] else 0)
    with lock.held("oneaws reconcile", 1, str(cloud.directory / "state/next-reconcile.lock")):
        assert "another run is waiting already" in cloud.oneaws("reconcile").stderr
