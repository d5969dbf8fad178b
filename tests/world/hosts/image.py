"""What is installed on the lab's hosts: made once with `install.sh`, kept as an archive, and laid over every host's root."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .cache import kept
from .namespace import CHANGED, Namespace

REPOSITORY = Path(__file__).resolve().parents[3]

_SOURCES = ("install.sh", "setup.py", "pyproject.toml", "README.md", "LICENSE", "vnm_aws", "remotes", "share", "hooks")
CHECKOUT = "/usr/src/aws_ovs"

# A front-end as OpenNebula leaves it, as far as the driver's installation is concerned.
_ONED_CONF = """\
LOG = [
  SYSTEM      = "file",
  DEBUG_LEVEL = 3
]

VN_MAD_CONF = [
    NAME        = "bridge",
    BRIDGE_TYPE = "linux"
]

INHERIT_VNET_ATTR = "MTU"
INHERIT_VNET_ATTR = "GATEWAY"
# INHERIT_VNET_ATTR = "AWS_PRIVATE_IP"
"""

_USER = """
getent passwd oneadmin >/dev/null || {
    groupadd --gid 9869 oneadmin
    useradd --uid 9869 --gid 9869 --home-dir /var/lib/one --shell /bin/bash oneadmin
}
install -d -o oneadmin -g oneadmin /var/lib/one
"""

_FRONTEND = """
install -d -o oneadmin -g oneadmin /etc/one /var/lib/one/remotes /var/lib/one/remotes/vnm
install -d -o oneadmin -g oneadmin /var/lib/one/remotes/etc /var/lib/one/remotes/etc/vnm
cat >/etc/one/oned.conf
chown oneadmin:oneadmin /etc/one/oned.conf
"""

# What the administrator of such a cloud sets.
_CONFIGURE = """
file=/var/lib/one/remotes/etc/vnm/aws_ovs.yaml
sed -i '/^datapath_type:/d; /^underlay_interface:/d' "$file"
printf 'datapath_type: netdev\\nunderlay_interface: ens5\\n' >>"$file"
"""

# What `onehost sync` does to a node; it connects as oneadmin.
SYNC = """
rm -rf /var/tmp/one
mkdir -p /var/tmp/one
tar -C /var/tmp/one -xf -
chown -R oneadmin:oneadmin /var/tmp/one
"""

_EXCLUDED = ("./etc/hosts", "./etc/resolv.conf", f".{CHECKOUT}", "./root", "./var/log", "./var/cache", "./mnt")


def checkout(repository: Path) -> bytes:
    """The files that installation needs, as an archive that is the same whenever they are."""

    def entry(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in info.name or ".egg-info" in info.name:
            return None
        info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "root", "root"
        return info

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in _SOURCES:
            if (repository / name).exists():
                tar.add(repository / name, arcname=name, filter=entry)
    return archive.getvalue()


class Layers(NamedTuple):
    """Archives for `Namespace`."""

    frontend: Path
    node: Path


def layers(repository: Path = REPOSITORY) -> Layers:
    """What is installed on a front-end and on a node; built when what it is made of has changed since it was last.

    Args:
        repository: the checkout to install.

    Raises:
        CommandError: an installation step failed.
    """
    files = checkout(repository)
    # Users of this machine that come later would be missing in the archive's own list.
    recipe = Path(__file__).read_bytes() + sys.version.encode() + Path("/etc/passwd").read_bytes()
    digest = hashlib.sha256(files + recipe).hexdigest()[:20]
    place = kept("layers", digest, lambda unfinished: _build(unfinished, files), keep=3)
    return Layers(place / "frontend.tar", place / "node.tar")


def _build(place: Path, files: bytes) -> None:
    print("==> installing the driver for the lab's hosts (about half a minute)", file=sys.stderr, flush=True)
    with Namespace("frontend", build=True) as first, Namespace("node", build=True) as second:
        for machine in (first, second):
            prepare(machine, files)
        first.run(["sh", "-ec", _FRONTEND], stdin=_ONED_CONF)
        with ThreadPoolExecutor() as pool:
            list(pool.map(install, (first, second), ("--frontend", "--node")))
        first.run(["sh", "-ec", _CONFIGURE])
        with tempfile.NamedTemporaryFile(dir=place) as remotes:
            _save(first, "/var/lib/one/remotes", Path(remotes.name))
            second.run(["sh", "-ec", SYNC], stdin=Path(remotes.name).read_bytes())
        _save(first, CHANGED, place / "frontend.tar")
        _save(second, CHANGED, place / "node.tar")


def prepare(machine: Namespace, files: bytes) -> None:
    """Make a machine as OpenNebula's package leaves it, with a checkout."""
    # /run is empty there, and the resolver's configuration may be a link into it.
    resolver = Path("/etc/resolv.conf")
    nameservers = resolver.read_bytes() if resolver.exists() else b""
    machine.run(["sh", "-ec", "rm -f /etc/resolv.conf; cat >/etc/resolv.conf"], stdin=nameservers)
    machine.run(["sh", "-ec", _USER])
    machine.run(["sh", "-ec", f"mkdir -p {CHECKOUT}; tar -C {CHECKOUT} -xf -"], stdin=files)


def install(machine: Namespace, role: str) -> None:
    """Run the checkout's install.sh; Python packages come from where this machine has them from."""
    passed = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("PIP_", "SSL_CERT_")) or key.lower().endswith("_proxy")
    }
    machine.run([f"{CHECKOUT}/install.sh", role], env=passed, timeout=900)


def _save(machine: Namespace, directory: str, archive: Path) -> None:
    excluded = [f"--exclude={path}" for path in _EXCLUDED]
    command = ["tar", "-C", directory, "--xattrs", "--xattrs-include=*", *excluded, "-cf", "-", "."]
    enter = ["nsenter", f"--target={machine.pid}", "--mount", "--root", "--wdns=/", "--"]
    with archive.open("wb") as file:
        subprocess.run([*enter, *command], stdout=file, check=True)
