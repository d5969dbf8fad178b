"""A machine made of Linux namespaces: its own processes, mounts, host name and network, and a root file system of its own.

The root is an overlay over this machine's (or another directory), kept in memory, so whatever runs there may install
files, write to /etc and start daemons, and nothing of this machine changes. Everything hangs on the init process, and
that on a pipe to us: when we end, however that happens, the kernel removes processes, mounts and network devices.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .executor import PATH_ROOT, CommandError, Executor, directory, environment

CHANGED = "/run/changed"
"""Where a namespace that builds shows the files that differ from this machine's."""

# Arguments: host name, tar archive with files to lay over the root ("" for none), "build" or "run", the root.
# The pid is the one that this machine's /proc shows. `cat` waits for the end of our pipe; as it ignores SIGCHLD, the
# kernel reaps for it.
_INIT = r"""
set -e
read -r pid rest </proc/self/stat
hostname "$1"
mount -t tmpfs -o mode=755 lab /mnt
mkdir /mnt/layer /mnt/upper /mnt/work /mnt/root
[ -z "$2" ] || tar -C /mnt/layer --xattrs --xattrs-include='*' -xf "$2"
mount -t overlay -o lowerdir="/mnt/layer:$4",upperdir=/mnt/upper,workdir=/mnt/work lab /mnt/root
cd /mnt/root
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
[ "$3" = build ] || mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
[ "$3" = build ] || mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755,nosuid,nodev run run
mount -t tmpfs -o mode=1777,nosuid,nodev tmp tmp
mkdir -p run/lock run/openvswitch
if [ "$3" = build ]; then mkdir run/changed; mount --bind /mnt/upper run/changed; else ip link set lo up; fi
pivot_root . mnt
cd /
umount -l mnt
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$1" >/etc/hosts
echo "$pid"
exec env --ignore-signal=CHLD cat >/dev/null
"""


class _Process(subprocess.Popen[str]):
    """A process in a namespace.

    The process that we see is only `nsenter`, which waits for the real one in the other pid namespace. Signals go to the
    real one and what it started (its process group); nsenter must live to collect it, and then ends the same way.
    """

    def send_signal(self, sig: int) -> None:
        """Send `sig` to the process and to those that it started."""
        done: set[int] = set()
        deadline = time.monotonic() + 1
        # Right after its start there is no real process yet, and one that forks must not escape.
        while self.poll() is None and time.monotonic() < deadline:
            new = _group(self.pid) - done
            if done and not new:
                break
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
            done |= new


def _group(leader: int) -> set[int]:
    """The members of a process group, without its leader."""
    members = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != leader:
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue  # it has just ended
            if int(stat.rpartition(")")[2].split()[2]) == leader:
                members.add(int(entry))
    return members


class Namespace(Executor):
    """See the module; a context manager.

    Args:
        name: its host name.
        layer: a tar archive that is laid over the root's files.
        build: it serves to install software: it uses this machine's network, which it can not configure, and shows
            what was installed under `CHANGED`. Without, its network is its own, with nothing but `lo`.
        root: the directory of which it sees a copy.

    Attributes:
        pid: its init process.

    Raises:
        CommandError: it could not be set up.
    """

    def __init__(self, name: str, *, layer: Path | None = None, build: bool = False, root: Path = Path("/")) -> None:
        super().__init__(name)
        namespaces = ["--mount", "--uts", "--ipc", "--pid", *([] if build else ["--net"])]
        script = ["sh", "-c", _INIT, "init", name, str(layer or ""), "build" if build else "run", str(root)]
        self._init = subprocess.Popen(
            ["unshare", *namespaces, "--fork", "--kill-child", "--", *script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": PATH_ROOT, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        assert self._init.stdout
        assert self._init.stderr
        line = self._init.stdout.readline()
        if not line:
            story = self._init.stderr.read().strip()
            self.close()
            raise CommandError(f"namespace {name} did not start: {story}")
        self.pid = int(line)

    def close(self) -> None:
        """See `Executor.close`."""
        for pipe in (self._init.stdin, self._init.stdout, self._init.stderr):
            if pipe:
                pipe.close()
        try:
            self._init.wait(10)
        except subprocess.TimeoutExpired:
            self._init.kill()
            self._init.wait()

    def _start(
        self,
        argv: Sequence[str],
        user: str,
        stdin: int,
        cwd: str | None,
        env: Mapping[str, str] | None,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        return _Process(
            [*enter, f"--wdns={directory(user, cwd)}", "--", *become, *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE if stdout == subprocess.PIPE else subprocess.DEVNULL,
            encoding="utf-8",
            errors="surrogateescape",  # bytes go in and come out as they are
            env=environment(user, env),
            start_new_session=True,
        )

    def network(self, argv: Sequence[str], stdin: str = "") -> str:
        """Run one of this machine's programs in the network of the namespace only, where it sees this machine's pids.

        Returns:
            What it printed.

        Raises:
            CommandError: it failed.
        """
        enter = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]
        environment = {"PATH": PATH_ROOT, "LANG": "C.UTF-8"}
        done = subprocess.run([*enter, *argv], input=stdin, capture_output=True, text=True, env=environment)
        if done.returncode:
            what = f"exit code {done.returncode}, given {stdin!r}"
            raise CommandError(self._story(argv, what, done.stdout, done.stderr))
        return done.stdout
