"""The Describe calls of the lab's EC2: filters, pages, and what is shown when.

They answer from the views, and in their own XML, because 500 instances must not take seconds.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

from botocore.session import get_session
from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.account_attributes import AccountAttributes
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.subnets import Subnets

from .addresses import LIMITS
from .marks import marked, shown
from .region import OWN_KEY
from .views import HISTORY, Item, View, tags_of

_PAGE = 1000
_TYPES_PAGE = 100
_Values = Callable[[Item], Iterable[object]]


@cache
def _output(action: str) -> Any:
    return get_session().get_service_model("ec2").operation_model(action).output_shape


def _xml(shape: Any, value: Any) -> str:
    if shape.type_name == "structure":
        members = shape.members
        return "".join(
            f"<{name}>{_xml(members[key], one)}</{name}>"
            for key, one in value.items()
            if one is not None and key in members
            for name in [members[key].serialization.get("name", key)]
        )
    if shape.type_name == "list":
        return "".join(f"<item>{_xml(shape.member, one)}</item>" for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return escape(str(value))


def _answer(action: str, **result: Any) -> str:
    body = _xml(_output(action), result)
    return (
        f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>lab</requestId>'
        f"{body}</{action}Response>"
    )


def _view(call: Any) -> View:
    """The world's own client sees the state as it is."""
    if call.access_key == OWN_KEY:
        return HISTORY.present(call.ec2_backend)
    return HISTORY.visible(call.ec2_backend)


def _at(path: str) -> _Values:
    """The values at a path of keys joined by dots; a list on the way stands for each of its items."""
    keys = path.split(".")

    def values(item: Item) -> Iterable[object]:
        found: list[Any] = [item]
        for key in keys:
            below = [one[key] for one in found if key in one]
            found = [each for one in below for each in (one if isinstance(one, list) else [one])]
        return found

    return values


def _tag(name: str) -> _Values:
    def values(item: Item) -> Iterable[object]:
        tags: list[Item] = item["TagSet"] if "TagSet" in item else item["Tags"]
        return [tag["Value"] for tag in tags if tag["Key"] == name]

    return values


def _matcher(value: str) -> re.Pattern[str]:
    """In the values of filters, EC2 takes * for any characters and ? for one; case matters."""
    return re.compile("".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in value), re.DOTALL)


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _filtered(call: Any, items: list[Item], known: dict[str, str], tags: str = "Tags") -> list[Item]:
    """Filters: an item must match all of them, each by one of its values; an unknown name is an error."""
    for one in call._get_param("Filters", []):
        name = one.get("Name", "")
        if name.startswith("tag:"):
            values = _tag(name[4:])
        elif name == "tag-key":
            values = _at(f"{tags}.Key")
        elif name in known:
            values = _at(known[name])
        else:
            raise EC2ClientError("InvalidParameterValue", f"The filter '{name}' is invalid")
        wanted = [_matcher(value) for value in one.get("Values", [])]
        items = [item for item in items if any(w.fullmatch(_as_text(v)) for v in values(item) for w in wanted)]
    return items


def _chosen(items: list[Item], key: str, ids: list[str], error: str) -> list[Item]:
    """The items with these ids, or all if none is given; one that does not exist is an error."""
    if not ids:
        return items
    by_id = {item[key]: item for item in items}
    for one in ids:
        if one not in by_id:
            raise EC2ClientError(error, f"'{one}' does not exist")
    return [item for item in items if item[key] in ids]


def _page(call: Any, items: list[Item], ids: list[str], most: int = _PAGE) -> tuple[list[Item], str | None]:
    """Pages: 5 to `most` items by MaxResults, which excludes a list of ids; `most` without it. NextToken goes on."""
    size = call._get_int_param("MaxResults")
    if size is None:
        size = most
    elif ids:
        raise EC2ClientError("InvalidParameterCombination", "MaxResults and a list of ids exclude each other")
    elif not 5 <= size <= most:
        raise EC2ClientError("InvalidParameterValue", f"MaxResults is {size}, and must be from 5 to {most}")
    start, token = 0, call._get_param("NextToken")
    if token:
        try:
            start = int(base64.b64decode(token, validate=True))
        except ValueError:
            raise EC2ClientError("InvalidNextToken", "The specified NextToken is not valid") from None
    end = start + size
    return items[start:end], base64.b64encode(str(end).encode()).decode() if end < len(items) else None


