"""Failures and deaths of the node's program at each of its effects on the world, by `strace` and by tools that fail."""

from __future__ import annotations

import base64
import difflib
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import CompletedProcess
from typing import NamedTuple

from tests.world.hosts.host import Host

PROGRAM = "/usr/sbin/aws-ovs"
_TRACE = "/tmp/trace"
_WAIT_US = 10000
"""It waits so long before it sends or receives, so that it mostly looks just once whether ovs-vswitchd has acted."""
_TRIES = 20
_LOOK = "cur_cfg"
_RESTARTED = re.compile(r"\? ERESTART")

# `?`: not every architecture has each of them.
_CALLS = (
    "?mkdir,?mkdirat,openat,write,pwrite64,ftruncate,flock,?rename,?renameat,renameat2,?unlink,unlinkat,"
    "connect,sendto,sendmsg,recvfrom,memfd_create,clone,?clone3,?fork,?vfork,wait4,exit_group,?poll,ppoll"
)
_TRANSACTION = re.compile(r'\\"op\\": \\"(insert|update|mutate|delete|comment)\\"')
_NETLINK_READ = re.compile(r"RTM_GET|nlmsg_type=0x1[26]\b")
_STARTS = ("clone", "clone3", "fork", "vfork")

# Stands before a tool, and fails once: at the call whose arguments hold the words in /run/fault/words.
_TOOL = r"""#!/bin/sh
case " $* " in
*" $(cat /run/fault/words) "*)
    if mkdir /run/fault/done 2>/dev/null; then
        case $(cat /run/fault/how) in
        refuses) echo "$0: refused" >&2 ;;
        dies) kill -KILL $$ ;;
        "is slow") sleep 2 && exec "$0.real" "$@" ;;
        "fails after its work") "$0.real" "$@" ;;
        esac
        exit 1
    fi
    ;;
esac
exec "$0.real" "$@"
"""
TOOL_FAILURES = ("refuses", "dies", "fails after its work")
SLOW = "is slow"
"""No failure, but its starter can be killed meanwhile."""

_KILL_MEANWHILE = """
exec 3<&0
"$@" <&3 &
while [ ! -e /run/fault/done ]; do sleep 0.02; done
kill -KILL $!
"""


class Action(NamedTuple):
    """A call of the node's program."""

    verb: str
    argv: tuple[str, ...]
    stdin: bytes

    @property
    def command(self) -> list[str]:
        """Program and arguments."""
        return [PROGRAM, self.verb, *self.argv]


def on_vm(verb: str, document: bytes, *argv: str) -> Action:
    """An action that gets a VM's document."""
    return Action(verb, argv, base64.b64encode(document))


class Effect(NamedTuple):
    """One system call of the program's own process.

    Attributes:
        call: its name.
        number: it was the n-th of that name.
        place: so many of that name came before it, those left out that come more or less often by chance.
        text: its arguments as strace shows them.
        changes: whether the world may be another one afterwards.
    """

    call: str
    number: int
    place: int
    text: str
    changes: bool

    def __str__(self) -> str:
        return f"{self.call} {self.number} ({self.text[:90]})"


def run(host: Host, action: Action) -> CompletedProcess[str]:
    """Carry out an action undisturbed."""
    return host.run(action.command, stdin=action.stdin, check=False)


def done(host: Host, *actions: Action) -> None:
    """Carry out actions that must succeed."""
    for action in actions:
        host.run(action.command, stdin=action.stdin)


def effects(host: Host, action: Action) -> list[Effect]:
    """What an action, carried out undisturbed now, does to the world and asks of it, in order."""
    host.run([*_strace(host), "-e", f"trace={_CALLS}", *action.command], stdin=action.stdin)
    numbers: Counter[str] = Counter()
    chances: Counter[str] = Counter()
    found = []
    last = ""
    for call, text, result in _traced(host):
        numbers[call] += 1
        if _is_effect(call, text) and not result.startswith("-1 ") and not _RESTARTED.search(result):
            place = numbers[call] - 1 - chances[call]
            private = call == "write" and last == "memfd_create"  # a tool's input, which nobody sees yet
            found.append(Effect(call, numbers[call], place, text, _changes(call, text) and not private))
            last = call
        chances[call] += _by_chance(text, result)
    return found


