"""Situations on host h1 in which an action is about to happen, for tests that disturb it again and again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from tests.lab.support import groups, promise
from tests.lab.support.faults import Action, done, on_vm
from tests.world.lab import Lab
from tests.world.recording import load, substitute

HOST = "h1"
_DEPLOY = load("deploy")
_DOCUMENT = _DEPLOY.steps[-1].xml or b""
_NAMES = ("one-1", HOST)


class Scene(NamedTuple):
    """What is about to happen, and what takes the host back to where it was."""

    action: Action
    undo: Callable[[], None]


def _scene(lab: Lab, action: Action, undo: Action) -> Scene:
    return Scene(action, lambda: done(lab.hosts[HOST], undo))


def _changed(document: bytes) -> bytes:
    """The VM with another private address, and its filters off."""
    document = document.replace(b"10.0.0.41", b"10.0.0.43")
    return re.sub(rb"(<FILTER_(?:IP|MAC)_SPOOFING>)<!\[CDATA\[YES\]\]>", rb"\1NO", document)


def _running(lab: Lab, document: bytes) -> None:
    """The VM runs. One that had the first transit address is gone: whoever chose anew would take that one."""
    other = promise.other_vm(_DOCUMENT, 0, 2, "192.168.0.77")
    lab.play(promise.deploy(other, HOST), follow=False)
    _alone(lab, document)
    done(lab.hosts[HOST], on_vm("clean", other, HOST))


def _alone(lab: Lab, document: bytes) -> None:
    """The VM runs, the first on this host."""
    lab.play(promise.deploy(document, HOST), follow=False)


def deploy(lab: Lab) -> Scene:
    """The VM's ports are plugged in, and closed; no VM was on the host since it booted."""
    host = lab.hosts[HOST]
    lab.play(_DEPLOY._replace(steps=_DEPLOY.steps[:2]), follow=False)

    def undo() -> None:
        done(host, on_vm("clean", _DOCUMENT, HOST))
        host.run(["rmdir", "/run/aws_ovs/vms"])

    return Scene(on_vm("post", _DOCUMENT, *_NAMES), undo)


def _attached(lab: Lab, operation: str, running: Callable[[Lab, bytes], None]) -> tuple[Action, Action]:
    """A NIC or alias is prepared and plugged in: what is to come, and its reverse."""
    recording = substitute(load(operation), hosts={"h2": HOST})
    document = recording.steps[0].xml or b""
    running(lab, promise.without_attached(document))
    until_post = [step for step in recording.steps if step.action in ("pre", "vmm-attach_nic")]
    lab.play(recording._replace(steps=tuple(until_post)), follow=False)
    return on_vm("post", document, *_NAMES), on_vm("clean", document, HOST)


def attach_nic(lab: Lab) -> Scene:
    """A further port of a running VM is plugged in, and closed."""
    return _scene(lab, *_attached(lab, "attach-nic", _running))


def attach_alias(lab: Lab) -> Scene:
    """An alias with a private address of its own is to replace the transit address of its parent."""
    return _scene(lab, *_attached(lab, "attach-alias-external", _alone))


def detach_nic(lab: Lab) -> Scene:
    """A NIC of a running VM is to go."""
    attach, detach = _attached(lab, "attach-nic", _running)
    done(lab.hosts[HOST], attach)
    return _scene(lab, detach, attach)


def detach_alias(lab: Lab) -> Scene:
    """An alias is to go, and its parent needs a transit address again."""
    attach, detach = _attached(lab, "attach-alias-external", _running)
    done(lab.hosts[HOST], attach)
    return _scene(lab, detach, attach)


def again(lab: Lab) -> Scene:
    """A running VM gets another private address and other filters."""
    _running(lab, _DOCUMENT)
    return _scene(lab, on_vm("post", _changed(_DOCUMENT), *_NAMES), on_vm("post", _DOCUMENT, *_NAMES))


def update_sg(lab: Lab) -> Scene:
    """The same, told by `update_sg`."""
    _running(lab, _DOCUMENT)
    return _scene(lab, on_vm("update_sg", _changed(_DOCUMENT), "one-1"), on_vm("update_sg", _DOCUMENT, "one-1"))


def update_nic(lab: Lab) -> Scene:
    """The same, told by `update_nic`."""
    _running(lab, _DOCUMENT)
    before = on_vm("update_nic", _DOCUMENT, "one-1", "0")
    return _scene(lab, on_vm("update_nic", _changed(_DOCUMENT), "one-1", "0"), before)


