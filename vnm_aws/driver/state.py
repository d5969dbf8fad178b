"""The desired state of the node's guest ports: one file a VM under /run, because VMs do not outlive a reboot either."""

from __future__ import annotations

import os

from .. import files
from ..lock import RUN
from ..overlay.guest_port import GuestPort, from_json, to_json

DIRECTORY = f"{RUN}/vms"


def _path(vm_id: int) -> str:
    return f"{DIRECTORY}/{vm_id}.json"


def load(vm_id: int) -> list[GuestPort]:
    """The ports of a VM; none when the node does not know it, or its file is damaged and `post` must write it anew."""
    try:
        with open(_path(vm_id), encoding="utf-8") as file:
            return from_json(file.read())
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return []


def save(vm_id: int, ports: list[GuestPort]) -> None:
    """Keep the ports of a VM; without any, the node forgets the VM."""
    if ports:
        files.replace(_path(vm_id), to_json(ports))
    else:
        files.remove(_path(vm_id))


def _vm_ids() -> list[int]:
    try:
        names = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal())


def damaged() -> list[int]:
    """The VMs whose files say nothing."""
    return [vm_id for vm_id in _vm_ids() if not load(vm_id)]


def everything() -> list[GuestPort]:
    """The ports of all VMs."""
    return [port for vm_id in _vm_ids() for port in load(vm_id)]
