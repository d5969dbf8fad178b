"""Open vSwitch on a machine, at the paths where Debian's packages put it, without systemd."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from .executor import CommandError, Executor

DAEMONS = ("ovsdb-server", "ovs-vswitchd")
_RUN = "/run/openvswitch"
_DATABASE = "/etc/openvswitch/conf.db"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_LOG = "/var/log/openvswitch"
_PATIENCE_S = 10


class OpenVswitch:
    """The two daemons.

    Args:
        machine: where they run; one set for each.
    """

    def __init__(self, machine: Executor) -> None:
        self._machine = machine

    def create(self) -> None:
        """Make an empty database, whatever the machine that lies below has in its own."""
        self._machine.run(
            [
                "sh",
                "-ec",
                f"rm -rf /etc/openvswitch /var/lib/openvswitch; mkdir -p /etc/openvswitch {_LOG}; "
                f"ovsdb-tool create {_DATABASE} {_SCHEMA}",
            ]
        )

    def start(self) -> None:
        """Start what does not run; returns when ovs-vswitchd has carried out what the database says."""
        running = self.pids()
        if "ovsdb-server" not in running:
            self._daemon("ovsdb-server", [_DATABASE, f"--remote=punix:{_RUN}/db.sock"])
            self._require_whole()
            name = self._machine.name
            self.vsctl("--no-wait", "init")
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", f"external_ids:system-id={name}")
        if "ovs-vswitchd" not in running:
            self._daemon("ovs-vswitchd", [f"unix:{_RUN}/db.sock"])
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:lab-started=yes")
            self.vsctl("set", "Open_vSwitch", ".", "external_ids:lab-started=yes")

    def _require_whole(self) -> None:
        """Raise when ovsdb-server could not read a change: it drops all that came after it, and says so in its log only."""
        said = self._machine.run(["grep", "-F", "ovsdb_server|ERR", f"{_LOG}/ovsdb-server.log"], check=False).stdout
        if said:
            raise CommandError(f"{self._machine.name}: the database of Open vSwitch was not read to its end: {said}")

    def _daemon(self, name: str, arguments: Sequence[str]) -> None:
        options = [f"--pidfile={_RUN}/{name}.pid", "--detach", "--no-chdir", f"--log-file={_LOG}/{name}.log"]
        self._machine.run([name, *arguments, *options, "-vconsole:off"])

    def vsctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ovs-vsctl, which gives up after some time; see `Executor.run`."""
        patience = f"--timeout={_PATIENCE_S * self._machine.slowness:.0f}"
        return self._machine.run(["ovs-vsctl", patience, *arguments], check=check)

    def pids(self) -> dict[str, int]:
        """Which of the daemons run, with their pids on it."""
        found = self._machine.run(["pgrep", "-l", "-x", "|".join(DAEMONS)], check=False).stdout.split("\n")
        return {name: int(pid) for pid, _, name in (line.partition(" ") for line in found if line)}

    def stop(self, names: Sequence[str] = DAEMONS, signal: str = "TERM") -> None:
        """Send the named daemons a signal and wait until they are gone.

        Raises:
            TimeoutError: one still runs after 10 seconds, on a machine as fast as this one.
        """
        pids = [pid for name, pid in self.pids().items() if name in names]
        if pids:
            self._machine.run(["kill", f"-{signal}", *map(str, pids)])
        deadline = time.monotonic() + _PATIENCE_S * self._machine.slowness
        while any(name in names for name in self.pids()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._machine.name}: {names} still run long after SIG{signal}")
            time.sleep(0.01)
