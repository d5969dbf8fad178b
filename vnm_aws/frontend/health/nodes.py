"""Look at the hosts of the mesh: what they report by OpenNebula's monitoring and, when asked, what they find themselves."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ... import __version__
from ...errors import AwsOvsError
from ...names import HOST_ERROR, HOST_TIME, HOST_VERSION, PEERS_DOWN
from .. import peer_list, ssh
from ..hosts import powerless
from ..mesh import PROBED_S
from ..objects import STATE_ERROR, STATE_MONITORED, STATE_OFFLINE, Host
from ..world import World
from .report import FAILED, OK, WARNING, Report, named

_COMMAND = "sudo -n /usr/sbin/aws-ovs check --json"
_CLOCK_S = 120
"""Seconds that the clock of a host may be ahead of this machine's."""


def look(world: World, report: Report) -> None:
    """Add what hosts report of themselves, and since when they report nothing."""
    hosts = [host for host in peer_list.hosts(world) if host.state != STATE_OFFLINE]
    before = len(report.lines)
    for host in hosts:
        if host.template.get(HOST_ERROR):
            report.add(f"host {host.name}", FAILED, f"it reports: {host.template[HOST_ERROR]}")
        if host.state == STATE_ERROR:
            remedy = f"see ERROR in 'onehost show {host.host_id}'"
            report.add(f"host {host.name}", FAILED, AwsOvsError("OpenNebula cannot monitor it", remedy))
    for host, error in powerless(world):
        report.add(f"host {host.name}", FAILED, error)
    _without_data(hosts, report)
    reporting = [host for host in hosts if HOST_VERSION in host.template]
    for error in (*_versions(reporting), *_clocks(reporting), *_silent(reporting), *_tunnels(reporting)):
        report.add("nodes", FAILED, error)
    if len(report.lines) == before:
        report.add("nodes", OK, f"{len(hosts)} hosts report version {__version__}, and no tunnel that is down")


def _without_data(hosts: Sequence[Host], report: Report) -> None:
    """Add the hosts whose probes have said nothing: those that are monitored lack the probe, the others may be new."""
    silent = [host for host in hosts if HOST_VERSION not in host.template]
    monitored = [host for host in silent if host.state == STATE_MONITORED]
    new = [host for host in silent if host.state not in (STATE_MONITORED, STATE_ERROR)]
    if monitored:
        what = f"{named(monitored)} reported nothing of this driver yet"
        remedy = "run 'install.sh --node' there, then 'onehost sync -f' here; it takes ten minutes to be seen"
        report.add("nodes", FAILED, AwsOvsError(what, remedy))
    if new:
        what = f"{named(new)} reported nothing yet, for OpenNebula has not monitored it so far"
        report.add("nodes", WARNING, AwsOvsError(what, "wait some minutes, then see 'onehost list'"))


def _versions(hosts: Sequence[Host]) -> Iterator[AwsOvsError]:
    by_version: dict[str, list[Host]] = defaultdict(list)
    for host in hosts:
        if host.template[HOST_VERSION] not in ("", __version__):  # empty: the host could not start the program
            by_version[host.template[HOST_VERSION]].append(host)
    for version, others in sorted(by_version.items()):
        what = f"{named(others)} ran version {version} of the driver, this front-end has {__version__}"
        yield AwsOvsError(what, f"run 'install.sh --node' of version {__version__} there, then 'onehost sync -f' here")


def _clocks(hosts: Sequence[Host]) -> Iterator[AwsOvsError]:
    ahead = [host for host in hosts if (host.reported(HOST_TIME) or 0) - time.time() > _CLOCK_S]
    if ahead:
        yield AwsOvsError(f"the clock of {named(ahead)} is ahead of this one", "run 'timedatectl set-ntp true' there")


def _silent(hosts: Sequence[Host]) -> Iterator[AwsOvsError]:
    """Find the hosts whose last report is older than it may be."""
    now = time.time()
    for host in hosts:
        last = host.reported(HOST_TIME)
        if last is not None and now - last > PROBED_S:
            what = f"host {host.name} reported last {(now - last) // 60:.0f} minutes ago"
            remedy = f"run 'oneaws check --nodes'; if it answers there, see 'onehost show {host.host_id}'"
            yield AwsOvsError(what, remedy)


def _tunnels(hosts: Sequence[Host]) -> Iterator[AwsOvsError]:
    down = sorted((-count, host.name) for host in hosts if (count := host.reported(PEERS_DOWN)))
    if down:
        counts = " ".join(f"{name}: {-count}" for count, name in down[:5])
        what = f"tunnels are down on {len(down)} of {len(hosts)} hosts ({counts}{' …' if len(down) > 5 else ''})"
        yield AwsOvsError(what, "run 'oneaws check --nodes', by which these hosts name them")


def ask(world: World, report: Report) -> None:
    """Add what `aws-ovs check` says on every host, or why it says nothing."""
    hosts = peer_list.hosts(world)
    asked = [host for host in hosts if host.state != STATE_OFFLINE]
    for host in hosts:
        if host.state == STATE_OFFLINE:
            what = "it is offline in OpenNebula, so nobody asks it"
            report.add(f"host {host.name}", WARNING, AwsOvsError(what, f"'onehost enable {host.host_id}' ends that"))
    for host, answer in zip(asked, ssh.run(world, asked, _COMMAND), strict=True):
        errors = _differences(answer.output)
        if errors is None:
            what = f"'aws-ovs check' cannot be run there: {answer.reason or 'it printed something else'}"
            errors = [AwsOvsError(what, f"as oneadmin, see what 'ssh {host.name} {_COMMAND}' says")]
        report.errors(f"host {host.name}", errors, "its own check finds nothing wrong")


def _differences(output: str) -> list[AwsOvsError] | None:
    """Read what a node's check prints; None when it is something else."""
    try:
        return [AwsOvsError(str(item["what"]), str(item["remedy"])) for item in json.loads(output)]
    except (ValueError, TypeError, KeyError):
        return None
