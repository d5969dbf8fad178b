"""install.sh, run for real on machines of its own: what it installs, repeats, refuses, survives and removes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support.machine import (
    CHECKOUT,
    CONFIG,
    ONED_CONF,
    PLAIN,
    REPOSITORY,
    SETTINGS,
    SHIMS,
    UNITS,
    Machine,
    copy_environment,
)

pytestmark = [
    pytest.mark.only_on("userspace", reason="install.sh meets no host of the lab here"),
    pytest.mark.xdist_group("install"),
]

# As an administrator may have written it.
PREPARED = (
    PLAIN
    + """\
VN_MAD_CONF = [
    BRIDGE_TYPE = "openvswitch",   # the driver's bridges
    NAME        = "aws_ovs"
]
"""
)


def _oned_confs() -> dict[str, bytes]:
    """Our own, and OpenNebula's where its files are at hand."""
    confs = {"plain": PLAIN.encode(), "prepared": PREPARED.encode(), "no-newline": PLAIN.rstrip("\n").encode()}
    directory = os.environ.get("AWS_OVS_OPENNEBULA_ETC") or str(REPOSITORY / "../shared/opennebula-7.2.0/etc")
    original = Path(directory, "oned.conf")
    if original.is_file():
        confs["opennebula"] = original.read_bytes()
    return confs


