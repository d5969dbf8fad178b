"""The lab's front-end with a real oned in it, which calls the driver's scripts by OpenNebula's own drivers.

`one_ipam` runs `vnet_create` on the front-end, `one_vmm_exec` runs `pre`, `post` and `clean` on the hosts, by ssh. The
hypervisor is the lab's: a script in the place of OpenNebula's asks this process to plug, move and unplug the guests. Monitoring,
storage and the hook manager are played.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lxml import etree

from tests.world.front_end import DRIVER, PROBE, FrontEnd
from tests.world.guests import document
from tests.world.guests.guest import HypervisorError
from tests.world.lab import Lab
from tests.world.oned.vnet import LOCK_CREATE, READY

from .daemon import Daemon
from .installed import Installed

_ACTIONS = ("deploy", "cancel", "shutdown", "migrate")
_SCRIPT = """#!/usr/bin/python3 -IS
import json, os, socket, sys
here, name = os.path.split(sys.argv[0])
s = socket.socket(socket.AF_UNIX)
s.connect(os.path.join(here, "socket"))
s.sendall(json.dumps([name, *sys.argv[1:]]).encode() + b"\\n")
code, text = json.loads(s.makefile().readline())
print(text, file=sys.stderr if code else sys.stdout)
sys.exit(code)
"""

Act = Callable[[str, tuple[str, ...]], str]


class _LabDaemon(Daemon):
    """A real oned in the lab's front-end, as oneadmin.

    Args:
        found: the installed one.
        front_end: where it runs.
        act: carries out what the hypervisor is asked for, an action and its arguments, and returns what the script prints.
    """

    vmm = f'EXECUTABLE = "one_vmm_exec", ARGUMENTS = "-t 15 -r 0 -p -l {",".join(_ACTIONS)} lab"'
    ipam = 'EXECUTABLE = "one_ipam", ARGUMENTS = "-t 1 -i dummy"'

    def __init__(self, found: Installed, front_end: RealFrontEnd, act: Act) -> None:
        self._front_end, self._act = front_end, act
        super().__init__(found)

    def _start(self, argv: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        parts = self._installed.parts()
        for item in parts.mads.iterdir():
            (self.home / "lib" / "mads" / item.name).symlink_to(item)
        for place, directory in parts.linked.items():
            (self.home / place).symlink_to(directory)
        for settings in (self.home / "etc").rglob("*rc"):
            # They start at the lowest priority; on a busy machine oned would give up before they have started.
            settings.write_text(settings.read_text().replace("PRIORITY=19", "PRIORITY=0"))
        remotes = self.home / "var" / "remotes"
        shutil.copytree(parts.remotes, remotes, symlinks=True)
        (remotes / "vnm" / "aws_ovs").symlink_to(DRIVER)
        self._hypervisor(remotes / "vmm" / "lab")
        self._front_end.run(["chown", "-R", "oneadmin:oneadmin", str(self.home)])
        self.home.chmod(0o755)
        return self._front_end.start_oned(argv, environment)

    def _hypervisor(self, directory: Path) -> None:
        directory.mkdir()
        for action in _ACTIONS:
            (directory / action).write_text(_SCRIPT)
            (directory / action).chmod(0o755)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / "socket"))
        (directory / "socket").chmod(0o777)
        listener.listen()
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile() as lines:
                action, *words = json.loads(lines.readline())
                try:
                    answer = (0, self._act(action, tuple(words)))
                except (HypervisorError, ValueError) as error:
                    answer = (1, str(error))
                connection.sendall(json.dumps(answer).encode() + b"\n")


class RealFrontEnd(FrontEnd):
    """See the module; a context manager.

    Args:
        lab: whose hosts and EC2 it serves.
        found: the installed oned.
    """

    def __init__(self, lab: Lab, found: Installed) -> None:
        self._found = found
        self.actions: list[str] = []
        super().__init__(lab)

    def _prepare(self) -> None:
        super()._prepare()
        self.daemon = _LabDaemon(self._found, self, self._act)
        # A VM's files are on no host; OpenNebula's scripts for this kind of storage do nothing.
        self.daemon.call("one.datastore.update", 0, 'TM_MAD="dummy"', 1)

    def _environment(self) -> dict[str, str]:
        return {**self._lab.ec2.environment(), "ONE_XMLRPC": self.daemon.endpoint}

    def start_oned(self, argv: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start oned as oneadmin; its drivers' scripts find the lab's EC2."""
        ruby = {"RUBYLIB": f"{environment['ONE_LOCATION']}/lib/ruby"}  # for installations that are not of packages
        everything = {**self._lab.ec2.environment(), **ruby, **environment}
        return self._start(argv, "oneadmin", subprocess.DEVNULL, None, everything, subprocess.DEVNULL)

    def close(self) -> None:
        """Stop everything; the hosts stay."""
        if hasattr(self, "daemon"):
            self.daemon.stop()
        super().close()

    def _act(self, action: str, words: tuple[str, ...]) -> str:
        """Carry out what the hypervisor is asked for; what its script prints."""
        vm_id = int(words[-2])
        self.actions.append(action)
        xml = str(self.daemon.call("one.vm.info", vm_id)).encode()
        verb = "cancel" if action == "shutdown" else action
        self._lab.hypervisor.step(f"vmm-{verb}", words, document.parse(xml))
        return f"one-{vm_id}"

    def tree(self, method: str, number: int) -> etree._Element:
        """Read an object of oned: `one.vm.info` and the like."""
        return etree.fromstring(str(self.daemon.call(method, number)))

    def until(self, method: str, number: int, path: str, text: str) -> None:
        """Wait until an element of an object says something."""
        self.daemon.wait(
            f"{method} {number}: {path} is {text}", lambda: self.tree(method, number).findtext(path) == text
        )

    def create_network(self, template: str) -> int:
        """Create a network; oned calls the driver's `vnet_create`, and nothing the hook."""
        vnet_id = int(self.daemon.call("one.vn.allocate", template, 0))
        self.daemon.wait(
            "vnet_create ends", lambda: self.tree("one.vn.info", vnet_id).findtext("STATE") != str(LOCK_CREATE)
        )
        network = self.tree("one.vn.info", vnet_id)
        assert network.findtext("STATE") == str(READY), network.findtext("TEMPLATE/ERROR")
        return vnet_id

    def monitor(self, name: str) -> None:
        """Let a host's probe run, and oned take what it prints."""
        printed = self._lab.hosts[name].run([PROBE], user="oneadmin").stdout
        host_id = self.host_id(name)
        self.daemon.drivers.monitoring("HOST_SYSTEM", host_id, printed)
        self.daemon.drivers.monitoring("HOST_STATE", host_id, "MONITORED")
        self.until("one.host.info", host_id, "STATE", "2")

    def deploy(self, host: str, nic: str, name: str) -> int:
        """Create a VM with a NIC, and let it run on a host; its ID."""
        text = f'NAME="{name}"\nCPU="1"\nMEMORY="128"\nCONTEXT=[NETWORK="YES"]\nNIC=[{nic}]'
        vm_id = int(self.daemon.call("one.vm.allocate", text, False))
        self.daemon.call("one.vm.deploy", vm_id, self.host_id(host), False, -1, "")
        self.until("one.vm.info", vm_id, "LCM_STATE", "3")
        return vm_id

    def migrate_vm(self, vm_id: int, host: str) -> None:
        """Migrate a VM live; no hook is called."""
        before = self.actions.count("migrate")
        self.daemon.call("one.vm.migrate", vm_id, self.host_id(host), True, False, -1, 0)
        # The call returns before the VM's state changes; it changes back when the driver has done all its steps.
        self.daemon.wait("the hypervisor migrates", lambda: self.actions.count("migrate") > before)
        self.until("one.vm.info", vm_id, "LCM_STATE", "3")

    def terminate(self, vm_id: int) -> None:
        """Let a VM end at once."""
        self.daemon.call("one.vm.action", "terminate-hard", vm_id)
        self.until("one.vm.info", vm_id, "STATE", "6")

    def delete_network(self, vnet_id: int) -> None:
        """Delete a network; oned calls the driver's `vnet_delete`."""
        self.daemon.call("one.vn.delete", vnet_id)
        self.daemon.wait("the network is gone", lambda: vnet_id not in self.networks())

    def networks(self) -> list[int]:
        """List the IDs of all networks."""
        pool: Any = self.daemon.call("one.vnpool.info", -2, -1, -1)
        return [int(item.text or -1) for item in etree.fromstring(str(pool)).iterfind("VNET/ID")]
