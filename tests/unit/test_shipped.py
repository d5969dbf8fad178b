"""The files in share/, hooks/ and remotes/ that no Python imports: that they fit the code, and OpenNebula."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
from pathlib import Path

import pytest

from vnm_aws.driver.main import VERBS
from vnm_aws.frontend import settings
from vnm_aws.frontend.settings import Settings
from vnm_aws.names import POOL, RESTRICTED

REPOSITORY = Path(__file__).parents[2]
SHARE = REPOSITORY / "share"
SETTINGS = SHARE / "etc/aws_ovs.yaml"
HOOKS = sorted((SHARE / "hooks").glob("*.hook"))
LAUNCHERS = sorted((REPOSITORY / "hooks/aws_ovs").iterdir())
TEMPLATES = sorted((SHARE / "vnet").glob("*.tmpl"))
UNITS = sorted(path for path in (SHARE / "systemd").glob("*/*") if path.is_file())

# What oned takes as the state of a host, and of a network.
_STATES = {"HOST": {"MONITORED", "ERROR", "OFFLINE", "DISABLED", "INIT"}, "NET": {"READY", "ERROR"}}


def template(path: Path) -> dict[str, str]:
    """The attributes of a template in OpenNebula's syntax, as far as ours need it: a `NAME = "value"` or vector a line."""
    values: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        found = re.fullmatch(r'([A-Z_]+) *= *(?:"([^"]*)"|\[ (.*) \])', line)
        assert found, f"{path.name}: {line}"
        assert found[1] not in values, f"{path.name}: {line}"
        values[found[1]] = found[2] if found[2] is not None else found[3]
    return values


@pytest.mark.parametrize("path", HOOKS, ids=lambda path: path.stem)
def test_a_hook_is_one_that_opennebula_can_run(path: Path) -> None:
    hook = template(path)
    assert hook["NAME"] == f"aws_ovs-{path.stem}"
    command = REPOSITORY / "hooks" / hook["COMMAND"]
    assert command.is_file(), f"{path.name}: OpenNebula looks for it below its own hooks"
    assert os.access(command, os.X_OK)
    # An argument longer than 128 KiB cannot be passed, and credentials are on the front-end only.
    assert hook["ARGUMENTS_STDIN"] == "YES"
    assert hook["REMOTE"] == "NO"
    if hook["TYPE"] == "api":
        assert hook["CALL"].startswith("one.")
        assert hook["ARGUMENTS"] == "$API"
        return
    assert hook["TYPE"] == "state"
    assert hook["ARGUMENTS"] == "$TEMPLATE"
    if hook["RESOURCE"] == "VM":
        # oned refuses STATE and LCM_STATE without ON="CUSTOM".
        assert hook["ON"] == "RUNNING"
        assert not {"STATE", "LCM_STATE"} & set(hook)
    else:
        assert hook["STATE"] in _STATES[hook["RESOURCE"]]


def test_every_hook_script_has_a_hook_and_is_the_same_file() -> None:
    commands = {template(path)["COMMAND"] for path in HOOKS}
    assert commands == {f"aws_ovs/{path.name}" for path in LAUNCHERS}
    links = [path for path in LAUNCHERS if path.is_symlink()]
    assert len(links) == len(LAUNCHERS) - 1
    assert {path.resolve().parent for path in LAUNCHERS} == {LAUNCHERS[0].parent}
    assert not [path for path in links if os.readlink(path).startswith("/")]


@pytest.mark.parametrize(
    "path", [LAUNCHERS[0], REPOSITORY / "remotes/vnm/aws_ovs/vnet_create"], ids=lambda path: path.name
)
def test_a_launcher_runs_with_the_systems_own_python(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#!/usr/bin/python3 -IS\n")
    tree = ast.parse(text, feature_version=(3, 10))
    outside = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in outside}
    assert names == {"sys", "posix"}, "what may be missing is imported where that is caught"


