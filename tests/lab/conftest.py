"""Fixtures of the lab tests, which need root."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .world.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of three hosts, shared by all tests; as the test before has left it."""
    if os.geteuid() != 0:
        pytest.fail("the lab makes network namespaces; run the lab tests as root")
    with Lab(hosts=3) as started:
        yield started


@pytest.fixture
def fresh_lab(lab: Lab) -> Lab:
    """The shared lab as at its start: no VMs, no addresses but the hosts' own."""
    lab.reset()
    return lab