ONED_CONFS = _oned_confs()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine without the driver."""
    with Machine("fresh", PLAIN.encode()) as machine:
        yield machine


@pytest.fixture(scope="module")
def installed() -> Iterator[Machine]:
    """A machine that is front-end and node. Tests may not change it."""
    with Machine("installed", PLAIN.encode()) as machine:
        printed = machine.install("--frontend", "--node")
        assert "restart OpenNebula" in printed
        yield machine


def test_what_a_dry_run_announces_is_what_is_done_and_no_more(machine: Machine) -> None:
    before, oned_conf, contents = machine.tree(), machine.contents(ONED_CONF), machine.tree(times=False)
    announced = machine.install("--frontend", "--node", "--dry-run")
    assert machine.tree() == before
    done = machine.install("--frontend", "--node")
    assert _changes(announced, "would ") == _changes(done, "==> ")
    after = machine.tree()
    assert machine.install("--frontend", "--node").strip() == "Nothing to change."
    assert machine.install("--node").strip() == "Nothing to change."
    assert machine.tree() == after
    announced = machine.install("--uninstall", "--dry-run")
    assert machine.tree() == after
    done = machine.install("--uninstall")
    assert _changes(announced.replace(" if it is empty by then", ""), "would ") == _changes(done, "==> ")
    assert machine.tree(times=False) == contents, "the machine must be as it was before"
    assert machine.contents(ONED_CONF) == oned_conf
    assert machine.install("--uninstall").strip() == "Nothing to change."


def _changes(printed: str, mark: str) -> list[str]:
    found = [line.removeprefix(mark) for line in printed.splitlines() if line.startswith(mark)]
    assert found, printed
    return found


def test_the_parts_go_one_by_one(machine: Machine) -> None:
    machine.install("--node")
    assert machine.run(["aws-ovs", "--version"]).stdout.startswith("aws_ovs ")
    assert machine.run(["test", "-e", "/usr/bin/oneaws"], check=False).returncode == 1
    assert machine.run(["/usr/lib/aws_ovs/venv/bin/python", "-c", "import boto3"], check=False).returncode == 1
    machine.install("--frontend")  # extras add up
    assert machine.run(["aws-ovs", "--version"]).stdout.startswith("aws_ovs ")
    assert "datapath_type" in machine.run(["oneaws", "config"]).stdout
    assert machine.install("--node").strip() == "Nothing to change."
    machine.install("--uninstall", "--node")
    assert machine.run(["test", "-e", "/usr/sbin/aws-ovs"], check=False).returncode == 1
    assert "datapath_type" in machine.run(["oneaws", "config"]).stdout
    machine.install("--uninstall")
    assert machine.run(["test", "-e", "/usr/lib/aws_ovs"], check=False).returncode == 1


def _record(machine: Machine, program: str, code: int = 0) -> None:
    """Replace a program by one that only writes down what it was asked."""
    machine.run(["rm", "-f", f"/usr/bin/{program}"])
    machine.write(f"/usr/bin/{program}", f'#!/bin/sh\necho {program} "$@" >>/run/asked\nexit {code}\n')
    machine.run(["chmod", "755", f"/usr/bin/{program}"])


RESTORE = f"{UNITS}/aws_ovs-restore.service"
DROP_IN = f"{UNITS}/ovs-vswitchd.service.d/aws_ovs.conf"


def test_systemd_restores_a_node_whenever_open_vswitch_starts(machine: Machine) -> None:
    machine.run(["mkdir", "-p", "/run/systemd/system"])
    _record(machine, "systemctl")
    machine.install("--node")
    assert machine.run(["stat", "-c", "%a %U:%G", RESTORE, DROP_IN]).stdout == "644 root:root\n" * 2
    asked = "systemctl daemon-reload\nsystemctl --quiet restart aws_ovs-watch.service\n"
    assert machine.read("/run/asked") == asked, "nothing else is started"
    if machine.run(["sh", "-c", "command -v systemd-analyze"], check=False).returncode == 0:
        assert machine.run(["systemd-analyze", "verify", RESTORE]).stderr == ""
    started = [f"/usr/bin/systemctl --no-block start aws_ovs-{name}.service" for name in ("restore", "watch")]
    assert _commands(machine, DROP_IN, "ExecStartPost") == started
    if machine.run(["sh", "-c", "command -v systemd-analyze"], check=False).returncode == 0:
        assert machine.run(["systemd-analyze", "verify", f"{UNITS}/aws_ovs-watch.service"]).stderr == ""
    (command,) = _commands(machine, RESTORE, "ExecStart")
    done = machine.run(command.split(), check=False)
    assert (done.returncode, done.stderr.split()[:2]) == (1, ["aws-ovs:", "restore:"]), "this machine has no ENI"
    assert machine.install("--node").strip() == "Nothing to change."
    machine.write(f"{DROP_IN}.of-the-administrator", "")
    machine.run(["rm", "/run/asked"])
    assert f"left: {UNITS}/ovs-vswitchd.service.d" in machine.install("--uninstall")
    asked = "systemctl --quiet stop aws_ovs-watch.service\nsystemctl daemon-reload\n"
    assert machine.read("/run/asked") == asked, "no other service is stopped"
    assert machine.run(["test", "-e", RESTORE], check=False).returncode == 1
    assert machine.run(["test", "-e", DROP_IN], check=False).returncode == 1


def test_other_tools_of_the_host_keep_their_hands_off(machine: Machine) -> None:
    """What they read says so, beside what the administrator has there; and nothing of it stays."""
    eni = machine.run(["sh", "-c", "ip -4 -o route show default | sed -nE '1s/.* dev ([^ ]+).*/\\1/p'"]).stdout.strip()
    networkd, aliases = "/etc/systemd/networkd.conf.d", f"/etc/systemd/network/70-{eni}.network.d"
    machine.run(["mkdir", "-p", networkd, "/etc/cloud/cloud.cfg.d", "/run/systemd/network"])
    machine.write(f"{networkd}/own.conf", "[Network]\nSpeedMeter=yes\n")
    announced = machine.install("--node", "--dry-run")
    machine.install("--node")
    paths = [
        f"{networkd}/aws_ovs.conf",
        "/etc/cloud/cloud.cfg.d/95-aws_ovs.cfg",
        *([f"{aliases}/ec2net_alias.conf"] if eni else []),
    ]
    for path in paths:
        assert f"would install {path}\n" in announced
        assert machine.run(["stat", "-c", "%a %U:%G", path]).stdout == "644 root:root\n"
    settings = machine.read(paths[0]).splitlines()
    assert {"[Network]", "ManageForeignRoutingPolicyRules=no", "ManageForeignRoutes=no"} <= set(settings)
    if eni and machine.run(["sh", "-c", "command -v systemd-analyze"], check=False).returncode == 0:
        # As amazon-ec2-net-utils does.
        machine.run(["mkdir", "-p", f"/run/systemd/network/70-{eni}.network.d"])
        machine.write(f"/run/systemd/network/70-{eni}.network", "[Match]\nDriver=ena\n")
        machine.write(f"/run/systemd/network/70-{eni}.network.d/ec2net_alias.conf", "[Address]\nAddress=10.0.0.41/32\n")
        machine.write(f"/run/systemd/network/70-{eni}.network.d/eni.conf", "[Network]\nDHCP=yes\n")
        read = machine.run(["systemd-analyze", "cat-config", f"systemd/network/70-{eni}.network"]).stdout
        assert "DHCP=yes" in read
        assert "10.0.0.41" not in read
    machine.install("--uninstall", "--node")
    assert [path for path in paths if machine.run(["test", "-e", path], check=False).returncode == 0] == []
    assert machine.read(f"{networkd}/own.conf").startswith("[Network]")


def _commands(machine: Machine, path: str, key: str) -> list[str]:
    """What systemd would run."""
    found = re.findall(rf"(?m)^{key}=-?(.*)$", machine.read(path))
    return [line.replace("$$", "$").replace("%%", "%") for line in found]


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A node on which systemctl and ovs-vsctl only write down what they were asked."""
    machine.install("--node")
    for program in ("systemctl", "ovs-vsctl"):
        _record(machine, program)
    return machine


