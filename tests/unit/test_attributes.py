"""The table of attributes that users may write, in docs/security.md: that it says what the driver and install.sh do."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from vnm_aws import document, names, rules, vm
from vnm_aws.frontend import validation
from vnm_aws.overlay import pipeline

REPOSITORY = Path(__file__).parents[2]
INSTALL = REPOSITORY / "install.sh"
OF_OPENNEBULA = REPOSITORY.parent / "shared/opennebula-7.2.0/etc/oned.conf"
PLACES = {"VM": ("NIC/", "NIC_ALIAS/", "NIC_DEFAULT/"), "VNET": ("", "AR/")}

# What is written in capitals in vm.py, document.py and rules.py and is no attribute: elements, values, and words of sentences.
_ELEMENTS = {"VM", "TEMPLATE", "NIC", "NIC_ALIAS", "PCI", "DISK", "CONTEXT", "HISTORY_RECORDS", "HISTORY"}
_ELEMENTS |= {"SECURITY_GROUP_RULE"}
_WORDS = {"YES", "NO", "DUMMY", "GUEST_MTU", "XML", "IP4", "VNET", "INBOUND", "OUTBOUND", *rules.PROTOCOLS}


def table() -> dict[str, str]:
    """What protects each attribute of the table."""
    text = (REPOSITORY / "docs/security.md").read_text()
    section = text.partition("## Attributes that users may write\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    attributes = [(name, protection) for first, _, protection in rows for name in re.findall(r"`(\w+)`", first)]
    assert len(attributes) == len(dict(attributes)), "an attribute has two rows"
    return dict(attributes)


def in_table(whose: str) -> set[str]:
    """The attributes that the table calls restricted for VMs, or for networks."""
    pattern = rf"(?<!not )restricted for (VMs and )?{whose}|restricted for {whose} and"
    return {name for name, protection in table().items() if re.search(pattern, protection)}


def test_the_page_names_tests_modules_and_tables_that_there_are() -> None:
    text = (REPOSITORY / "docs/security.md").read_text()
    there = {path.name for path in (REPOSITORY / "tests").rglob("test_*.py")} | {"frames.py"}
    assert {path.rpartition("/")[2] for path in re.findall(r"`([\w/]*test_\w+\.py|[\w/]*frames\.py)`", text)} <= there
    for module in re.findall(r"`((?:driver|overlay|underlay|frontend)/[\w/]+\.py)`", text):
        assert (REPOSITORY / "vnm_aws" / module).is_file(), module
    tables = {f"{table.value} {table.name}" for table in (*pipeline.VnetTable, *pipeline.OverlayTable)}
    assert {f"{number} {name}" for number, name in re.findall(r"(\d+) `([A-Z_]+)`", text)} <= tables


def shell(variable: str) -> list[str]:
    """The words of a list in install.sh."""
    script = f'eval "$(grep -E "^(INHERITED|RESTRICTED)" "{INSTALL}")"; echo "${variable}"'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def added_lines(oned_conf: str) -> list[str]:
    """What install.sh adds to an oned.conf."""
    script = f'source <(sed -n "/^INHERITED=/,/^}}/p" "{INSTALL}"); oned_lines /dev/stdin'
    done = subprocess.run(["bash", "-c", script], input=oned_conf, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def words_read() -> set[str]:
    """The words in capitals that the readers of the document look for, f-strings and names of constants resolved."""
    words = set()
    for module in (vm, document, rules):
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
            match node:
                case ast.Constant(value=str(text)):
                    words |= set(re.findall(r"(?<![A-Z_])[A-Z][A-Z0-9_]+", text)) if "\n" not in text else set()
                case ast.Name(id=name) if isinstance(getattr(names, name, None), str):
                    words.add(getattr(names, name))
    return words


def test_every_attribute_that_the_driver_reads_has_its_row() -> None:
    read = words_read()
    assert {"TARGET", "AWS_PRIVATE_IP", "IP6_ULA", "FLOATING_ONLY", "ATTACH", "RANGE", "SECURITY_GROUP_ID"} <= read
    rows = {*table(), "ETH", "_MTU"}  # ETHx_MTU
    assert read - rows - _ELEMENTS - _WORDS == set()


def test_the_table_says_what_install_restricts() -> None:
    assert in_table("VMs") == set(shell("RESTRICTED_VM"))
    assert in_table("networks") == set(shell("RESTRICTED_VNET"))


def test_what_is_restricted_for_vms_may_not_be_inside_of_another_attribute() -> None:
    assert set(shell("RESTRICTED_VM")) == validation.OF_NICS


def test_what_a_nic_inherits_is_restricted_or_harmless() -> None:
    protections = table()
    assert {name for name in shell("INHERITED") if "restricted for VMs and networks" not in protections[name]} == {
        "MTU"
    }
    assert protections["MTU"].strip().startswith("harmless")


def test_install_adds_every_place_of_what_it_restricts() -> None:
    lines = added_lines("")
    for kind, places in PLACES.items():
        for attribute in shell(f"RESTRICTED_{kind}"):
            for place in places:
                assert f'{kind}_RESTRICTED_ATTR = "{place}{attribute}"' in lines
    assert len(lines) == len(set(lines))


@pytest.mark.skipif(not OF_OPENNEBULA.exists(), reason="OpenNebula's own oned.conf is not here")
def test_with_opennebulas_own_configuration_everything_is_there_once() -> None:
    own = OF_OPENNEBULA.read_text()
    both = [line.split("#")[0].split() for line in (own + "\n".join(added_lines(own))).splitlines()]
    lines = ["".join(words) for words in both]
    for name, protection in table().items():
        for whose, kind in {"VMs": "VM", "networks": "VNET"}.items():
            by_opennebula = re.search(rf"OpenNebula restricts it for (VMs and )?{whose}", protection)
            for place in PLACES[kind] if by_opennebula or name in in_table(whose) else ():
                assert lines.count(f'{kind}_RESTRICTED_ATTR="{place}{name}"') == 1, f"{kind} {place}{name}"
    for name in shell("INHERITED"):
        assert lines.count(f'INHERIT_VNET_ATTR="{name}"') == 1, name
    assert 'VM_RESTRICTED_ATTR="PCI"' in lines
