"""Look at both worlds, as far as decisions about VMs need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from ...errors import AwsOvsError
from ..ec2 import ElasticIp, Interface, Subnet
from ..objects import AwsVm, Host
from ..world import World
from .decide import Seen, all_lead, eni_of, missing


def look(world: World, host: Host, vms: Sequence[AwsVm]) -> Seen:
    """Read what a decision about VMs on a host needs; little when all is right."""
    eni = world.interfaces.get(host.eni_id)
    moves = any(missing(vm, host, eni) for vm in vms)
    changes = moves or not all(all_lead(vm, world.elastic_ips) for vm in vms)
    return Seen(
        world.interfaces,
        world.eni_of_address,
        world.elastic_ips,
        world.host_of_eni if changes else {},
        world.subnets if moves else {},
        world.limit(host) if moves else 0,
    )


class Nearby(World):
    """Read of EC2 only what concerns one VM: the ENIs that have its addresses or are to have them, and its Elastic IPs.

    Args:
        world: another view, whose connections this one uses. All else is read anew.
        host: where the VM runs.
        vm: the VM.
    """

    def __init__(self, world: World, host: Host, vm: AwsVm) -> None:
        super().__init__(world.settings, world)
        self._host, self._vm = host, vm

    @cached_property
    def _eni(self) -> Interface:
        eni_id = eni_of(self._host)
        own = self.ec2.interfaces_with([eni_id])
        if eni_id not in own:
            raise AwsOvsError(
                f"EC2 does not know {eni_id}, the ENI of host {self._host.name}",
                "is its instance terminated? Run 'oneaws host sync'",
            )
        return own[eni_id]

    @cached_property
    def interfaces(self) -> Mapping[str, Interface]:
        """Read the ENI of the host, and those that have addresses which it lacks."""
        absent = missing(self._vm, self._host, self._eni)
        return {self._eni.eni_id: self._eni} | self.ec2.interfaces_holding(absent, self._eni.vpc_id)

    @cached_property
    def elastic_ips(self) -> Mapping[str, ElasticIp]:
        """Read the Elastic IPs of the VM, by allocation id."""
        return self.ec2.elastic_ips({address.allocation_id for address in self._vm.addresses} - {""})

    @cached_property
    def subnets(self) -> Mapping[str, Subnet]:
        """Read the subnet of the host's ENI."""
        return self.ec2.subnets([self._eni.subnet_id])