def _strace(host: Host) -> list[str]:
    slower = f"inject=?poll,ppoll:delay_enter={_WAIT_US * host.slowness:.0f}"
    return ["strace", "-qq", "-s", "9999", "-o", _TRACE, "-e", "signal=none", "-e", slower]


def _traced(host: Host) -> Iterator[tuple[str, str, str]]:
    """Name, arguments and result of each call that strace saw last."""
    for line in host.run(["cat", _TRACE]).stdout.splitlines():
        call, _, rest = line.partition("(")
        text, _, result = rest.rpartition(" = ")
        yield call, (text or rest).rstrip(" )"), result


def _by_chance(text: str, result: str) -> bool:
    """Looks whether ovs-vswitchd has acted, and calls that the kernel begins anew when it is busy."""
    return _LOOK in text or bool(_RESTARTED.search(result))


def _is_effect(call: str, text: str) -> bool:
    if call == "openat":
        return "O_WRONLY" in text or "O_RDWR" in text
    return call not in ("poll", "ppoll") and (call != "connect" or "/dev/log" not in text)  # the log may be missing


def _changes(call: str, text: str) -> bool:
    if call in ("sendto", "sendmsg"):
        return bool(_TRANSACTION.search(text)) or ("nlmsg_" in text and not _NETLINK_READ.search(text))
    if call == "openat":
        return "O_CREAT" in text and "/lock" not in text and "/proc/" not in text
    return call in (*_STARTS, "wait4", "write") or call.startswith(("mkdir", "rename", "unlink"))


def to_fail(found: list[Effect], reads: bool = True) -> list[Effect]:
    """The effects that can fail: the kernel never refuses to wait for a child, and Python forks where it cannot vfork.

    Who has the lock is written into it (ftruncate, pwrite64) for people only: nobody fails because that is not possible.

    Args:
        found: all of them.
        reads: with those that change nothing; otherwise only the first of each kind.
    """
    seen: set[str] = set()
    kept = []
    for effect in found:
        if effect.call in ("wait4", "exit_group", "vfork", "ftruncate", "pwrite64"):
            continue
        if effect.changes or reads or effect.call not in seen:
            kept.append(effect)
        if not effect.changes:
            seen.add(effect.call)
    return kept


def to_die(found: list[Effect]) -> list[Effect]:
    """Where a death makes a difference: before each change, while ovsdb-server is at work on one, and after the last."""
    changes = [number for number, effect in enumerate(found) if effect.changes]
    at_work = [number + 1 for number in changes if "transact" in found[number].text]
    return [found[number] for number in sorted({0, *changes, *at_work, changes[-1] + 1}) if number < len(found)]


def fail(host: Host, action: Action, effect: Effect, undo: Callable[[], None]) -> CompletedProcess[str]:
    """Carry out an action and let one effect fail.

    Args:
        host: where.
        action: which.
        effect: what is to fail.
        undo: what takes the host back when, by chance, something else has failed; then it is done again.
    """
    return _disturb(host, action, effect, f"error={'EAGAIN' if effect.call in _STARTS else 'EIO'}", undo)


def kill(host: Host, action: Action, effect: Effect, undo: Callable[[], None]) -> None:
    """Carry out an action and kill it just before one effect; the arguments are those of `fail`."""
    ended = _disturb(host, action, effect, "signal=KILL", undo)
    # A wait may be one call or two.
    assert ended.returncode in ((-9, 137, 0) if effect.call == "wait4" else (-9, 137)), f"{effect}: not killed"


def kill_while_its_tool_works(host: Host, action: Action) -> None:
    """Carry out an action and kill it as soon as a tool that is SLOW has begun."""
    host.run(["sh", "-ec", _KILL_MEANWHILE, "sh", *action.command], stdin=action.stdin)


