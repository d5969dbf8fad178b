"""Show both outside worlds to an operation: everything is read when it is first needed, and once.

Whoever changes a world does it here, or says with `forget` what has to be read again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import cached_property

from ..config import Config
from ..errors import AwsOvsError
from ..names import INSTANCE_TYPE
from . import metadata
from . import settings as settings_file
from .deadline import Deadline
from .ec2 import Ec2
from .ec2_objects import ElasticIp, Instance, InstanceType, Interface, Reservation, Subnet, enis_of
from .objects import AddressRange, AwsVm, Host, Network
from .oned import NotFoundError, Oned, UnreadableError
from .settings import Settings
from .tags import of_other_cloud
from .taken import Taken
from .user import become_owner

_PAGE = 500


class Part(Enum):
    """A part of the worlds that can change: the attributes of `World` that are read, or made of what is read."""

    HOSTS = ("hosts", "host_of_eni", "limits", "stands_for")
    NETWORKS = ("networks", "given", "_with_leases")
    VMS = ("vms", "unread")
    ADDRESSES = ("interfaces", "tagged", "eni_of_address", "elastic_ips")


Given = tuple[int, str, str]
"""A network's ID, and AWS_PRIVATE_IP and what names the Elastic IP (see `Address.elastic_ip`) that a NIC may have by it."""


def given(networks: Iterable[Network]) -> set[Given]:
    """Find what networks of the driver give to NICs; one that names no Elastic IP has none moved."""
    return {
        (network.network_id, private_ip, each)
        for network in networks
        if network.ours
        for private_ip, elastic_ip in network.gives()
        for each in ("", *elastic_ip)
    }


