"""The lab: EC2, a VPC, metal hosts with the driver installed, and OpenNebula's part, played from recordings."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from .ec2.region import Ec2World, private_ips
from .guests import document
from .guests.document import Document
from .guests.guest import Guest
from .guests.hypervisor import Hypervisor
from .hosts import datapath, dump
from .hosts.executor import CommandError
from .hosts.host import Host
from .recording import FRONTEND, Recording, Step
from .vpc.vpc import Eni, Vpc

ACTIONS = "/var/tmp/one/vnm/aws_ovs"
_FIRST_HOST = 11
_BFD_S = 15


class DriverError(Exception):
    """A driver script failed.

    Attributes:
        step: the recorded call.
        done: exit code, stdout and stderr.
    """

    def __init__(self, step: Step, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{step.action} {' '.join(step.argv)} on {step.runs_on}: exit code {done.returncode}\n"
            f"stdout: {done.stdout.strip()}\nstderr: {done.stderr.strip()}"
        )
        self.step = step
        self.done = done


class Lab:
    """See the module; a context manager, which must be entered and left in the main thread.

    Args:
        hosts: how many; they are h1, h2 … at 10.0.0.11, 10.0.0.12 ….
        delay: seconds between a change in EC2 and its effect in the VPC.
        private_ips: addresses of the VPC that VMs will have; the subnet is theirs, and the hosts keep clear of them.
        kind: of the hosts, by default what the environment variable DATAPATH says, else `userspace`.
        systemd: the names of those that start by systemd.
        elsewhere: the names of those that are in another subnet, 10.0.2.0/24.

    Attributes:
        ec2: the EC2 API.
        vpc: the fabric between the hosts, and the Internet.
        hosts: the hosts by name.
        hypervisor: the guests.
        datapath: the kind of its hosts.

    Raises:
        datapath.UnavailableError: this machine cannot have such hosts.
    """

    ec2: Ec2World
    vpc: Vpc

    def __init__(
        self,
        hosts: int = 3,
        delay: float = 0.0,
        private_ips: Collection[str] = (),
        kind: str = "",
        systemd: Collection[str] = (),
        elsewhere: Collection[str] = (),
    ) -> None:
        self.datapath = datapath.chosen(kind)
        self._systemd, self._elsewhere = systemd, elsewhere
        self._names = [f"h{number}" for number in range(1, hosts + 1)]
        self._prefix = next(iter(sorted(private_ips)), "10.0.0.0").rpartition(".")[0]
        free = [f"{self._prefix}.{number}" for number in range(_FIRST_HOST, 250)]
        self._addresses = [address for address in free if address not in private_ips][:hosts]
        self._delay = delay
        self._stack = ExitStack()
        self.hosts: dict[str, Host] = {}
        self.hypervisor = Hypervisor(self.hosts)
        self._documents: dict[int, Document] = {}
        self._private_ips: set[str] = set()
        self._further: dict[str, list[Eni]] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for vm_id in list(self.hypervisor.guests):
            self.hypervisor.guests.pop(vm_id).close()
        self._stack.close()

    def _start(self) -> None:
        datapath.require(self.datapath, len(self._names))
        vpc = ".".join(self._prefix.split(".")[:2])
        self.ec2 = self._stack.enter_context(Ec2World(f"{vpc}.0.0/16", f"{self._prefix}.0/24"))
        second = self.ec2.add_subnet(f"{vpc}.2.0/24") if self._elsewhere else None
        for name, address in zip(self._names, self._addresses, strict=True):
            if name in self._elsewhere:
                instance = self.ec2.add_instance(name, f"{vpc}.2.{address.rpartition('.')[2]}", subnet=second)
            else:
                instance = self.ec2.add_instance(name, address)
            host = datapath.host(self.datapath, name, instance, name in self._systemd)
            self._stack.callback(host.close)
            self.hosts[name] = host
        self.vpc = self._stack.enter_context(Vpc(self.ec2, self._delay))
        for host in self.hosts.values():
            self.vpc.attach(host.instance, host.pid)
        self.vpc.settle()
        self._everywhere(lambda host: host.boot())
        try:
            self.push_peers()
        except CommandError as refusal:
            if "transit_range" not in str(refusal):  # how hosts in such a VPC refuse to work is for a test to see
                raise

    def _everywhere(self, do: Callable[[Host], object]) -> None:
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(do, self.hosts.values()))

    def push_peers(self) -> None:
        """Tell every host the peer list, as the front-end does.

        Raises:
            CommandError: a host refused.
        """
        texts = {name: self.peer_list(name) for name in self.hosts}
        self._everywhere(
            lambda host: host.run(["sudo", "-n", "/usr/sbin/aws-ovs", "peers"], user="oneadmin", stdin=texts[host.name])
        )

    def peer_list(self, host: str = "") -> str:
        """Which hosts there are, which addresses are whose, and which further ENIs the named host has."""
        instances = {name: host.instance for name, host in self.hosts.items()}
        told = {
            "peers": [{"name": name, "vtep": instance.private_ip} for name, instance in instances.items()],
            "vpc_cidrs": [self.ec2.vpc_cidr],
            "node_addresses": [
                *(instance.public_ip for instance in instances.values() if instance.public_ip),
                *(eni.address for enis in self._further.values() for eni in enis),
            ],
            "private_ips": sorted(self._private_ips),
            "enis": [
                {
                    "mac": eni.mac,
                    "address": eni.address,
                    "subnet": self.ec2.subnet_cidr,
                    "addresses": private_ips(self.ec2.client, eni.eni_id)[1:],
                }
                for eni in self._further.get(host, [])
            ],
        }
        return json.dumps(told)

    def plug_eni(self, host: str, address: str, ifname: str = "ens6") -> Eni:
        """Give a host one more ENI, and let the peers know."""
        subnet, instance = self.ec2.subnet_id, self.hosts[host].instance
        made = self.ec2.client.create_network_interface(SubnetId=subnet, PrivateIpAddress=address)["NetworkInterface"]
        further = self._further.setdefault(host, [])
        attached = self.ec2.client.attach_network_interface(
            NetworkInterfaceId=made["NetworkInterfaceId"],
            InstanceId=instance.instance_id,
            DeviceIndex=len(further) + 1,
        )
        eni = Eni(made["NetworkInterfaceId"], made["MacAddress"], address, attached["AttachmentId"])
        further.append(eni)
        self.vpc.attach_further(eni, self.hosts[host].pid, ifname)
        self.vpc.settle()
        self.push_peers()
        return eni

    def unplug_eni(self, host: str, eni: Eni) -> None:
        """Take an ENI away from a host; the peers do not know that yet."""
        self._further[host].remove(eni)
        self.vpc.detach(eni)
        self.ec2.client.detach_network_interface(AttachmentId=eni.attachment_id)
        self.ec2.client.delete_network_interface(NetworkInterfaceId=eni.eni_id)

    def tunnels(self, host: str) -> dict[str, str]:
        """The states of a host's tunnels by peer, once none is down or BFD has had its time to find them up."""
        deadline = time.monotonic() + _BFD_S
        while True:
            shown = json.loads(self.hosts[host].run(["aws-ovs", "show", "--json"]).stdout)
            states = {peer["name"]: peer["state"] for peer in shown["peers"]}
            if "down" not in states.values() or time.monotonic() > deadline:
                return states
            time.sleep(0.2)

    def guest(self, vm_id: int) -> Guest:
        """The guest of a VM that exists."""
        return self.hypervisor.guests[vm_id]

    def driver(
        self, host: str, action: str, argv: Sequence[str] = (), xml: bytes = b"", *, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Call a driver script as OpenNebula does.

        Args:
            host: where.
            action: which, such as `pre`.
            argv: its arguments.
            xml: the document that it gets, base64-encoded here.
            stdin: what it gets instead, as it is.
        """
        sent = base64.b64encode(xml) if stdin is None else stdin
        return self.hosts[host].run([f"{ACTIONS}/{action}", *argv], user="oneadmin", stdin=sent, check=False)

    def play(self, recording: Recording, *, follow: bool = True) -> None:
        """Carry out the steps of a recording in their order.

        Args:
            recording: the operation.
            follow: afterwards let the addresses that AWS holds for the VM follow it, and wait until the VPC acts so.

        Raises:
            DriverError: a driver script failed; the steps after it were not carried out.
            HypervisorError: libvirt would have failed.
        """
        concerned: set[int] = set()
        for step in recording.steps:
            if step.runs_on is None:
                vm_id = int(step.argv[-2])
                self.hypervisor.step(step.action, step.argv, self._documents.get(vm_id))
                concerned.add(vm_id)
            else:
                concerned |= self._call(step)
        if follow:
            self.follow(*concerned)
            self.vpc.settle()

    def _call(self, step: Step) -> set[int]:
        """Call a driver script; the VM that it is about, if it is about one."""
        assert step.runs_on
        if step.xml is None:
            raise ValueError(f"{step.action} was recorded without its document")
        host = self._names[0] if step.runs_on == FRONTEND else step.runs_on
        if host not in self.hosts:
            raise ValueError(f"the recording names the host {host}; the lab has {', '.join(self._names)}")
        done = self.driver(host, step.action, step.argv, step.xml)
        if done.returncode:
            raise DriverError(step, done)
        if step.runs_on == FRONTEND:
            return set()
        seen = document.parse(step.xml)
        self._documents[seen.vm_id] = seen.without_attaching() if step.action == "clean" else seen
        return {seen.vm_id}

    def follow(self, *vm_ids: int) -> None:
        """What the front-end does for running VMs: their addresses in AWS go to the hosts where they are."""
        guests = {vm_id: self.hypervisor.guests.get(vm_id) for vm_id in vm_ids}
        running = {vm_id: guest.host for vm_id, guest in guests.items() if guest and guest.host}
        self._tell_private_ips({one.private_ip for vm_id in running for one in self._documents[vm_id].elastic})
        for vm_id, host in running.items():
            self._lead(vm_id, host.instance.eni_id)

    def _lead(self, vm_id: int, eni: str) -> None:
        for one in self._documents[vm_id].elastic:
            known = one.public_ip and self._associated(one.public_ip, one.private_ip)
            if one.public_ip and not known:
                self.ec2.give_eip(self.ec2.allocate_eip(one.public_ip), eni, one.private_ip)
            else:
                self.ec2.move_private_ip(one.private_ip, eni)

    def _tell_private_ips(self, addresses: set[str]) -> None:
        """Let all hosts know private addresses of VMs. The front-end has them from the networks, so it is earlier."""
        if not addresses <= self._private_ips:
            self._private_ips |= addresses
            self.push_peers()

    def _associated(self, public_ip: str, private_ip: str) -> bool:
        wanted = [{"Name": "public-ip", "Values": [public_ip]}]
        known = self.ec2.client.describe_addresses(Filters=wanted)["Addresses"]
        return any(address.get("PrivateIpAddress") == private_ip for address in known)

    def dump(self, host: str) -> str:
        """The state of a host as text, to compare."""
        return dump.dump(self.hosts[host])

    def reset(self) -> None:
        """End all VMs and bring EC2, the VPC and the hosts back to where they were at the start."""
        for vm_id in list(self.hypervisor.guests):
            self.hypervisor.guests.pop(vm_id).close()
        self._documents.clear()
        self._private_ips.clear()
        for host, enis in self._further.items():
            for eni in list(enis):
                self.unplug_eni(host, eni)
        self._reset_ec2()
        self.vpc.set_delay(self._delay)
        self.vpc.set_internet_mtu(1500)
        self._everywhere(lambda host: host.reset())
        self.vpc.settle()
        self.push_peers()

    def _reset_ec2(self) -> None:
        own = {host.instance.public_ip for host in self.hosts.values()}
        for address in self.ec2.client.describe_addresses()["Addresses"]:
            if address["PublicIp"] not in own:
                if "AssociationId" in address:
                    self.ec2.client.disassociate_address(AssociationId=address["AssociationId"])
                self.ec2.client.release_address(AllocationId=address["AllocationId"])
        for eni in self.ec2.client.describe_network_interfaces()["NetworkInterfaces"]:
            extra = [one["PrivateIpAddress"] for one in eni["PrivateIpAddresses"] if not one["Primary"]]
            if extra:
                self.ec2.client.unassign_private_ip_addresses(
                    NetworkInterfaceId=eni["NetworkInterfaceId"], PrivateIpAddresses=extra
                )
