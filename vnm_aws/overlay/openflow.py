"""Changing flows: one atomic `ovs-ofctl bundle` a bridge, those of several bridges at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

from .. import processes
from ..errors import AwsOvsError
from ..names import OVERLAY
from . import limits, messages

Bundles = dict[str, list[str]]
"""For each bridge, lines of `ovs-ofctl bundle` (`flow add …`, `flow delete …`, `packet-out …`), of `messages` and `limits`."""

ALL_ANEW = "flow delete"
"""The first line of a bundle that leaves nothing of what was there."""

TIMEOUT_S = 30
_QUESTIONS = {"dump-flows": "read the flows", "diff-flows": "compare the flows", "meter-stats": "read the meters"}


def read(bridge: str, cookie: str) -> list[str]:
    """Read the flows of a bridge that match `cookie=…`, as lines that add them again."""
    flows = ask("dump-flows", bridge, cookie)
    return [f"flow add {flow.strip()}" for flow in flows if "actions=" in flow]


def dropped(bridge: str) -> dict[int, int]:
    """Count the packets that each meter of a bridge has dropped."""
    counts: dict[int, int] = {}
    for line in ask("meter-stats", bridge):
        head, _, rest = line.partition(":")
        if head == "meter":
            number = int(rest.split()[0])
        elif head == "0":  # the only band
            counts[number] = int(rest.split()[0].removeprefix("packet_count:"))
    return counts


def ask(question: str, bridge: str, *words: str, answers: Collection[int] = (0,), stats: bool = False) -> list[str]:
    """Ask a bridge with a command of `ovs-ofctl`; other exit codes than those of `answers` are an error.

    With `stats` it tells what flows have counted.
    """
    import subprocess  # costs 7 ms, and a VM's start asks nothing

    switch = f"unix:/run/openvswitch/{bridge}.mgmt"  # a bare name could be a file here
    version = "--protocols=OpenFlow13"  # the first that shows meters
    options = ["--no-names", *([] if stats else ["--no-stats"])]
    argv = ["ovs-ofctl", version, f"--timeout={TIMEOUT_S}", *options, question, switch, *words]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode not in answers:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        what = f"ovs-ofctl cannot {_QUESTIONS[question]} of bridge {bridge} ({why})"
        raise AwsOvsError(what, "see 'ovs-vsctl show'")
    return done.stdout.splitlines()


def _commands(bridge: str, lines: list[str]) -> Iterator[tuple[list[str], str]]:
    """List the commands of ovs-ofctl that carry out a bundle, each with what it reads."""
    if lines:
        yield ["bundle", bridge, "-"], "\n".join(lines) + "\n"
    if lines[:1] == [ALL_ANEW] and bridge != OVERLAY:
        # What a new bridge, and a new ovs-vswitchd, does not do: show flows the ports and types of first fragments.
        yield ["set-frags", bridge, "nx-match"], ""


def apply(bundles: Bundles) -> None:
    """Carry out each bridge's bundle: all of its lines or, when one is refused, none of them.

    Messages and limits come first, or behind all of the bundles, and what they have done stays.

    Raises:
        AwsOvsError: a bridge refused its bundle; those of the other bridges may have been carried out.
    """
    of_messages = {bridge: list(filter(messages.is_message, lines)) for bridge, lines in bundles.items()}
    _send(of_messages, behind=False)
    limits.apply(line for lines in bundles.values() for line in lines if limits.is_limit(line))
    _carry_out({bridge: [line for line in lines if not _is_other(line)] for bridge, lines in bundles.items()})
    _send(of_messages, behind=True)


def _is_other(line: str) -> bool:
    return messages.is_message(line) or limits.is_limit(line)


def _send(of_messages: Bundles, behind: bool) -> None:
    chosen = {
        bridge: [line for line in lines if messages.comes_behind(line) is behind]
        for bridge, lines in of_messages.items()
    }
    messages.apply({bridge: lines for bridge, lines in chosen.items() if lines})


def _carry_out(bundles: Bundles) -> None:
    tools = []
    failures = []
    try:
        for bridge, lines in bundles.items():
            for words, text in _commands(bridge, lines):
                try:
                    tools.append((bridge, processes.start(["ovs-ofctl", f"--timeout={TIMEOUT_S}", *words], text)))
                except OSError as error:
                    what = f"ovs-ofctl cannot be started ({error.strerror})"
                    failures.append(AwsOvsError(what, "install openvswitch-switch"))
        while tools:
            bridge, tool = tools[0]
            refusal = processes.finish(tool)
            del tools[0]
            if refusal:
                what = f"bridge {bridge} refused its flows ({refusal})"
                failures.append(AwsOvsError(what, "run 'aws-ovs restore' on the node"))
    finally:
        for _, tool in tools:  # interrupted: whoever undoes this must find none of them at work
            with contextlib.suppress(OSError):
                processes.finish(tool)
    if failures:
        raise failures[0]
