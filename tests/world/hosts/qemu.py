"""A machine with a kernel of its own: qemu without hardware's help, its network cards in a namespace on this machine.

Commands go in by ssh over a card of their own, one connection a user. When we end, however that happens, the kernel ends
qemu and removes its devices.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .disk import Disk
from .executor import CommandError, Executor, directory, environment
from .namespace import Namespace

MEMORY_MB = 320
_CODE_MB = 128
"""Room for translated code; with less, qemu translates programs anew all the time."""
EACH_MB = MEMORY_MB + _CODE_MB + 60
_BOOT_S = 600
_USERS = ("root", "oneadmin")
_FIRST_PLACE = 8
_FILES = "/tmp"
"""Where qemu and ssh have their files; it is the namespace's own, and in memory."""
_HERE, _THERE = "10.255.255.1/30", "10.255.255.2/30"
# Wide registers cost more to emulate than they save.
_CPU = "qemu64"
# A program that starts at the same addresses each time is translated once.
_FAST = "norandmaps", "mitigations=off", "init_on_alloc=0"
_QUIET = "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"


class EmulatedCard(NamedTuple):
    """A network card.

    Attributes:
        tap: its device on our side, in the machine's namespace.
        mac: its MAC address.
        mtu: the greatest MTU it is fit for.
    """

    tap: str
    mac: str
    mtu: int


class _Process(subprocess.Popen[str]):
    """A process on the machine, as far as we see it: ssh, which waits for it."""

    def __init__(self, machine: Qemu, number: int, argv: Sequence[str], **files: object) -> None:
        self._machine, self._number = machine, number
        super().__init__(argv, encoding="utf-8", errors="surrogateescape", start_new_session=True, **files)  # type: ignore[call-overload]

    def send_signal(self, sig: int) -> None:
        """Send `sig` to the process and to those that it started."""
        if self.poll() is None:
            self._machine.signal(self._number, sig)


