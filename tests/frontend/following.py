"""What the tests of following share: a cloud of metal hosts with a pool, and a few words for what they do and look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from lxml import etree

from tests.world.ec2.region import Instance
from vnm_aws.frontend import reconcile
from vnm_aws.frontend.follow import loop
from vnm_aws.frontend.objects import Address, AwsVm
from vnm_aws.frontend.plan import Outcome
from vnm_aws.names import EIP_STATUS

from .cloud import RECORDINGS, Cloud

ASSIGN, ASSOCIATE = "AssignPrivateIpAddresses", "AssociateAddress"


class Site(NamedTuple):
    """A cloud whose hosts and pool are settled."""

    cloud: Cloud
    hosts: dict[str, Instance]
    pool: int

    def reconcile(self) -> Outcome:
        """What `oneaws reconcile` does, in this process."""
        world, outcome = self.cloud.world(), Outcome()
        reconcile.carry_out(world, reconcile.everything(world), outcome)
        return outcome

    def settled(self) -> None:
        """A reconcile must find nothing to do, and nothing wrong.

        Tests make networks, some with the addresses of others, without their hook: so networks may say that, and hosts are told.
        They also lease addresses without a hook, which leaves less room.
        """
        self.cloud.forget_calls()
        outcome = self.reconcile()
        behind = ("set AWS_OVS_ERROR", "empty AWS_OVS_ERROR", "send the list", "set EC2_FREE_ADDRESSES")
        done = [change for change in outcome.done if not change[1].startswith(behind)]
        assert (done, outcome.problems) == ([], [])
        assert {*self.cloud.mutating_calls()} <= {"one.vn.update", "one.host.update"}

    def follow(self, vm_id: int) -> AwsVm | None:
        """What a hook does for a VM, in this process."""
        return loop.follow(self.cloud.world(), vm_id)

    def hook(self, vm_id: int) -> tuple[int, str]:
        """Run the hook of a VM; its exit code and what it said."""
        done = self.cloud.hook("vm_running", self.cloud.oned.document("VM", vm_id))
        assert done.stdout == ""
        return done.returncode, done.stderr

    def run(self, host: str, *ar_ids: int, pool: int | None = None) -> int:
        """Run a VM with a NIC for each of these ranges of the pool."""
        return self.cloud.run_vm(self.pool if pool is None else pool, ar_ids, host)

    def move(self, vm_id: int, host: str) -> None:
        """Migrate a VM."""
        self.cloud.oned.move_vm(vm_id, self.cloud.host(host).host_id)

    def waiting(self) -> list[str]:
        """What the check says of VMs whose addresses are not with them."""
        lines = json.loads(self.cloud.oneaws("check", "--json", code=None).stdout)
        texts = [line["DETAIL"] for line in lines if (line["CHECK"], line["STATUS"]) == ("addresses", "pending")]
        return [text for text in texts if text.startswith("VM ")]

    def status(self, vm_id: int) -> str:
        """The AWS_EIP_STATUS of a VM."""
        return self.cloud.vm(vm_id).user_template.get(EIP_STATUS, "")

    def error(self, vm_id: int) -> str:
        """The ERROR of a VM."""
        return self.cloud.vm(vm_id).user_template.get("ERROR", "")

    def at(self, host: str) -> set[str]:
        """The secondary private addresses of a host, as they really are."""
        return self.cloud.addresses(self.hosts[host])

    def free(self) -> dict[str, str]:
        """EC2_FREE_ADDRESSES of the hosts."""
        return {name: self.cloud.host(name).template["EC2_FREE_ADDRESSES"] for name in self.hosts}

    def address(self, ar_id: int, pool: int | None = None) -> Address:
        """What a range of the pool gives a VM."""
        vnet_id = self.pool if pool is None else pool
        values = next(one for one in self.cloud.network(vnet_id).ranges if one.ar_id == ar_id).attributes
        return Address(values["AWS_PRIVATE_IP"], values["EXTERNAL_IP"], values["AWS_ALLOCATION_ID"], vnet_id)

    def elsewhere(self, address: Address) -> str:
        """A host that does not have an address."""
        return next(name for name in self.hosts if address.private_ip not in self.at(name))

    def is_right(self, vm_id: int, host: str) -> None:
        """A VM's addresses, and their Elastic IPs, must really be at a host, and the VM must say so."""
        addresses = self.cloud.vm(vm_id).addresses
        assert {one.private_ip for one in addresses} <= self.at(host)
        for one in addresses:
            if one.external_ip:
                assert self.cloud.leads_to(one.external_ip) == (self.hosts[host].eni_id, one.private_ip)
        shown = " ".join(sorted({one.external_ip or one.private_ip for one in addresses}))
        assert (self.status(vm_id), self.error(vm_id)) == (f"OK: {shown} on {host}", "")

    def twin(self, *addresses: Address, size: int = 1, name: str = "twin") -> int:
        """Create a network whose ranges give the same addresses once more."""
        text = "\n".join(
            f'AR=[TYPE="IP4", IP="192.168.1.{10 + 10 * number}", SIZE="{size}", AWS_PRIVATE_IP="{one.private_ip}", '
            f'EXTERNAL_IP="{one.external_ip}", AWS_ALLOCATION_ID="{one.allocation_id}"]'
            for number, one in enumerate(addresses)
        )
        return self.cloud.add_network(name, AR=text)

    def run_with(self, host: str, private_ip: str) -> int:
        """Run a VM with one NIC of a network whose only range gives this private address."""
        text = f'AR=[TYPE="IP4", IP="192.168.3.10", SIZE="1", AWS_PRIVATE_IP="{private_ip}"]'
        return self.run(host, 0, pool=self.cloud.add_network("by-hand", AR=text))

    def attach_recorded_alias(self, vm_id: int, address: Address) -> None:
        """Attach an alias like the recorded one with EXTERNAL=YES, but with an address of this cloud."""
        document = (RECORDINGS / "attach-alias-external" / "02-post.xml").read_bytes()
        alias = etree.fromstring(document).find(".//TEMPLATE/NIC_ALIAS[EXTERNAL='YES']")
        assert alias is not None
        for tag, text in (
            ("AWS_PRIVATE_IP", address.private_ip),
            ("EXTERNAL_IP", address.external_ip),
            ("AWS_ALLOCATION_ID", address.allocation_id),
            ("NETWORK_ID", str(address.network_id)),
        ):
            found = alias.find(tag)
            assert found is not None
            found.text = text

        def edit(root: etree._Element) -> None:
            template = root.find("TEMPLATE")
            assert template is not None
            template.append(alias)

        self.cloud.oned.edit_vm(vm_id, edit)


def settle(cloud: Cloud, eips: int = 2, hosts: Sequence[str] = ("h1", "h2"), instance_type: str = "c5n.metal") -> Site:
    """Make hosts and a pool, and let the reconciler settle them."""
    cloud.ec2.set_elastic_ips(max(5, eips))
    made = cloud.add_metal(*hosts, instance_type=instance_type)
    cloud.add_eips(eips)
    site = Site(cloud, dict(zip(hosts, made, strict=True)), cloud.add_pool())
    outcome = site.reconcile()
    assert outcome.problems == []
    cloud.forget_calls()
    return site
