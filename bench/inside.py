"""Runs inside a lab host: times processes, one of each kind a round, so that all see the same weather.

Reads {"rounds": n, "commands": [{"name": …, "argv": […], "user": …, "stdin": …}, …]} as JSON on stdin; writes name → median
seconds. A command without a name is carried out and not timed.
"""

from __future__ import annotations

import json
import os
import pwd
import statistics
import subprocess
import sys
import time


def main() -> None:
    """Measure."""
    plan = json.load(sys.stdin)
    times: dict[str, list[float]] = {command["name"]: [] for command in plan["commands"] if command["name"]}
    for _ in range(plan["rounds"]):
        for command in plan["commands"]:
            entry = pwd.getpwnam(command["user"])
            environment = {"PATH": os.environ["PATH"], "HOME": entry.pw_dir, "USER": entry.pw_name}
            started = time.perf_counter()
            done = subprocess.run(
                command["argv"],
                input=command["stdin"].encode(),
                capture_output=True,
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
                env=environment,
                check=False,
            )
            took = time.perf_counter() - started
            if done.returncode:
                sys.exit(f"{command['argv']}: exit code {done.returncode}: {done.stderr.decode().strip()}")
            if command["name"]:
                times[command["name"]].append(took)
    print(json.dumps({name: statistics.median(seconds) for name, seconds in times.items()}))


if __name__ == "__main__":
    main()
