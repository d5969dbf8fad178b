"""The lab's front-end: the driver's front-end half as installed, an oned, and ssh to the hosts as oneadmin.

It shares this machine's loopback, where the EC2 and the oned are; each host's sshd is behind a port there.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

from .hosts import image
from .hosts.executor import CommandError
from .hosts.host import Host
from .hosts.namespace import Namespace
from .lab import Lab
from .oned import vm as oned_vm
from .oned.server import Oned
from .recording import RECORDINGS

HOOKS = "/var/lib/one/remotes/hooks/aws_ovs"
DRIVER = "/var/lib/one/remotes/vnm/aws_ovs"
PROBE = "/var/tmp/one/im/kvm-probes.d/host/system/aws_ovs.sh"

_RUNNING_VM = RECORDINGS / "hooks" / "vm-running.xml"
_SETTINGS = """\
region: eu-west-1
host_name: tag:Name
ec2_timeout: 20
ssh_timeout: {ssh_timeout}
"""

_PREPARE = """
cat >/etc/one/aws_ovs.yaml
install -d -o oneadmin -g oneadmin -m 700 ~oneadmin/.ssh ~oneadmin/.one
ssh-keygen -q -t ed25519 -N "" -f ~oneadmin/.ssh/id_ed25519
chown -R oneadmin:oneadmin ~oneadmin/.ssh
"""

# A password that nobody has; an account with none counts as locked.
_SSHD = """
mkdir -p /run/sshd /etc/ssh/lab
cat >/etc/ssh/lab/authorized_keys
[ -e /etc/ssh/lab/host_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/lab/host_key
usermod -p '*' oneadmin
cat >/etc/ssh/lab/sshd_config <<END
HostKey /etc/ssh/lab/host_key
AuthorizedKeysFile /etc/ssh/lab/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
END
"""


class Sshd:
    """A host's sshd behind a port of this machine's loopback, one process a connection. `reachable`: else it is as if
    the host were down."""

    def __init__(self, host: Host, key: str) -> None:
        host.run(["sh", "-ec", _SSHD], stdin=key)
        self._host = host
        self.reachable = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        sshd = ["/usr/sbin/sshd", "-i", "-f", "/etc/ssh/lab/sshd_config"]
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with connection:
                if self.reachable:
                    self._host.connect(sshd, connection.fileno())

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()


class FrontEnd(Namespace):
    """See the module; a context manager.

    Args:
        lab: whose hosts and EC2 it serves.

    Attributes:
        oned: its oned.
        sshds: the hosts' sshd, by host name.
    """

    def __init__(self, lab: Lab) -> None:
        super().__init__("front-end", layer=image.layers().frontend, build=True)
        self._lab = lab
        self.oned = Oned()
        self.sshds: dict[str, Sshd] = {}
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        slowness = max(host.slowness for host in self._lab.hosts.values())
        self.run(["sh", "-ec", _PREPARE], stdin=_SETTINGS.format(ssh_timeout=int(5 * slowness)))
        key = self.run(["cat", "/var/lib/one/.ssh/id_ed25519.pub"]).stdout
        self.sshds = {name: Sshd(host, key) for name, host in self._lab.hosts.items()}
        places = "".join(
            f"Host {name}\n HostName 127.0.0.1\n Port {sshd.port}\n HostKeyAlias {name}\n"
            for name, sshd in self.sshds.items()
        )
        common = "Host *\n StrictHostKeyChecking accept-new\n LogLevel ERROR\n"
        self._write("/var/lib/one/.ssh/config", places + common)
        self._write("/var/lib/one/.one/one_auth", self.oned.session)
        for host in self._lab.hosts.values():
            self._lab.ec2.tag(host.instance.instance_id, opennebula="host")

    def _write(self, path: str, text: str) -> None:
        self.run(["sh", "-ec", 'umask 077; cat >"$0"', path], user="oneadmin", stdin=text)

    def close(self) -> None:
        """Stop everything; the hosts stay."""
        for sshd in self.sshds.values():
            sshd.close()
        self.oned.stop()
        super().close()

    def worlds(self) -> dict[str, str]:
        """The variables by which its programs find EC2 and oned."""
        return {**self._lab.ec2.environment(), "ONE_XMLRPC": self.oned.endpoint}

    def oneadmin(self, *argv: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command as oneadmin, which must end with this exit code.

        Raises:
            CommandError: it ended with another.
        """
        done = self.run(argv, user="oneadmin", stdin=stdin, env=self.worlds(), check=False)
        if done.returncode != code:
            raise CommandError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def oneaws(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `oneaws`."""
        return self.oneadmin("oneaws", *words, code=code)

    def hook(self, event: str, document: bytes, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a hook as the hook manager does."""
        return self.oneadmin(f"{HOOKS}/{event}", stdin=base64.b64encode(document).decode(), code=code)

    def create_network(self, template: str) -> int:
        """Create a network as oned does, with the driver's `vnet_create`; its ID."""
        vnet_id = self.oned.add_vnet(template, ready=False)
        document = base64.b64encode(self.oned.document("VNET", vnet_id)).decode()
        done = self.oneadmin(f"{DRIVER}/vnet_create", str(vnet_id), stdin=document)
        self.oned.finish_vnet_create(vnet_id, done.stdout)
        self.hook("vnet_ready", self.oned.document("VNET", vnet_id))
        return vnet_id

    def elastic_ips(self) -> list[dict[str, Any]]:
        """What `oneaws eip list` shows."""
        return list(json.loads(self.oneaws("eip", "list", "--json").stdout)["elastic_ips"])

    def host_id(self, name: str) -> int:
        """The ID of a host in OpenNebula."""
        for line in json.loads(self.oneaws("host", "list", "--json").stdout):
            if line["NAME"] == name:
                return int(line["ID"])
        raise KeyError(name)

    def monitor(self, name: str) -> None:
        """Let a host's probe run, and oned take what it prints."""
        printed = self._lab.hosts[name].run([PROBE], user="oneadmin").stdout
        self.oned.monitored(self.host_id(name), printed)

    def run_vm(self, vm_id: int, host: str, vnet_id: int, ar_id: int, values: Mapping[str, str]) -> None:
        """Let a VM run on a host with one NIC, and let the hook manager tell the driver.

        Args:
            vm_id: its ID.
            host: where.
            vnet_id: the network of its NIC.
            ar_id: the range of which it gets an address.
            values: what the NIC gets from that range.
        """
        self.oned.add_vm(_RUNNING_VM.read_bytes(), vm_id=vm_id, host_id=self.host_id(host))
        address = self.oned.lease(vnet_id, ar_id, vm_id)
        nic = {"NETWORK_ID": str(vnet_id), "IP": address, **values}
        self.oned.edit_vm(vm_id, lambda root: oned_vm.give_nics(root, [nic]))
        self.hook("vm_running", self.oned.document("VM", vm_id))

    def migrate_vm(self, vm_id: int, host: str) -> None:
        """Let a VM have moved to a host, and let the hook manager tell the driver."""
        self.oned.move_vm(vm_id, self.host_id(host))
        self.hook("vm_running", self.oned.document("VM", vm_id))
