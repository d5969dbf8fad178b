"""A cloud in which something of every kind is to be done, and what must hold of it at any time and in the end."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from .cloud import POOL, Cloud

Document = dict[str, Any]

EIPS = [f"198.51.100.{number}" for number in range(11, 16)]
LOST = "198.51.100.19"
PEERS = {"h1": "10.0.0.4", "h2": "10.0.0.5", "h3": "10.0.0.6"}


def _range(inside: str, external_ip: str, private_ip: str, allocation_id: str) -> str:
    return (
        f'AR=[ TYPE="IP4", IP="{inside}", SIZE="1", EXTERNAL_IP="{external_ip}", AWS_PRIVATE_IP="{private_ip}", '
        f'AWS_ALLOCATION_ID="{allocation_id}" ]'
    )


def mixed(cloud: Cloud) -> dict[str, str]:
    """A cloud in which something of every kind is to be done.

    Host h1 lacks attributes; h2 has another name; h3 is new; the instance of h9 is terminated. Of the Elastic IPs the first leads
    to where VM 0 runs; the second's address is on another host than VM 1; the third's is on none, though VM 2 runs; the
    fourth has no range; the fifth's has no private address. One more range has an Elastic IP that is released.

    Returns:
        Names for the ids in it.
    """
    instances = cloud.add_metal("h1", "h2", "h3", "h9")
    h1, h2, _, h9 = instances
    for one, name in ((h1, "h1"), (h2, "two"), (h9, "h9")):
        known = {"INSTANCE_ID": one.instance_id, "ENI_ID": one.eni_id, "INSTANCE_TYPE": "c5n.metal"}
        template = " ".join(f'EC2_{key}="{value}"' for key, value in known.items())
        cloud.oned.add_host(name, template=f'{template} VXLAN_TEP="{one.private_ip}"')
    ids = [cloud.ec2.allocate_eip(one, POOL) for one in EIPS]
    cloud.ec2.give_eip(ids[0], h1.eni_id, "10.0.0.101")
    cloud.ec2.give_eip(ids[1], h2.eni_id, "10.0.0.102")
    cloud.ec2.move_private_ip("10.0.0.119", h2.eni_id)
    # Nobody's business, but so h3 has most room at any time.
    cloud.ec2.move_private_ip("10.0.0.110", h1.eni_id)
    cloud.ec2.move_private_ip("10.0.0.120", h2.eni_id)
    cloud.ec2.terminate(h9.instance_id)
    ranges = [_range(f"192.168.0.{11 + at}", EIPS[at], f"10.0.0.{101 + at}", ids[at]) for at in range(3)]
    ranges.append(_range("192.168.0.15", EIPS[4], "", ids[4]))
    ranges.append(_range("192.168.0.19", LOST, "10.0.0.119", "eipalloc-gone"))
    pool = cloud.add_pool(AR="\n".join(ranges))
    cloud.add_network("private", NETWORK_ADDRESS="172.16.0.0", NETWORK_MASK="255.255.255.0")
    for ar_id, host in enumerate(("h1", "h1", "two")):
        cloud.run_vm(pool, [ar_id], host)
    names = {cloud.ec2.subnet_id: "subnet", **{one: f"eipalloc-{at}" for at, one in enumerate(ids)}}
    for one in instances:
        names |= {one.instance_id: f"i-{one.name}", one.eni_id: f"eni-{one.name}"}
    return names


def end_state(cloud: Cloud, names: dict[str, str]) -> Document:
    """Both worlds and what the hosts know, with names instead of ids that are different each time."""
    text = json.dumps(cloud.everything())
    for key, name in names.items():
        text = text.replace(key, name)
    document: Document = json.loads(text)
    document["interfaces"].sort()
    document["told"] = {host: cloud.told(host) for host in document["hosts"]}
    return document


def assert_safe(cloud: Cloud) -> None:
    """No Elastic IP is lost, none shares its private address with another, and no instance is two hosts."""
    state = cloud.everything()
    assert [public_ip for public_ip, *_ in state["elastic_ips"]] == EIPS
    mapped = [private_ip for _, private_ip, _ in state["elastic_ips"] if private_ip]
    assert len(mapped) == len(set(mapped))
    held = [address for _, addresses in state["interfaces"] for address in addresses]
    assert len(held) == len(set(held))
    instances = [template.get("EC2_INSTANCE_ID") for _, template in state["hosts"].values()]
    assert all(count == 1 for instance, count in Counter(instances).items() if instance)
    assert len(instances) <= 4


def assert_at_rest(cloud: Cloud) -> None:
    """A reconcile changes nothing in either world, and calls no host."""
    cloud.forget_calls()
    told = cloud.ssh_calls()
    assert cloud.reconcile() == {"dry_run": False, "changes": [], "problems": []}
    assert (cloud.mutating_calls(), cloud.ssh_calls()) == ([], told)
