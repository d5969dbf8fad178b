"""Know in which states of its life a VM is on its host; the numbers are oned's (LCM_STATE of an ACTIVE VM)."""

from __future__ import annotations

ACTIVE = 3
"""The STATE in which LCM_STATE says more."""

ON_HOST = {
    3: "RUNNING",
    5: "SAVE_STOP",
    6: "SAVE_SUSPEND",
    12: "SHUTDOWN",
    16: "UNKNOWN",
    17: "HOTPLUG",
    18: "SHUTDOWN_POWEROFF",
    24: "HOTPLUG_SNAPSHOT",
    25: "HOTPLUG_NIC",
    26: "HOTPLUG_SAVEAS",
    29: "SHUTDOWN_UNDEPLOY",
    57: "DISK_SNAPSHOT",
    59: "DISK_SNAPSHOT_DELETE",
    62: "DISK_RESIZE",
    66: "HOTPLUG_RESIZE",
    69: "BACKUP",
}
"""States in which its guest is on the host of the last history record. One that is being shut down or saved is there until
that is through, which may take as long as it likes; UNKNOWN is a host that oned does not hear."""

MIGRATING = {
    4: "MIGRATE",
    7: "SAVE_MIGRATE",
    8: "PROLOG_MIGRATE",
    35: "BOOT_MIGRATE",
    60: "PROLOG_MIGRATE_UNKNOWN",
}
"""States in which the last history record already names the destination, where the VM is not yet. Its addresses are where they
were brought last (AWS_EIP_HOST), and stay the VM's."""
