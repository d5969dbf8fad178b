"""What is unlike the rest in the lab's account: interfaces of services and of other accounts, Elastic IPs of elsewhere.

A mark is what EC2 shows of a resource, with the keys of Amazon's API reference, and what it acts by:

* `OwnerId` of an interface is another account's: the interface is in a subnet that AWS RAM shares. Participants cannot view,
  modify or delete resources of other participants or of the owner (VPC guide, "Share your VPC subnets"), so it is not described,
  and its addresses are in use all the same.
* `RequesterManaged` and `InterfaceType` of an interface: a service such as a NAT gateway has made it.
* `Ipv6Native` of an interface: it is IPv6-only, and has no IPv4 address (EC2 reference, NetworkInterface).
* `OwnerId` of a subnet: the account that shares it. `CidrBlock` of one is null when it is IPv6-only.
* `NetworkBorderGroup` of an Elastic IP: the zones from which AWS advertises it (EC2 reference, Address).
* `ServiceManaged` of an Elastic IP: the service that manages it (the same).
* `CpuOptions` of an instance: `{"NestedVirtualization": "enabled"}` (EC2 reference, CpuOptions); `InstanceLifecycle`: `spot`.
* `Events` and `SpotStatus` of an instance: see `notices`.
* `AddressTransferStatus` of an Elastic IP: `pending` while it is offered to another account (AddressTransfer).
"""

from __future__ import annotations

from typing import Any

MARKS: dict[str, dict[str, Any]] = {}


def marked(resource_id: str, key: str) -> Any:
    """What a mark of a resource says; None if there is none."""
    return MARKS.get(resource_id, {}).get(key)


def shown(resource_id: str, item: dict[str, Any]) -> dict[str, Any]:
    """An item of a Describe call with the marks of its resource; a key that is neither in the item is shown too."""
    return item | MARKS.get(resource_id, {})


def elsewhere(eni_id: str) -> bool:
    """Whether an interface is another account's."""
    return marked(eni_id, "OwnerId") is not None
