"""Debian for the lab's hosts that run a kernel of their own: that kernel and a root directory, from Debian's packages.

It is the release that this machine runs. Both are kept until the list of packages or the kernel's version changes.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from .cache import kept

PACKAGES = (
    *("openvswitch-switch", "nftables", "iproute2", "sudo", "openssh-server", "python3-venv"),  # what a host needs
    *("systemd-sysv", "udev", "dbus", "kmod", "procps"),  # what a machine has
    *(
        "iputils-ping",
        "iputils-arping",
        "tcpdump",
        "ethtool",
        "curl",
        "strace",
        "conntrack",
        "iperf3",
    ),  # what tests look with
)
_META_PACKAGE = "linux-image-cloud-amd64"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


class DebianError(Exception):
    """A package cannot be had; the message says what to do."""


class Kernel(NamedTuple):
    """Debian's kernel for virtual machines.

    Attributes:
        version: as in the names of its files.
        image: to start it.
        modules: the directory `lib/modules/<version>` with its modules.
    """

    version: str
    image: Path
    modules: Path


def kernel() -> Kernel:
    """Debian's newest kernel that this machine's package lists know.

    Raises:
        DebianError: apt cannot get it.
    """
    package = _kernel_package()
    version = package.removeprefix("linux-image-")

    def make(place: Path) -> None:
        _say(f"fetching {package}")
        # apt would fetch it as a user who may not write here.
        _run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package, cwd=place)
        (archive,) = place.glob("*.deb")
        _run("dpkg-deb", "-x", str(archive), str(place))
        archive.unlink()
        _run("depmod", "-b", str(place), version)

    place = kept("kernel", package, make, keep=1)
    return Kernel(version, place / "boot" / f"vmlinuz-{version}", place / "lib" / "modules" / version)


def root() -> Path:
    """A root directory with `PACKAGES` and the kernel's modules, which nobody may change.

    Raises:
        DebianError: mmdebstrap cannot make it.
    """
    modules = kernel().modules
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    recipe = [release, modules.name, *PACKAGES, Path(__file__).read_text(encoding="utf-8")]

    def make(place: Path) -> None:
        _say("making a Debian system for the lab's hosts (about a minute)")
        excluded = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", *excluded]
        _run(*command, release, str(place / "root"))
        shutil.copytree(modules, place / "root" / "lib" / "modules" / modules.name, symlinks=True)

    return kept("debian", hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:20], make, keep=2) / "root"


def _kernel_package() -> str:
    known = _run("apt-cache", "depends", _META_PACKAGE)
    for line in known.splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-"):
            return name
    raise DebianError(f"apt knows no kernel for {_META_PACKAGE}; run 'apt-get update' on a Debian machine")


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DebianError(f"{command[0]} failed ({reason}); give this machine network access to a Debian mirror")
    return done.stdout


def _say(what: str) -> None:
    print(f"==> {what}", file=sys.stderr, flush=True)
