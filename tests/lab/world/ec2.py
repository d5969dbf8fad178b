"""The lab's AWS account: a corrected moto server on loopback, and the few calls that set a world up in it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

REGION = "eu-west-1"


class Instance(NamedTuple):
    """A metal instance with one ENI."""

    name: str
    instance_id: str
    eni_id: str
    mac: str
    private_ip: str
    public_ip: str


def client(endpoint: str) -> Any:
    """A boto3 EC2 client of the server at `endpoint`."""
    return boto3.client(
        "ec2",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="lab",
        aws_secret_access_key="lab",
        config=Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=30),
    )


class Ec2World:
    """An EC2 of its own.

    Args:
        vpc_cidr: of the one VPC.
        subnet_cidr: of its one subnet; the router has the first address.
    """

    def __init__(self, vpc_cidr: str = "10.0.0.0/16", subnet_cidr: str = "10.0.0.0/24") -> None:
        self.vpc_cidr, self.subnet_cidr, self.region = vpc_cidr, subnet_cidr, REGION
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self._server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.lab.world.moto_server", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = client(self.endpoint)
        self._wait()
        self._vpc = self.client.create_vpc(CidrBlock=vpc_cidr)["Vpc"]["VpcId"]
        self._subnet = self.client.create_subnet(VpcId=self._vpc, CidrBlock=subnet_cidr)["Subnet"]["SubnetId"]
        self._publics = 0

    def __enter__(self) -> Ec2World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server."""
        self._server.kill()
        self._server.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client.describe_vpcs()
                return
            except (BotoCoreError, ClientError):
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the EC2 server at {self.endpoint} does not start") from None
                time.sleep(0.1)

    def add_instance(self, name: str, private_ip: str, instance_type: str = "c5n.metal") -> Instance:
        """Run an instance with `private_ip` as its primary address, and give that a public address."""
        image = self.client.describe_images(MaxResults=5)["Images"][0]["ImageId"]
        eni = self.client.create_network_interface(SubnetId=self._subnet, PrivateIpAddress=private_ip)[
            "NetworkInterface"
        ]
        run = self.client.run_instances(
            ImageId=image,
            InstanceType=instance_type,
            MinCount=1,
            MaxCount=1,
            NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": eni["NetworkInterfaceId"]}],
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
        )
        self._publics += 1
        public_ip = f"198.51.100.{self._publics}"
        allocation = self.allocate_eip(public_ip)
        self.client.associate_address(
            AllocationId=allocation, NetworkInterfaceId=eni["NetworkInterfaceId"], PrivateIpAddress=private_ip
        )
        instance_id = run["Instances"][0]["InstanceId"]
        return Instance(name, instance_id, eni["NetworkInterfaceId"], eni["MacAddress"], private_ip, public_ip)

    def allocate_eip(self, public_ip: str) -> str:
        """Allocate exactly this Elastic IP; its allocation id, also when it is allocated already."""
        known = self.client.describe_addresses()["Addresses"]
        for address in known:
            if address["PublicIp"] == public_ip:
                return str(address["AllocationId"])
        return str(self.client.allocate_address(Domain="vpc", Address=public_ip)["AllocationId"])

    def give_eip(self, allocation_id: str, eni_id: str, private_ip: str) -> None:
        """Put `private_ip` on an ENI and associate the Elastic IP with it."""
        self.move_private_ip(private_ip, eni_id)
        self.client.associate_address(
            AllocationId=allocation_id, NetworkInterfaceId=eni_id, PrivateIpAddress=private_ip, AllowReassociation=True
        )

    def move_private_ip(self, private_ip: str, eni_id: str) -> None:
        """Move a private address to another ENI; its Elastic IP goes along."""
        self.client.assign_private_ip_addresses(
            NetworkInterfaceId=eni_id, PrivateIpAddresses=[private_ip], AllowReassignment=True
        )