def test_ovs_vswitchd_waits_for_its_flows_when_there_are_vms_and_somebody_brings_them(node: Machine) -> None:
    asks = "systemctl --quiet is-enabled aws_ovs-restore.service\n"
    key = "Open_vSwitch . other_config"
    _, wait = _commands(node, DROP_IN, "ExecStartPre")

    def asked(command: str) -> str:
        node.run(["sh", "-c", f": >/run/asked; {command}"], check=False)
        return node.read("/run/asked")

    assert asked(wait) == ""
    node.run(["mkdir", "-p", "/run/aws_ovs/vms"])
    assert asked(wait) == ""
    node.write("/run/aws_ovs/vms/1.json", "[]")
    assert asked(wait) == f"{asks}ovs-vsctl --no-wait --timeout=5 set {key}:flow-restore-wait=true\n"
    _record(node, "systemctl", code=1)
    assert asked(wait) == asks, "masked"
    for path in (DROP_IN, RESTORE):
        (release,) = _commands(node, path, "ExecStopPost")
        assert asked(release) == f"ovs-vsctl --no-wait --timeout=5 remove {key} flow-restore-wait\n"


def test_ovs_vswitchd_is_not_started_in_the_first_seconds_after_boot(node: Machine) -> None:
    early, _ = _commands(node, DROP_IN, "ExecStartPre")
    node.write("/run/uptime", "10.99 3.21\n")
    process = node.spawn(["unshare", "--mount", "sh", "-c", f"mount --bind /run/uptime /proc/uptime; {early}"])
    time.sleep(1)
    assert process.poll() is None
    node.write("/run/uptime", "11.00 3.21\n")
    assert process.wait(10) == 0
    assert node.run(["timeout", "1", "sh", "-c", early]).returncode == 0, "this machine has been up for longer"


@pytest.mark.parametrize("name", ONED_CONFS)
def test_oned_conf_gets_what_it_lacks(installed: Machine, name: str) -> None:
    original = ONED_CONFS[name]
    with Machine("oned", PLAIN.encode()) as machine:
        # Only oned.conf matters here; the environment is the expensive part, so it is taken over.
        copy_environment(installed, machine)
        machine.oned_conf(original)
        machine.install("--frontend")
        text = machine.read(ONED_CONF)
        block = re.search(r"^# BEGIN aws_ovs.*?^# END aws_ovs\n", text, re.DOTALL | re.MULTILINE)
        assert block
        assert text.replace(block[0], "").encode().rstrip(b"\n") == original.rstrip(b"\n")
        active = re.sub(r"(?m)^\s*#.*$", "", text)
        assert len(re.findall(r'VN_MAD_CONF\s*=\s*\[[^]]*NAME\s*=\s*"aws_ovs"', active)) == 1
        for attribute in ("AWS_PRIVATE_IP", "MTU", "GATEWAY", "EXTERNAL_IP", "AWS_ALLOCATION_ID", "FILTER_IP_SPOOFING"):
            assert len(re.findall(rf'(?m)^INHERIT_VNET_ATTR\s*=\s*"{attribute}"', active)) == 1, attribute
        assert len(re.findall(r'(?m)^VM_RESTRICTED_ATTR\s*=\s*"NIC/AWS_PRIVATE_IP"', active)) == 1
        assert machine.run(["stat", "-c", "%U:%G %a", ONED_CONF]).stdout.strip() == "root:oneadmin 640"
        assert machine.read(f"{ONED_CONF}.before-aws_ovs").encode() == original
        assert machine.install("--frontend").strip() == "Nothing to change."
        machine.install("--uninstall")
        assert machine.read(ONED_CONF).encode() == original


