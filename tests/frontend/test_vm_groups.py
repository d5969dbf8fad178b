"""Security groups of VMs: what `oneaws check` says of open NICs, and of VMs that rules did not reach."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
from lxml import etree

from tests.world.oned.vm import Element
from vnm_aws.rules import Groups

from .cloud import Cloud
from .following import Site, settle

POWEROFF = 8


def said(cloud: Cloud, code: int = 0) -> list[str]:
    """The warnings of `oneaws check`."""
    lines = json.loads(cloud.oneaws("check", "--json", code=code).stdout)
    assert {line["STATUS"] for line in lines if line["CHECK"] == "open NICs"} <= {"warning"}
    return [line["DETAIL"] for line in lines if line["CHECK"] == "open NICs"]


def nics(root: Element) -> list[Element]:
    """The NICs and aliases of a VM's document."""
    return [*root.iterfind("TEMPLATE/NIC"), *root.iterfind("TEMPLATE/NIC_ALIAS")]


def put(nic: Element, name: str, text: str) -> None:
    """Write an attribute into a NIC."""
    there = nic.find(name)
    (etree.SubElement(nic, name) if there is None else there).text = text


def set_groups(cloud: Cloud, vm_id: int, *groups: str) -> None:
    """Give the NICs and aliases of a VM security groups."""

    def edit(root: Element) -> None:
        for nic, text in zip(nics(root), groups, strict=True):
            put(nic, "SECURITY_GROUPS", text)

    cloud.oned.edit_vm(vm_id, edit)


def set_rules(cloud: Cloud, vm_id: int, *rules: Mapping[str, str]) -> None:
    """Let the groups of a VM have these rules instead of theirs."""

    def edit(root: Element) -> None:
        template = root.find("TEMPLATE")
        assert template is not None
        for old in template.findall("SECURITY_GROUP_RULE"):
            template.remove(old)
        for rule in rules:
            element = etree.SubElement(template, "SECURITY_GROUP_RULE")
            for key, text in rule.items():
                etree.SubElement(element, key).text = text

    cloud.oned.edit_vm(vm_id, edit)


def regroup(cloud: Cloud, vm_id: int, nic_id: str, attach: str = "", detach: str = "") -> None:
    """Attach a group to a NIC and detach one, in the VM's document, as oned does."""

    def edit(root: Element) -> None:
        nic = next(nic for nic in nics(root) if nic.findtext("NIC_ID") == nic_id)
        groups = {*(nic.findtext("SECURITY_GROUPS") or "").split(",")}
        assert not attach or attach not in groups, "oned refuses"
        assert not detach or detach in groups, "oned refuses"
        put(nic, "SECURITY_GROUPS", ",".join(sorted(groups - {"", detach} | {attach} - {""}, key=int)))

    cloud.oned.edit_vm(vm_id, edit)


def follow(cloud: Cloud, sentence: str) -> None:
    """Follow the remedy for one NIC to the letter; 107 is the ID of the new group, which lets in little."""
    for command in re.findall(r"'([^']+)'", sentence):
        match command.split():
            case ["onevm", "sg-attach", vm_id, nic_id, "ID"]:
                regroup(cloud, int(vm_id), nic_id, attach="107")
            case ["onevm", "sg-detach", vm_id, nic_id, group]:
                regroup(cloud, int(vm_id), nic_id, detach=group)
            case _:
                harmless = (
                    "onesecgroup clone 0 network-0|onesecgroup update network-0|onesecgroup show 100|onevnet update 0"
                )
                assert re.fullmatch(harmless, command), command


@pytest.fixture
def site(cloud: Cloud) -> Site:
    """Hosts, a pool and hooks, all well but for NICs."""
    made = settle(cloud, eips=5)
    cloud.probed(*made.hosts)
    cloud.oneaws("hooks", "register")
    cloud.reconcile()
    return made


def run(site: Site, *ranges: int, groups: str = "0") -> int:
    """Run a VM with a NIC for each of these ranges, all with the same groups."""
    vm_id = site.run("h1", *ranges)
    set_groups(site.cloud, vm_id, *[groups] * len(ranges))
    return vm_id


