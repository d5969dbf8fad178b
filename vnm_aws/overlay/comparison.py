"""Compare the flows of a bridge with those that it should have."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable

from ..errors import AwsOvsError
from .openflow import TIMEOUT_S
from .pipeline import OverlayTable, flow

_ADD = "flow add "
_LEARNED = (f"table={OverlayTable.LEARNED} ", f"cookie={flow.LEARNED_COOKIE:#x} ")
"""What a flow has that the pipeline itself adds when it learns where a MAC is."""


def compare(bridge: str, bundle: Iterable[str]) -> list[str]:
    """Compare a bridge with the flows that a bundle adds; learned flows are no difference.

    Returns:
        lines of `ovs-ofctl diff-flows`: + for what is missing on the bridge, - for what should not be there.

    Raises:
        AwsOvsError: ovs-ofctl cannot compare them.
    """
    switch = f"unix:/run/openvswitch/{bridge}.mgmt"  # a bare name could be a file here
    with tempfile.NamedTemporaryFile("w", suffix=".flows") as file:
        file.writelines(f"{line.removeprefix(_ADD)}\n" for line in bundle if line.startswith(_ADD))
        file.flush()
        argv = ["ovs-ofctl", f"--timeout={TIMEOUT_S}", "diff-flows", switch, file.name]
        done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode not in (0, 2):
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise AwsOvsError(f"ovs-ofctl cannot compare the flows of bridge {bridge} ({why})", "see 'ovs-vsctl show'")
    return [line for line in done.stdout.splitlines() if not (line[1:].startswith(_LEARNED[0]) and _LEARNED[1] in line)]
