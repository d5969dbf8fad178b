"""What all tests share."""

from __future__ import annotations

import pytest

from .sampling import OPTION, Sampler


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let one ask for the whole of what is only sampled otherwise."""
    parser.addoption(OPTION, action="store_true", help="fail and kill at every effect; without it, at a sample of them")


@pytest.fixture(scope="session")
def sampler(pytestconfig: pytest.Config) -> Sampler:
    """Chooses at which effects a test fails or kills what it tests."""
    return Sampler(whole=bool(pytestconfig.getoption(OPTION)))