class World:
    """Read both worlds, and change addresses in EC2, as the owner of the state directory.

    Args:
        settings: of the front-end.
        connected: another view, whose connections this one uses.

    Attributes:
        deadline: of the run, which begins with the first view.

    Raises:
        AwsOvsError: root has started this, and there is no such owner.
    """

    def __init__(self, settings: Settings, connected: World | None = None) -> None:
        self.settings = settings
        self._connected = connected
        self._types: dict[str, InstanceType] = connected._types if connected else {}
        self._asked: set[str] = connected._asked if connected else set()
        self.deadline: Deadline = connected.deadline if connected else Deadline(settings.run_timeout)
        become_owner(settings.state_directory)

    @cached_property
    def oned(self) -> Oned:
        """Connect to oned."""
        if self._connected:
            return self._connected.oned
        return Oned(self.settings.oned_timeout, self.deadline)

    @cached_property
    def ec2(self) -> Ec2:
        """Connect to EC2."""
        if self._connected:
            return self._connected.ec2
        return Ec2(self.settings.region, self.settings.ec2_timeout, self.deadline)

    @cached_property
    def driver(self) -> Config:
        """Read the nodes' configuration."""
        return settings_file.driver()

    @cached_property
    def hosts(self) -> list[Host]:
        """Read all hosts of OpenNebula."""
        return self.oned.hosts()

    @cached_property
    def networks(self) -> list[Network]:
        """Read all networks of OpenNebula."""
        return self.oned.networks()

    @cached_property
    def given(self) -> Collection[Given]:
        """Find what networks of the driver give to NICs, in AWS."""
        return given(self.networks)

    @cached_property
    def _with_leases(self) -> dict[int, Network]:
        return {}

    def with_leases(self, network_id: int) -> Network:
        """Read a network, with the leases of its address ranges."""
        if network_id not in self._with_leases:
            self._with_leases[network_id] = self.oned.network(network_id)
        return self._with_leases[network_id]

    def ranges(self, network: Network) -> Sequence[AddressRange]:
        """Read the address ranges of a network with their leases; a network that is gone meanwhile has none."""
        try:
            return self.with_leases(network.network_id).ranges
        except NotFoundError:
            return ()

    @property
    def in_aws(self) -> list[Network]:
        """List the networks of the driver that give addresses in AWS."""
        return [network for network in self.networks if network.ours and network.gives()]

    @cached_property
    def vms(self) -> list[AwsVm]:
        """Read the VMs that have addresses in AWS, or have been told of such and have none any more.

        A VM has them from a network whose ranges have them, and a lease there. oned gives pages of VMs, of which only those
        are asked for that have such a VM or one of a host that the driver serves; IDs from the hosts make the pages, so that
        VMs that come and go shift none.
        """
        networks = self.in_aws
        leased = {vm_id for network in networks for item in self.ranges(network) for vm_id in item.leases}
        served = {vm_id for host in self.hosts if host.cluster_id in self.served for vm_id in host.vms if networks}
        on_hosts = sorted(vm_id for host in self.hosts for vm_id in host.vms)
        pages = [on_hosts[start : start + _PAGE] for start in range(0, len(on_hosts), _PAGE)]
        self.unread: dict[int, AwsOvsError] = {}
        vms = (vm for page in pages if (leased | served) & set(page) for vm in self._page(page, leased))
        return [vm for vm in vms if vm.addresses or vm.told]

    def _page(self, page: Sequence[int], leased: Collection[int]) -> Iterable[AwsVm]:
        """Read VMs; when one of them keeps the page from being read, those with a lease one by one."""
        try:
            return list(self.oned.vms(page[0], page[-1]))
        except UnreadableError:
            return [vm for vm_id in page if vm_id in leased for vm in self._alone(vm_id)]

    def _alone(self, vm_id: int) -> Iterable[AwsVm]:
        """Read a VM; nothing when it is gone, or cannot be read, which is noted in `unread`."""
        try:
            return [self.oned.vm(vm_id)]
        except NotFoundError:
            return []
        except UnreadableError:
            what = "has a character in its attributes that XML does not know, so oned's answer cannot be read"
            remedy = f"find it with 'onevm show {vm_id} --xml', and correct it with 'onevm update {vm_id}'"
            self.unread[vm_id] = AwsOvsError(what, remedy)
            return []

    @cached_property
    def instances(self) -> dict[str, Instance]:
        """Read the instances that the host filter matches, by id."""
        return {key: value for key, value in self._tagged.items() if self.vpc_id in ("", value.vpc_id)}

    @cached_property
    def _tagged(self) -> dict[str, Instance]:
        """Read the instances with the tags, whatever their VPC, but for those of another OpenNebula."""
        instances = self.ec2.instances(self.settings.hosts, self.settings.vpc_id)
        ours = (instance for instance in instances if not of_other_cloud(instance.tags, self.settings.cloud))
        return {instance.instance_id: instance for instance in ours}

    @cached_property
    def vpc_id(self) -> str:
        """Name the VPC of the hosts.

        It is set, or the only one that has instances with the tags, or that of the front-end; empty when it can be none of these.
        """
        if self.settings.vpc_id:
            return self.settings.vpc_id
        vpc_ids = {instance.vpc_id for instance in self._tagged.values() if instance.vpc_id}
        own = metadata.vpc_id() if len(vpc_ids) > 1 else ""
        return own if own in vpc_ids else ""

    @cached_property
    def _vpc_ids(self) -> set[str]:
        if self.vpc_id:
            return {self.vpc_id}
        return {instance.vpc_id for instance in self.instances.values() if instance.vpc_id}

    @cached_property
    def vpc_cidrs(self) -> Sequence[str]:
        """Read the CIDR blocks of the VPC."""
        return self.ec2.vpc_cidrs(self._vpc_ids)

    @cached_property
    def interfaces(self) -> Mapping[str, Interface]:
        """Read all ENIs of the VPC, by id."""
        return self.ec2.interfaces(self._vpc_ids)

    @cached_property
    def elastic_ips(self) -> Mapping[str, ElasticIp]:
        """Read all Elastic IPs of the Region, by allocation id."""
        return self.ec2.elastic_ips()

    @cached_property
    def limits(self) -> dict[str, int]:
        """Read how many addresses an ENI can have, by the instance types of the hosts."""
        wanted = {host.template.get(INSTANCE_TYPE, "") for host in self.hosts if not host.terminated}
        return {name: kind.addresses for name, kind in self.types(wanted - {""}).items()}

    def types(self, wanted: Collection[str]) -> Mapping[str, InstanceType]:
        """Read types of instances, each once; one that the Region does not know is left out."""
        unread = {*wanted} - self._asked
        if unread:
            self._types.update(self.ec2.instance_types(unread))
            self._asked.update(unread)
        return self._types

    def kind(self, instance: Instance) -> InstanceType | None:
        """Find the type of an instance, reading those of all live ones at once; None for one that the Region does not know."""
        if instance.instance_type not in self._asked:
            self.types(
                {instance.instance_type, *(one.instance_type for one in self.instances.values() if not one.gone)}
            )
        return self._types.get(instance.instance_type)

    @cached_property
    def subnets(self) -> Mapping[str, Subnet]:
        """Read the subnets of the hosts' ENIs."""
        live = (instance for instance in self.instances.values() if not instance.gone)
        return self.ec2.subnets({instance.subnet_id for instance in live if instance.subnet_id})

    @cached_property
    def reservations(self) -> Sequence[Reservation]:
        """Read the blocks of addresses that are reserved in the subnets of the hosts' ENIs."""
        return self.ec2.reservations(self.subnets)

    @cached_property
    def transferred(self) -> Collection[str]:
        """Read the allocation ids of the Elastic IPs that are offered to another account."""
        return self.ec2.transferred()

    @cached_property
    def host_of_eni(self) -> dict[str, Host]:
        """Find the hosts of live instances by their ENIs."""
        return {eni_id: host for host in self.hosts if not host.terminated for eni_id in host.eni_ids}

    @cached_property
    def tagged(self) -> list[Interface]:
        """List the ENIs that are tagged for addresses of VMs, in the order of their places at their instances."""
        enis = (eni for eni in self.interfaces.values() if eni.for_addresses)
        return sorted(enis, key=lambda eni: (eni.card, eni.device, eni.eni_id))

    def enis(self, host: Host) -> list[Interface]:
        """List the ENIs of a host that may have addresses of its VMs, the first one first; none when EC2 does not show that."""
        return enis_of(host.eni_ids, self.interfaces)

    @cached_property
    def stands_for(self) -> dict[str, str]:
        """Find the private addresses for which others stand on hosts, by the latter."""
        return {address: private_ip for host in self.hosts for private_ip, address in host.stand_ins.items()}

    @cached_property
    def eni_of_address(self) -> dict[str, Interface]:
        """Find the ENI of the VPC that has each private address."""
        return {address: eni for eni in self.interfaces.values() for address in eni.addresses}

    @cached_property
    def served(self) -> set[int]:
        """Find the IDs of the clusters that the driver serves: they have a network of it."""
        return {cluster for network in self.networks if network.ours for cluster in network.clusters}

    def limit(self, host: Host) -> int:
        """Say how many addresses each ENI of a host can have; 0 when its instance type is not known."""
        return self.limits.get(host.template.get(INSTANCE_TYPE, ""), 0)

    def room(self) -> dict[str, int]:
        """Count how many more addresses each ENI of a host, in a subnet that EC2 shows, can have."""
        live = (host for host in self.hosts if not host.terminated)
        enis = ((host, eni) for host in live for eni in self.enis(host) if eni.subnet_id in self.subnets)
        return {eni.eni_id: self.limit(host) - eni.used for host, eni in enis}

    def network(self, name: str) -> Network:
        """Find a network by ID or name.

        Raises:
            AwsOvsError: there is none, or several have the name.
        """
        matches = [network for network in self.networks if str(network.network_id) == name] or [
            network for network in self.networks if network.name == name
        ]
        if len(matches) != 1:
            count = "several of them" if matches else "none"
            raise AwsOvsError(f"network {name}: OpenNebula has {count}", "choose one by its ID from 'onevnet list'")
        return matches[0]

    @property
    def taken(self) -> Taken:
        """Find the record of the private addresses that this front-end has put onto ENIs."""
        return Taken(self.settings.state_directory, self.settings.lock_timeout)

    def forget(self, *parts: Part) -> None:
        """Let parts be read again when they are needed next."""
        for part in parts:
            for name in part.value:
                vars(self).pop(name, None)

    def assign(self, eni: Interface, addresses: Sequence[str]) -> None:
        """Put private addresses on an ENI and wait until EC2 shows them there.

        Those that a host has, as far as EC2 shows it, are taken from wherever they are. The others must be free: EC2 knows of
        ENIs that it does not show.

        Raises:
            AwsOvsError: EC2 refuses, or does not show them in time.
        """
        holders = {item: self.eni_of_address[item].eni_id for item in addresses if item in self.eni_of_address}
        moved = [address for address in addresses if holders.get(address) in self.host_of_eni]
        fresh = [address for address in addresses if address not in moved]
        for part in (fresh, moved):
            if part:
                self.ec2.assign(eni.eni_id, part, move=part is moved)
        new = [address for address in fresh if address not in self.eni_of_address]
        self.taken.note(eni.eni_id, new, addresses)
        sources = {other.eni_id for other in self.interfaces.values() if {*addresses} & {*other.addresses}}
        # Keep it in mind, so that the next choice counts them.
        self._take_away({eni.eni_id, *sources}, addresses)
        present = self.interfaces.get(eni.eni_id, eni)
        present = present._replace(addresses=(*present.addresses, *addresses))
        self.interfaces = {**self.interfaces, eni.eni_id: present}

        def shown() -> bool:
            enis = self.ec2.interfaces_with({eni.eni_id, *sources})
            there = {item for key, other in enis.items() for item in other.addresses if key == eni.eni_id}
            elsewhere = {item for key, other in enis.items() for item in other.addresses if key != eni.eni_id}
            return {*addresses} <= there - elsewhere

        self.ec2.confirm(f"{', '.join(addresses)} on {eni.eni_id}", shown)

    def unassign(self, eni: Interface, addresses: Sequence[str]) -> None:
        """Take private addresses from an ENI, in one call, and wait until EC2 shows neither them there nor Elastic IPs at them.

        Raises:
            AwsOvsError: EC2 refuses, for one is not there any more; or does not show it in time.
        """
        self.ec2.unassign(eni.eni_id, addresses)
        self.taken.forget(addresses)
        self._take_away([eni.eni_id], addresses)
        self.elastic_ips = {
            key: eip._replace(eni_id="", private_ip="")
            if eip.eni_id == eni.eni_id and eip.private_ip in addresses
            else eip
            for key, eip in self.elastic_ips.items()
        }

        def shown() -> bool:
            enis = self.ec2.interfaces_with([eni.eni_id]).values()
            eips = self.ec2.elastic_ips_at(addresses).values()
            there = {item for other in enis for item in other.addresses}
            return not there & {*addresses} and all(eip.eni_id != eni.eni_id for eip in eips)

        self.ec2.confirm(f"{', '.join(addresses)} from {eni.eni_id}", shown)

    def _take_away(self, eni_ids: Iterable[str], addresses: Sequence[str]) -> None:
        """Keep in mind that ENIs have not these addresses any more."""
        left = dict(self.interfaces)
        for eni in (left[eni_id] for eni_id in eni_ids if eni_id in left):
            left[eni.eni_id] = eni._replace(addresses=tuple(item for item in eni.addresses if item not in addresses))
        self.interfaces = left
        vars(self).pop("eni_of_address", None)

    def associate(self, eip: ElasticIp, eni_id: str, private_ip: str) -> None:
        """Let an Elastic IP lead to a private address, and wait until EC2 shows it.

        Raises:
            AwsOvsError: another Elastic IP leads there, which would lose it; or EC2 refuses, or does not show it in time.
        """
        here = {eni_id, *self.interfaces}  # another VPC may have the same private address
        for other in self.ec2.elastic_ips_at([private_ip]).values():
            if other.eni_id in here and other.allocation_id != eip.allocation_id:
                what = f"{private_ip} has the Elastic IP {other.public_ip} already, so {eip.public_ip} cannot have it"
                raise AwsOvsError(what, "disassociate one")
        self.ec2.associate(eip.allocation_id, eni_id, private_ip)
        self.elastic_ips = {**self.elastic_ips, eip.allocation_id: eip._replace(eni_id=eni_id, private_ip=private_ip)}
        self.ec2.confirm(
            f"{eip.public_ip} at {private_ip}",
            lambda: any(shown.private_ip == private_ip for shown in self.ec2.elastic_ips([eip.allocation_id]).values()),
        )
