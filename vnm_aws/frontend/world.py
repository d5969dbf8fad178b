"""Both outside worlds as one operation sees them: everything is read when first needed, and once."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from ..config import Config
from ..errors import AwsOvsError
from . import settings as settings_file
from .ec2 import Ec2, ElasticIp, Instance, Interface, Subnet
from .objects import Host, Network, Vm
from .oned import Oned, served_clusters
from .settings import Settings

_PAGE = 500

INSTANCE_ID, TYPE, ENI_ID, VTEP = "EC2_INSTANCE_ID", "EC2_INSTANCE_TYPE", "EC2_ENI_ID", "VXLAN_TEP"
STATE, TERMINATED = "EC2_INSTANCE_STATE", "terminated"
"""Attributes of a host's template."""

POOL = "AWS_EIP_POOL"
"""Attribute of a network that is an Elastic IP pool: the tags of its Elastic IPs."""

ALLOCATION, PUBLIC, PRIVATE = "AWS_ALLOCATION_ID", "EXTERNAL_IP", "AWS_PRIVATE_IP"
"""Attributes of an address range that belongs to an Elastic IP."""


class World:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def oned(self) -> Oned:
        """The connection to oned."""
        return Oned()

    @cached_property
    def ec2(self) -> Ec2:
        """The connection to EC2."""
        return Ec2(self.settings.region, self.settings.ec2_timeout)

    @cached_property
    def driver(self) -> Config:
        """The nodes' configuration."""
        return settings_file.driver()

    @cached_property
    def hosts(self) -> list[Host]:
        """All hosts of OpenNebula."""
        return self.oned.hosts()

    @cached_property
    def networks(self) -> list[Network]:
        """All networks of OpenNebula."""
        return self.oned.networks()

    @cached_property
    def _with_leases(self) -> dict[int, Network]:
        return {}

    def with_leases(self, network_id: int) -> Network:
        """A network, with the leases of its address ranges."""
        if network_id not in self._with_leases:
            self._with_leases[network_id] = self.oned.network(network_id)
        return self._with_leases[network_id]

    @cached_property
    def vms(self) -> list[Vm]:
        """The VMs on hosts that have addresses in AWS.

        A VM has them from a network whose ranges have them, and a lease there. oned gives pages of VMs, of which only those
        are asked for that have such a VM; IDs from the hosts make the pages, so that VMs that come and go shift none.
        """
        leased = {
            vm_id
            for known in self.networks
            if known.ours and known.values_of_ranges(PRIVATE)
            for held in self.with_leases(known.network_id).ranges
            for vm_id in held.leases
        }
        on_hosts = sorted(vm_id for host in self.hosts for vm_id in host.vms)
        pages = [on_hosts[start : start + _PAGE] for start in range(0, len(on_hosts), _PAGE)]
        found = (vm for page in pages if leased & set(page) for vm in self.oned.vms(page[0], page[-1]))
        return [vm for vm in found if vm.addresses]

    @cached_property
    def instances(self) -> dict[str, Instance]:
        """The instances that the host filter matches, by id."""
        found = self.ec2.instances(self.settings.hosts, self.settings.vpc_id)
        return {one.instance_id: one for one in found}

    @cached_property
    def interfaces(self) -> dict[str, Interface]:
        """All ENIs of the VPC, by id."""
        vpcs = {one.vpc_id for one in self.instances.values() if one.vpc_id}
        return self.ec2.interfaces({self.settings.vpc_id} if self.settings.vpc_id else vpcs)

    @cached_property
    def elastic_ips(self) -> dict[str, ElasticIp]:
        """All Elastic IPs of the Region, by allocation id."""
        return self.ec2.elastic_ips()

    @cached_property
    def limits(self) -> dict[str, int]:
        """Addresses that an ENI can have, by the instance types of the hosts."""
        return self.ec2.address_limits({host.template[TYPE] for host in self.hosts if host.template.get(TYPE)})

    @cached_property
    def subnets(self) -> dict[str, Subnet]:
        """The subnets of the hosts' ENIs."""
        return self.ec2.subnets({one.subnet_id for one in self.instances.values() if one.subnet_id and not one.gone})

    @cached_property
    def host_of_eni(self) -> dict[str, Host]:
        """The hosts of live instances by their ENI."""
        return {
            host.template[ENI_ID]: host
            for host in self.hosts
            if host.template.get(ENI_ID) and host.template.get(STATE) != TERMINATED
        }

    @cached_property
    def eni_of_address(self) -> dict[str, Interface]:
        """Which ENI of the VPC has each private address."""
        return {address: eni for eni in self.interfaces.values() for address in eni.addresses}

    @cached_property
    def served(self) -> set[int]:
        """IDs of the clusters that the driver serves."""
        return served_clusters(self.networks)

    def limit(self, host: Host) -> int:
        """How many addresses the ENI of a host can have; 0 when its instance type is not known."""
        return self.limits.get(host.template.get(TYPE, ""), 0)

    def network(self, name: str) -> Network:
        """A network by ID or name.

        Raises:
            AwsOvsError: there is none, or several have the name.
        """
        found = [one for one in self.networks if str(one.network_id) == name] or [
            one for one in self.networks if one.name == name
        ]
        if len(found) != 1:
            count = "several of them" if found else "none"
            raise AwsOvsError(f"network {name}: OpenNebula has {count}", "choose one by its ID from 'onevnet list'")
        return found[0]

    def forget(self, names: Collection[str]) -> None:
        """Read again what has been changed, and what was made of it."""
        for name in names:
            vars(self).pop(name, None)


NETWORKS = ("networks", "_with_leases")
HOSTS = ("hosts", "host_of_eni", "limits")
ADDRESSES = ("interfaces", "eni_of_address", "elastic_ips")
"""What to forget after a change of networks, of hosts, and of addresses in EC2."""
