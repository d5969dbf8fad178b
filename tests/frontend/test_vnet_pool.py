"""`vnet_create` of a network that is an Elastic IP pool: its ranges, and how it gets the others when it is ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.world.ec2.region import Instance

from .cloud import POOL, Cloud

DB = {"Pool": "db"}


def lead(cloud: Cloud, host: Instance, addresses: Iterable[str], tags: Mapping[str, str] = POOL) -> list[str]:
    """Allocate Elastic IPs, each of which leads to a private address of a host."""
    made = []
    for address in addresses:
        (eip,) = cloud.ec2.allocate_eips([tags])
        cloud.ec2.give_eip(eip.allocation_id, host.eni_id, address)
        made.append(eip.public_ip)
    return made


def test_a_pool_gets_ranges_for_what_leads_to_hosts_and_the_others_when_it_is_ready(cloud: Cloud) -> None:
    h1, h2 = cloud.add_metal("h1", "h2")
    cloud.reconcile()
    mine = [*lead(cloud, h1, ["10.0.0.100"]), *cloud.add_eips(3)]
    cloud.add_eips(1, {"Pool": "other"})
    router = cloud.ec2.add_instance("router", "10.0.0.99", eip=False)
    (foreign,) = cloud.ec2.allocate_eips([POOL])
    cloud.ec2.give_eip(foreign.allocation_id, router.eni_id, "10.0.0.98")
    cloud.forget_calls()

    vnet_id = cloud.add_pool(ready=False)
    done = cloud.vnet_create(vnet_id)
    assert done.returncode == 0, done.stderr
    assert cloud.mutating_calls() == []
    (agreed,) = cloud.network(vnet_id).ranges  # EC2 has not been asked yet for the addresses of the others
    assert (agreed.ip, agreed.attributes["EXTERNAL_IP"]) == ("192.168.0.2", mine[0])
    assert agreed.attributes["AWS_PRIVATE_IP"] == "10.0.0.100"

    ready = cloud.hook("vnet_ready", cloud.oned.document("VNET", vnet_id))
    ranges = cloud.network(vnet_id).ranges
    assert [one.attributes["EXTERNAL_IP"] for one in ranges] == mine
    assert [one.ip for one in ranges] == [f"192.168.0.{last}" for last in (2, 3, 4, 5)]
    assert len({one.attributes["AWS_PRIVATE_IP"] for one in ranges}) == 4
    assert all(one.size == 1 and one.attributes["AWS_ALLOCATION_ID"] for one in ranges)
    assert ready.returncode == 1
    assert f"Elastic IP {foreign.public_ip}: is in a pool, but associated with {router.eni_id}" in ready.stderr
    for one in ranges:
        eni_id, private_ip = cloud.leads_to(one.attributes["EXTERNAL_IP"])
        assert eni_id in (h1.eni_id, h2.eni_id)
        assert private_ip == one.attributes["AWS_PRIVATE_IP"]
    assert cloud.leads_to(foreign.public_ip) == (router.eni_id, "10.0.0.98")
    assert cloud.told("h1") == {"h1": h1.private_ip, "h2": h2.private_ip}

    before = cloud.everything()
    cloud.forget_calls()
    assert cloud.reconcile(code=1)["changes"] == []
    assert cloud.mutating_calls() == []
    assert cloud.everything() == before


def test_pools_created_at_once_never_have_one_elastic_ip_twice(cloud: Cloud) -> None:
    (host, _) = cloud.add_metal("h1", "h2")
    cloud.reconcile()
    lead(cloud, host, [f"10.0.0.{last}" for last in range(100, 104)])
    lead(cloud, host, [f"10.0.0.{last}" for last in range(104, 108)], DB)
    pools = [
        cloud.add_pool(name, ready=False, AWS_EIP_POOL=tags)
        for name, tags in (("web", "tag:Pool=web"), ("db", "tag:Pool=db"), ("again", "tag:Pool=web"))
    ]
    documents = {one: cloud.oned.document("VNET", one) for one in pools}
    done = cloud.together(
        *(lambda one=one: cloud.shim("vnet", "vnet_create", documents[one], str(one)) for one in pools)
    )
    for one, created in zip(pools, done, strict=True):  # only now can any see what another got
        cloud.oned.finish_vnet_create(one, created.stdout)
    networks = [cloud.network(one) for one in pools]
    assert [len(one.ranges) for one in networks] == [4, 4, 0]
    for attribute in ("AWS_PRIVATE_IP", "EXTERNAL_IP", "AWS_ALLOCATION_ID"):
        values = [value for one in networks for value in one.values_of_ranges(attribute)]
        assert len(set(values)) == len(values) == 8, attribute


def test_a_pool_without_room_for_all_is_created_with_what_fits(cloud: Cloud) -> None:
    (host,) = cloud.add_metal("h1")
    cloud.reconcile()
    mine = lead(cloud, host, ["10.0.0.100", "10.0.0.101", "10.0.0.102"])
    vnet_id = cloud.add_pool(ready=False, NETWORK_MASK="255.255.255.252")  # .1 is the gateway
    assert cloud.vnet_create(vnet_id).returncode == 0
    assert cloud.network(vnet_id).values_of_ranges("EXTERNAL_IP") == mine[:1]