def test_an_oned_conf_edited_since_keeps_its_edits(installed: Machine) -> None:
    with Machine("edited-oned", PLAIN.encode()) as machine:
        copy_environment(installed, machine)
        machine.install("--frontend")
        machine.write(ONED_CONF, machine.read(ONED_CONF) + "LATER = 1\n")
        assert machine.install("--frontend").strip() != "", "the block may move, the edit may not go"
        assert "before-aws_ovs, because" in machine.install("--uninstall")
        assert machine.read(ONED_CONF) == PLAIN + "LATER = 1\n"
        machine.write(ONED_CONF, PLAIN + "# BEGIN aws_ovs\n")
        before = machine.contents(ONED_CONF)
        assert "not one pair" in machine.install("--uninstall", code=1)
        assert machine.contents(ONED_CONF) == before


@pytest.mark.parametrize(
    ("path", "source", "edited"),
    [
        (CONFIG, "remotes/etc/vnm/aws_ovs.yaml", "datapath_type: netdev\n"),
        (SETTINGS, "share/etc/aws_ovs.yaml", "region: eu-west-1\n"),
    ],
)
def test_an_edited_configuration_stays(installed: Machine, path: str, source: str, edited: str) -> None:
    with Machine("edited", PLAIN.encode()) as machine:
        copy_environment(installed, machine)
        machine.install("--frontend")
        like = machine.run(["stat", "-c", "%a %U:%G", path]).stdout
        machine.write(path, edited)
        assert machine.install("--frontend").strip() == "Nothing to change."
        machine.run(["sh", "-c", f"echo '# a later version' >>{CHECKOUT}/{source}"])
        assert f"kept: {path}, which has been edited" in machine.install("--frontend")
        assert machine.read(path) == edited
        assert machine.read(f"{path}.new").endswith("# a later version\n")
        assert machine.run(["stat", "-c", "%a %U:%G", f"{path}.new"]).stdout == like
        assert machine.install("--frontend").strip() == "Nothing to change."
        assert f"left: {path}" in machine.install("--uninstall")
        assert machine.read(path) == edited
        assert machine.run(["test", "-e", f"{path}.new"], check=False).returncode == 1


def test_a_configuration_that_nobody_edited_is_renewed(installed: Machine) -> None:
    with Machine("renewed", PLAIN.encode()) as machine:
        copy_environment(installed, machine)
        machine.install("--frontend")
        for source in ("remotes/etc/vnm/aws_ovs.yaml", "share/etc/aws_ovs.yaml"):
            machine.run(["sh", "-c", f"echo '# a later version' >>{CHECKOUT}/{source}"])
        machine.install("--frontend")
        for path in (CONFIG, SETTINGS):
            assert machine.read(path).endswith("# a later version\n")
            assert machine.run(["test", "-e", f"{path}.new"], check=False).returncode == 1


def test_an_installation_that_was_killed_is_completed_by_the_next(machine: Machine) -> None:
    process = machine.spawn([f"{CHECKOUT}/install.sh", "--node"])
    deadline = time.monotonic() + 60
    while not machine.run(["sh", "-c", "ls -d /usr/lib/aws_ovs/venv-*/lib"], check=False).stdout:
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    assert machine.run(["test", "-e", "/usr/sbin/aws-ovs"], check=False).returncode == 1
    machine.install("--node")
    assert machine.run(["aws-ovs", "--version"]).stdout.startswith("aws_ovs ")
    assert machine.install("--node").strip() == "Nothing to change."
    environments = machine.run(["sh", "-c", "ls -d /usr/lib/aws_ovs/venv-*"]).stdout.split()
    assert len(environments) == 1


