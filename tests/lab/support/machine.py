"""A machine as OpenNebula leaves it, on which install.sh is tried for real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.world.hosts.namespace import CHANGED, Namespace

REPOSITORY = Path(__file__).resolve().parents[3]
CHECKOUT = "/opt/aws_ovs"
CONFIG = "/var/lib/one/remotes/etc/vnm/aws_ovs.yaml"
ONED_CONF = "/etc/one/oned.conf"
SETTINGS = "/etc/one/aws_ovs.yaml"
SHIMS = "/var/lib/one/remotes/vnm/aws_ovs"
HOOKS = "/var/lib/one/remotes/hooks/aws_ovs"
PROBE = "/var/lib/one/remotes/im/kvm-probes.d/host/system/aws_ovs.sh"
SHARE = "/usr/share/aws_ovs"
UNITS = "/usr/lib/systemd/system"
TIMER = "aws_ovs-reconcile.timer"
COMPLETIONS = "/usr/share/bash-completion/completions"

# In OpenNebula's syntax. One attribute is there, one only in a comment, and one only in the value of another.
PLAIN = """\
LOG = [ SYSTEM = "file", DEBUG_LEVEL = 3 ]
VN_MAD_CONF = [
    NAME        = "bridge",
    BRIDGE_TYPE = "linux"
]
INHERIT_VNET_ATTR       = "MTU"
  # INHERIT_VNET_ATTR     = "AWS_PRIVATE_IP"
INHERIT_VNET_ATTR       = "GATEWAY_OF_OTHERS"
# VN_MAD_CONF = [ NAME = "aws_ovs", BRIDGE_TYPE = "linux" ]
"""

# This machine may have the driver, or a user oneadmin: what install.sh meets must not depend on that.
_SOURCES = ["install.sh", "setup.py", "pyproject.toml", "README.md", "LICENSE", "vnm_aws", "remotes", "share", "hooks"]
_PREPARE = f"""
rm -rf /usr/lib/aws_ovs /usr/sbin/aws-ovs /usr/bin/oneaws /var/lib/aws_ovs /var/lib/one /etc/one /etc/sudoers.d/aws_ovs
rm -rf {SHARE} {UNITS}/aws_ovs-* {UNITS}/ovs-vswitchd.service.d /etc/systemd/system/*.wants/aws_ovs-* {COMPLETIONS}/oneaws
mkdir -p {UNITS} {COMPLETIONS}
rm -f /etc/sysctl.d/60-aws_ovs.conf /usr/lib/tmpfiles.d/aws_ovs.conf
rm -f /etc/resolv.conf
getent passwd oneadmin >/dev/null || useradd --system --home-dir /var/lib/one --shell /bin/bash --user-group oneadmin
install -d -o oneadmin -g oneadmin /var/lib/one /var/lib/one/remotes /var/lib/one/remotes/vnm /var/lib/one/remotes/etc
install -d -o oneadmin -g oneadmin /var/lib/one/remotes/etc/vnm
install -d -o root -g oneadmin -m 750 /etc/one
mkdir -p {CHECKOUT}
tar -C {CHECKOUT} -xf -
"""


class Machine(Namespace):
    """A machine with OpenNebula's directories and a checkout of this repository."""

    def __init__(self, name: str, oned_conf: bytes) -> None:
        super().__init__(name, build=True)
        pack = ["tar", "-C", str(REPOSITORY), "--exclude=__pycache__", "-cf", "-", *_SOURCES]
        self.run(["sh", "-ec", _PREPARE], stdin=subprocess.run(pack, stdout=subprocess.PIPE, check=True).stdout)
        # /run is empty there, and the resolver's configuration may be a link into it.
        self.write("/etc/resolv.conf", Path("/etc/resolv.conf").read_bytes())
        self.oned_conf(oned_conf)

    def write(self, path: str, content: bytes | str) -> None:
        self.run(["sh", "-ec", 'cat >"$0"', path], stdin=content)

    def read(self, path: str) -> str:
        return self.run(["cat", path]).stdout

    def oned_conf(self, content: bytes) -> None:
        self.write(ONED_CONF, content)
        self.run(["sh", "-ec", 'chown root:oneadmin "$0"; chmod 640 "$0"', ONED_CONF])

    def install(self, *options: str, code: int = 0, user: str = "root") -> str:
        """Run install.sh; returns what it printed."""
        passed = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_CERT_"))}
        passed |= {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
        done = self.run([f"{CHECKOUT}/install.sh", *options], env=passed, timeout=600, check=False, user=user)
        assert done.returncode == code, done
        return done.stdout + done.stderr

    def tree(self, times: bool = True) -> list[str]:
        """All files that differ from this machine's, with owner, mode, size and place of links.

        Args:
            times: also when they were changed. Without, directories that differ only in that are left out.
        """
        show = r"%P %M %u:%g %l %s %T@\n"
        excluded = ["-path", f"{CHANGED}/root", "-o", "-path", f"{CHANGED}/var/log", "-o", "-name", "__pycache__"]
        found = self.run(["find", CHANGED, "(", *excluded, ")", "-prune", "-o", "-printf", show]).stdout.splitlines()
        if times:
            return sorted(found)
        files = [line.rpartition(" ")[0] for line in found if " d" not in line]
        return sorted(files)

    def contents(self, *paths: str) -> str:
        return self.run(["sh", "-c", 'sha256sum "$@"', "sh", *paths], check=False).stdout


def copy_environment(source: Machine, target: Machine) -> None:
    """The Python environment of a machine for another one, as an earlier installation there would have left it."""

    def tar(machine: Machine, *options: str) -> list[str]:
        return [
            "nsenter",
            f"--target={machine.pid}",
            "--mount",
            "--root",
            "--wdns=/",
            "tar",
            "-C",
            "/usr/lib",
            *options,
        ]

    with subprocess.Popen(tar(source, "-cf", "-", "aws_ovs"), stdout=subprocess.PIPE) as packing:
        subprocess.run(tar(target, "-xf", "-"), stdin=packing.stdout, check=True)
