"""Talk to EC2 through boto3: the few calls that the front-end half makes, as typed values.

Credentials, Region and endpoint are left to boto3's own chain. A describe may show an old state for a while after a change
("eventual consistency" in Amazon's EC2 developer guide), so whoever changes something waits with `confirm`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from ..errors import AwsOvsError
from . import metadata
from .deadline import Deadline
from .ec2_errors import Ec2Error, refused
from .ec2_objects import (
    ElasticIp,
    Event,
    Instance,
    InstanceType,
    Interface,
    Reservation,
    SecurityGroup,
    Subnet,
    read_elastic_ip,
    read_events,
    read_instance,
    read_instance_type,
    read_interface,
    read_reservation,
    read_rule,
)
from .tags import TagFilter

_RETRIES = 10
"""botocore backs off by itself, up to 20 s, when EC2 throttles or has a fault; AWS_MAX_ATTEMPTS goes before."""
_CONNECT_S, _READ_S = 10, 30
_CALL_S = 120
"""Seconds after which a call, or a page, is not attempted again."""

_PAGE = 1000
_PAGES = {"DescribeInstanceTypes": 100}
"""How many things EC2 is asked for in one page: the most that it gives. Without a number it may refuse, or take long."""

_Filters = list[dict[str, Any]]
_FILTER_VALUES = 200
"""The most values that EC2 takes for a filter."""

_EVENTS = ("instance-reboot", "system-reboot", "system-maintenance", "instance-retirement", "instance-stop")
_INTERRUPTIONS = ("marked-for-stop", "marked-for-termination")
_SPOT = "spot-interruption"

_KEYS = {"DescribeInstances": "Reservations", "DescribeInstanceStatus": "InstanceStatuses"}
"""Where the reply to a call lists what it describes, if not under the call's own name."""


