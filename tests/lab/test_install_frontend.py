"""What install.sh puts on a front-end: hooks, network scripts, the probe, settings, units and what goes with them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .support.machine import (
    CHECKOUT,
    COMPLETIONS,
    HOOKS,
    PLAIN,
    PROBE,
    REPOSITORY,
    SETTINGS,
    SHARE,
    SHIMS,
    TIMER,
    UNITS,
    Machine,
    copy_environment,
)

STATE = "/var/lib/one/aws_ovs"
LAUNCHERS = {path.name: f"{HOOKS}/{path.name}" for path in sorted((REPOSITORY / "hooks/aws_ovs").iterdir())}
LAUNCHERS |= {name: f"{SHIMS}/{name}" for name in ("vnet_create", "vnet_delete")}
pytestmark = [
    pytest.mark.only_on("userspace", reason="a front-end forwards no packets"),
    pytest.mark.xdist_group("install"),
]

DOCUMENT = "PFZORVQvPg==\n" * 20000
"""More than a pipe holds."""

_FAKE = """\
import os, sys
def main(argv):
    print(os.path.basename(argv[0]), *argv[1:], len(sys.stdin.read()), __file__)
    return 7
"""
# The Python environment is gone, or what it holds cannot be imported.
_WITHOUT = """
mount -t tmpfs none /usr/lib/aws_ovs
[ "$1" = gone ] || mkdir -p /usr/lib/aws_ovs/venv-1 && ln -s venv-1 /usr/lib/aws_ovs/venv
shift
exec setpriv --reuid=oneadmin --regid=oneadmin --init-groups -- "$@"
"""


@pytest.fixture(scope="module")
def installed() -> Iterator[Machine]:
    """A machine that is front-end and node. Tests may not change it."""
    with Machine("installed", PLAIN.encode()) as machine:
        machine.install("--frontend", "--node")
        yield machine


@pytest.fixture
def machine(installed: Machine) -> Iterator[Machine]:
    """A machine that has the Python environment only: the rest takes no time."""
    with Machine("frontend", PLAIN.encode()) as machine:
        copy_environment(installed, machine)
        yield machine


def _stat(machine: Machine, path: str) -> str:
    return machine.run(["stat", "-c", "%F %a %U:%G", path]).stdout.strip()


def _exists(machine: Machine, path: str) -> bool:
    return machine.run(["test", "-e", path], check=False).returncode == 0


def test_everything_has_its_place_its_owner_and_its_mode(installed: Machine) -> None:
    assert _stat(installed, SETTINGS) == "regular file 640 root:oneadmin"
    assert _stat(installed, PROBE) == "regular file 755 oneadmin:oneadmin"
    for path in LAUNCHERS.values():
        assert _stat(installed, path) == "regular file 755 oneadmin:oneadmin", path
    directory = PROBE.rpartition("/")[0]
    while not directory.endswith("/remotes"):
        assert _stat(installed, directory) == "directory 755 oneadmin:oneadmin", directory
        directory = directory.rpartition("/")[0]
    sources = {f"{COMPLETIONS}/oneaws": "bash-completion/oneaws"}
    for kind, place in (
        ("hooks", f"{SHARE}/hooks"),
        ("vnet", f"{SHARE}/vnet"),
        ("aws", f"{SHARE}/aws"),
        ("systemd/frontend", UNITS),
    ):
        sources |= {f"{place}/{path.name}": f"{kind}/{path.name}" for path in (REPOSITORY / "share" / kind).iterdir()}
    for path, source in sources.items():
        assert _stat(installed, path) == "regular file 644 root:root", path
        installed.run(["cmp", path, f"{CHECKOUT}/share/{source}"])


def test_the_state_directory_is_oneadmins(machine: Machine) -> None:
    """What another user has left there, oneadmin could not change: it goes, and can be found out again."""
    machine.install("--frontend")
    assert _stat(machine, STATE) == "directory 750 oneadmin:oneadmin"
    machine.write("/root/secret", "root's")
    machine.run(
        [
            "sh",
            "-ec",
            f"cd {STATE}; touch lock mesh.json; chmod 755 .; chown root:root .; ln /root/secret hard 2>/dev/null || :",
        ]
    )
    machine.run(["install", "-o", "oneadmin", "/dev/null", f"{STATE}/attempts.json"])
    assert f"remove what is not oneadmin's from {STATE}: " in machine.install("--frontend")
    assert _stat(machine, STATE) == "directory 750 oneadmin:oneadmin"
    assert machine.run(["ls", STATE]).stdout == "attempts.json\n"
    assert _stat(machine, "/root/secret") == "regular file 644 root:root", "nothing is given away"
    assert machine.install("--frontend").strip() == "Nothing to change."


# The first lock is taken before anything is asked of oned; there is none here.
_NO_ONED = "does not answer (ConnectionError); is opennebula.service running?"


def test_started_by_root_oneaws_acts_as_oneadmin(machine: Machine) -> None:
    machine.install("--frontend")
    machine.run(["install", "-d", "-o", "oneadmin", "-m", "700", "/var/lib/one/.one"])
    machine.run(["sh", "-ec", "umask 077; echo oneadmin:x >~/.one/one_auth"], user="oneadmin")
    hook = ["sh", "-c", f"echo PFZORVQvPg== | {HOOKS}/vnet_ready"]
    for user in ("root", "oneadmin", "root"):
        for command in (
            ["oneaws", "reconcile"],
            ["oneaws", "host", "sync"],
            ["oneaws", "check"],
            ["oneaws", "host", "list"],
        ):
            done = machine.run(command, user=user, check=False, cwd="/root" if user == "root" else None)
            assert _NO_ONED in done.stdout + done.stderr, done
            assert machine.run(["find", STATE, "!", "-user", "oneadmin"]).stdout == "", (user, command)
        assert "cannot be" not in machine.run(hook, user=user, check=False).stderr
    assert _exists(machine, f"{STATE}/next-reconcile.lock")
    assert "host_filter" in machine.run(["oneaws", "settings"]).stdout


def test_root_makes_no_state_directory(machine: Machine) -> None:
    machine.install("--frontend")
    machine.run(["rm", "-r", STATE])
    done = machine.run(["oneaws", "reconcile"], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert not _exists(machine, STATE)
    _, _, command = done.stderr.strip().partition("; make it: ")
    machine.run(command.split())
    assert _stat(machine, STATE) == "directory 750 oneadmin:oneadmin"
    machine.run(["chown", "12345", STATE])
    done = machine.run(["oneaws", "reconcile"], check=False)
    assert (
        f"belongs to user 12345, whom this machine does not know; give it to oneadmin: chown oneadmin: {STATE}"
        in done.stderr
    )


def test_oneadmin_reads_the_settings_and_cannot_change_them(installed: Machine) -> None:
    assert "host_filter" in installed.run(["cat", SETTINGS], user="oneadmin").stdout
    assert installed.run(["sh", "-c", f"echo >>{SETTINGS}"], user="oneadmin", check=False).returncode != 0


def test_a_launcher_hands_over_its_name_and_its_input(machine: Machine) -> None:
    machine.install("--frontend")
    package = machine.run(["sh", "-c", "echo /usr/lib/aws_ovs/venv/lib/*/site-packages/vnm_aws"]).stdout.strip()
    for name in ("hook", "vnet"):
        machine.write(f"{package}/frontend/{name}.py", _FAKE)
    machine.run(["sh", "-ec", "mkdir -p /tmp/evil/vnm_aws; echo 'raise SystemExit(9)' >/tmp/evil/vnm_aws/__init__.py"])
    for name, path in LAUNCHERS.items():
        done = machine.run(
            [path, "12"], user="oneadmin", stdin=DOCUMENT, env={"PYTHONPATH": "/tmp/evil"}, cwd="/tmp/evil", check=False
        )
        event, argument, size, module = done.stdout.split()
        assert (done.returncode, event, argument, int(size)) == (7, name, "12", len(DOCUMENT))
        # Not by way of the link: a later installation changes it.
        assert re.match(r"/usr/lib/aws_ovs/venv-\w+/lib/", module)
        assert module.endswith("/vnet.py" if path.startswith(SHIMS) else "/hook.py")


@pytest.mark.parametrize("what", ["gone", "empty"])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_without_its_packages_says_so(installed: Machine, name: str, what: str) -> None:
    done = installed.run(
        ["unshare", "--mount", "sh", "-ec", _WITHOUT, "sh", what, LAUNCHERS[name], "1"], stdin=DOCUMENT, check=False
    )
    assert re.fullmatch(r"aws_ovs: [^\n]*not usable[^\n]*; run 'install.sh --frontend' again\n", done.stderr)
    assert done.stdout == ""
    # A network must be able to go.
    assert done.returncode == (0 if name == "vnet_delete" else 1)


@pytest.mark.parametrize("what", ["gone", "empty"])
def test_the_probe_without_its_packages_says_so_and_fails_nothing(installed: Machine, what: str) -> None:
    done = installed.run(["unshare", "--mount", "sh", "-ec", _WITHOUT, "sh", what, PROBE])
    *others, error = done.stdout.splitlines()
    assert re.fullmatch(r'AWS_OVS_ERROR="[^"]+; run \'install.sh --node\' on this host again"', error)
    assert [line for line in others if not re.fullmatch(r'AWS_OVS_([A-Z_]+=""|TIME="\d+")', line)] == []


def test_the_completion_is_there_when_it_is_asked_for(installed: Machine) -> None:
    done = installed.run(["bash", "-ec", f"source {COMPLETIONS}/oneaws; complete -p oneaws"])
    assert "-F _oneaws_completion oneaws" in done.stdout


def test_systemd_is_told_when_units_change_and_only_then(machine: Machine) -> None:
    machine.run(["sh", "-ec", "mkdir -p /run/systemd/system; rm -f /usr/bin/systemctl"])
    machine.write("/usr/bin/systemctl", '#!/bin/sh\necho "$@" >>/run/asked\n')
    machine.run(["chmod", "755", "/usr/bin/systemctl"])
    assert f"systemctl enable --now {TIMER}" in machine.install("--frontend")
    assert machine.read("/run/asked") == "daemon-reload\n", "nothing is started"
    machine.install("--frontend")
    assert machine.read("/run/asked") == "daemon-reload\n"
    link = f"/etc/systemd/system/timers.target.wants/{TIMER}"
    machine.run(["sh", "-ec", f"mkdir -p {link.rpartition('/')[0]}; ln -s {UNITS}/{TIMER} {link}; rm /run/asked"])
    machine.install("--uninstall")
    assert machine.read("/run/asked") == f"--quiet disable --now {TIMER}\ndaemon-reload\n"
    assert machine.run(["test", "-L", link], check=False).returncode == 1


def test_what_an_earlier_version_shared_goes(machine: Machine) -> None:
    machine.install("--frontend")
    machine.write(f"{SHARE}/hooks/of-an-earlier-version.hook", "NAME = x\n")
    assert f"remove {SHARE}/hooks/of-an-earlier-version.hook" in machine.install("--frontend")
    assert not _exists(machine, f"{SHARE}/hooks/of-an-earlier-version.hook")
    assert machine.install("--frontend").strip() == "Nothing to change."


def test_uninstalling_leaves_what_is_of_others_and_says_so(machine: Machine) -> None:
    machine.install("--frontend")
    machine.run(["install", "-d", "-o", "oneadmin", "-g", "oneadmin", "/var/lib/one/aws_ovs"])
    for path in (f"{HOOKS}/mine", f"{HOOKS.rpartition('/')[0]}/other", "/var/lib/one/aws_ovs/mesh.json"):
        machine.write(path, "")
    printed = machine.install("--uninstall")
    assert f"left: {HOOKS}, which holds files that are not the driver's; remove it with: rm -r {HOOKS}" in printed
    assert "onehook delete" in printed, "OpenNebula still knows the hooks"
    assert machine.run(["ls", HOOKS]).stdout == "mine\n"
    assert _exists(machine, f"{HOOKS.rpartition('/')[0]}/other")
    for path in (PROBE, SETTINGS, SHARE, f"{UNITS}/{TIMER}", f"{COMPLETIONS}/oneaws", "/var/lib/one/aws_ovs"):
        assert not _exists(machine, path), path


def test_a_missing_ssh_is_a_warning(machine: Machine) -> None:
    machine.run(["rm", "-f", "/usr/bin/ssh"])
    assert "warning: ssh is not there" in machine.install("--frontend")