def _disturb(host: Host, action: Action, effect: Effect, what: str, undo: Callable[[], None]) -> CompletedProcess[str]:
    number, seen = effect.number, []
    for _ in range(_TRIES):
        inject = f"inject={effect.call}:{what}:when={number}"
        strace = [*_strace(host), "-e", f"trace={effect.call},?poll,ppoll", "-e", inject]
        ended = host.run([*strace, *action.command], stdin=action.stdin, check=False)
        calls = [(text, result) for call, text, result in _traced(host) if call == effect.call]
        chances = sum(_by_chance(*one) for one in calls[: number - 1])
        if len(calls) >= number:
            text, result = calls[number - 1]
            assert "INJECTED" in result or "signal=" in what, f"{effect}: {result}"
            alike = effect.call in ("recvfrom", "wait4") or _alike(text) == _alike(effect.text)
            if number - 1 - chances == effect.place and alike:
                return ended
        elif effect.call == "wait4":
            return ended
        undo()
        seen.append(chances)
        number = effect.place + 1 + random.choice(seen)  # always the last one could be one behind for ever
    raise AssertionError(f"{effect} did not happen again")


def _alike(text: str) -> str:
    """What two runs have in common of a call's arguments."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", text)[:40]


@contextmanager
def failing_tool(host: Host, tool: str, words: str, how: str) -> Iterator[None]:
    """Let a tool of the host fail the next time that its arguments hold `words`, in one of the TOOL_FAILURES, or be SLOW."""
    path = _path(host, tool)
    install = "rm -rf /run/fault; mkdir /run/fault; mv $1 $1.real; cat >$1; chmod 755 $1"
    host.run(["sh", "-ec", install, "sh", path], stdin=_TOOL)
    try:
        host.run(["sh", "-ec", 'printf %s "$1" >/run/fault/words; printf %s "$2" >/run/fault/how', "sh", words, how])
        yield
        assert host.run(["ls", "/run/fault"]).stdout.split()[0] == "done", f"{tool} was never called with {words}"
    finally:
        host.run(["mv", f"{path}.real", path])


@contextmanager
def missing_tool(host: Host, tool: str) -> Iterator[None]:
    """Let a tool of the host be not there."""
    path = _path(host, tool)
    host.run(["mv", path, f"{path}.real"])
    try:
        yield
    finally:
        host.run(["mv", f"{path}.real", path])


def _path(host: Host, tool: str) -> str:
    return host.run(["sh", "-c", 'readlink -f "$(command -v "$1")"', "sh", tool]).stdout.strip()


def quiet(host: Host) -> None:
    """Wait until no tool works on that a killed program has started."""
    deadline = time.monotonic() + 30
    while host.run(["pgrep", "-x", "ovs-ofctl|nft"], check=False).returncode == 0:
        assert time.monotonic() < deadline, "a tool that a killed program has started does not end"
        time.sleep(0.02)


def complaint(action: Action, ended: CompletedProcess[str]) -> str:
    """Say what is wrong with how an action has failed; nothing when it said it as its caller needs it."""
    lines = ended.stderr.splitlines()
    if action.verb in ("peers", "stand-ins"):  # the front-end reads the last line
        good = len(lines) == 1 and lines[0].startswith(f"aws-ovs: {action.verb}: ")
    else:  # OpenNebula reads both
        good = len(lines) == 2 and lines[0] == f"ERROR: {lines[1]}" and lines[1].startswith(f"{action.verb}: ")
    if good and ended.returncode == 1:
        return ""
    return f"exit code {ended.returncode}, stderr {ended.stderr[-300:]!r}"


def difference(wanted: str, found: str) -> str:
    """The lines in which two dumps differ; nothing when they are the same."""
    lines = difflib.unified_diff(wanted.splitlines(), found.splitlines(), lineterm="", n=0)
    return "\n".join(line[:200] for line in list(lines)[2:12])
