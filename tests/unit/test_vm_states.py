"""Which of oned's LCM states are those of a VM on its host: a decision for each that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pyone
import pytest

from tests.world.real_oned import installed
from vnm_aws.frontend.vm_states import MIGRATING, ON_HOST

ELSEWHERE = {
    # Before it is started, or after it has ended.
    0: "LCM_INIT",
    1: "PROLOG",
    2: "BOOT",
    10: "EPILOG_STOP",
    11: "EPILOG",
    15: "CLEANUP_RESUBMIT",
    23: "CLEANUP_DELETE",
    30: "EPILOG_UNDEPLOY",
    71: "RESTORE",
    # On its way back from a state without a host, or with one where it is not running.
    9: "PROLOG_RESUME",
    19: "BOOT_UNKNOWN",
    20: "BOOT_POWEROFF",
    21: "BOOT_SUSPENDED",
    22: "BOOT_STOPPED",
    31: "PROLOG_UNDEPLOY",
    32: "BOOT_UNDEPLOY",
    # Powered off, suspended or undeployed, while something is done to its disks.
    27: "HOTPLUG_SAVEAS_POWEROFF",
    28: "HOTPLUG_SAVEAS_SUSPENDED",
    67: "HOTPLUG_SAVEAS_UNDEPLOYED",
    68: "HOTPLUG_SAVEAS_STOPPED",
    33: "HOTPLUG_PROLOG_POWEROFF",
    34: "HOTPLUG_EPILOG_POWEROFF",
    43: "PROLOG_MIGRATE_POWEROFF",
    45: "PROLOG_MIGRATE_SUSPEND",
    51: "DISK_SNAPSHOT_POWEROFF",
    52: "DISK_SNAPSHOT_REVERT_POWEROFF",
    53: "DISK_SNAPSHOT_DELETE_POWEROFF",
    54: "DISK_SNAPSHOT_SUSPENDED",
    56: "DISK_SNAPSHOT_DELETE_SUSPENDED",
    63: "DISK_RESIZE_POWEROFF",
    64: "DISK_RESIZE_UNDEPLOYED",
    65: "HOTPLUG_NIC_POWEROFF",
    70: "BACKUP_POWEROFF",
    # An administrator has to say what is to become of it.
    36: "BOOT_FAILURE",
    37: "BOOT_MIGRATE_FAILURE",
    38: "PROLOG_MIGRATE_FAILURE",
    39: "PROLOG_FAILURE",
    40: "EPILOG_FAILURE",
    41: "EPILOG_STOP_FAILURE",
    42: "EPILOG_UNDEPLOY_FAILURE",
    44: "PROLOG_MIGRATE_POWEROFF_FAILURE",
    46: "PROLOG_MIGRATE_SUSPEND_FAILURE",
    47: "BOOT_UNDEPLOY_FAILURE",
    48: "BOOT_STOPPED_FAILURE",
    49: "PROLOG_RESUME_FAILURE",
    50: "PROLOG_UNDEPLOY_FAILURE",
    61: "PROLOG_MIGRATE_UNKNOWN_FAILURE",
    # Names that OpenNebula keeps, and oned never uses.
    13: "CANCEL",
    14: "FAILURE",
    55: "DISK_SNAPSHOT_REVERT_SUSPENDED",
    58: "DISK_SNAPSHOT_REVERT",
}
EVERY = {**ON_HOST, **MIGRATING, **ELSEWHERE}


def test_there_is_one_decision_for_each_state() -> None:
    assert len(EVERY) == len(ON_HOST) + len(MIGRATING) + len(ELSEWHERE), "a state is in two tables"
    assert sorted(EVERY) == list(range(len(EVERY)))


def test_they_are_the_states_that_opennebula_s_python_library_names() -> None:
    """Its list lacks those that came last."""
    assert {**EVERY, **{state.value: state.name for state in pyone.LCM_STATE}} == EVERY


def test_they_are_all_states_of_an_installed_opennebula() -> None:
    try:
        library = installed.find().parts().linked["lib/ruby"]
    except installed.UnavailableError as error:
        pytest.skip(str(error))
    text = (Path(library) / "opennebula" / "virtual_machine.rb").read_text()
    found = re.search(r"LCM_STATE=(.*?)\]", text, re.DOTALL)
    assert found is not None
    assert dict(enumerate(re.findall(r"[A-Z_]+", found[1]))) == EVERY