GROUP_BEFORE = (groups.inbound("TCP", "22,80"), groups.outbound("ALL"))
GROUP_AFTER = (groups.inbound("TCP", "7000"), groups.inbound("ICMP"), groups.outbound("UDP", "53"))
GROUPED_BEFORE = groups.grouped(_DOCUMENT, *GROUP_BEFORE)


def new_rules(lab: Lab) -> Scene:
    """The group of a running VM gets other rules, on two NICs of two bridges."""
    after = groups.grouped(_DOCUMENT, *GROUP_AFTER)
    _running(lab, GROUPED_BEFORE)
    return _scene(lab, on_vm("update_sg", after, "one-1"), on_vm("update_sg", GROUPED_BEFORE, "one-1"))


def first_rules(lab: Lab) -> Scene:
    """A running VM that was open gets a group whose rules decide."""
    _running(lab, _DOCUMENT)
    after = groups.grouped(_DOCUMENT, *GROUP_AFTER)
    return _scene(lab, on_vm("update_sg", after, "one-1"), on_vm("update_sg", _DOCUMENT, "one-1"))


def clean(lab: Lab) -> Scene:
    """A running VM is to go."""
    _running(lab, _DOCUMENT)
    return _scene(lab, on_vm("clean", _DOCUMENT, HOST), on_vm("post", _DOCUMENT, *_NAMES))


def peers(lab: Lab) -> Scene:
    """One node leaves the mesh, one joins it, one has another name; a VM runs."""
    _running(lab, _DOCUMENT)
    vteps = [host.instance.private_ip for host in lab.hosts.values()]
    before = Action("peers", (), lab.peer_list().encode())
    return _scene(lab, _peers(h1=vteps[0], other=vteps[1], h9="10.0.0.99"), before)


def stand_ins(lab: Lab) -> Scene:
    """A VM runs whose private address is of another subnet, and an address of this one is to stand for it."""
    _running(lab, _DOCUMENT.replace(b"10.0.0.41", b"10.0.9.41"))
    return _scene(lab, _stand_ins(**{"10.0.9.41": "10.0.0.77"}), _stand_ins())


def _stand_ins(**pairs: str) -> Action:
    return Action("stand-ins", (), json.dumps({"stand_ins": pairs}).encode())


def _peers(**vteps: str) -> Action:
    document = {"peers": [{"name": name, "vtep": vtep} for name, vtep in vteps.items()]}
    return Action("peers", (), json.dumps(document).encode())


def pre() -> Action:
    """The VM is about to come; `forget_bridges` or `forget_base` undoes it."""
    return on_vm("pre", _DOCUMENT)


def forget_bridges(lab: Lab) -> None:
    """Take away what `pre` makes on a node that is set up."""
    script = """
    patches=$(ovs-vsctl --bare --columns=name find Interface type=patch)
    for patch in $patches; do ovs-vsctl del-port "$patch"; done
    ovs-vsctl --if-exists del-br onebr1 -- --if-exists del-br ovsbr0
    """
    lab.hosts[HOST].run(["sh", "-ec", script])


def forget_base(lab: Lab) -> None:
    """Take away all that the node was set up with, the peer list excepted."""
    script = """
    ovs-vsctl --if-exists del-br onebr1 -- --if-exists del-br ovsbr0 -- --if-exists del-br aws_ovs
    ! nft list table ip aws_ovs >/dev/null 2>&1 || nft delete table ip aws_ovs
    ! nft list table netdev aws_ovs >/dev/null 2>&1 || nft delete table netdev aws_ovs
    ip rule del priority 4789 2>/dev/null || true
    sysctl -q net.ipv4.conf.ens5.forwarding=0
    rm -rf /run/aws_ovs/vms /run/aws_ovs/n*
    """
    lab.hosts[HOST].run(["sh", "-ec", script])


POSTS: dict[str, Callable[[Lab], Scene]] = {
    "deploy": deploy, "attach NIC": attach_nic, "attach alias": attach_alias, "changed document": again,
}  # fmt: skip
CLEANS: dict[str, Callable[[Lab], Scene]] = {"whole VM": clean, "detach NIC": detach_nic, "detach alias": detach_alias}
UPDATES: dict[str, Callable[[Lab], Scene]] = {"update_sg": update_sg, "update_nic": update_nic}
GROUPS: dict[str, Callable[[Lab], Scene]] = {"other rules": new_rules, "first rules": first_rules}
