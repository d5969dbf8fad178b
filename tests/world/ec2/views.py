"""What EC2 shows of its state: plain values named as in Amazon's API reference, and how late changes show.

A view is built from the state of the backend and never changes afterwards, so an old one can be kept and shown.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance

from .marks import elsewhere, marked, shown

Item = dict[str, Any]
_CARD = 1000


class View(NamedTuple):
    """All that the delayed Describe calls show. A reservation holds exactly one instance."""

    interfaces: list[Item]
    addresses: list[Item]
    reservations: list[Item]


def addresses_of(eni: NetworkInterface) -> list[str]:
    """All private addresses of an interface, the primary one first."""
    return [str(item["PrivateIpAddress"]) for item in eni.private_ip_addresses]


def prefixes_of(eni: NetworkInterface) -> list[str]:
    """The IPv4 prefixes of an interface."""
    return list(getattr(eni, "lab_prefixes", []))


def place_of(eni: NetworkInterface) -> tuple[int, int]:
    """The network card and the device index of an attached interface. See `slot`."""
    card, device = divmod(int(eni.device_index or 0), _CARD)
    return card, device


def slot(card: int, device: int) -> int:
    """The number under which moto, which knows no network cards, keeps an interface of an instance."""
    return card * _CARD + device


def private_ip_of(eip: ElasticAddress) -> str | None:
    """The private address that an Elastic IP is associated with."""
    return None if eip.eni is None else str(getattr(eip, "chosen_private_ip", eip.eni.private_ip_address))


def tags_of(backend: EC2Backend, resource_id: str) -> list[Item]:
    """The tags of a resource."""
    # The backend's own look-up goes through the tags of all resources.
    return [{"Key": key, "Value": value} for key, value in backend.tags.get(resource_id, {}).items()]


def _dns(address: str, kind: str) -> str:
    return f"{kind}-{address.replace('.', '-')}.lab.internal"


def _groups(groups: Any) -> list[Item]:
    return [{"GroupId": group.id, "GroupName": group.name} for group in groups]


def _association(eni: NetworkInterface, address: str, elastic: dict[tuple[str, str | None], ElasticAddress]) -> Item:
    eip = elastic.get((eni.id, address))
    if eip is not None:
        public, owner = eip.public_ip, eni.owner_id
        ids = {"AllocationId": eip.allocation_id, "AssociationId": eip.association_id}
    elif eni.public_ip and address == eni.private_ip_address:
        # An address that EC2 lends a running instance belongs to Amazon.
        public, owner, ids = eni.public_ip, "amazon", {}
    else:
        return {}
    return {"Association": {"PublicIp": public, "PublicDnsName": _dns(public, "ec2"), "IpOwnerId": owner, **ids}}


def _interface(
    backend: EC2Backend, eni: NetworkInterface, elastic: dict[tuple[str, str | None], ElasticAddress]
) -> Item:
    private = [
        {
            "PrivateIpAddress": address,
            "PrivateDnsName": _dns(address, "ip"),
            "Primary": address == eni.private_ip_address,
            **_association(eni, address, elastic),
        }
        for address in addresses_of(eni)
    ]
    item: Item = {
        "NetworkInterfaceId": eni.id,
        "SubnetId": eni.subnet.id,
        "VpcId": eni.subnet.vpc_id,
        "AvailabilityZone": eni.subnet.availability_zone,
        "OwnerId": eni.owner_id,
        "RequesterManaged": False,
        "Description": eni.description,
        "InterfaceType": eni.interface_type,
        "MacAddress": eni.mac_address,
        "SourceDestCheck": eni.source_dest_check,
        "Status": "in-use" if eni.instance else "available",
        "Groups": _groups(eni.group_set),
        "PrivateIpAddress": eni.private_ip_address,
        "PrivateDnsName": _dns(eni.private_ip_address, "ip"),
        "PrivateIpAddresses": private,
        "Ipv4Prefixes": [{"Ipv4Prefix": prefix} for prefix in prefixes_of(eni)] or None,
        "Ipv6Addresses": [],
        "TagSet": tags_of(backend, eni.id),
        **_association(eni, eni.private_ip_address, elastic),
    }
    if marked(eni.id, "Ipv6Native"):
        item |= {"PrivateIpAddress": None, "PrivateIpAddresses": [], "Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}]}
    if eni.instance:
        card, device = place_of(eni)
        item["Attachment"] = {
            "AttachmentId": eni.attachment_id,
            "AttachTime": eni.attach_time,
            "DeleteOnTermination": bool(eni.delete_on_termination),
            "DeviceIndex": device,
            "NetworkCardIndex": card,
            "InstanceId": eni.instance.id,
            "InstanceOwnerId": eni.owner_id,
            "Status": "attached",
        }
    return shown(eni.id, item)


def _address(backend: EC2Backend, eip: ElasticAddress) -> Item:
    item: Item = {
        "AllocationId": eip.allocation_id,
        "PublicIp": eip.public_ip,
        "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": backend.region_name,
        "Domain": eip.domain,
        "Tags": tags_of(backend, eip.id),
    }
    if eip.eni is not None:
        item |= {
            "AssociationId": eip.association_id,
            "NetworkInterfaceId": eip.eni.id,
            "NetworkInterfaceOwnerId": eip.eni.owner_id,
            "PrivateIpAddress": private_ip_of(eip),
        }
        if eip.eni.instance:
            item["InstanceId"] = eip.eni.instance.id
    return shown(eip.allocation_id, item)


def _instance(backend: EC2Backend, instance: Instance, interfaces: list[Item]) -> Item:
    """An instance; of one that has ended, EC2 tells its id, type, state and tags, but no network any more."""
    item: Item = {
        "InstanceId": instance.id,
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "State": {"Code": instance.state_code, "Name": instance.state},
        "StateTransitionReason": instance.state_transition_reason or "",
        "LaunchTime": instance.launch_time,
        "AmiLaunchIndex": instance.ami_launch_index,
        "Architecture": instance.architecture,
        "Monitoring": instance.monitoring,
        "Placement": {"AvailabilityZone": instance.placement.zone, "Tenancy": "default", "GroupName": ""},
        "PrivateDnsName": "",
        "PublicDnsName": "",
        "SecurityGroups": [],
        "NetworkInterfaces": interfaces,
        "Tags": tags_of(backend, instance.id),
    }
    primary = next((one for one in interfaces if _place(one) == (0, 0)), None)
    if primary is not None:
        item |= {name: primary[name] for name in ("SubnetId", "VpcId", "PrivateIpAddress", "PrivateDnsName")}
        item |= {"SecurityGroups": primary["Groups"], "SourceDestCheck": primary["SourceDestCheck"]}
        if "Association" in primary:
            item["PublicIpAddress"] = primary["Association"]["PublicIp"]
            item["PublicDnsName"] = primary["Association"]["PublicDnsName"]
    return shown(instance.id, item)


def _place(interface: Item) -> tuple[int, int]:
    return int(interface["Attachment"]["NetworkCardIndex"]), int(interface["Attachment"]["DeviceIndex"])


def build(backend: EC2Backend) -> View:
    """The view of the state as it is. The interfaces of an instance are in no promised order: here the first is last."""
    elastic = {(eip.eni.id, private_ip_of(eip)): eip for eip in backend.addresses if eip.eni is not None}
    interfaces = [_interface(backend, eni, elastic) for eni in backend.enis.values() if not elsewhere(eni.id)]
    attached: dict[str, list[Item]] = {}
    for item in interfaces:
        if "Attachment" in item:
            attached.setdefault(item["Attachment"]["InstanceId"], []).append(item)
    reservations = [
        {
            "ReservationId": reservation.id,
            "OwnerId": backend.account_id,
            "Groups": [],
            "Instances": [
                _instance(
                    backend,
                    instance,
                    sorted(attached.get(instance.id, []), key=_place, reverse=True),
                )
            ],
        }
        for reservation in backend.reservations.values()
        for instance in reservation.instances
    ]
    return View(interfaces, [_address(backend, eip) for eip in backend.addresses], reservations)


class History:
    """The views of late, because EC2 is eventually consistent: the result of a call that changes something may not be
    visible yet to the calls after it, although the change is in force.

    Attributes:
        delay: seconds until a change shows.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self._current: View | None = None
        self._past: list[tuple[float, View]] = []

    def forget(self) -> None:
        """Show the state as it is, without delay."""
        self.delay, self._current, self._past = 0.0, None, []

    def set_delay(self, backend: EC2Backend, seconds: float) -> None:
        """From now on a change shows after `seconds`; all that is there now shows."""
        self.delay = seconds
        self._past = [(0.0, self.present(backend))] if seconds else []

    def present(self, backend: EC2Backend) -> View:
        """The view of the state as it is."""
        if self._current is None:
            self._current = build(backend)
        return self._current

    def changed(self, backend: EC2Backend) -> None:
        """To be called after every change."""
        self._current = None
        if self.delay:
            self._past.append((time.monotonic(), self.present(backend)))
            shown = self._shown()
            del self._past[:shown]

    def _shown(self) -> int:
        limit = time.monotonic() - self.delay
        return max(number for number, (since, _) in enumerate(self._past) if number == 0 or since <= limit)

    def visible(self, backend: EC2Backend) -> View:
        """The view that shows at this moment."""
        return self._past[self._shown()][1] if self._past else self.present(backend)


HISTORY = History()