def settled(site: Site) -> list[str]:
    """The warnings once the addresses are where the VMs are: nothing else is to be said."""
    site.reconcile()
    return said(site.cloud)


def test_a_nic_that_lets_everything_in_is_named_with_what_closes_it(site: Site) -> None:
    vm_id = run(site, 0)
    (sentence,) = settled(site)
    assert sentence == (
        f"NIC 0 of VM {vm_id} in network 0 (public) lets everything in, by security group 0 (default); run 'onesecgroup clone "
        "0 network-0' and write with 'onesecgroup update network-0' what is to come in, then run "
        f"'onevm sg-attach {vm_id} 0 ID' with the ID that clone printed and 'onevm sg-detach {vm_id} 0 0'; "
        "new NICs get 0 until 'onevnet update 0' changes SECURITY_GROUPS"
    )
    follow(site.cloud, sentence)
    assert said(site.cloud) == []


def test_a_nic_that_has_further_groups_is_closed_by_taking_the_open_one_away(site: Site) -> None:
    vm_id = run(site, 0, groups="0,100")
    (sentence,) = settled(site)
    said_of_100 = (
        f"(default); if 'onesecgroup show 100' has all that is to come in, run 'onevm sg-detach {vm_id} 0 0'; "
    )
    assert said_of_100 in sentence
    follow(site.cloud, sentence)
    assert said(site.cloud) == []


def test_a_nic_without_groups_is_named(site: Site) -> None:
    vm_id = run(site, 0, groups="")
    (sentence,) = settled(site)
    assert sentence == (
        f"NIC 0 of VM {vm_id} in network 0 (public) lets everything in, for want of a security group; run 'onesecgroup clone "
        "0 network-0' and write with 'onesecgroup update network-0' what is to come in, then run "
        f"'onevm sg-attach {vm_id} 0 ID' with the ID that clone printed"
    )
    follow(site.cloud, sentence)
    assert said(site.cloud) == []


def test_nics_with_the_same_groups_are_one_sentence(site: Site) -> None:
    first = run(site, 0, 1)
    others = [run(site, number) for number in (2, 3)]
    run(site, 4, groups="100")
    (sentence,) = settled(site)
    assert sentence.startswith(
        f"NIC 0 of VM {first}, NIC 1 of VM {first}, NIC 0 of VM {others[0]} and 1 more in network 0 (public) let everything in"
    )
    assert f"'onevm sg-detach {first} 0 0', likewise for the others; new NICs get 0" in sentence


def test_for_an_alias_the_groups_of_its_parent_count(site: Site) -> None:
    plain = site.cloud.add_network("plain", AR='AR=[TYPE="IP4", IP="192.168.9.10", SIZE="9"]')
    vm_id = site.run("h1", 0, pool=plain)
    site.cloud.oned.lease(site.pool, 0, vm_id)
    site.attach_recorded_alias(vm_id, site.address(0))

    def adopt(root: Element) -> None:
        nic, alias = nics(root)
        put(alias, "PARENT_ID", nic.findtext("NIC_ID") or "")

    site.cloud.oned.edit_vm(vm_id, adopt)
    set_groups(site.cloud, vm_id, "100", "0")
    assert settled(site) == []
    set_groups(site.cloud, vm_id, "0", "100")
    (sentence,) = said(site.cloud)
    assert sentence.startswith(
        f"NIC 0 of VM {vm_id} in network {plain} (plain) lets everything in, by security group 0"
    )


def test_nics_without_an_address_in_aws_and_vms_that_do_not_run_are_nobodys_business(site: Site) -> None:
    plain = site.cloud.add_network("plain", AR='AR=[TYPE="IP4", IP="192.168.9.10", SIZE="9"]')
    set_groups(site.cloud, site.run("h1", 0, pool=plain), "0")
    site.cloud.oned.set_vm_state(run(site, 0), POWEROFF)
    assert settled(site) == []