def test_the_settings_file_has_every_key_with_its_default_and_explains_it() -> None:
    assert settings.load(str(SETTINGS)) == Settings()
    lines = SETTINGS.read_text().splitlines()
    at = {line.partition(":")[0]: number for number, line in enumerate(lines) if re.match(r"[a-z]", line)}
    assert list(at) == list(Settings()._asdict())
    # One comment may be for keys that follow each other.
    assert not [
        key for key, number in at.items() if not lines[number - 1].startswith("#") and number - 1 not in at.values()
    ]


def _called() -> set[str]:
    """The EC2 actions that the code calls by name; boto3's methods follow from the names."""
    tree = ast.parse((REPOSITORY / "vnm_aws/frontend/ec2.py").read_text())
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="_call" | "_change" | "_describe"), args=[name, *_]):
                names.add(ast.unparse(name))
    return {f"ec2:{ast.literal_eval(name)}" for name in names - {"action"}}


def test_the_policy_allows_what_the_code_calls_and_no_more() -> None:
    policy = json.loads((SHARE / "aws/iam-policy.json").read_text())
    assert policy["Version"] == "2012-10-17"
    allowed: set[str] = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
        assert statement["Effect"] == "Allow"
        assert statement["Condition"], "nothing is allowed everywhere"
        # Only actions that read know no resources.
        assert statement["Resource"] != "*" or all(action.startswith(("ec2:Describe", "ec2:Get")) for action in actions)
    assert allowed == _called()


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_well_formed(path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    kind = path.suffix.removeprefix(".").capitalize()
    assert set(unit.sections()) <= {"Unit", kind, "Install"}
    assert unit["Unit"]["Description"].startswith("aws_ovs: ")


def test_the_timer_runs_the_reconciler_as_oneadmin() -> None:
    timer, service = (SHARE / f"systemd/frontend/aws_ovs-reconcile.{kind}" for kind in ("timer", "service"))
    assert timer.stem == service.stem
    text = service.read_text()
    assert "\nType=oneshot\n" in text
    assert "\nUser=oneadmin\n" in text
    assert "\nExecStart=/usr/bin/oneaws reconcile\n" in text
    assert "\nWantedBy=timers.target\n" in timer.read_text()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_network_template_is_one_of_the_driver(path: Path) -> None:
    network = template(path)
    assert network["VN_MAD"] == "aws_ovs"
    assert int(network["GUEST_MTU"]) == 1450
    assert network["GATEWAY"].startswith(network["NETWORK_ADDRESS"].removesuffix("0"))
    # An Elastic IP pool gets its address ranges from the driver.
    assert ("AWS_EIP_POOL" in network) != ("AR" in network)


def test_sudo_allows_the_verbs_of_the_table_and_no_more() -> None:
    rule = re.sub(r"(?m)^#.*$", "", (SHARE / "sudoers/aws_ovs").read_text()).replace("\\\n", "")
    (commands,) = re.findall(r"(?m)^Cmnd_Alias AWS_OVS = (.*)$", rule)
    allowed = [" ".join(command.split()) for command in commands.split(",")]
    verbs = {name: verb for name, verb in VERBS.items() if not verb.for_root}
    wanted = [f"{name} *" if verb.arguments else name for name, verb in verbs.items()]
    wanted += [f"{name} {verb.option}" for name, verb in verbs.items() if verb.option]
    wanted += [f"{name} {verb.vm_option} *" for name, verb in verbs.items() if verb.vm_option]
    assert sorted(allowed) == sorted(f"/usr/sbin/aws-ovs {words}" for words in wanted)


def test_each_verb_called_by_opennebula_has_its_script() -> None:
    scripts = {path.name for path in (REPOSITORY / "remotes/vnm/aws_ovs").iterdir()}
    documented = {name for name, verb in VERBS.items() if verb.stdin == "VM document"}
    assert scripts == documented | {"vnet_create", "vnet_delete"}


def test_install_sh_restricts_what_the_front_end_expects_to_be_restricted() -> None:
    script = (REPOSITORY / "install.sh").read_text()
    lists = " ".join(re.findall(r'^RESTRICTED[A-Z_]*="([^"]*)"', script, re.MULTILINE)).split()
    assert {POOL, *RESTRICTED} <= {*lists}
