"""`make replay RECORDING=DIR`: run a recorded operation on the lab and check the VM afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from tests.lab.support import checks, promise
from tests.lab.support.checks import Check
from tests.world.guests.guest import HypervisorError
from tests.world.hosts.datapath import UnavailableError
from tests.world.lab import DriverError, Lab
from tests.world.recording import FRONTEND, Recording, Step, load, substitute

_USAGE = "usage: make replay RECORDING=DIR, a directory with sequence.json and NN-action.xml"


def documents(recording: Recording) -> list[bytes]:
    """The documents of a VM in a recording."""
    return [step.xml for step in recording.steps if step.xml and promise.parse(step.xml).tag == "VM"]


def host_names(recording: Recording) -> list[str]:
    """The hosts that a recording names, in order."""
    names = [step.runs_on for step in recording.steps if step.runs_on and step.runs_on != FRONTEND]
    for step in recording.steps:
        if step.runs_on is None and step.action == "vmm-migrate":
            names += [step.argv[1], step.argv[2]]
        elif step.runs_on is None and len(step.argv) > 1:
            names.append(step.argv[-1])
    return list(dict.fromkeys(names))


def on_lab(recording: Recording, lab: Lab) -> Recording:
    """The recording with its hosts replaced by the lab's, where it has others."""
    names = host_names(recording)
    if set(names) <= set(lab.hosts):
        return recording
    return substitute(recording, hosts=dict(zip(names, lab.hosts, strict=False)))


def earlier(recording: Recording) -> Recording | None:
    """The deployment that must have come before, or None when the recording starts a VM itself."""
    actions = [step.action for step in recording.steps]
    documented = documents(recording)
    if "vmm-deploy" in actions or all(step.runs_on == FRONTEND for step in recording.steps):
        return None
    if "vmm-restore" in actions and "vmm-save" not in actions:
        return None
    if not documented:
        step = recording.steps[0]
        return substitute(load("deploy"), vm_id=int(step.argv[-2]), hosts={"h1": step.argv[-1]})
    first = documented[0]
    attaching = promise.attaches(first) and next(a for a in actions if a in ("pre", "post", "clean")) == "pre"
    document = promise.without_attached(first) if attaching else promise.settled(first)
    migrate = next((step for step in recording.steps if step.action == "vmm-migrate"), None)
    cleaned = next((step.runs_on for step in recording.steps if step.action == "clean"), None)
    if migrate:
        host = migrate.argv[2]
    elif "pre" in actions and "post" in actions and cleaned:
        host = cleaned
    else:
        host = next(step.runs_on for step in recording.steps if step.runs_on)
    assert host
    return promise.deploy(document, host)


def outcome(recording: Recording, before: Recording | None) -> tuple[bytes, bool] | None:
    """The VM's document afterwards and whether it runs; None when no VM is concerned."""
    documented = documents(recording) or (documents(before) if before else [])
    if not documented:
        return None
    calls = [step for step in recording.steps if step.xml]
    if calls and calls[-1].action == "clean":
        if promise.attaches(documented[-1]):
            return promise.without_attached(documented[-1]), True
        return documented[-1], False
    return promise.settled(documented[-1]), True


def with_public_addresses(lab: Lab, document: bytes, host: str) -> bytes:
    """Give each private address of the VM that has none an Elastic IP, as an administrator would have."""
    number = 0
    root = promise.parse(document)
    for element in [*root.findall("TEMPLATE/NIC"), *root.findall("TEMPLATE/NIC_ALIAS")]:
        private = promise.text(element, "AWS_PRIVATE_IP")
        if private and not promise.text(element, "EXTERNAL_IP"):
            number += 1
            public = f"198.51.100.{200 + number}"
            lab.ec2.give_eip(lab.ec2.allocate_eip(public), lab.hosts[host].instance.eni_id, private)
            etree.SubElement(element, "EXTERNAL_IP").text = public
    lab.vpc.settle()
    return etree.tostring(root)


def replay(lab: Lab, recording: Recording) -> Iterator[Check]:
    """Run a recording and check what came of it."""
    recording = on_lab(recording, lab)
    before = earlier(recording)
    name = recording.name
    try:
        if before:
            lab.play(before)
        lab.play(_playable(recording))
    except (DriverError, HypervisorError, ValueError) as bad:
        yield Check(f"{name} runs", False, " ".join(str(bad).split()))
        return
    yield Check(f"{name} runs", True, " → ".join(step.action for step in recording.steps) or "no step")
    end = outcome(recording, before)
    if end is None:
        return
    document, runs = end
    if runs:
        guest = lab.guest(promise.vm_id(document))
        assert guest.host
        host = guest.host.name
        yield from checks.running(lab, with_public_addresses(lab, document, host))
        elsewhere = [name for name in lab.hosts if name != host]
        yield from checks.gone(lab, document, elsewhere)
        lab.play(promise.terminate(document, host))
    yield from checks.gone(lab, document, list(lab.hosts))


def _playable(recording: Recording) -> Recording:
    """Without the front-end's actions that were recorded without a file of their own."""
    return recording._replace(steps=tuple(step for step in recording.steps if step.runs_on != FRONTEND or step.xml))


def frontend_steps(directory: Path) -> list[Step]:
    """Calls of vnet_create and vnet_delete whose documents lie in the directory under names of their own."""
    found = []
    for file in sorted(directory.glob("*.xml")):
        xml = file.read_bytes()
        root = promise.parse(xml)
        if root.tag == "VNET":
            action = "vnet_delete" if "delete" in file.name else "vnet_create"
            found.append(Step(action, FRONTEND, (promise.text(root, "ID"),), xml))
    return found


def main() -> int:
    """Run the recording that the command line names."""
    if len(sys.argv) != 2 or not sys.argv[1]:
        print(_USAGE, file=sys.stderr)
        return 2
    directory = Path(sys.argv[1])
    try:
        recording = load(directory.resolve())
    except (OSError, ValueError) as bad:
        print(f"replay: {bad}; {_USAGE}", file=sys.stderr)
        return 2
    if any(step.runs_on == FRONTEND for step in recording.steps):
        recording = recording._replace(steps=tuple(frontend_steps(directory)))
    passed = failed = 0
    cards = [card for document in documents(recording) for card in promise.cards(document)]
    private_ips = {reach.private_ip for card in cards for reach in card.reaches if reach.private_ip}
    try:
        with Lab(max(3, len(host_names(recording))), private_ips=private_ips) as lab:
            for check in replay(lab, recording):
                print(check, flush=True)
                passed, failed = passed + check.passed, failed + (not check.passed)
    except UnavailableError as missing:
        print(f"replay: {missing}", file=sys.stderr)
        return 2
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