class Ec2:
    """Connect to a Region.

    Args:
        region: its name; empty for boto3's own choice.
        patience: seconds that a change may take to be visible.
        deadline: of the run.

    Attributes:
        changes: how many calls that change something were made.
        clock_ahead: seconds that this machine's clock is ahead of EC2's, by its last answer; None before the first.

    Raises:
        AwsOvsError: no Region is configured; and each call: EC2 is not there or refuses.
    """

    def __init__(self, region: str, patience: float, deadline: Deadline | None = None) -> None:
        self._patience, self._deadline = patience, deadline or Deadline()
        self.changes = 0
        self._stop: dict[str, Ec2Error] = {}
        self._call_ends = 0.0
        self.clock_ahead: float | None = None
        try:
            retries = {"mode": "standard"} | ({} if os.environ.get("AWS_MAX_ATTEMPTS") else {"max_attempts": _RETRIES})
            wait = self._deadline.left
            config = Config(retries=retries, connect_timeout=wait(_CONNECT_S), read_timeout=wait(_READ_S))
            self._client: Any = _client(region, config)
            self._client.meta.events.register("before-call.ec2", self._begin)
            self._client.meta.events.register("before-send.ec2", self._attempt)
            self._client.meta.events.register("response-received.ec2", self._note_time)
        except NoRegionError:
            raise AwsOvsError("no AWS Region is configured", "set region in /etc/one/aws_ovs.yaml") from None
        except (BotoCoreError, ValueError) as error:
            raise AwsOvsError(f"boto3 cannot be used ({error})", "look at ~/.aws/config of this user") from None

    @property
    def region(self) -> str:
        """Name the Region in use."""
        return str(self._client.meta.region_name)

    def _begin(self, **_: object) -> None:
        """Begin a call, or a page of one, unless the time of the run is over."""
        self._deadline.check()
        self._call_ends = time.monotonic() + _CALL_S

    def _attempt(self, **_: object) -> None:
        """Attempt a call, as boto3 does several times, unless it has taken too long already."""
        self._deadline.check()
        if time.monotonic() > self._call_ends:
            raise Ec2Error(f"EC2 did not answer a call within {_CALL_S} s", "try again", "CallTimeout", True)

    def _call(self, action: str, **arguments: object) -> Any:
        """Make a call of EC2's API; of one that answers in pages, read them all.

        What concerns the account is asked once: the same call would be refused for every other thing, too.
        """
        for stop in (self._stop.get(""), self._stop.get(action)):
            if stop:
                raise stop
        try:
            return self._ask(botocore.xform_name(action), _PAGES.get(action, _PAGE), arguments)
        except ClientError as error:
            refusal = refused(action, error)
        except Ec2Error as error:
            refusal = error
        except BotoCoreError as error:
            refusal = _unanswered(action, error)
        if refusal.concerns_all_calls:
            self._stop[""] = refusal
        elif refusal.throttled:
            self._stop[action] = refusal
        raise refusal

    def _ask(self, method: str, page: int, arguments: dict[str, object]) -> Any:
        if not self._client.can_paginate(method):
            return getattr(self._client, method)(**arguments)
        pages = self._client.get_paginator(method).paginate(**arguments, PaginationConfig={"PageSize": page})
        return pages.build_full_result()

    def refusal(self, action: str, **arguments: object) -> Ec2Error | None:
        """Ask what EC2 would refuse a call with, without making it; None when it would allow it.

        With DryRun, EC2 checks the right to make a call and answers with the error DryRunOperation when there is one, and with
        UnauthorizedOperation when there is none (DryRun, among the common parameters of the EC2 API reference).
        """
        try:
            self._call(action, DryRun=True, **arguments)
        except Ec2Error as error:
            return None if error.code == "DryRunOperation" else error
        return None

    def refusal_to_move(self, action: str, eni_id: str, nobodys: str) -> Ec2Error | None:
        """Ask what EC2 would refuse AssignPrivateIpAddresses or UnassignPrivateIpAddresses with, which know no DryRun.

        The call names an address that no ENI can have, so it is refused in any case, and changes nothing.

        Args:
            action: which of the two.
            eni_id: the ENI.
            nobodys: the first address of its subnet, which AWS keeps for itself.
        """
        try:
            self._call(action, NetworkInterfaceId=eni_id, PrivateIpAddresses=[nobodys])
        except Ec2Error as error:
            return None if error.code == "InvalidParameterValue" else error
        return None

    def _note_time(self, response_dict: dict[str, Any] | None = None, **_: object) -> None:
        """Note how far the clocks are apart, by the Date of a response."""
        date = (response_dict or {}).get("headers", {}).get("date")
        with contextlib.suppress(TypeError, ValueError):
            self.clock_ahead = time.time() - parsedate_to_datetime(date or "").timestamp()

    def _change(self, action: str, **arguments: object) -> None:
        self.changes += 1
        self._call(action, **arguments)

    def _describe(self, action: str, asked: list[_Filters]) -> list[dict[str, Any]]:
        """Read the things that match one of these lists of filters."""
        key = _KEYS.get(action, action.removeprefix("Describe"))
        return [item for filters in asked for item in self._call(action, Filters=filters)[key]]

    def instances(self, wanted: TagFilter | Collection[str], vpc_id: str = "") -> list[Instance]:
        """Read the instances (of a VPC) with certain tags or ids; ids that EC2 does not know are left out."""
        if isinstance(wanted, TagFilter):
            asked = [[{"Name": f"tag:{name}", "Values": [value]} for name, value in wanted.pairs]]
        else:
            asked = _by_value("instance-id", wanted)
        vpc = [{"Name": "vpc-id", "Values": [vpc_id]}] if vpc_id else []
        reservations = self._describe("DescribeInstances", [filters + vpc for filters in asked])
        return [read_instance(item) for reservation in reservations for item in reservation["Instances"]]

    def interfaces(self, vpc_ids: Collection[str]) -> dict[str, Interface]:
        """Read all ENIs of VPCs, by id; those of others in them are needed to know which addresses are free."""
        return self._interfaces(_by_value("vpc-id", vpc_ids))

    def interfaces_in(self, subnet_id: str) -> dict[str, Interface]:
        """Read all ENIs of a subnet, by id."""
        return self._interfaces(_by_value("subnet-id", [subnet_id]))

    def interfaces_with(self, eni_ids: Collection[str]) -> dict[str, Interface]:
        """Read the ENIs with these ids."""
        return self._interfaces(_by_value("network-interface-id", eni_ids))

    def interfaces_holding(self, addresses: Collection[str], vpc_id: str) -> dict[str, Interface]:
        """Read the ENIs of a VPC that have one of these private addresses."""
        vpc = {"Name": "vpc-id", "Values": [vpc_id]}
        return self._interfaces([[*filters, vpc] for filters in _by_value("addresses.private-ip-address", addresses)])

    def _interfaces(self, asked: list[_Filters]) -> dict[str, Interface]:
        return {
            item["NetworkInterfaceId"]: read_interface(item)
            for item in self._describe("DescribeNetworkInterfaces", asked)
        }

    def elastic_ips(self, allocation_ids: Collection[str] | None = None) -> dict[str, ElasticIp]:
        """Read the Elastic IPs of the Region by allocation id: all, or those of certain ids as far as there are any."""
        return self._elastic_ips([[]] if allocation_ids is None else _by_value("allocation-id", allocation_ids))

    def elastic_ips_named(self, public_ips: Collection[str]) -> dict[str, ElasticIp]:
        """Read the Elastic IPs with these public addresses as far as there are any, by allocation id."""
        return self._elastic_ips(_by_value("public-ip", public_ips))

    def elastic_ips_at(self, private_ips: Collection[str]) -> dict[str, ElasticIp]:
        """Read the Elastic IPs that lead to one of these private addresses, by allocation id."""
        return self._elastic_ips(_by_value("private-ip-address", private_ips))

    def _elastic_ips(self, asked: list[_Filters]) -> dict[str, ElasticIp]:
        eips = map(read_elastic_ip, self._describe("DescribeAddresses", asked))
        return {eip.allocation_id: eip for eip in eips if eip.allocation_id}

    def transferred(self) -> set[str]:
        """Read the allocation ids of the Elastic IPs that are offered to another account and not accepted yet."""
        transfers = self._call("DescribeAddressTransfers")["AddressTransfers"]
        return {item["AllocationId"] for item in transfers if item.get("AddressTransferStatus") == "pending"}

    def instance_types(self, names: Collection[str]) -> dict[str, InstanceType]:
        """Read types of instances, by name.

        A type that the Region does not know is left out: that is why they are asked for by a filter.
        """
        return {
            item["InstanceType"]: read_instance_type(item)
            for item in self._describe("DescribeInstanceTypes", _by_value("instance-type", names))
        }

    def scheduled_events(self) -> list[Event]:
        """Read what AWS is going to do with instances of the account."""
        items = self._describe("DescribeInstanceStatus", _by_value("event.code", _EVENTS))
        return [event for item in items for event in read_events(item)]

    def interruptions(self) -> list[Event]:
        """Read which Spot instances AWS takes back within two minutes."""
        items = self._describe("DescribeSpotInstanceRequests", _by_value("status-code", _INTERRUPTIONS))
        return [Event(item["InstanceId"], _SPOT, "") for item in items if item.get("InstanceId")]

    def subnets(self, subnet_ids: Collection[str]) -> dict[str, Subnet]:
        """Read subnets, by id; those that have IPv6 addresses only are left out."""
        return {
            item["SubnetId"]: Subnet(item["SubnetId"], item["CidrBlock"], item["AvailableIpAddressCount"])
            for item in self._describe("DescribeSubnets", _by_value("subnet-id", subnet_ids))
            if item.get("CidrBlock")
        }

    def reservations(self, subnet_ids: Collection[str]) -> list[Reservation]:
        """Read the blocks of IPv4 addresses that are reserved in subnets."""
        items: list[dict[str, Any]] = []
        for subnet_id in sorted(subnet_ids):  # boto3 does not read the pages of this one
            asked = {"SubnetId": subnet_id, "MaxResults": _PAGE}
            reply = self._call("GetSubnetCidrReservations", **asked)
            items += reply.get("SubnetIpv4CidrReservations", [])
            while reply.get("NextToken"):
                reply = self._call("GetSubnetCidrReservations", **asked, NextToken=reply["NextToken"])
                items += reply.get("SubnetIpv4CidrReservations", [])
        return [read_reservation(item) for item in items]

    def vpc_cidrs(self, vpc_ids: Collection[str]) -> list[str]:
        """Read the IPv4 blocks of VPCs, the first and those added later."""
        return [
            block["CidrBlock"]
            for item in self._describe("DescribeVpcs", _by_value("vpc-id", vpc_ids))
            for block in item.get("CidrBlockAssociationSet", [])
            if block["CidrBlockState"]["State"] == "associated"
        ]

    def security_groups(self, group_ids: Collection[str]) -> dict[str, SecurityGroup]:
        """Read security groups, by id."""
        return {
            item["GroupId"]: SecurityGroup(
                item["GroupId"],
                tuple(map(read_rule, item.get("IpPermissions", []))),
                tuple(map(read_rule, item.get("IpPermissionsEgress", []))),
            )
            for item in self._describe("DescribeSecurityGroups", _by_value("group-id", group_ids))
        }

    def elastic_ip_quota(self) -> int:
        """Read how many Elastic IPs the account may have in the Region; 0 when EC2 does not say."""
        reply = self._call("DescribeAccountAttributes", AttributeNames=["vpc-max-elastic-ips"])
        values = [value["AttributeValue"] for item in reply["AccountAttributes"] for value in item["AttributeValues"]]
        return int(values[0]) if values else 0

    def assign(self, eni_id: str, addresses: Sequence[str], *, move: bool) -> None:
        """Put private addresses on an ENI, in one call.

        Args:
            eni_id: the ENI.
            addresses: of its subnet.
            move: take them from other ENIs, with their Elastic IPs. Without it EC2 refuses all when another ENI has one.
        """
        wanted = {"NetworkInterfaceId": eni_id, "PrivateIpAddresses": list(addresses)}
        self._change("AssignPrivateIpAddresses", **wanted, AllowReassignment=move)

    def unassign(self, eni_id: str, addresses: Sequence[str]) -> None:
        """Take secondary private addresses from an ENI, in one call; their Elastic IPs lead nowhere then."""
        self._change("UnassignPrivateIpAddresses", NetworkInterfaceId=eni_id, PrivateIpAddresses=list(addresses))

    def associate(self, allocation_id: str, eni_id: str, private_ip: str, *, move: bool = True) -> None:
        """Let an Elastic IP lead to a private address of an ENI, wherever it led before; without `move` only from nowhere."""
        wanted = {"AllocationId": allocation_id, "NetworkInterfaceId": eni_id, "PrivateIpAddress": private_ip}
        self._change("AssociateAddress", **wanted, AllowReassociation=move)

    def tag(self, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set the same tags of many resources, in one call."""
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._change("CreateTags", Resources=list(resource_ids), Tags=listed)

    def confirm(self, what: str, visible: Callable[[], bool]) -> None:
        """Wait until EC2 shows a change, which `visible` asks and `what` names.

        Raises:
            AwsOvsError: it did not within the time.
        """
        deadline = time.monotonic() + self._patience
        pause = 0.1
        while not visible():
            if time.monotonic() + pause > deadline:
                text = f"EC2 took {what} but does not show it after {self._patience:.0f} s"
                raise AwsOvsError(text, "run 'oneaws reconcile' later")
            time.sleep(pause)
            pause = min(pause * 2, 5)


def _client(region: str, config: Config) -> Any:
    try:
        return boto3.client("ec2", region_name=region or None, config=config)
    except NoRegionError:
        own = metadata.region()
        if not own:
            raise
        return boto3.client("ec2", region_name=own, config=config)


def _unanswered(action: str, error: BotoCoreError) -> Ec2Error:
    """Make the error for a call that EC2 has not answered, or that was never sent."""
    code = type(error).__name__
    if isinstance(error, NoCredentialsError):
        remedy = "give the front-end an instance profile with share/aws/iam-policy.json"
        return Ec2Error("there are no AWS credentials for this user", remedy, code, True)
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError | ReadTimeoutError):
        return Ec2Error(f"EC2 cannot be reached ({error})", "check the Region and the network", code, True)
    of_account = isinstance(
        error, HTTPClientError | ConnectionError | PartialCredentialsError | CredentialRetrievalError
    )
    return Ec2Error(f"EC2 did not answer {action} ({code}: {error})", "try again", code, of_account)


def _by_value(name: str, values: Collection[str]) -> list[_Filters]:
    """Make filters for things with one of these values, a list for each call that it takes."""
    ordered = sorted(values)
    starts = range(0, len(ordered), _FILTER_VALUES)
    return [[{"Name": name, "Values": ordered[start : start + _FILTER_VALUES]}] for start in starts]