class Qemu(Executor):
    """See the module; a context manager. It must be made in the main thread, with whose end it ends.

    Args:
        name: its host name.
        disk: what it starts from.
        words: for the kernel's command line.
        cards: its network cards.

    Attributes:
        outside: where its cards' devices on our side are.
        pid: a process there.
    """

    slowness = 6.0

    def __init__(self, name: str, disk: Disk, words: Sequence[str], cards: Sequence[EmulatedCard]) -> None:
        super().__init__(name)
        self._disk = disk
        self._numbers = itertools.count(1)
        self._masters: list[subprocess.Popen[bytes]] = []
        self.outside = Namespace(f"{name}-outside")
        self.pid = self.outside.pid
        self._files = Path(f"/proc/{self.pid}/root{_FILES}")
        try:
            self.outside.run(["sysctl", "-q", "-w", *_QUIET])
            management = EmulatedCard("management", "02:00:00:00:00:01", 1500)
            self._process = self._start_qemu(words, [management, *cards])
        except BaseException:
            self.outside.close()
            raise

    def close(self) -> None:
        """Switch the machine off."""
        for process in (*self._masters, self._process):
            process.kill()
            process.wait()
        self.outside.close()

    def network(self, argv: Sequence[str], stdin: str = "") -> str:
        """Run one of this machine's programs there; see `Namespace.network`."""
        return self.outside.network(argv, stdin)

    def _start_qemu(self, words: Sequence[str], cards: Sequence[EmulatedCard]) -> subprocess.Popen[bytes]:
        create = "".join(
            f"tuntap add {card.tap} mode tap vnet_hdr\nlink set {card.tap} mtu {card.mtu} up\n" for card in cards
        )
        self.outside.network(["ip", "-batch", "-"], f"{create}address add {_HERE} dev management\n")
        wires: list[str] = []
        for number, card in enumerate(cards):
            wires += ["-netdev", f"tap,id={card.tap},ifname={card.tap},script=no,downscript=no,vnet_hdr=on"]
            about = f"netdev={card.tap},mac={card.mac},host_mtu={card.mtu},romfile="
            # Eight in one place, for there are only some thirty places.
            about += f",addr={_FIRST_PLACE + number // 8:#x}.{number % 8},multifunction=on"
            wires += ["-device", f"virtio-net-pci,{about}"]
        line = ["root=/dev/nvme0n1", "rw", "quiet", "console=ttyS0", "net.ifnames=0", "panic=1", *_FAST]
        line += [f"lab.name={self.name}", f"lab.management={_THERE}", *words]
        command = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-M", "q35", "-cpu", _CPU, "-smp", "1", "-m", str(MEMORY_MB)),
            *("-accel", f"tcg,thread=multi,tb-size={_CODE_MB}"),
            *("-kernel", str(self._disk.kernel.image), "-append", " ".join(line)),
            *("-drive", f"file={self._disk.root},format=raw,if=none,id=root,snapshot=on"),
            *("-device", "nvme,drive=root,serial=root", "-device", "virtio-rng-pci"),
            *("-serial", f"file:{_FILES}/console", *wires),
        ]
        with open(self._files / "qemu", "wb") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._enter(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "TMPDIR": _FILES},
            )

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--root", "--wdns=/", "--"]

    def wait(self) -> None:
        """Wait until the machine has started and takes commands.

        Raises:
            CommandError: it does not start.
        """
        deadline = time.monotonic() + _BOOT_S
        for user in _USERS:
            while not self._try_connect(user):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    story = [(self._files / name).read_text(errors="replace")[-2000:] for name in ("qemu", "console")]
                    raise CommandError(f"{self.name} did not start: {' '.join(story).strip()}")
                time.sleep(0.1)

    def disconnected(self) -> None:
        """Wait until the machine has ended the connections for commands, as it does when it reboots.

        Raises:
            TimeoutExpired: it does not.
        """
        for master in self._masters:
            master.wait(_BOOT_S)
        self._masters.clear()

    def _try_connect(self, user: str) -> bool:
        """Open the connection for a user's commands if the machine takes it now."""
        master = subprocess.Popen(
            [*self._ssh(user), "-M", "-N", "-o", "ConnectTimeout=2"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while master.poll() is None:
            if (self._files / user).exists():
                self._masters.append(master)
                return True
            time.sleep(0.02)
        return False

    def _ssh(self, user: str) -> list[str]:
        options = {
            "ControlPath": f"{_FILES}/{user}",
            "IdentityFile": self._disk.key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self._disk.known_hosts,
            "HostKeyAlias": "lab",
            "LogLevel": "ERROR",
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "6",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return [*self._enter(), "ssh", "-F", "none", "-T", *words, f"{user}@{_THERE.partition('/')[0]}"]

    def _start(
        self,
        argv: Sequence[str],
        user: str,
        stdin: int,
        cwd: str | None,
        env: Mapping[str, str] | None,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        number = next(self._numbers)
        variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment(user, env).items())
        # With `set -m` it has a process group of its own; bash stays, and tells how it has ended.
        script = (
            f"set -m; cd {shlex.quote(directory(user, cwd))} || exit; unset MAIL ${{!SSH_*}}; export {variables}; "
            f"{shlex.join(argv)} & echo $! >/run/lab/{number}; wait $! 2>/dev/null"
        )
        return _Process(
            self,
            number,
            [*self._ssh(user), script],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE if stdout == subprocess.PIPE else subprocess.DEVNULL,
        )

    def signal(self, number: int, sig: int) -> None:
        """Send a signal to the process group of the command with this number."""
        script = f"for try in 1 2 3 4 5 6 7 8 9; do [ -s /run/lab/{number} ] && break; sleep 0.1; done; "
        script += f"kill -{int(sig)} -- -$(cat /run/lab/{number})"
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([*self._ssh("root"), script], capture_output=True, timeout=10 * self.slowness)
