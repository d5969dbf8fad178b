"""Operations one after the other, as in the life of a VM, with real packets after each."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
from lxml import etree

from tests.lab.support import checks, promise
from tests.lab.support.alive import Neighbours, cold_migration, live_migration, remains, unhealthy
from tests.lab.support.promise import text
from tests.lab.support.replay import documents, outcome
from tests.world.lab import Lab
from tests.world.recording import Recording, load, substitute

Change = Callable[[etree._Element], None]


def last(name: str) -> bytes:
    """The VM as a recording leaves it."""
    return promise.settled(documents(load(name))[-1])


def everywhere(recording: Recording, change: Change) -> Recording:
    """The recording with all of its documents changed."""
    steps = (step._replace(xml=promise.changed(step.xml, change)) if step.xml else step for step in recording.steps)
    return recording._replace(steps=tuple(steps))


def set_value(element: etree._Element, key: str, value: str | None) -> None:
    """Set a child's text; None removes it."""
    known = element.find(key)
    if value is not None:
        (etree.SubElement(element, key) if known is None else known).text = value
    elif known is not None:
        element.remove(known)


def nic(root: etree._Element, nic_id: int) -> etree._Element:
    """The NIC with an ID."""
    return next(one for one in root.iterfind("TEMPLATE/NIC") if text(one, "NIC_ID") == str(nic_id))


def ports(lab: Lab, host: str, vm_id: int = 1) -> list[int]:
    """The NIC_IDs that a host has of a VM."""
    shown = json.loads(lab.hosts[host].run(["aws-ovs", "show", "--json"]).stdout)
    return [port["nic_id"] for port in shown["ports"] if port["vm_id"] == vm_id]


def internet_pings(lab: Lab, address: str) -> bool:
    """True when an address answers one ping from the Internet."""
    return lab.vpc.internet(["ping", "-n", "-c", "1", "-W", "1", address], check=False).returncode == 0


def test_the_whole_life_of_a_recorded_vm(fresh_lab: Lab) -> None:
    """All recordings of VM 1 in the order in which they were made, with the cold migrations that lie between them."""
    lab, neighbours = fresh_lab, Neighbours(fresh_lab)
    document, runs = b"", False
    life: list[str | tuple[str, str]] = [
        "deploy", "live-migrate", "attach-nic", "attach-alias-external", "live-migrate-alias", ("h1", "h2"),
        "live-migrate-alias", "detach-alias", "detach-nic", "suspend", "resume", "poweroff-hard", "nic-attach-poweroff",
        "resume-after-poweroff", ("h1", "h2"), "attach-nic-sg", "sg-update", "vnet-update", "reboot-hard", "undeploy",
        "deploy-after-undeploy", "terminate",
    ]  # fmt: skip
    for stage in life:
        recording = load(stage) if isinstance(stage, str) else cold_migration(document, *stage)
        lab.play(recording)
        end = outcome(recording, None)
        if end:
            document, runs = end
        if runs:
            wrong = neighbours.alive(document)
            assert ports(lab, host_of(lab)) == [card.nic_id for card in promise.cards(document)], stage
        else:
            wrong = remains(lab, document) + unhealthy(lab)
        assert wrong == [], stage
        if stage == "detach-alias":
            assert not internet_pings(lab, "54.10.20.42")
            assert internet_pings(lab, "54.10.20.41")
    assert not internet_pings(lab, "54.10.20.41")


def host_of(lab: Lab, vm_id: int = 1) -> str:
    """Where a VM runs."""
    host = lab.guest(vm_id).host
    assert host
    return host.name


def alias_like(external: str, parent: int, elastic: bool) -> Change:
    """Make of the recorded alias, which is EXTERNAL and of NIC 0, one of another kind."""

    def change(root: etree._Element) -> None:
        for alias in root.iterfind("TEMPLATE/NIC_ALIAS"):
            set_value(alias, "EXTERNAL", external)
            set_value(alias, "PARENT_ID", str(parent))
            set_value(alias, "PARENT", f"NIC{parent}")
            for key in () if elastic else ("AWS_PRIVATE_IP", "AWS_ALLOCATION_ID", "EXTERNAL_IP"):
                set_value(alias, key, None)
        for entry in root.iterfind("TEMPLATE/CONTEXT/*"):
            if str(entry.tag).startswith("ETH0_ALIAS0_"):
                if str(entry.tag).endswith("EXTERNAL"):
                    entry.text = external
                entry.tag = str(entry.tag).replace("ETH0", f"ETH{parent}")
        for number in (0, parent):
            set_value(nic(root, number), "ALIAS_IDS", "3" if number == parent else "")

    return change


