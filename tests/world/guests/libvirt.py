"""libvirt on a host, with real virtual machines; they are emulated, so that they need nothing of the machine below.

The daemon runs without systemd, cgroups and virtlogd. Other hosts reach it by TCP, where OpenNebula's would use ssh.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from types import TracebackType
from typing import Self

from lxml import etree

from tests.world.hosts.debian import Kernel
from tests.world.hosts.executor import CommandError
from tests.world.hosts.host import Host

_EMULATOR = "/usr/bin/qemu-system-x86_64"
_MEMORY_KIB = 98304  # the recorded VM has less than Debian's kernel needs to unpack itself
_FILES = "/run/lab-vm"
_IMAGE, _INITRAMFS, _CONSOLE = f"{_FILES}/kernel", f"{_FILES}/initramfs", f"{_FILES}/console"
_PID = f"{_FILES}/libvirtd.pid"
_DAEMON_CONF, _QEMU_CONF = "/etc/libvirt/libvirtd.conf", "/etc/libvirt/qemu.conf"
_STATE = "/run/libvirt"
_READY_S = 30

# libvirt looks for it although its settings name another; Debian makes it with libvirt-daemon-system, which has services.
_USER = "libvirt-qemu"

# All hosts of the lab are one machine, so libvirt would find the same UUID on each and refuse to migrate.
_DAEMON_SETTINGS = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
log_outputs = "3:stderr"
"""

_QEMU_SETTINGS = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
migration_host = "{address}"
"""

_NO_OFFLOADS = {
    "host": ("csum", "gso", "tso4", "tso6", "ecn", "ufo"),
    "guest": ("csum", "tso4", "tso6", "ecn", "ufo"),
}


class Libvirt:
    """The daemon on a host; a context manager. In the end it is gone, and so are the VMs on the host.

    Args:
        host: where.
        kernel: what its VMs boot.
        initramfs: their file system.
    """

    def __init__(self, host: Host, kernel: Kernel, initramfs: bytes) -> None:
        self.host = host
        self._address = host.instance.private_ip
        self._files = {
            _IMAGE: kernel.image.read_bytes(),
            _INITRAMFS: initramfs,
            _DAEMON_CONF: _DAEMON_SETTINGS.format(
                address=self._address, uuid=uuid.uuid5(uuid.NAMESPACE_DNS, host.name)
            ).encode(),
            _QEMU_CONF: _QEMU_SETTINGS.format(address=self._address).encode(),
        }

    def __enter__(self) -> Self:
        for path, content in self._files.items():
            self.host.run(["sh", "-ec", 'mkdir -p "${1%/*}"; cat >"$1"', "write", path], stdin=content)
        self.host.run(["sh", "-ec", f"id {_USER} >/dev/null 2>&1 || useradd --system --user-group {_USER}"])
        self._daemon = self.host.spawn(["libvirtd", "--listen", "--config", _DAEMON_CONF, "--pid-file", _PID])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(CommandError):
            for name in self.running():
                self.destroy(name)
        self._daemon.kill()
        self._daemon.communicate()
        # A VM outlives its daemon.
        self.host.run(["sh", "-c", f"cat {_STATE}/qemu/*.pid 2>/dev/null | xargs -r kill -KILL"], check=False)
        self.host.run(["rm", "-rf", _FILES, _STATE, _DAEMON_CONF, _QEMU_CONF])

    def ready(self) -> None:
        """Return when the daemon answers.

        Raises:
            CommandError: it does not.
        """
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                self.virsh("uri")
                return
            except CommandError as why:
                if time.monotonic() > deadline or self._daemon.poll() is not None:
                    self._daemon.terminate()
                    log = self._daemon.communicate()[1]
                    raise CommandError(f"{self.host.name}: libvirtd does not answer: {why}\n{log}") from None
                time.sleep(0.05)

    def virsh(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command of virsh; what it printed.

        Raises:
            CommandError: it failed.
        """
        return self.host.run(["virsh", "--quiet", "--connect", "qemu:///system", *arguments], stdin=stdin).stdout

    def running(self) -> list[str]:
        """The names of the VMs here."""
        return self.virsh("list", "--name").split()

    def create(self, recorded: bytes, command_line: str) -> None:
        """Start a VM as OpenNebula does: it is defined only while it runs.

        Args:
            recorded: OpenNebula's domain.
            command_line: its kernel's.

        Raises:
            CommandError: libvirt refuses.
        """
        self.virsh("create", "/dev/stdin", stdin=_domain(recorded, command_line))

    def migrate(self, name: str, destination: Libvirt) -> None:
        """Let a VM migrate live as OpenNebula does.

        Raises:
            CommandError: it could not.
        """
        self.virsh("migrate", "--live", name, f"qemu+tcp://{destination._address}/system")

    def destroy(self, name: str) -> None:
        """Power a VM off.

        Raises:
            CommandError: it is not there.
        """
        self.virsh("destroy", name)

    def console(self) -> str:
        """What the VMs that were started here have written on their consoles."""
        return self.host.run(["cat", _CONSOLE], check=False).stdout


def _domain(recorded: bytes, command_line: str) -> str:
    """OpenNebula's domain, but for what the lab lacks: KVM, disks and cgroups."""
    root = etree.fromstring(recorded)
    root.set("type", "qemu")
    _child(root, "memory").text = str(_MEMORY_KIB)
    _child(root, "devices/emulator").text = _EMULATOR
    root.remove(_child(root, "cputune"))
    devices = _child(root, "devices")
    for disk in devices.findall("disk"):
        devices.remove(disk)
    system = _child(root, "os")
    for tag, text in (("kernel", _IMAGE), ("initrd", _INITRAMFS), ("cmdline", command_line)):
        etree.SubElement(system, tag).text = text
    serial = etree.SubElement(devices, "serial", type="file")
    etree.SubElement(serial, "source", path=_CONSOLE)
    # The userspace datapath does not fill in checksums that a guest leaves to the device.
    for interface in root.iterfind("devices/interface"):
        driver = etree.SubElement(interface, "driver", name="qemu")
        for side, offloads in _NO_OFFLOADS.items():
            etree.SubElement(driver, side, dict.fromkeys(offloads, "off"))
    return etree.tostring(root, encoding="unicode")


def _child(element: etree._Element, path: str) -> etree._Element:
    found = element.find(path)
    assert found is not None, f"the recorded domain has no {path}"
    return found
