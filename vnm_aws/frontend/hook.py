"""Handle what OpenNebula's hook manager starts: `hooks/aws_ovs/EVENT`, with the event's document on stdin.

A hook only makes things fast; `oneaws reconcile` does the same later for one that is lost. Most events concern neither this
driver nor AWS, so those must end before anything heavy is imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from lxml import etree

from ..journal import ERROR, INFO, explain, log
from ..names import INSTANCE_ID, NETWORK_PROBLEM, VTEP
from ..table import printable
from . import objects

if TYPE_CHECKING:
    from .plan import Outcome
    from .world import World

_Work = Callable[["World", "Outcome"], None]


def main(argv: list[str]) -> int:
    """Handle the event that the program's name, the first of `argv`, says.

    Returns:
        the exit code; 1 makes `onehook retry` possible, and stderr is in the hook's log.
    """
    event = os.path.basename(argv[0])
    if event not in _EVENTS:
        print(f"aws_ovs: {event} is no event of this driver; run 'oneaws hooks register'", file=sys.stderr)
        return 2
    try:
        work = _EVENTS[event](objects.read_document(sys.stdin.buffer.read(objects.SIZE_LIMIT + 1)))
        problems = _run(work) if work else []
    except Exception as error:  # noqa: BLE001 - the hook's log shows a sentence; the journal has the rest
        problems = [explain(error, f"hook {event}")]
    for problem in problems:
        print(f"aws_ovs: {printable(problem)}", file=sys.stderr)
    _note(event, problems)
    return 1 if problems else 0


def _note(event: str, problems: list[str]) -> None:
    """Write the problems to the journal that it does not have yet."""
    if problems:
        from . import settings, told

        with contextlib.suppress(Exception):  # told twice is better than not at all
            problems = told.untold(settings.load().state_directory, f"hook-{event}", problems, everything=False)
    for problem in problems:
        log(ERROR, f"hook {event}: {problem}")


def _run(work: _Work) -> list[str]:
    from . import settings
    from .plan import Outcome
    from .world import World

    outcome = Outcome()
    work(World(settings.load()), outcome)
    for target, text in outcome.done:
        log(INFO, f"{target}: {text}")
    return [str(problem) for problem in outcome.problems]


def _vm_running(root: etree._Element) -> _Work | None:
    vm = objects.read_vm(root)
    if not vm.addresses and not vm.told:
        return None

    def work(world: World, outcome: Outcome) -> None:
        from .follow.loop import follow

        if world.oned.leads() and follow(world, vm.vm_id):
            log(INFO, f"VM {vm.vm_id}: its private addresses are on its host")

    return work


def _host_state(root: etree._Element) -> _Work | None:
    host = objects.read_host(root)
    if not _is_ours(host):
        return None
    if host.state != objects.STATE_MONITORED:
        return _hosts

    def greet(world: World, outcome: Outcome) -> None:
        """Tell a host that is back its peers: it may have been made anew and know none."""
        from . import mesh, peer_list
        from .follow import stand_ins
        from .follow.act import Nearby

        present = [member for member in peer_list.hosts(world) if member.host_id == host.host_id]
        if present and world.oned.leads():
            # Without EC2, which may be asked for hundreds of hosts at once: what the others have been told is enough, but
            # for the ENIs of one that has several.
            mesh.send(Nearby(world, present[0], ()), peer_list.remembered(world), present)
            stand_ins.refresh(world, present)

    return greet


def _host_allocate(root: etree._Element) -> _Work | None:
    element = root.find("EXTRA/HOST")
    # A new host says nothing of AWS yet, but only a KVM host can be an instance of ours.
    return _hosts if element is not None and element.findtext("VM_MAD") in ("kvm", "qemu") else None


def _host_delete(root: etree._Element) -> _Work | None:
    element = root.find("EXTRA/HOST")
    return _hosts if element is not None and _is_ours(objects.read_host(element)) else None


def _is_ours(host: objects.Host) -> bool:
    return VTEP in host.template or INSTANCE_ID in host.template


def _hosts(world: World, outcome: Outcome) -> None:
    from . import reconcile

    with reconcile.turn(world, "a hook for hosts", queue="hosts") as our_turn:
        if our_turn:
            reconcile.carry_out(world, reconcile.of_hosts(world), outcome)


def _vnet_ready(root: etree._Element) -> _Work | None:
    network = objects.read_network(root)
    if not network.ours:
        return None

    def work(world: World, outcome: Outcome) -> None:
        """Settle the network: its cluster may not have been served before, and it may be a pool."""
        from . import reconcile

        queue = f"network-{network.network_id}"
        with reconcile.turn(world, f"a hook for network {network.name}", queue) as our_turn:
            if our_turn:
                reconcile.carry_out(world, reconcile.of_network(world, network.network_id), outcome)

    return work


def _changed(root: etree._Element) -> tuple[str, str]:
    """Read which network a call changed, and with what text; of a call that failed, which anybody can make, nothing."""
    values = {
        item.findtext("POSITION"): item.findtext("VALUE") or ""
        for item in root.iterfind("PARAMETERS/PARAMETER")
        if item.findtext("TYPE") == "IN" and root.findtext("RESULT") == "1"
    }
    network_id = values.get("2", "")
    return (network_id, values.get("3", "")) if network_id.isdecimal() else ("", "")


def _vnet_update(root: etree._Element) -> _Work | None:
    network_id, text = _changed(root)
    quotes = text.replace('\\"', "").count('"')
    if not network_id or (text.startswith(f'{NETWORK_PROBLEM}="') and text.endswith('"') and quotes == 2):
        return None  # the latter is what this half writes itself

    def work(world: World, outcome: Outcome) -> None:
        """Say on the network, and on those that it is in the way of now, what is wrong."""
        from . import reconcile
        from .oned import NotFoundError

        try:
            if not world.oned.network(int(network_id)).ours:
                return
        except NotFoundError:
            return
        with reconcile.turn(world, f"a hook for network {network_id}", f"network-{network_id}") as our_turn:
            if our_turn:
                reconcile.check_network(world, int(network_id), outcome)
                reconcile.carry_out(world, reconcile.of_network(world, int(network_id)), outcome)

    return work


def _vnet_add_ar(root: etree._Element) -> _Work | None:
    network_id, text = _changed(root)
    if "AWS_" not in text and "VLAN_ID" not in text and "BRIDGE" not in text:
        return None

    def work(world: World, outcome: Outcome) -> None:
        from .. import lock
        from . import reconcile

        # Whoever holds the lock adds ranges itself, one hook each: they must not queue up.
        with lock.tried(f"a hook for network {network_id}", reconcile.path(world)) as free:
            if free and world.oned.leads():
                reconcile.check_network(world, int(network_id), outcome)
                reconcile.carry_out(world, reconcile.of_network(world, int(network_id)), outcome)

    return work


_EVENTS: dict[str, Callable[[etree._Element], _Work | None]] = {
    "vm_running": _vm_running,
    "host_state": _host_state,
    "host_allocate": _host_allocate,
    "host_delete": _host_delete,
    "vnet_ready": _vnet_ready,
    "vnet_add_ar": _vnet_add_ar,
    "vnet_update": _vnet_update,
}
