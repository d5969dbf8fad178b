"""The front-end's tests with a real oned: how the cloud differs, and which tests cannot run and why."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.world.real_oned.play import RealOned

from .cloud import Cloud

_STAND_IN = "it is about the stand-in itself"

SKIPPED: dict[str, str] = {
    "test_world_oned.py": _STAND_IN,
    "test_world_oned_play.py": _STAND_IN,
    "test_world_ec2.py": "oned has no part in it",
    "test_world_ec2_control.py": "oned has no part in it",
    "test_vnet.py::test_a_network_that_cannot_work_is_refused[BRIDGE_TYPE]": (
        "with the lines that install.sh adds, oned refuses such a network itself"
    ),
}
"""Files and tests that do not run with a real oned, with the reason."""


def skip_what_cannot_run(items: Sequence[pytest.Item]) -> None:
    """Mark the tests of SKIPPED, by file, by file and function, or by file and one case of a function."""
    for item in items:
        name = item.path.name
        function = getattr(item, "originalname", item.name)
        reason = SKIPPED.get(name) or SKIPPED.get(f"{name}::{function}") or SKIPPED.get(f"{name}::{item.name}")
        if item.path.parent.name == "frontend" and reason:
            item.add_marker(pytest.mark.skip(reason=f"not with a real oned: {reason}"))


class RealCloud(Cloud):
    """A cloud whose VMs a real oned runs: with real leases and NICs."""

    oned: RealOned

    def run_vm(self, vnet_id: int, ar_ids: Sequence[int], host: str) -> int:
        nics = [{"NETWORK_ID": str(vnet_id), "IP": self.oned.free_address(vnet_id, ar_id)} for ar_id in ar_ids]
        return self.oned.start_vm(self.host(host).host_id, nics)
