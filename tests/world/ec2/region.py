"""The lab's AWS account: a corrected moto server on loopback, and the few calls that set a world up in it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

REGION = "eu-west-1"
OWN_KEY = "LABOWNCLIENT00000000"
"""The access key id of the world's own client. moto takes notice only of one of 20 capitals and digits."""
_ROOT = Path(__file__).parents[3]
_START_S = 60


class Instance(NamedTuple):
    """A metal instance with one ENI. `public_ip` is empty if it has none."""

    name: str
    instance_id: str
    eni_id: str
    mac: str
    private_ip: str
    public_ip: str


class ElasticIp(NamedTuple):
    """An Elastic IP of the account."""

    allocation_id: str
    public_ip: str


class Rate(NamedTuple):
    """A bucket of tokens, one a call: how many it holds, and how many come in a second."""

    capacity: float
    refill: float


@contextmanager
def refused(code: str, status: int = 400) -> Iterator[None]:
    """The EC2 call within must fail with this error code and HTTP status."""
    found = None
    try:
        yield
    except ClientError as error:
        found = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    assert found == (code, status), found


def private_ips(client: Any, eni_id: str) -> list[str]:
    """The private addresses that a client sees of an ENI, the primary one first."""
    (eni,) = client.describe_network_interfaces(NetworkInterfaceIds=[eni_id])["NetworkInterfaces"]
    return [item["PrivateIpAddress"] for item in eni["PrivateIpAddresses"]]


def elastic_ip(client: Any, allocation_id: str) -> dict[str, Any]:
    """What a client sees of an Elastic IP."""
    (found,) = client.describe_addresses(AllocationIds=[allocation_id])["Addresses"]
    return dict(found)


def where(name: str, *values: str) -> list[dict[str, object]]:
    """The `Filters` of a Describe call: one filter."""
    return [{"Name": name, "Values": list(values)}]


def _client(endpoint: str, key: str, region: str, config: Config) -> Any:
    return boto3.client(
        "ec2",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=key,
        config=config,
    )


def client(endpoint: str) -> Any:
    """A boto3 EC2 client of the server at `endpoint`: the world's own.

    By its access key the server knows it. Its calls are not recorded, nor counted, throttled, failed or answered late.
    """
    patient = Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=_START_S)
    return _client(endpoint, OWN_KEY, REGION, patient)