_INTERFACE = {
    "network-interface-id": "NetworkInterfaceId",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
    "availability-zone": "AvailabilityZone",
    "requester-managed": "RequesterManaged",
    "mac-address": "MacAddress",
    "description": "Description",
    "status": "Status",
    "private-ip-address": "PrivateIpAddresses.PrivateIpAddress",
    "addresses.private-ip-address": "PrivateIpAddresses.PrivateIpAddress",
    "addresses.primary": "PrivateIpAddresses.Primary",
    "addresses.association.public-ip": "PrivateIpAddresses.Association.PublicIp",
    "association.public-ip": "Association.PublicIp",
    "association.allocation-id": "Association.AllocationId",
    "attachment.instance-id": "Attachment.InstanceId",
    "attachment.attachment-id": "Attachment.AttachmentId",
    "attachment.device-index": "Attachment.DeviceIndex",
    "attachment.status": "Attachment.Status",
}


def _describe_network_interfaces(self: Any) -> str:
    self.error_on_dryrun()
    ids = self._get_param("NetworkInterfaceIds", [])
    items = _chosen(_view(self).interfaces, "NetworkInterfaceId", ids, "InvalidNetworkInterfaceID.NotFound")
    page, token = _page(self, _filtered(self, items, _INTERFACE, "TagSet"), ids)
    return _answer("DescribeNetworkInterfaces", NetworkInterfaces=page, NextToken=token)


_ADDRESS = {
    "allocation-id": "AllocationId",
    "association-id": "AssociationId",
    "domain": "Domain",
    "instance-id": "InstanceId",
    "network-interface-id": "NetworkInterfaceId",
    "private-ip-address": "PrivateIpAddress",
    "public-ip": "PublicIp",
}


def _describe_addresses(self: Any) -> str:
    """DescribeAddresses has no pages: its one answer holds all."""
    self.error_on_dryrun()
    ids, publics = self._get_param("AllocationIds", []), self._get_param("PublicIps", [])
    items = _chosen(_view(self).addresses, "AllocationId", ids, "InvalidAllocationID.NotFound")
    items = _chosen(items, "PublicIp", publics, "InvalidAddress.NotFound")
    return _answer("DescribeAddresses", Addresses=_filtered(self, items, _ADDRESS))


def _describe_address_transfers(self: Any) -> str:
    """DescribeAddressTransfers: those that this account has offered to others, pending and, for 14 days, accepted ones."""
    self.error_on_dryrun()
    ids = self._get_param("AllocationIds", [])
    items = [
        {
            "PublicIp": eip["PublicIp"],
            "AllocationId": eip["AllocationId"],
            "TransferAccountId": "210987654321",
            "AddressTransferStatus": marked(eip["AllocationId"], "AddressTransferStatus"),
        }
        for eip in _chosen(_view(self).addresses, "AllocationId", ids, "InvalidAllocationID.NotFound")
        if marked(eip["AllocationId"], "AddressTransferStatus")
    ]
    page, token = _page(self, items, ids)
    return _answer("DescribeAddressTransfers", AddressTransfers=page, NextToken=token)


_INSTANCE = {
    "availability-zone": "Placement.AvailabilityZone",
    "image-id": "ImageId",
    "instance-id": "InstanceId",
    "instance-state-code": "State.Code",
    "instance-state-name": "State.Name",
    "instance-type": "InstanceType",
    "ip-address": "PublicIpAddress",
    "network-interface.addresses.private-ip-address": "NetworkInterfaces.PrivateIpAddresses.PrivateIpAddress",
    "network-interface.network-interface-id": "NetworkInterfaces.NetworkInterfaceId",
    "network-interface.subnet-id": "NetworkInterfaces.SubnetId",
    "private-ip-address": "PrivateIpAddress",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
}


