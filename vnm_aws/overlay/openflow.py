"""Changing flows: one atomic `ovs-ofctl bundle` a bridge, those of several bridges at the same time."""

from __future__ import annotations

import contextlib

from .. import processes
from ..errors import AwsOvsError

Bundles = dict[str, list[str]]
"""For each bridge, lines of `ovs-ofctl bundle`: `flow add …`, `flow delete …`, `packet-out …`."""

TIMEOUT_S = 30


def apply(bundles: Bundles) -> None:
    """Carry out each bridge's bundle: all of its lines or, when one is refused, none of them.

    Raises:
        AwsOvsError: a bridge refused its bundle; those of the other bridges may have been carried out.
    """
    tools = []
    failures = []
    try:
        for bridge, lines in bundles.items():
            if lines:
                argv = ["ovs-ofctl", f"--timeout={TIMEOUT_S}", "bundle", bridge, "-"]
                try:
                    tools.append((bridge, processes.start(argv, "\n".join(lines) + "\n")))
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
