"""Hostile values: what one host, network, address range or VM says is its own trouble, and everything else goes on."""

from __future__ import annotations

import json

import pytest
from lxml import etree

from vnm_aws import names
from vnm_aws.frontend.oned import Oned as Client

from .cloud import RUNNING_VM, Cloud
from .following import Site, settle

VALUES = {
    "number": "9" * 5000,
    "address": "10.0.0.999",
    "digits": "١٢",
    "syntax": "a\"b=[c], '<&>' %s $(id) \u202e\u0085",
    "empty": "",
}
OF_HOSTS = (
    *(names.VTEP, names.ENI_ID, names.INSTANCE_ID, names.INSTANCE_TYPE, names.INSTANCE_STATE, names.SUBNET_ID),
    *(names.FREE_ADDRESSES, names.MESH, names.PEERS_UP, names.PEERS_DOWN, names.HOST_MTU, names.HOST_ERROR),
)
OF_RANGES = (
    *(names.PRIVATE_IP, names.EXTERNAL_IP, names.ALLOCATION_ID, names.VPC_ACCESS, names.RAW_ETHERNET),
    *("VLAN_ID", "BRIDGE", "GATEWAY", "MTU", "DNS", "PORT_START", "PORT_SIZE"),
)
OF_NETWORKS = (*OF_RANGES, names.POOL, "NETWORK_ADDRESS", "NETWORK_MASK", "GUEST_MTU", names.NETWORK_PROBLEM)
OF_NICS = (
    *(names.PRIVATE_IP, names.EXTERNAL_IP, names.ALLOCATION_ID, "NETWORK_ID", "NIC_ID", "SECURITY_GROUPS", "PARENT_ID"),
    *("IP", "GATEWAY", "EXTERNAL", "SHARED"),
)
OF_VMS = (
    *("LCM_STATE", "NAME", "HISTORY_RECORDS/HISTORY/HOSTNAME"),
    *("USER_TEMPLATE/AWS_EIP_HOST", "USER_TEMPLATE/AWS_EIP_STATUS", "USER_TEMPLATE/ERROR"),
)


def set_text(root: etree._Element, path: str, value: str) -> None:
    """Give an element a text, and make it when it is not there."""
    element = root
    for tag in path.split("/"):
        found = element.find(tag)
        element = etree.SubElement(element, tag) if found is None else found
    element.text = value


def hostile(site: Site, value: str) -> list[int]:
    """Make a host, a network, a range and a VM for each attribute, which says this; the VMs."""
    client, cloud = Client(), site.cloud
    for number, key in enumerate(OF_HOSTS):
        client.update_host(cloud.oned.add_host(f"bad{number}"), {key: value})
    for number, key in enumerate(OF_NETWORKS):
        client.update_network(cloud.add_network(f"bad{number}", NETWORK_ADDRESS="", NETWORK_MASK=""), {key: value})
    for number, key in enumerate(OF_RANGES):
        text = f'AR=[TYPE="IP4", IP="172.16.{number}.10", SIZE="1", AWS_PRIVATE_IP="10.0.0.{200 + number}"]'
        client.update_range(cloud.add_network(f"range{number}", AR=text), 0, {key: value})
    shared = (
        'AR=[TYPE="IP4", IP="172.17.0.10", SIZE="100", PORT_START="9000", PORT_SIZE="10", AWS_PRIVATE_IP="10.0.0.250"]'
    )
    network, vms = cloud.add_network("shared", AR=shared), []
    for key in (*OF_NICS, *OF_VMS):
        vm_id = cloud.oned.add_vm(RUNNING_VM, host_id=cloud.host("h1").host_id)
        cloud.oned.lease(network, 0, vm_id)
        cloud.set_nics(vm_id, network, [{"AWS_PRIVATE_IP": "10.0.0.250"}])
        path = f"TEMPLATE/NIC/{key}" if key in OF_NICS else key
        cloud.oned.edit_vm(vm_id, lambda root, path=path: set_text(root, path, value))  # type: ignore[misc]
        vms.append(vm_id)
    return vms


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_a_thing_says_is_its_own_trouble_and_the_rest_goes_on(cloud: Cloud, value: str) -> None:
    site = settle(cloud)
    vms = hostile(site, value)
    good = site.run(site.elsewhere(site.address(0)), 0)
    here = cloud.vm(good).host
    said = cloud.oneaws("reconcile", code=None).stderr
    for words in ("reconcile", "check", "eip list", "host list", "mesh show", "vnet check"):
        json.loads(cloud.oneaws(*words.split(), "--json", code=None).stdout)
    for words in ("check", "eip list"):
        assert "Traceback" not in cloud.oneaws(*words.split(), code=None).stderr
    site.is_right(good, here)
    for number, key in enumerate(OF_HOSTS):
        if key in (names.VTEP, names.INSTANCE_TYPE) and value:
            assert f"onehost update {cloud.host(f'bad{number}').host_id}'" in said
    assert {"h1", "h2"} <= {*cloud.told("h1")}
    for vm_id in (*vms, good):
        done = cloud.hook("vm_running", cloud.oned.document("VM", vm_id))
        assert "internal error" not in done.stderr
    for kind, event, numbers in (("HOST", "host_state", (0, 2, 5)), ("VNET", "vnet_ready", (1, 5))):
        for number in numbers:
            assert "internal error" not in cloud.hook(event, cloud.oned.document(kind, number)).stderr


def test_a_vm_that_cannot_be_read_is_named_and_the_others_of_its_page_are_served(cloud: Cloud) -> None:
    """oned writes what a guest's user has written, and XML knows no control characters."""
    site = settle(cloud)
    here = site.elsewhere(site.address(0))
    good, bad = site.run(here, 0), site.run("h1", 1)
    cloud.oned.spoil_vm(bad)
    (problem,) = site.reconcile().problems
    assert f"VM {bad}" in str(problem)
    assert f"onevm show {bad}" in problem.remedy
    site.is_right(good, here)


def test_a_network_that_vanishes_meanwhile_is_nobody_s_trouble(cloud: Cloud) -> None:
    site = settle(cloud)
    here = site.elsewhere(site.address(0))
    good, gone = site.run(here, 0), site.twin(site.address(1)._replace(private_ip="10.0.0.77", allocation_id=""))
    world = cloud.world()
    assert world.networks
    cloud.oned.forget("VNET", gone)
    assert [vm.vm_id for vm in world.vms] == [good]
    cloud.oned.before("one.vn.info", lambda: cloud.oned.forget("VNET", cloud.add_pool("late")))
    assert site.reconcile().problems == []
    site.is_right(good, here)
