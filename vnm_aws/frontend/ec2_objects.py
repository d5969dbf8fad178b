"""What EC2 has, as typed values, and how its answers are read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..addresses import Prefix, int_to_ip, is_ipv4

_GONE = ("terminated", "shutting-down")

_FOR_ADDRESSES = ("aws_ovs:addresses", "yes")
"""The tag by which an administrator gives an ENI of a host to the driver; all others of an instance are somebody's."""


class Instance(NamedTuple):
    """An instance; the ENI is the primary one.

    Attributes:
        ipv6_only: the ENI has no IPv4 address, and never will.
        nested: nested virtualization is enabled, which gives it KVM although it is not metal.
        spot: AWS may take it back within two minutes.
    """

    instance_id: str
    state: str
    instance_type: str
    zone: str
    vpc_id: str
    subnet_id: str
    eni_id: str
    private_ip: str
    private_dns: str
    tags: dict[str, str]
    ipv6_only: bool = False
    nested: bool = False
    spot: bool = False

    @property
    def gone(self) -> bool:
        """Say whether it will never run again."""
        return self.state in _GONE


class InstanceType(NamedTuple):
    """A type of instances.

    Attributes:
        addresses: how many IPv4 addresses an ENI can have, the primary one included.
        metal: it is no virtual machine.
        can_nest: nested virtualization can be enabled.
    """

    addresses: int
    metal: bool
    can_nest: bool


class Event(NamedTuple):
    """What AWS is going to do with an instance, by EC2's code, and when; that is empty when EC2 does not say."""

    instance_id: str
    code: str
    when: str


class Interface(NamedTuple):
    """An ENI with its private addresses, the primary one first.

    Attributes:
        public_ip: leads to the primary one.
        prefixes: blocks of further addresses; each counts as one against the limit of the ENI.
        card, device: where it is on its instance; the primary ENI has 0 and 0, one that is on none has -1.
        description: as whoever made it wrote it.
        managed: a service of AWS has made it for itself.
    """

    eni_id: str
    vpc_id: str
    subnet_id: str
    instance_id: str
    addresses: tuple[str, ...]
    public_ip: str
    groups: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    card: int = -1
    device: int = -1
    description: str = ""
    managed: bool = False
    tags: Mapping[str, str] = {}
    mac: str = ""

    @property
    def primary(self) -> str:
        """Name the address that never moves."""
        return self.addresses[0] if self.addresses else ""

    @property
    def used(self) -> int:
        """Count what EC2 counts against the limit of addresses."""
        return len(self.addresses) + len(self.prefixes)

    @property
    def for_addresses(self) -> bool:
        """Say whether it is tagged as one that may have addresses of VMs although it is not the first, and attached."""
        return self.device >= 0 and _FOR_ADDRESSES in self.tags.items()

    def goes_with(self, first: Interface) -> bool:
        """Say whether it is a further one, for addresses of VMs, of the instance whose first ENI is `first`."""
        if not self.for_addresses or self.eni_id == first.eni_id:
            return False
        return (self.instance_id, self.subnet_id) == (first.instance_id, first.subnet_id)


def enis_of(eni_ids: Sequence[str], interfaces: Mapping[str, Interface]) -> list[Interface]:
    """Choose from ENIs those of a host that may have addresses of its VMs, whose IDs its template has; none without the first."""
    first = interfaces.get(eni_ids[0]) if eni_ids else None
    if first is None:
        return []
    further = (interfaces[eni_id] for eni_id in eni_ids if eni_id in interfaces)
    return [first, *(eni for eni in further if eni.goes_with(first))]


class ElasticIp(NamedTuple):
    """An Elastic IP and what it is associated with; empty texts: with nothing.

    Attributes:
        border_group: the zones that it can be used in: a Region's, or those of a Local Zone.
        service: the service of AWS that manages it, such as nlb; empty when that is nobody but its owner.
    """

    allocation_id: str
    public_ip: str
    private_ip: str
    eni_id: str
    tags: dict[str, str]
    border_group: str = ""
    service: str = ""


class Subnet(NamedTuple):
    """A subnet; `available` addresses are free by EC2's count."""

    subnet_id: str
    cidr: str
    available: int

    def candidates(self, within: Collection[str] = (), without: Iterable[str] = ()) -> Iterator[str]:
        """List the addresses that an ENI may have, the last first: EC2 itself hands out the lower ones.

        The first four and the last of a subnet are AWS' own.

        Args:
            within: blocks that they must be in; none: the whole subnet.
            without: blocks that they must not be in.
        """
        network = self._numbers(self.cidr)
        taken = [self._numbers(block) for block in without]
        blocks = sorted((self._numbers(block) for block in within), key=lambda block: block.start) or [network]
        for block in reversed(blocks):
            for number in reversed(range(max(block.start, network.start + 4), min(block.stop, network.stop - 1))):
                if not any(number in other for other in taken):
                    yield int_to_ip(number)

    def _numbers(self, cidr: str) -> range:
        prefix = Prefix(cidr, f"subnet {self.subnet_id}")
        return range(prefix.first, prefix.first + prefix.size)

    def has(self, address: str) -> bool:
        """Say whether an address is in its prefix; a text that is none is not."""
        return is_ipv4(address) and address in Prefix(self.cidr, f"subnet {self.subnet_id}")


