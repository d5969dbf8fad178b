"""The kinds of metal hosts that a lab can have, named by where their Open vSwitch forwards packets."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .disk import disk
from .host import Host
from .host_kernel import KernelHost, SystemdHost
from .host_userspace import UserspaceHost
from .image import layers
from .qemu import EACH_MB

if TYPE_CHECKING:
    from tests.world.ec2.region import Instance

USERSPACE, KERNEL = "userspace", "kernel"
_TUN = Path("/dev/net/tun")
_OTHERS_MB = 400
"""What EC2, the VPC and guests need."""


class UnavailableError(Exception):
    """There can be no such hosts here; the message says why, and what to do."""


def chosen(kind: str = "") -> str:
    """The kind of hosts: `kind`, or what the environment variable DATAPATH says.

    Raises:
        UnavailableError: there is no such kind.
    """
    kind = kind or os.environ.get("DATAPATH") or USERSPACE
    if kind not in (USERSPACE, KERNEL):
        raise UnavailableError(f"DATAPATH is {kind!r}; it must be {USERSPACE} or {KERNEL}")
    return kind


def require(kind: str, hosts: int) -> None:
    """Make sure that this machine can have so many hosts.

    Raises:
        UnavailableError: it cannot.
    """
    if os.geteuid() != 0:
        raise UnavailableError("the lab makes network namespaces; run it as root")
    if not _TUN.exists():
        raise UnavailableError(
            f"{_TUN} is not there, which every lab needs; load the kernel module tun, or give it to this container"
        )
    needed = hosts * EACH_MB + _OTHERS_MB
    free = _available_mb()
    if kind == KERNEL and free < needed:
        raise UnavailableError(
            f"the kernel lab needs {needed} MB of free memory for {hosts} hosts, and this machine has {free} MB; "
            "end something else, or take a larger machine"
        )


def _available_mb() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


_disk, _layers = cache(disk), cache(layers)  # the checkout stays as it is meanwhile


def host(kind: str, name: str, instance: Instance, systemd: bool = False) -> Host:
    """A host of a kind, with the driver installed; one with a kernel may have systemd too."""
    if kind == KERNEL:
        return (SystemdHost if systemd else KernelHost)(name, instance, _disk())
    return UserspaceHost(name, instance, layer=_layers().node)