class Ec2World:
    """An EC2 of its own, with one VPC and one subnet. Needs no root.

    Args:
        vpc_cidr: of the one VPC.
        subnet_cidr: of its subnet; the router has the first address.
        elastic_ips: how many the account may have; a Region's own quota is 5.

    Attributes:
        endpoint: URL of the API, which serves one Region.
        region: that one.
        vpc_id: the VPC.
        subnet_id: the subnet.
        client: the world's own client.
    """

    def __init__(
        self, vpc_cidr: str = "10.0.0.0/16", subnet_cidr: str = "10.0.0.0/24", elastic_ips: int = 5000
    ) -> None:
        self.vpc_cidr, self.subnet_cidr, self.region = vpc_cidr, subnet_cidr, REGION
        self._elastic_ips = elastic_ips
        # The server gets a socket that listens already, so nothing can take the port, and early calls wait.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self._port = listener.getsockname()[1]
            self._server = subprocess.Popen(
                [
                    *["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.world.ec2.server"],
                    *[str(listener.fileno()), REGION],
                ],
                cwd=_ROOT,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.client = client(self.endpoint)
        try:
            self._wait()
            self.reset()
        except BaseException:
            self.stop()
            raise

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
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.client.describe_vpcs()
                return
            except (BotoCoreError, ClientError) as error:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the EC2 server at {self.endpoint} does not start: {error}") from None
                time.sleep(0.1)

    def reset(self) -> None:
        """Make the account as it was at the start; takes milliseconds.

        Instances, Elastic IPs, more subnets and recorded calls are gone, as are delay, throttling, and calls that were
        to fail or kill. The VPC and the subnet keep their ids.
        """
        wanted = {"vpc_cidr": self.vpc_cidr, "subnet_cidr": self.subnet_cidr, "elastic_ips": self._elastic_ips}
        made = self._ask("POST", "reset", wanted)
        self.vpc_id, self.subnet_id = str(made["vpc_id"]), str(made["subnet_id"])
        self._publics = 0

    def program(self, attempts: int = 1, *, region: str = REGION, validate: bool = True) -> Any:
        """A boto3 client as a program has one, not the world's own.

        Args:
            attempts: how often it tries a call in all.
            region: the Region it calls.
            validate: whether it refuses wrong arguments itself.
        """
        config = Config(retries={"total_max_attempts": attempts}, read_timeout=20, parameter_validation=validate)
        return _client(self.endpoint, "program", region, config)

    def environment(self) -> dict[str, str]:
        """The environment in which a program finds this EC2, as a client that is not the world's own."""
        return {
            "AWS_ENDPOINT_URL_EC2": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "program",
            "AWS_SECRET_ACCESS_KEY": "program",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request(method, f"/lab/{path}", None if body is None else json.dumps(body))
            reply = connection.getresponse()
            text = reply.read().decode()
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise RuntimeError(f"the EC2 server refuses {path}: {text[:300]}")
        return json.loads(text)

    def _set(self, **settings: object) -> None:
        self._ask("POST", "settings", settings)

    def calls(self) -> list[str]:
        """The actions that programs have called, every attempt, in the order of their arrival."""
        return [call["action"] for call in self._ask("GET", "calls")]

    def mutating_calls(self) -> list[str]:
        """Those of them that change something."""
        return [call["action"] for call in self._ask("GET", "calls") if call["mutating"]]

    def requests(self, action: str) -> list[dict[str, str]]:
        """The parameters of the calls of an action that changes something, as they came over the wire."""
        return [call["parameters"] for call in self._ask("GET", "calls") if call["action"] == action]

    def forget_calls(self) -> None:
        """Begin the record of calls anew."""
        self._ask("DELETE", "calls")

    def set_elastic_ips(self, limit: int) -> None:
        """From now on the account may have so many Elastic IPs."""
        self._set(elastic_ips=limit)

    def set_clock_ahead(self, seconds: float) -> None:
        """Let EC2's clock, which its answers show, be ahead of this machine's; negative for behind."""
        self._set(clock_ahead=seconds)

    def set_visibility_delay(self, seconds: float) -> None:
        """From now on, programs see a change in Describe calls of interfaces, addresses and instances so much later.

        That holds for changes by anyone, the world's too. All that has been changed before shows at once.
        """
        self._set(visibility_delay=seconds)

    def set_throttle(self, mutating: Rate | None = None, describe: Rate | None = None) -> None:
        """Throttle programs: each action has a bucket of its own, full at first. None does not throttle."""
        rates = {"mutating": mutating, "describe": describe}
        self._set(throttle={kind: rate._asdict() for kind, rate in rates.items() if rate is not None})

    def kill_at(self, n: int, when: Literal["before", "after"], pid: int) -> None:
        """Kill a process at the n-th call from now on, the first being 1.

        Args:
            n: counts every call by a program, attempts that fail too.
            when: before the call takes effect, or after, but before the reply.
            pid: the process.
        """
        self._set(kill={"at": n, "when": when, "pid": pid})

    def fail_next(self, action: str, code: str, times: int = 1) -> None:
        """Let the next `times` calls of `action`, or of any with `*`, fail with EC2's error `code`, without effect.

        A client that tries again makes several calls: boto3 does so after InternalError.
        """
        self._set(fail={"action": action, "code": code, "times": times})

    def add_subnet(self, cidr: str, zone: str = "a") -> str:
        """Make one more subnet in the VPC, in a zone of the Region; its id."""
        made = self.client.create_subnet(VpcId=self.vpc_id, CidrBlock=cidr, AvailabilityZone=f"{self.region}{zone}")
        return str(made["Subnet"]["SubnetId"])

    def mark(self, resource_id: str, **values: object) -> None:
        """From now on EC2 shows these values of a resource, and acts by them: see `marks`. It shows at once."""
        self._set(mark={"id": resource_id, "values": values})

    def reserve(self, cidr: str, kind: Literal["explicit", "prefix"] = "explicit", subnet: str | None = None) -> str:
        """Make a subnet CIDR reservation; its id."""
        wanted = {"SubnetId": subnet or self.subnet_id, "ReservationType": kind, "Cidr": cidr}
        return str(
            self.client.create_subnet_cidr_reservation(**wanted)["SubnetCidrReservation"]["SubnetCidrReservationId"]
        )

    def add_interface(self, private_ip: str | None = None, *, subnet: str | None = None, **marks: object) -> str:
        """Make an interface that is not attached, of a service or of another account as marks say; its id."""
        wanted = {"subnet": subnet or self.subnet_id, "private_ip": private_ip, "marks": marks}
        (made,) = self._ask("POST", "populate", {"interface": wanted})
        return str(made["eni_id"])

    def attach(self, eni_id: str, instance_id: str, device: int = 1, card: int = 0) -> None:
        """Attach an interface to an instance, at a device index of a network card."""
        self.client.attach_network_interface(
            NetworkInterfaceId=eni_id, InstanceId=instance_id, DeviceIndex=device, NetworkCardIndex=card
        )

    def add_instance(
        self,
        name: str,
        private_ip: str,
        instance_type: str = "c5n.metal",
        *,
        tags: Mapping[str, str] | None = None,
        subnet: str | None = None,
        eip: bool = True,
    ) -> Instance:
        """Run an instance with `private_ip` as its primary address, and give that a public address.

        Args:
            name: its Name tag.
            private_ip: of `subnet`, and free.
            instance_type: known to DescribeInstanceTypes, or its ENI holds any number of addresses.
            tags: more tags.
            subnet: another subnet than the first.
            eip: whether it gets an Elastic IP.
        """
        return self._run([(name, private_ip)], instance_type, tags, subnet, eip)[0]

    def add_instances(
        self,
        names: Sequence[str],
        instance_type: str = "c5n.metal",
        *,
        tags: Mapping[str, str] | None = None,
        subnet: str | None = None,
        eip: bool = False,
    ) -> list[Instance]:
        """Run many instances with the lowest free addresses of a subnet. See `add_instance`."""
        return self._run([(name, None) for name in names], instance_type, tags, subnet, eip)

    def _run(
        self,
        wanted: Sequence[tuple[str, str | None]],
        instance_type: str,
        tags: Mapping[str, str] | None,
        subnet: str | None,
        eip: bool,
    ) -> list[Instance]:
        each = [
            {"name": name, "private_ip": private_ip, "public_ip": self._public_ip() if eip else None}
            for name, private_ip in wanted
        ]
        made = self._ask(
            "POST",
            "populate",
            {
                "instances": {
                    "subnet": subnet or self.subnet_id,
                    "instance_type": instance_type,
                    "tags": dict(tags or {}),
                    "each": each,
                }
            },
        )
        return [Instance(**one) for one in made]

    def _public_ip(self) -> str:
        self._publics += 1
        if self._publics < 255:
            return f"198.51.100.{self._publics}"
        return f"198.18.{self._publics >> 8}.{self._publics & 0xFF}"

    def terminate(self, instance_id: str) -> None:
        """Terminate an instance: its ENI goes with it, and the Elastic IPs on that lose their association."""
        self.client.terminate_instances(InstanceIds=[instance_id])

    def tag(self, resource_id: str, **tags: str) -> None:
        """Set tags of an instance, ENI, Elastic IP or subnet."""
        self.client.create_tags(Resources=[resource_id], Tags=[{"Key": key, "Value": tags[key]} for key in tags])

    def allocate_eip(self, public_ip: str, tags: Mapping[str, str] | None = None) -> str:
        """Allocate exactly this Elastic IP; its allocation id, also when it is allocated already.

        Args:
            public_ip: the address.
            tags: which it gets if it is allocated now.
        """
        wanted = [{"Name": "public-ip", "Values": [public_ip]}]
        for address in self.client.describe_addresses(Filters=wanted)["Addresses"]:
            return str(address["AllocationId"])
        items = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        specification = [{"ResourceType": "elastic-ip", "Tags": items}] if items else []
        made = self.client.allocate_address(Domain="vpc", Address=public_ip, TagSpecifications=specification)
        return str(made["AllocationId"])

    def allocate_eips(self, tags: Sequence[Mapping[str, str]]) -> list[ElasticIp]:
        """Allocate an Elastic IP for each of these sets of tags, which may be empty."""
        made = self._ask("POST", "populate", {"addresses": [dict(one) for one in tags]})
        return [ElasticIp(**one) for one in made]

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