def _describe_instances(self: Any) -> str:
    """DescribeInstances: MaxResults counts instances. One that was terminated stays in the answer for a while."""
    self.error_on_dryrun()
    ids = self._get_param("InstanceIds", [])
    holders = {item["Instances"][0]["InstanceId"]: item for item in _view(self).reservations}
    items = [item["Instances"][0] for item in holders.values()]
    items = _filtered(self, _chosen(items, "InstanceId", ids, "InvalidInstanceID.NotFound"), _INSTANCE)
    page, token = _page(self, items, ids)
    reservations = [holders[item["InstanceId"]] for item in page]
    return _answer("DescribeInstances", Reservations=reservations, NextToken=token)


_SUBNET = {
    "availability-zone": "AvailabilityZone",
    "available-ip-address-count": "AvailableIpAddressCount",
    "cidr-block": "CidrBlock",
    "state": "State",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
}


def _describe_subnets(self: Any) -> str:
    """DescribeSubnets: the count of free addresses leaves out the five reserved and all of interfaces, secondary ones and
    prefixes too."""
    self.error_on_dryrun()
    ids = self._get_param("SubnetIds", [])
    used: dict[str, int] = {}
    for eni in _view(self).interfaces:
        used[eni["SubnetId"]] = used.get(eni["SubnetId"], 0) + len(eni["PrivateIpAddresses"])
        used[eni["SubnetId"]] += 16 * len(eni["Ipv4Prefixes"] or ())
    items = [
        shown(
            subnet.id,
            {
                "SubnetId": subnet.id,
                "SubnetArn": subnet.arn,
                "VpcId": subnet.vpc_id,
                "OwnerId": subnet.owner_id,
                "CidrBlock": subnet.cidr_block,
                "AvailabilityZone": subnet.availability_zone,
                "AvailabilityZoneId": subnet.availability_zone_id,
                "AvailableIpAddressCount": subnet.cidr.num_addresses - 5 - used.get(subnet.id, 0),
                "DefaultForAz": bool(subnet.default_for_az),
                "State": subnet.state,
                "Tags": tags_of(self.ec2_backend, subnet.id),
            },
        )
        for zone in self.ec2_backend.subnets.values()
        for subnet in zone.values()
    ]
    items = _filtered(self, _chosen(items, "SubnetId", ids, "InvalidSubnetID.NotFound"), _SUBNET)
    page, token = _page(self, items, ids)
    return _answer("DescribeSubnets", Subnets=page, NextToken=token)


def _describe_instance_types(self: Any) -> ActionResult:
    """DescribeInstanceTypes has pages of at most 100 types. One in the list InstanceTypes that the Region does not know is an
    error (InvalidInstanceType), one in a filter matches nothing."""
    self.error_on_dryrun()
    names = self._get_param("InstanceTypes", [])
    types = self.ec2_backend.describe_instance_types(names, self._filters_from_querystring())
    page, token = _page(self, types, names, _TYPES_PAGE)
    return ActionResult({"InstanceTypes": page, "NextToken": token})


def _describe_account_attributes(self: Any) -> str:
    """DescribeAccountAttributes: vpc-max-elastic-ips is how many Elastic IPs the account may have in the Region."""
    self.error_on_dryrun()
    values = {
        "supported-platforms": "VPC",
        "max-elastic-ips": "5",
        "vpc-max-elastic-ips": str(LIMITS.elastic_ips),
    }
    wanted = self._get_param("AttributeNames", []) or list(values)
    items = [
        {"AttributeName": name, "AttributeValues": [{"AttributeValue": values[name]}]}
        for name in wanted
        if name in values
    ]
    return _answer("DescribeAccountAttributes", AccountAttributes=items)


def correct() -> None:
    """Put these in place of moto's."""
    ElasticNetworkInterfaces.describe_network_interfaces = _describe_network_interfaces
    ElasticIPAddresses.describe_addresses = _describe_addresses
    ElasticIPAddresses.describe_address_transfers = _describe_address_transfers
    InstanceResponse.describe_instances = _describe_instances
    InstanceResponse.describe_instance_types = _describe_instance_types
    Subnets.describe_subnets = _describe_subnets
    AccountAttributes.describe_account_attributes = _describe_account_attributes
