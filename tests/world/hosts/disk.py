"""The disk of the lab's hosts that run a kernel of their own: Debian, the driver as `install.sh --node` leaves it, and what
makes a lab host of it. Each host starts from a copy that lives as long as it does.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import debian, image
from .cache import kept
from .namespace import Namespace

WHEELS = "/usr/lib/lab/wheels"
"""Where the hosts, which are not in the Internet, have the Python packages that install.sh needs."""
FROM_WHEELS = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}

_FILES = Path(__file__).parent / "guest_files"
_SIZE = "2G"

# The configuration is that of real nodes: openvswitch.ko does the forwarding.
_NODE = """
sed -i 's/^datapath_type:.*/datapath_type: system/' /var/tmp/one/etc/vnm/aws_ovs.yaml
grep -q '^datapath_type: system' /var/tmp/one/etc/vnm/aws_ovs.yaml
"""

# Debian makes a database when the package is installed; every host is to have its own.
_LAB = """
tar -C / -xf - --no-same-owner
usermod -p '*' oneadmin
systemctl --quiet enable lab-network.service lab-ssh.service
systemctl --quiet disable ssh.service
systemctl --quiet mask getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
rm -rf /etc/openvswitch/system-id.conf /var/lib/openvswitch/*
rm -f /etc/resolv.conf
cat /etc/ssh/ssh_host_ed25519_key.pub
"""


class Disk(NamedTuple):
    """What a host starts from.

    Attributes:
        kernel: Debian's.
        root: the root file system; nobody may write to it.
        key: a file with the private ssh key for root and oneadmin.
        known_hosts: a file with the hosts' public key, for the name `lab`.
    """

    kernel: debian.Kernel
    root: Path
    key: Path
    known_hosts: Path


def disk(repository: Path = image.REPOSITORY) -> Disk:
    """The disk; made when what it is made of has changed since it was last.

    Args:
        repository: the checkout to install.

    Raises:
        DebianError: a Debian package cannot be had.
        CommandError: an installation step failed.
    """
    kernel, system, remotes = debian.kernel(), debian.root(), image.layers(repository).frontend
    files = image.checkout(repository)
    recipe = b"".join(path.read_bytes() for path in sorted([Path(__file__), *_FILES.rglob("*")]) if path.is_file())
    below = f"{system.parent.name} {remotes.parent.name}".encode()
    digest = hashlib.sha256(files + recipe + below).hexdigest()[:20]

    def make(place: Path) -> None:
        print("==> making the disk of the lab's hosts with a kernel of their own", file=sys.stderr, flush=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", place / "key"], check=True)
        with Namespace("node", build=True, root=system) as node:
            image.prepare(node, files)
            host_key = node.run(["sh", "-ec", _LAB], stdin=_lab_files(place / "key.pub", files)).stdout
            node.run([f"{image.CHECKOUT}/install.sh", "--node"], env=FROM_WHEELS, timeout=600)
            node.run(["sh", "-ec", image.SYNC], stdin=_remotes(remotes))
            node.run(["sh", "-ec", _NODE])
            (place / "known_hosts").write_text(f"lab {host_key}", encoding="utf-8")
            node.run(["sh", "-ec", "mkdir /run/image; mount --bind / /run/image"])
            tree = f"/proc/{node.pid}/root/run/image"
            make_fs = ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,root_owner=0:0", "-d", tree]
            subprocess.run([*make_fs, place / "root.img", _SIZE], check=True, capture_output=True)

    place = kept("disk", digest, make, keep=2)
    return Disk(kernel, place / "root.img", place / "key", place / "known_hosts")


def _remotes(layer: Path) -> bytes:
    """What `onehost sync` brings, as an archive."""
    inside = "./var/lib/one/remotes"
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["tar", "-C", place, "-xf", layer, inside], check=True)
        return subprocess.run(
            ["tar", "-C", f"{place}/{inside}", "-cf", "-", "."], check=True, capture_output=True
        ).stdout


def _lab_files(public_key: Path, checkout: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(_FILES, place, dirs_exist_ok=True)
        shutil.copy(public_key, place / "usr/lib/lab/authorized_keys")
        with tempfile.TemporaryDirectory() as source:
            subprocess.run(["tar", "-C", source, "-xf", "-"], input=checkout, check=True)
            # What pip needs to build the driver's own package, and what that needs.
            wanted = ["setuptools>=66", "wheel", source]
            fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", f"{place}{WHEELS}", *wanted]
            subprocess.run(fetch, check=True)
        return subprocess.run(["tar", "-C", place, "-cf", "-", "."], check=True, capture_output=True).stdout