@pytest.mark.parametrize(
    ("external", "parent", "elastic"),
    [("NO", 0, True), ("NO", 0, False), ("YES", 1, True)],
    ids=["configured-by-the-guest", "without-elastic-ip", "second-elastic-ip-of-one-address"],
)
def test_an_alias_goes_where_its_vm_goes(fresh_lab: Lab, external: str, parent: int, elastic: bool) -> None:
    lab, neighbours = fresh_lab, Neighbours(fresh_lab)
    change = alias_like(external, parent, elastic)
    lab.play(promise.deploy(last("attach-nic"), "h2"))
    attach = everywhere(load("attach-alias-external"), change)
    document = promise.settled(documents(attach)[-1])
    detach = everywhere(load("detach-alias"), change)
    stages = (attach, everywhere(load("live-migrate-alias"), change), cold_migration(document, "h1", "h2"))
    for recording in stages:
        lab.play(recording)
        assert neighbours.alive(document) == [], recording.name
    lab.play(substitute(detach, hosts={"h1": "h2"}))
    left = promise.without_attached(documents(detach)[-1])
    assert neighbours.alive(left) == []
    assert not internet_pings(lab, "54.10.20.42")
    alias_ip = text(promise.parse(document), "TEMPLATE/NIC_ALIAS/IP")
    seen = checks.ping(lab.guest(3), neighbours.cards[3][parent].ip, alias_ip, count=1)
    assert seen == "no answer"
    lab.play(promise.terminate(left, "h2"))
    assert remains(lab, left) + unhealthy(lab) == []


FOREIGN = "802.1Q"


def mixed(root: etree._Element) -> None:
    """NIC 2 is another driver's, with an alias of ours; another driver's alias is on NIC 0."""
    set_value(nic(root, 2), "VN_MAD", FOREIGN)
    set_value(nic(root, 2), "BRIDGE", "onebr.7")
    (recorded,) = promise.parse(last("attach-alias-external")).findall("TEMPLATE/NIC_ALIAS")
    for nic_id, driver, parent, ip in ((4, promise.DRIVER, 2, "192.168.0.240"), (5, FOREIGN, 0, "192.168.0.241")):
        alias = copy.deepcopy(recorded)
        values = {"NIC_ID": str(nic_id), "VN_MAD": driver, "PARENT_ID": str(parent), "IP": ip, "EXTERNAL": "NO"}
        elastic = dict.fromkeys(("AWS_PRIVATE_IP", "AWS_ALLOCATION_ID", "EXTERNAL_IP"))
        for key, value in {**values, **elastic, "TARGET": f"one-1-{nic_id}"}.items():
            set_value(alias, key, value)
        etree.SubElement(root, "TEMPLATE").append(alias)
        context = root.find("TEMPLATE/CONTEXT")
        assert context is not None
        set_value(context, f"ETH{parent}_ALIAS0_IP", ip)


def attaching(document: bytes, nic_id: int) -> bytes:
    """The document of an action that is about one NIC or alias."""

    def change(root: etree._Element) -> None:
        for kind in ("NIC", "NIC_ALIAS"):
            for one in root.iterfind(f"TEMPLATE/{kind}"):
                if text(one, "NIC_ID") == str(nic_id):
                    set_value(one, "ATTACH", "YES")

    return promise.changed(document, change)


def test_other_drivers_nics_and_aliases_are_theirs(fresh_lab: Lab) -> None:
    lab, neighbours = fresh_lab, Neighbours(fresh_lab)
    document = promise.changed(last("attach-nic-sg"), mixed)
    moves = (promise.deploy(document, "h2"), live_migration(document, "h2", "h1"), cold_migration(document, "h1", "h2"))
    for recording in moves:
        lab.play(recording)
        assert neighbours.alive(document) == [], recording.name
        assert ports(lab, host_of(lab)) == [0, 1, 3]
    bridges = lab.hosts["h2"].run(["ovs-vsctl", "list-br"]).stdout.split()
    assert "onebr.7" not in bridges
    lab.play(promise.terminate(document, "h2"))
    assert remains(lab, document) + unhealthy(lab) == []


@pytest.mark.parametrize("nic_id", [2, 4], ids=["nic", "alias-of-ours"])
def test_what_is_attached_beside_the_driver_touches_none_of_its_nics(fresh_lab: Lab, nic_id: int) -> None:
    """A NIC of another driver, and an alias of this one whose parent is that NIC."""
    lab = fresh_lab
    document = promise.changed(last("attach-nic-sg"), mixed)
    lab.play(promise.deploy(document, "h2"))
    before = lab.dump("h2")
    for action, argv in (("pre", ()), ("post", ("one-1", "h2")), ("clean", ("h2",))):
        done = lab.driver("h2", action, argv, attaching(document, nic_id))
        assert done.returncode == 0, done
        assert lab.dump("h2") == before, action


def test_a_nic_is_detached_with_its_aliases(fresh_lab: Lab) -> None:
    lab, neighbours = fresh_lab, Neighbours(fresh_lab)
    document = last("live-migrate-alias")
    lab.play(promise.deploy(document, "h1"))
    detach = load("detach-nic")
    plug, clean, *rest = detach.steps
    plug = plug._replace(argv=("one-1", "02:00:c0:a8:00:0a", "1", "h1"))
    lab.play(detach._replace(steps=(plug, clean._replace(xml=attaching(document, 0)))))

    def without(root: etree._Element) -> None:
        for one in (nic(root, 0), *root.findall("TEMPLATE/NIC_ALIAS")):
            parent = one.getparent()
            assert parent is not None
            parent.remove(one)

    left = promise.changed(document, without)
    assert neighbours.alive(left) == []
    assert ports(lab, "h1") == [1, 2]
    assert not internet_pings(lab, "54.10.20.42")
    assert [step.action for step in rest] == ["vmm-prereconfigure", "vmm-reconfigure"]
