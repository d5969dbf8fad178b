"""Tell every host of the served clusters the peer list, over ssh as oneadmin, in parallel with a limit.

What each host was told last is kept in a file, so that only those are called for which something has changed; an unreachable one
stays out of date there, and the next reconcile catches it up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import NamedTuple

from .. import files, lock
from ..errors import AwsOvsError
from ..names import HOST_TIME, MESH, VTEP
from ..overlay.tunnels import PeerList, digest
from . import peer_list, ssh
from .ec2_objects import Interface
from .objects import STATE_OFFLINE, Host
from .plan import Plan
from .world import World

PROBED_S = 1500
"""Seconds after which a probe has been at work: OpenNebula runs those of this kind every 600 s."""

_COMMAND = "sudo -n /usr/sbin/aws-ovs peers"


class Member(NamedTuple):
    """A host of the mesh. `told`: it has the present peer list, as far as the front-end knows."""

    host: Host
    vtep: str
    told: bool


def members(world: World, wanted: PeerList) -> list[Member]:
    """List the hosts of the mesh, and whether they have a peer list."""
    told, mark = _Told(world), digest(wanted)
    result = []
    for host in peer_list.hosts(world):
        own = peer_list.of_host(world, wanted, host)
        result.append(Member(host, host.template[VTEP], told.get(host) == (digest(own) if own.enis else mark)))
    return result


def plan(world: World, everybody: bool = False) -> Plan:
    """Plan the change that tells the hosts their peers; with `everybody` also those that know them already."""
    result = Plan()
    wanted, result.incomplete = peer_list.present(world)
    result.problems += peer_list.refusals(world)
    behind = [
        host for host, _, told in members(world, wanted) if (everybody or not told) and host.state != STATE_OFFLINE
    ]
    if behind:
        named = " ".join(host.name for host in behind[:10]) + (" …" if len(behind) > 10 else "")
        target = f"{len(behind)} of {len(wanted.peers)} hosts ({named})"
        result.change(target, f"send the list of {len(wanted.peers)} peers", send, world, wanted, behind)
    return result


def send(world: World, wanted: PeerList, hosts: list[Host]) -> None:
    """Tell hosts the peer list.

    Raises:
        AwsOvsError: some did not take it; each is named with its reason.
    """
    _send(world, wanted, [(host, peer_list.of_host(world, wanted, host)) for host in hosts])


def send_enis(world: World, host: Host, enis: Sequence[Interface]) -> None:
    """Tell a host which addresses its ENIs will have, unless it knows that.

    Raises:
        AwsOvsError: it did not take it.
    """
    wanted = peer_list.remembered(world)
    own = peer_list.of_host(world, wanted, host, enis)
    known = any(member.host_id == host.host_id for member in peer_list.hosts(world))
    if known and _Told(world).get(host) != digest(own):
        _send(world, wanted, [(host, own)])


def _send(world: World, wanted: PeerList, lists: Sequence[tuple[Host, PeerList]]) -> None:
    text = peer_list.document(wanted)  # for most hosts the same
    texts = [peer_list.document(own) if own.enis else text for _, own in lists]
    hosts = [host for host, _ in lists]
    outcome = list(zip(lists, ssh.run(world, hosts, _COMMAND, texts), strict=True))
    _Told(world).note(wanted, [each for each, answer in outcome if not answer.reason])
    failed = [f"{host.name}: {answer.reason}" for (host, _), answer in outcome if answer.reason]
    if failed:
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        what = f"{len(failed)} of {len(lists)} hosts did not take the peer list ({'; '.join(failed[:5])}{more})"
        raise AwsOvsError(what, "the next 'oneaws reconcile' tries them again")


class _Told:
    """Remember which list each host was told last, and when, by host ID and endpoint: a host made anew knows nothing."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._path = f"{world.settings.state_directory}/mesh.json"
        self._told = self._read()

    def _read(self) -> dict[str, tuple[str, float]]:
        try:
            with open(self._path, encoding="utf-8") as file:
                return {key: (str(mark), float(when)) for key, (mark, when) in json.load(file).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def get(self, host: Host) -> str:
        """Find the digest of the list that a host has: what it was told, unless its own probe says otherwise since."""
        mark, when = self._told.get(_key(host), ("", 0.0))
        reported = host.template.get(MESH, "")
        return reported if reported and _is_later(host, when) else mark

    def note(self, wanted: PeerList, lists: Sequence[tuple[Host, PeerList]]) -> None:
        """Keep what hosts were told just now; another process may do the same for others."""
        settings = self._world.settings
        known = {_key(host) for host in self._world.hosts}
        with lock.held("noting peers", settings.lock_timeout, f"{settings.state_directory}/mesh.lock"):
            told = {key: value for key, value in self._read().items() if key in known}
            mark, now = digest(wanted), time.time()
            told |= {_key(host): (digest(own) if own.enis else mark, now) for host, own in lists}
            files.replace(self._path, json.dumps(dict(sorted(told.items()))))
            peer_list.remember(self._world, wanted, {host.host_id: own for host, own in lists})
        self._told = told


def _is_later(host: Host, when: float) -> bool:
    """Say whether what a host reports is later than a time, as far as that is known.

    Hosts of older versions do not say when they report; of those one that has no list at all is believed at once.
    """
    if time.time() - when > PROBED_S:
        return True
    at = host.reported(HOST_TIME)
    return host.template[MESH] == digest(PeerList([])) if at is None else at > when


def _key(host: Host) -> str:
    return f"{host.host_id} {host.template.get(VTEP)}"
