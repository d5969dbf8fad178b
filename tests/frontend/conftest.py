"""What the tests of the front-end share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.world.ec2.region import Ec2World
from tests.world.oned.server import Oned
from tests.world.real_oned import installed
from tests.world.real_oned.play import RealOned
from vnm_aws.frontend.oned import Oned as Client

from .cloud import Cloud
from .real import RealCloud, skip_what_cannot_run


def pytest_configure() -> None:
    """End the run with a sentence when the tests are to use a real oned and this machine has none."""
    if installed.wanted():
        try:
            installed.find()
        except installed.UnavailableError as error:
            pytest.exit(str(error), installed.NOT_RUN)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that a real oned has no part in, or cannot be made to do."""
    if installed.wanted():
        skip_what_cannot_run(items)


@pytest.fixture(scope="session")
def ec2_server() -> Iterator[Ec2World]:
    """An EC2 for all tests of this process. Tests use `ec2_world`."""
    with Ec2World() as started:
        yield started


@pytest.fixture
def ec2_world(ec2_server: Ec2World) -> Ec2World:
    """That EC2 as it is at the start: one VPC, one subnet, and no instances."""
    ec2_server.reset()
    return ec2_server


@pytest.fixture
def ec2(ec2_world: Ec2World) -> Any:
    """A program's EC2 client, which does not try again."""
    return ec2_world.program()


@pytest.fixture(scope="session")
def oned_server() -> Iterator[Oned]:
    """An oned for all tests of this process. Tests use `cloud`."""
    with RealOned(installed.find()) if installed.wanted() else Oned() as started:
        yield started


@pytest.fixture
def cloud(ec2_world: Ec2World, oned_server: Oned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An EC2 and an oned as they are at the start; this process finds them as the programs do."""
    oned_server.reset()
    real = isinstance(oned_server, RealOned)
    made = RealCloud(ec2_world, oned_server, tmp_path) if real else Cloud(ec2_world, oned_server, tmp_path)
    for key, value in made.environment.items():
        monkeypatch.setenv(key, value)
    return made


@pytest.fixture
def oned(oned_server: Oned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Oned:
    """That oned alone, as it is at the start; this process finds it as the programs do."""
    oned_server.reset()
    for key, value in oned_server.environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    return oned_server


@pytest.fixture
def client(oned: Oned) -> Client:
    """The front-end's client of that oned."""
    return Client()