def test_a_new_version_replaces_the_old_in_one_step(installed: Machine) -> None:
    with Machine("updated", PLAIN.encode()) as machine:
        copy_environment(installed, machine)
        machine.install("--frontend", "--node")
        first = machine.run(["readlink", "/usr/lib/aws_ovs/venv"]).stdout
        machine.run(["sed", "-i", 's/__version__ = .*/__version__ = "9.9.9"/', f"{CHECKOUT}/vnm_aws/__init__.py"])
        machine.install("--node")
        assert re.fullmatch(r"aws_ovs 9\.9\.9\+[0-9a-f]{8}\n", machine.run(["aws-ovs", "--version"]).stdout)
        assert "9.9.9" in machine.run(["oneaws", "--version"]).stdout
        kept = machine.run(["sh", "-c", "cd /usr/lib/aws_ovs; ls -d venv-*"]).stdout.split()
        assert first.strip() in kept, "actions under way still import from it"
        assert machine.install("--node").strip() == "Nothing to change."


@pytest.mark.parametrize(
    ("options", "user", "prepare", "sentence"),
    [
        (["--node"], "oneadmin", "", "must run as root"),
        ([], "root", "", "--frontend, --node or --uninstall"),
        (["--nodes"], "root", "", "'--nodes' is not an option"),
        (["--node"], "root", "userdel oneadmin", "no user oneadmin"),
        (["--frontend"], "root", f"rm {ONED_CONF}", "oned.conf is not there"),
        (["--frontend"], "root", "rm -r /var/lib/one/remotes", "remotes is not there"),
        (["--node"], "root", "rm /usr/bin/ovs-vsctl", "apt-get install openvswitch-switch"),
        (["--node"], "root", "rm -r /usr/lib/python3*/ensurepip", "apt-get install python3-venv"),
        (["--node"], "root", f"echo nonsense >>{CHECKOUT}/share/sudoers/aws_ovs", "sudo does not accept"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_no_change(
    machine: Machine, options: list[str], user: str, prepare: str, sentence: str
) -> None:
    machine.run(["sh", "-ec", prepare])
    before = machine.tree()
    printed = machine.install(*options, user=user, code=1)
    assert sentence in printed
    assert machine.tree() == before
    assert printed.splitlines()[-1].startswith("install.sh: ")


def test_without_a_package_index_it_says_so(machine: Machine) -> None:
    done = machine.run(
        [f"{CHECKOUT}/install.sh", "--node"], env={"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}, check=False
    )
    assert done.returncode == 1
    assert "package index" in done.stderr.splitlines()[-1]
    assert machine.run(["test", "-e", "/usr/sbin/aws-ovs"], check=False).returncode == 1


def test_oneadmin_may_run_the_verbs_as_root_and_nothing_else(installed: Machine) -> None:
    def sudo(*words: str) -> bool:
        """Whether sudo runs it, however the program then likes it."""
        done = installed.run(["sudo", "-n", *words], user="oneadmin", check=False, stdin="")
        return "password is required" not in done.stderr and "not allowed" not in done.stderr

    program = "/usr/sbin/aws-ovs"
    for allowed in (
        "pre",
        "post one-5 h1",
        "clean h1",
        "update_sg one-1",
        "update_nic one-1 1",
        "peers",
        "peers --apply",
        "probe",
        "show",
    ):
        assert sudo(program, *allowed.split()), allowed
    for refused in ("", "--version", "evil", "pre x", "peers --evil", "probe x", "postx one-5 h1", "x post one-5 h1"):
        assert not sudo(program, *refused.split()), refused
    assert not sudo("/usr/bin/id")
    assert not sudo("/usr/bin/python3", "-c", "0")
    assert not sudo("--preserve-env", program, "pre")
    assert not sudo("PYTHONPATH=/tmp", program, "pre")
    assert not sudo("-u", "daemon", program, "pre")
    assert "(root)" in installed.run(["sudo", "-n", "-l"], user="oneadmin").stdout


def test_nothing_that_root_runs_is_writable_or_comes_from_elsewhere(installed: Machine) -> None:
    foreign = [
        "(",
        "-perm",
        "/022",
        "-not",
        "-type",
        "l",
        "-o",
        "-not",
        "-user",
        "root",
        "-o",
        "-not",
        "-group",
        "root",
        ")",
    ]
    paths = ["/usr/lib/aws_ovs", "/usr/sbin/aws-ovs", "/etc/sudoers.d/aws_ovs", "/var/lib/aws_ovs", "/run/aws_ovs"]
    assert installed.run(["find", *paths, *foreign]).stdout == ""
    assert installed.run(["stat", "-c", "%a", "/etc/sudoers.d/aws_ovs"]).stdout.strip() == "440"
    script = "import sys, vnm_aws, lxml; print(vnm_aws.__file__, *sys.path)"
    enter = ["/usr/lib/aws_ovs/venv/bin/python", "-I", "-c", script]
    places = installed.run(enter, env={"PYTHONPATH": CHECKOUT}, cwd=CHECKOUT).stdout.split()
    assert places[0].startswith("/usr/lib/aws_ovs/venv/")
    assert all(place.startswith(("/usr/lib/aws_ovs/venv", "/usr/lib/python3")) for place in places)
    compiled = installed.run(["sh", "-c", "ls /usr/lib/aws_ovs/venv/lib/*/site-packages/vnm_aws/__pycache__"]).stdout
    assert "vm.cpython" in compiled


def test_the_program_ignores_the_environment_and_the_directory_of_its_caller(installed: Machine) -> None:
    evil = "raise SystemExit('evil')\n"
    installed.run(["sh", "-ec", "mkdir -p /tmp/evil/vnm_aws /tmp/evil/lxml"])
    for name in ("vnm_aws/__init__.py", "lxml/__init__.py", "re.py", "sitecustomize.py", "usercustomize.py"):
        installed.write(f"/tmp/evil/{name}", evil)
    environment = {"PYTHONPATH": "/tmp/evil", "PYTHONHOME": "/tmp/evil", "PYTHONSTARTUP": "/tmp/evil/re.py"}
    direct = installed.run(["/usr/sbin/aws-ovs", "--version"], env=environment, cwd="/tmp/evil")
    assert direct.stdout.startswith("aws_ovs ")
    done = installed.run(
        ["sudo", "-n", "/usr/sbin/aws-ovs", "pre"], user="oneadmin", env=environment, cwd="/tmp/evil", check=False
    )
    assert "evil" not in done.stdout + done.stderr
    assert done.stderr.startswith("ERROR: pre: ")


@pytest.mark.parametrize("verb", ["pre", "post", "clean", "update_sg", "update_nic"])
def test_a_shim_hands_everything_over_or_says_what_is_missing(installed: Machine, verb: str) -> None:
    arguments = {
        "pre": [],
        "post": ["one-1", "h1"],
        "clean": ["h1"],
        "update_sg": ["one-1"],
        "update_nic": ["one-1", "1"],
    }[verb]
    assert installed.run(["stat", "-c", "%a", f"{SHIMS}/{verb}"]).stdout.strip() == "755"
    reached = installed.run([f"{SHIMS}/{verb}", *arguments], user="oneadmin", stdin="%%%", check=False)
    assert reached.returncode == 1
    assert re.fullmatch(rf"ERROR: {verb}: (.*base64.*)\n{verb}: \1\n", reached.stderr)
    # On a host where only `onehost sync` has been.
    missing = installed.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind /dev/null /usr/sbin/aws-ovs; exec "$@"',
            "sh",
            f"{SHIMS}/{verb}",
        ],
        check=False,
    )
    assert missing.returncode == 1
    assert re.fullmatch(rf"ERROR: {verb}: (.*install.sh --node.*)\n{verb}: \1\n", missing.stderr)
