"""What is installed on the lab's hosts: made once with `install.sh`, kept as an archive, and laid over every host's root."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .namespace import CHANGED, Namespace

REPOSITORY = Path(__file__).resolve().parents[3]

_SOURCES = ("install.sh", "setup.py", "pyproject.toml", "README.md", "LICENSE", "vnm_aws", "remotes", "share", "hooks")
_CHECKOUT = "/usr/src/aws_ovs"
_KEPT = 3

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
_SYNC = """
rm -rf /var/tmp/one
mkdir -p /var/tmp/one
tar -C /var/tmp/one -xf -
chown -R oneadmin:oneadmin /var/tmp/one
"""

_EXCLUDED = ("./etc/hosts", "./etc/resolv.conf", f".{_CHECKOUT}", "./root", "./var/log", "./var/cache", "./mnt")


def _checkout(repository: Path) -> bytes:
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
    checkout = _checkout(repository)
    # Users of this machine that come later would be missing in the archive's own list.
    recipe = Path(__file__).read_bytes() + sys.version.encode() + Path("/etc/passwd").read_bytes()
    digest = hashlib.sha256(checkout + recipe).hexdigest()[:20]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aws_ovs-lab"
    built = Layers(cache / digest / "frontend.tar", cache / digest / "node.tar")
    if built.node.exists():
        built.node.parent.touch()
        return built
    cache.mkdir(parents=True, exist_ok=True)
    print("==> installing the driver for the lab's hosts (about half a minute)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as unfinished:
        frontend, node, remotes = (Path(unfinished, f"{name}.tar") for name in ("frontend", "node", "remotes"))
        with Namespace("frontend", build=True) as first, Namespace("node", build=True) as second:
            for machine in (first, second):
                _prepare(machine, checkout)
            first.run(["sh", "-ec", _FRONTEND], stdin=_ONED_CONF)
            with ThreadPoolExecutor() as pool:
                list(pool.map(_install, (first, second), ("--frontend", "--node")))
            first.run(["sh", "-ec", _CONFIGURE])
            _save(first, "/var/lib/one/remotes", remotes)
            second.run(["sh", "-ec", _SYNC], stdin=remotes.read_bytes())
            _save(first, CHANGED, frontend)
            _save(second, CHANGED, node)
        complete = Path(unfinished, digest)
        complete.mkdir()
        for path in built:
            Path(unfinished, path.name).rename(complete / path.name)
        try:
            complete.rename(built.node.parent)
        except OSError:
            assert built.node.exists()  # somebody else was faster
    _prune(cache)
    return built


def _prune(cache: Path) -> None:
    """Remove old layers, and what builds that were killed have left; somebody may be building right now."""
    unfinished = {path for path in cache.glob("tmp*") if path.stat().st_mtime > time.time() - 3600}
    ages = {path: path.stat().st_mtime for path in set(cache.iterdir()) - unfinished}
    for old in sorted(ages, key=ages.__getitem__)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _prepare(machine: Namespace, checkout: bytes) -> None:
    # /run is empty there, and the resolver's configuration may be a link into it.
    resolver = Path("/etc/resolv.conf")
    nameservers = resolver.read_bytes() if resolver.exists() else b""
    machine.run(["sh", "-ec", "rm -f /etc/resolv.conf; cat >/etc/resolv.conf"], stdin=nameservers)
    machine.run(["sh", "-ec", _USER])
    machine.run(["sh", "-ec", f"mkdir -p {_CHECKOUT}; tar -C {_CHECKOUT} -xf -"], stdin=checkout)


def _install(machine: Namespace, role: str) -> None:
    passed = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("PIP_", "SSL_CERT_")) or key.lower().endswith("_proxy")
    }
    machine.run([f"{_CHECKOUT}/install.sh", role], env=passed, timeout=900)


def _save(machine: Namespace, directory: str, archive: Path) -> None:
    excluded = [f"--exclude={path}" for path in _EXCLUDED]
    command = ["tar", "-C", directory, "--xattrs", "--xattrs-include=*", *excluded, "-cf", "-", "."]
    enter = ["nsenter", f"--target={machine.pid}", "--mount", "--root", "--wdns=/", "--"]
    with archive.open("wb") as file:
        subprocess.run([*enter, *command], stdout=file, check=True)
