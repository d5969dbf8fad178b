"""Making an account inside the server: an empty one, and instances and Elastic IPs, many at once."""

from __future__ import annotations

import uuid
from typing import Any

from moto.core.model_instances import reset_model_data
from moto.ec2.models import EC2Backend
from moto.moto_api._internal import mock_random

from .addresses import allocate, bind, check_address
from .blocks import automatic
from .marks import MARKS

_IMAGE = "ami-00000000000000001"
_SEED = uuid.uuid4().hex


def begin(backend: EC2Backend, vpc_cidr: str, subnet_cidr: str) -> dict[str, str]:
    """Make the account anew, with one VPC and one subnet besides those that each account has in a Region.

    Returns:
        Their ids as `vpc_id` and `subnet_id`, each time the same, so that what has been configured with them stays good.
    """
    # moto keeps all it ever made in a list of its own.
    reset_model_data()
    backend.reset()
    MARKS.clear()
    mock_random.seed(_SEED)
    vpc = backend.create_vpc(vpc_cidr)
    # EC2's default group lets in whatever comes from the group itself; moto's lets in nothing.
    (group,) = (group for group in backend.groups[vpc.id].values() if group.name == "default")
    own = [{"GroupId": group.id}]
    backend.authorize_security_group_ingress(group.id, "-1", "-1", "-1", [], source_groups=own, vpc_id=vpc.id)
    subnet = backend.create_subnet(vpc.id, subnet_cidr, availability_zone=f"{backend.region_name}a")
    # The ids of all else must not return: who still has one from before is to find nothing.
    mock_random.seed()
    return {"vpc_id": vpc.id, "subnet_id": subnet.id}


def _mac(number: int) -> str:
    return "02:00:00:" + ":".join(f"{number >> shift & 0xFF:02x}" for shift in (16, 8, 0))


def _instances(backend: EC2Backend, wanted: dict[str, Any]) -> list[dict[str, str]]:
    """Running instances, each with one interface, which was made at its launch and ends with it."""
    subnet = backend.get_subnet(wanted["subnet"])
    free = automatic(backend, subnet)
    macs = {eni.mac_address for eni in backend.enis.values()}
    made, number = [], 0
    for one in wanted["each"]:
        private_ip = one["private_ip"]
        if private_ip:
            check_address(subnet, private_ip)
        else:
            private_ip = next(free)
        eni = backend.create_network_interface(subnet, private_ip, delete_on_termination=True)
        # moto draws MACs at random: among hundreds, two may be the same.
        macs.discard(eni.mac_address)
        while _mac(number) in macs or not number:
            number += 1
        eni.mac_address = _mac(number)
        macs.add(eni.mac_address)
        reservation = backend.run_instances(
            _IMAGE,
            1,
            None,
            [],
            instance_type=wanted["instance_type"],
            is_instance_type_default=True,
            region_name=backend.region_name,
            nics=[{"DeviceIndex": 0, "NetworkInterfaceId": eni.id}],
            block_device_mappings=[],
            tags={"instance": {"Name": one["name"], **wanted["tags"]}},
        )
        if one["public_ip"]:
            bind(allocate(backend, one["public_ip"], {}), eni, private_ip)
        made.append(
            {
                "name": one["name"],
                "instance_id": reservation.instances[0].id,
                "eni_id": eni.id,
                "mac": eni.mac_address,
                "private_ip": private_ip,
                "public_ip": one["public_ip"] or "",
            }
        )
    return made


def _addresses(backend: EC2Backend, wanted: list[dict[str, str]]) -> list[dict[str, str]]:
    eips = [allocate(backend, None, tags) for tags in wanted]
    return [{"allocation_id": eip.allocation_id, "public_ip": eip.public_ip} for eip in eips]


def _interface(backend: EC2Backend, subnet: str, private_ip: str | None, marks: dict[str, Any]) -> dict[str, str]:
    """An interface that is not attached, with `private_ip` or any address, and what is unlike the rest with it."""
    place = backend.get_subnet(subnet)
    if private_ip:
        check_address(place, private_ip)
    address = private_ip or next(automatic(backend, place))
    eni = backend.create_network_interface(place, address, description=marks.get("Description", ""))
    if marks:
        MARKS[eni.id] = marks
    return {"eni_id": eni.id, "private_ip": address}


def populate(backend: EC2Backend, wanted: dict[str, Any]) -> list[dict[str, str]]:
    """Make what is wanted.

    Args:
        backend: where.
        wanted: `instances`: `subnet`, `instance_type`, `tags`, and `each` with `name`, `private_ip` and `public_ip`,
            where null is any private address and no public one; or `interface`: the arguments of `_interface`; or `addresses`:
            the tags of each.

    Returns:
        The fields of `ec2.Instance` or `ec2.ElasticIp`, in the same order.

    Raises:
        EC2ClientError: the calls of EC2 that would make the same refuse it.
    """
    if "instances" in wanted:
        return _instances(backend, wanted["instances"])
    if "interface" in wanted:
        return [_interface(backend, **wanted["interface"])]
    return _addresses(backend, wanted["addresses"])
