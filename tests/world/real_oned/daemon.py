"""The process of a real oned with a directory, a port and a database of its own, and its calls by XML-RPC."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from . import installed
from .drivers import Drivers

SESSION = "oneadmin:SESSION"

_MEMORY = Path("/dev/shm")
_START_S = 60
_WAIT_S = 20
_CONFIGURATION = """
LOG = [ SYSTEM = "file", DEBUG_LEVEL = 3, USE_VMS_LOCATION = "NO" ]
DB = [ BACKEND = "sqlite", TIMEOUT = 10000 ]
PORT = {port}
LISTEN_ADDRESS = "127.0.0.1"
GRPC_PORT = {grpc_port}
GRPC_LISTEN_ADDRESS = "127.0.0.1"
DATASTORE_CAPACITY_CHECK = "no"
IM_MAD = [ NAME = "monitord", EXECUTABLE = "monitord", THREADS = 1 ]
VM_MAD = [ NAME = "kvm", {vmm}, DEFAULT = "vmm_exec/vmm_exec_kvm.conf", TYPE = "kvm", KEEP_SNAPSHOTS = "yes" ]
TM_MAD = [ EXECUTABLE = "tm" ]
IPAM_MAD = [ {ipam} ]
DATASTORE_MAD = [ EXECUTABLE = "datastore" ]
SCHED_MAD = [ EXECUTABLE = "sched" ]
HM_MAD = [ EXECUTABLE = "hm" ]
MARKET_MAD = [ EXECUTABLE = "market" ]
"""


class CallError(Exception):
    """oned refused a call; the message is its own."""


class Daemon:
    """A running oned, empty but for what it makes itself.

    Args:
        found: the installed one.

    Attributes:
        drivers: its drivers, which this process plays.
        endpoint: where it serves.
        home: its ONE_LOCATION.

    Raises:
        RuntimeError: it does not start.
    """

    vmm = 'EXECUTABLE = "vmm"'
    ipam = 'EXECUTABLE = "ipam"'

    def __init__(self, found: installed.Installed) -> None:
        self._installed = found
        # Every call of oned writes to its database and waits for the disk.
        memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        self.home = Path(tempfile.mkdtemp(prefix="oned-", dir=memory))
        port, grpc_port = _free_ports(2)
        self.endpoint = f"http://127.0.0.1:{port}/RPC2"
        for part in ("var/lock", "var/vms", "share", "run"):
            (self.home / part).mkdir(parents=True)
        shutil.copytree(found.configuration, self.home / "etc")
        own = _CONFIGURATION.format(port=port, grpc_port=grpc_port, vmm=self.vmm, ipam=self.ipam)
        (self.home / "etc" / "oned.conf").write_text(installed.configuration(found, own))
        auth = self.home / "one_auth"
        auth.write_text(SESSION + "\n")
        self.drivers = Drivers(self.home / "lib" / "mads")
        # Drivers inherit it, and the scripts that they run find their way back to this oned.
        environment = {"ONE_LOCATION": str(self.home), "ONE_AUTH": str(auth), "ONE_XMLRPC": self.endpoint}
        self._process = self._start([str(found.program), "-f"], environment)
        try:
            self._started()
            shutil.copy(self._database, self._database.with_suffix(".empty"))
        except BaseException:
            self.stop()
            raise

    def _start(self, argv: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        everything = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), **environment}
        null = subprocess.DEVNULL
        return subprocess.Popen(argv, env=everything, stdin=null, stdout=null, stderr=null, text=True)

    @property
    def _database(self) -> Path:
        return self.home / "var" / "one.db"

    def _started(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.call("one.hostpool.info")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"oned does not start:\n{self.log()[-2000:]}") from None
                time.sleep(0.1)

    def stop(self) -> None:
        """End it, and remove its directory."""
        # It would wait a second for each of its drivers; there is nothing to keep.
        self._process.kill()
        self._process.wait()
        self.drivers.close()
        shutil.rmtree(self.home)

    def log(self) -> str:
        """Read its log, without the calls."""
        path = self.home / "var" / "oned.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(line for line in lines if line and "[ReM][D]" not in line)

    def reset(self) -> None:
        """Put the database back to what it was at the start. oned reads it anew for every object."""
        with closing(self._connect()) as database:
            database.execute("ATTACH DATABASE ? AS empty", (str(self._database.with_suffix(".empty")),))
            database.execute("BEGIN IMMEDIATE")
            tables = database.execute("SELECT name FROM empty.sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                database.execute(f'DELETE FROM main."{table}"')
                database.execute(f'INSERT INTO main."{table}" SELECT * FROM empty."{table}"')
            database.execute("COMMIT")

    def execute(self, statement: str, *values: object) -> None:
        """Change the database, as an administrator's `onedb` does."""
        with closing(self._connect()) as database:
            database.execute(statement, values)

    def query(self, statement: str, *values: object) -> str:
        """Read one value from the database."""
        with closing(self._connect()) as database:
            (value,) = database.execute(statement, values).fetchone()
        return str(value)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._database, timeout=10, isolation_level=None)

    def call(self, method: str, *values: object) -> Any:
        """Call a method as oneadmin; its value.

        Raises:
            CallError: oned refused.
        """
        with xmlrpc.client.ServerProxy(self.endpoint) as proxy:
            call: Any = proxy
            for part in method.split("."):
                call = getattr(call, part)
            succeeded, value, *_ = call(SESSION, *values)
        if not succeeded:
            raise CallError(str(value))
        return value

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: it does not in time; the message has `what` and the end of the log.
        """
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {_WAIT_S} s\n{self.log()[-3000:]}")
            time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
