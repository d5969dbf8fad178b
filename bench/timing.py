"""Commands on a host of the lab, and how long they take as processes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from tests.world.hosts.host import Host
from tests.world.lab import ACTIONS


def command(name: str, argv: Sequence[str], user: str = "root", stdin: str = "") -> dict[str, object]:
    """A command to time; one without a name is carried out and not timed."""
    return {"name": name, "argv": list(argv), "user": user, "stdin": stdin}


def action(name: str, verb: str, arguments: Sequence[str], document: bytes) -> dict[str, object]:
    """An action of OpenNebula, as it calls it."""
    return command(name, [f"{ACTIONS}/{verb}", *arguments], "oneadmin", base64.b64encode(document).decode())


def timed(host: Host, commands: Sequence[dict[str, object]], rounds: int = 1) -> dict[str, float]:
    """Median seconds of each named command."""
    script = (Path(__file__).parent / "inside.py").read_text()
    plan = json.dumps({"rounds": rounds, "commands": list(commands)})
    medians: dict[str, float] = json.loads(host.run(["/usr/bin/python3", "-c", script], stdin=plan, timeout=300).stdout)
    return medians
