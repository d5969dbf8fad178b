"""Fixtures of the lab tests, which need root."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

import pytest

from tests.world.hosts import datapath
from tests.world.hosts.executor import CommandError
from tests.world.lab import Lab

from .support.checks import Check, Report

_LONGEST_FIRST = ("test_rollback.py", "test_crash.py", "test_sequences.py", "test_concurrency.py", "test_operations.py")
"""So that workers of pytest-xdist end at about the same time."""

# Short, for there are three hosts, and it is for whoever cannot make the test fail again.
_SYMPTOMS = """
ovs-vsctl --timeout=5 show
tail -n 15 /var/log/openvswitch/*.log
ovsdb-tool show-log /etc/openvswitch/conf.db | tail -n 20 | cut -c 1-200
ls -l /run/aws_ovs/vms
ps -eo lstart,args | tail -n 25 | cut -c 1-150
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that are about the other kind of host, each with its reason, and begin with those that take longest."""
    try:
        here = datapath.chosen()
    except datapath.UnavailableError as bad:
        raise pytest.UsageError(str(bad)) from None
    for item in items:
        mark = item.get_closest_marker("only_on")
        if mark and mark.args[0] != here:
            item.add_marker(pytest.mark.skip(reason=mark.kwargs["reason"]))
    items.sort(key=lambda item: item.path.name not in _LONGEST_FIRST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, which a worker of pytest-xdist cannot do."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    measured = [report for report in reports if report.when == "call" and report.user_properties]
    if measured:
        terminalreporter.section("measured")
    for report in measured:
        terminalreporter.write_line(report.nodeid)
        for name, seen in report.user_properties:
            terminalreporter.write_line(f"  {name}: {seen}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the hosts of the shared lab show to the report of a test that failed."""
    found = yield
    lab = item.funcargs.get("lab")
    if found.failed and isinstance(lab, Lab):
        for name, host in lab.hosts.items():
            try:
                symptoms = host.run(["sh", "-c", _SYMPTOMS], check=False).stdout
            except CommandError as error:
                symptoms = str(error)
            found.sections.append((f"host {name}", symptoms))
    return found


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Takes what was measured, to be printed at the end of the run."""

    def add(found: Iterable[Check]) -> None:
        for check in found:
            record_property(check.name, check.seen)

    return add


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of three hosts, shared by all tests; as the test before has left it."""
    try:
        with Lab(hosts=3) as started:
            yield started
    except datapath.UnavailableError as missing:
        pytest.skip(f"NOT RUN: {missing}")


@pytest.fixture
def fresh_lab(lab: Lab) -> Lab:
    """The shared lab as at its start: no VMs, no addresses but the hosts' own."""
    lab.reset()
    return lab