@pytest.mark.parametrize(
    ("rule", "is_open"),
    [
        ({"RULE_TYPE": "inbound", "PROTOCOL": "all"}, True),
        ({"RULE_TYPE": "Inbound", "PROTOCOL": "ALL", "IP": "", "SIZE": ""}, True),
        ({"RULE_TYPE": "OUTBOUND", "PROTOCOL": "ALL"}, False),
        ({"RULE_TYPE": "INBOUND", "PROTOCOL": "ALL", "IP6_GLOBAL": "2001:db8::1", "SIZE": "256"}, False),
        ({"RULE_TYPE": "INBOUND", "PROTOCOL": "ALL", "NETWORK_ID": "4"}, False),
        ({"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP"}, False),
        ({"RULE_TYPE": "INBOUND", "PROTOCOL": "ALL", "IP": "10.0.0.0", "SIZE": "256"}, False),
        (
            {"RULE_TYPE": "INBOUND", "PROTOCOL": "ALL", "NETWORK_ID": "4", "MAC": "02:00:c0:a8:00:0a", "SIZE": "8"},
            False,
        ),
    ],
)
def test_what_counts_is_a_rule_for_everything_from_everywhere(site: Site, rule: dict[str, str], is_open: bool) -> None:
    vm_id = run(site, 0, groups="107")
    set_rules(site.cloud, vm_id, {"SECURITY_GROUP_ID": "107", "SECURITY_GROUP_NAME": "mine", **rule})
    read = Groups(etree.fromstring(site.cloud.oned.document("VM", vm_id))).of_nic("107", "SECURITY_GROUPS") or ()
    assert [rule.inbound and rule.is_open for rule in read] == [is_open], "nodes understand it otherwise"
    sentences = settled(site)
    assert len(sentences) == is_open
    assert all("by security group 107 (mine); run 'onesecgroup clone 107 network-0' and" in one for one in sentences)


def test_it_needs_no_further_call(site: Site) -> None:
    run(site, 0, groups="100")
    settled(site)
    site.cloud.forget_calls()
    said(site.cloud)
    calls = [*site.cloud.oned.calls(), *site.cloud.ec2.calls()]
    set_groups(site.cloud, 0, "0")
    site.cloud.forget_calls()
    assert len(said(site.cloud)) == 1
    assert [*site.cloud.oned.calls(), *site.cloud.ec2.calls()] == calls


def test_vms_that_rules_did_not_reach_are_named(site: Site) -> None:
    vm_ids = [run(site, number, groups="100") for number in range(5)]
    site.reconcile()
    site.cloud.oned.set_group(100, "web", UPDATED=vm_ids[:1], ERROR=vm_ids[1:])
    site.cloud.oned.set_group(101, "old", ERROR=[4711])
    lines = json.loads(site.cloud.oneaws("check", "--json", code=1).stdout)
    assert [line for line in lines if line["STATUS"] != "ok" and line["CHECK"] != "ports of VMs"] == [
        {
            "CHECK": "rules of VMs",
            "STATUS": "failed",
            "DETAIL": f"the rules of security group 100 (web) did not reach VM {', '.join(map(str, vm_ids[1:4]))} and 1 more; "
            f"run 'onesecgroup commit 100 --recover'; what a host refused is in ERROR of 'onevm show {vm_ids[1]}'",
        }
    ]


def test_rules_that_are_on_their_way_are_no_failure(site: Site) -> None:
    first, second = (run(site, number, groups="100") for number in range(2))
    site.reconcile()
    site.cloud.oned.set_group(100, "web", OUTDATED=[second], UPDATING=[first])
    lines = json.loads(site.cloud.oneaws("check", "--json").stdout)
    assert [(line["CHECK"], line["STATUS"], line["DETAIL"]) for line in lines if "rules" in line["CHECK"]] == [
        (
            "rules of VMs",
            "warning",
            f"the rules of security group 100 (web) are on their way to VM {first}, {second}; when these do not become fewer, "
            "run 'onesecgroup commit 100 --recover'",
        )
    ]