class Reservation(NamedTuple):
    """A block of a subnet from which EC2 takes no address by itself. One that is not `explicit` is for prefixes of ENIs."""

    reservation_id: str
    subnet_id: str
    cidr: str
    explicit: bool


class Rule(NamedTuple):
    """A rule of a security group: whom it names, by prefixes (of IPv6 too), groups, or prefix lists that are not read."""

    protocol: str
    first: int
    last: int
    cidrs: tuple[str, ...]
    groups: tuple[str, ...]
    prefix_lists: bool

    def covers(self, protocol: str, port: int) -> bool:
        """Say whether it is about a port; one about all protocols is."""
        return self.protocol == "-1" or (self.protocol == protocol and self.first <= port <= self.last)


class SecurityGroup(NamedTuple):
    """A security group; `ingress` says who is let in, `egress` where packets may go."""

    group_id: str
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


def _tags(item: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}


def read_instance(item: dict[str, Any]) -> Instance:
    """Read an item of DescribeInstances."""
    # A device index is unique on a network card only, and the list has no promised order.
    primary: dict[str, Any] = next((eni for eni in item.get("NetworkInterfaces", []) if _place(eni) == (0, 0)), {})
    return Instance(
        item["InstanceId"],
        item["State"]["Name"],
        item["InstanceType"],
        item.get("Placement", {}).get("AvailabilityZone", ""),
        item.get("VpcId", ""),
        primary.get("SubnetId", ""),
        primary.get("NetworkInterfaceId", ""),
        primary.get("PrivateIpAddress", ""),
        item.get("PrivateDnsName", ""),
        _tags(item),
        bool(primary.get("Ipv6Addresses")) and not primary.get("PrivateIpAddress"),
        item.get("CpuOptions", {}).get("NestedVirtualization") == "enabled",
        item.get("InstanceLifecycle") == "spot",
    )


def _place(eni: dict[str, Any]) -> tuple[int, int]:
    attachment = eni.get("Attachment", {})
    device = int(attachment.get("DeviceIndex", -1))
    return int(attachment.get("NetworkCardIndex", 0 if device >= 0 else -1)), device


def read_instance_type(item: dict[str, Any]) -> InstanceType:
    """Read an item of DescribeInstanceTypes."""
    return InstanceType(
        int(item["NetworkInfo"]["Ipv4AddressesPerInterface"]),
        bool(item.get("BareMetal")),
        "nested-virtualization" in item.get("ProcessorInfo", {}).get("SupportedFeatures", []),
    )


def read_events(item: dict[str, Any]) -> list[Event]:
    """Read an item of DescribeInstanceStatus; the description of an event that is over begins with "[Completed]" or the like."""
    return [
        Event(
            item["InstanceId"],
            event["Code"],
            f"{event['NotBefore']:%Y-%m-%d %H:%M UTC}" if "NotBefore" in event else "",
        )
        for event in item.get("Events", [])
        if not event.get("Description", "").startswith("[")
    ]


def read_interface(item: dict[str, Any]) -> Interface:
    """Read an item of DescribeNetworkInterfaces."""
    listed = sorted(item.get("PrivateIpAddresses", []), key=lambda address: not address.get("Primary"))
    return Interface(
        item["NetworkInterfaceId"],
        item.get("VpcId", ""),
        item.get("SubnetId", ""),
        item.get("Attachment", {}).get("InstanceId", ""),
        tuple(address["PrivateIpAddress"] for address in listed),
        listed[0].get("Association", {}).get("PublicIp", "") if listed else "",
        tuple(sorted(group["GroupId"] for group in item.get("Groups", []))),
        tuple(prefix["Ipv4Prefix"] for prefix in item.get("Ipv4Prefixes", [])),
        *_place(item),
        item.get("Description") or "",
        bool(item.get("RequesterManaged") or item.get("Operator", {}).get("Managed")),
        tags={tag["Key"]: tag["Value"] for tag in item.get("TagSet", [])},
        mac=item.get("MacAddress", "").lower(),
    )


def read_rule(item: dict[str, Any]) -> Rule:
    """Read an item of IpPermissions or IpPermissionsEgress."""
    protocol = str(item["IpProtocol"])
    prefixes = [entry["CidrIp"] for entry in item.get("IpRanges", [])]
    prefixes += [entry["CidrIpv6"] for entry in item.get("Ipv6Ranges", [])]
    return Rule(
        "udp" if protocol == "17" else protocol,
        int(item.get("FromPort", 0)),
        int(item.get("ToPort", 65535)),
        tuple(prefixes),
        tuple(pair["GroupId"] for pair in item.get("UserIdGroupPairs", []) if "GroupId" in pair),
        bool(item.get("PrefixListIds")),
    )


def read_elastic_ip(item: dict[str, Any]) -> ElasticIp:
    """Read an item of DescribeAddresses."""
    return ElasticIp(
        item.get("AllocationId", ""),
        item["PublicIp"],
        item.get("PrivateIpAddress") or "",
        item.get("NetworkInterfaceId") or "",
        _tags(item),
        item.get("NetworkBorderGroup") or "",
        item.get("ServiceManaged") or "",
    )


def read_reservation(item: dict[str, Any]) -> Reservation:
    """Read an item of GetSubnetCidrReservations."""
    explicit = item["ReservationType"] == "explicit"
    return Reservation(item["SubnetCidrReservationId"], item["SubnetId"], item["Cidr"], explicit)
