"""A cloud for the front-end's tests: an EC2 and an oned over HTTP, hosts that ssh reaches, and the programs under test."""

from __future__ import annotations

import base64
import importlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.world.ec2.region import Ec2World, Instance
from tests.world.oned import vm as oned_vm
from tests.world.oned.server import Oned
from vnm_aws import __version__, cli
from vnm_aws.frontend import settings
from vnm_aws.frontend.objects import AwsVm, Host, Network
from vnm_aws.frontend.oned import Oned as Client
from vnm_aws.frontend.world import World

from . import in_process

RECORDINGS = Path(__file__).parents[1] / "recordings"
RUNNING_VM = (RECORDINGS / "hooks" / "vm-running.xml").read_bytes()
HOST = {"opennebula": "host"}
POOL = {"Pool": "web"}
_PROGRAM = str(Path(sys.executable).with_name("oneaws"))

# What is behind it are other tests' matter; here it is whom the front-end calls, and what it does when one is not there.
_SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
host=$2
echo "$host $3" >>"{directory}/calls"
if [ -e "{directory}/$host.delay" ]; then
    : >"{directory}/$host.busy"
    ls "{directory}" | grep -c '[.]busy$' >>"{directory}/at-once"
    sleep "$(cat "{directory}/$host.delay")"
    rm "{directory}/$host.busy"
fi
if [ -e "{directory}/$host.down" ]; then
    cat "{directory}/$host.down" >&2
    [ -s "{directory}/$host.down" ] || echo "ssh: connect to host $host port 22: Connection refused" >&2
    exit 255
fi
case $3 in
*" check "*)
    [ -e "{directory}/$host.check" ] || exec echo "[]"
    cat "{directory}/$host.check"
    exit 1
esac
cat >"{directory}/$host.$$"
case "$3" in *stand-ins) kind=stand-ins ;; *) kind=list ;; esac
mv "{directory}/$host.$$" "{directory}/$host.$kind"
"""


def _checked(done: subprocess.CompletedProcess[str], code: int | None) -> subprocess.CompletedProcess[str]:
    """A run of `oneaws` that must have ended with this exit code; None: with 0 or 1."""
    assert done.returncode in ((0, 1) if code is None else (code,)), (
        f"{done.args}: {done.returncode}\n{done.stdout}{done.stderr}"
    )
    assert "internal error" not in done.stderr, done.stderr
    return done


class Cloud:
    """Both worlds, and a directory for settings, state and what the hosts were told.

    Args:
        ec2: the EC2, at its start.
        oned: the oned, at its start.
        directory: a new one.
    """

    def __init__(self, ec2: Ec2World, oned: Oned, directory: Path) -> None:
        self.ec2, self.oned, self.directory = ec2, oned, directory
        self.ssh = directory / "ssh"
        self.ssh.mkdir()
        (directory / "state").mkdir()  # as install.sh does
        (directory / "bin").mkdir()
        program = directory / "bin" / "ssh"
        program.write_text(_SSH.format(directory=self.ssh))
        program.chmod(0o755)
        self.set_timer("active")
        self.environment = {
            **ec2.environment(),
            **oned.environment(directory),
            "AWS_OVS_SETTINGS": str(directory / "aws_ovs.yaml"),
            "AWS_OVS_CONFIG": str(directory / "driver.yaml"),
            "PATH": f"{directory / 'bin'}:/usr/bin:/bin",
            "HOME": str(directory),
        }
        self.configure()

    def configure(self, **values: object) -> None:
        """Write the settings: these, and a state directory and short times of our own."""
        ours = {"state_directory": str(self.directory / "state"), "ec2_timeout": 10, "lock_timeout": 60}
        (self.directory / "aws_ovs.yaml").write_text(yaml.safe_dump({**ours, "host_name": "tag:Name", **values}))

    def set_timer(self, state: str) -> None:
        """Let systemd say this of the timer's unit; nothing: it does not run here. There is none that a test could have."""
        program = self.directory / "bin" / "systemctl"
        program.write_text(f"#!/bin/sh\n{f'echo {state}' if state else 'exit 1'}\n")
        program.chmod(0o755)

    # The programs.

    def oneaws(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `oneaws`, which must end with this exit code: in this process, or one of its own in a further thread."""
        if threading.current_thread() is not threading.main_thread():
            return self.oneaws_process(*words, code=code)
        return _checked(in_process.run(partial(cli.main, prog_name="oneaws"), words, self.environment), code)

    def oneaws_process(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `oneaws` as a process, which must end with this exit code."""
        command = [_PROGRAM, *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)
        return _checked(done, code)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `oneaws`, so that it can be killed."""
        return subprocess.Popen(
            # A shell may have started us with the signal ignored, which is inherited.
            ["env", "--default-signal=INT", _PROGRAM, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def reconcile(self, code: int = 0) -> dict[str, Any]:
        """Run `oneaws reconcile --json`; what it printed."""
        printed: dict[str, Any] = json.loads(self.oneaws("reconcile", "--json", code=code).stdout)
        return printed

    def shim(self, module: str, name: str, document: bytes, *words: str) -> subprocess.CompletedProcess[str]:
        """Run what a hook or `vnet_create` runs, with a document on stdin as OpenNebula sends it.

        It runs in this process, or in one of its own in a further thread.
        """
        argv, stdin = [f"/somewhere/{name}", *words], base64.b64encode(document)
        if threading.current_thread() is threading.main_thread():
            main = importlib.import_module(f"vnm_aws.frontend.{module}").main
            return in_process.run(main, argv, self.environment, stdin)
        code = f"import sys; from vnm_aws.frontend.{module} import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *argv]
        return subprocess.run(
            command, env=self.environment, input=stdin.decode(), capture_output=True, text=True, timeout=120
        )

    def hook(self, event: str, document: bytes) -> subprocess.CompletedProcess[str]:
        """Run a hook."""
        return self.shim("hook", event, document)

    def vnet_create(self, vnet_id: int) -> subprocess.CompletedProcess[str]:
        """Let the driver create a network, as oned does."""
        document = self.oned.document("VNET", vnet_id)
        done = self.shim("vnet", "vnet_create", document, str(vnet_id))
        if done.returncode == 0:
            self.oned.finish_vnet_create(vnet_id, done.stdout)
        else:
            self.oned.fail_vnet_create(vnet_id, done.stderr.strip())
        return done

    # Both worlds, as the program would read them. The environment must be this cloud's: see the fixture.

    def world(self) -> World:
        """A new view of both worlds."""
        return World(settings.load(self.environment["AWS_OVS_SETTINGS"]))

    def host(self, name: str) -> Host:
        """A host of OpenNebula."""
        return next(one for one in Client().hosts() if one.name == name)

    def network(self, vnet_id: int) -> Network:
        """A network, with its leases."""
        return Client().network(vnet_id)

    def vm(self, vm_id: int) -> AwsVm:
        """A VM."""
        return Client().vm(vm_id)

    def addresses(self, instance: Instance) -> set[str]:
        """The secondary private addresses of an instance, as they really are."""
        found = self.ec2.client.describe_network_interfaces(NetworkInterfaceIds=[instance.eni_id])
        listed = found["NetworkInterfaces"][0]["PrivateIpAddresses"]
        return {one["PrivateIpAddress"] for one in listed if not one["Primary"]}

    def leads_to(self, public_ip: str) -> tuple[str, str]:
        """The ENI and the private address that an Elastic IP really leads to; empty texts when to none."""
        wanted = [{"Name": "public-ip", "Values": [public_ip]}]
        (found,) = self.ec2.client.describe_addresses(Filters=wanted)["Addresses"]
        return found.get("NetworkInterfaceId") or "", found.get("PrivateIpAddress") or ""

    def everything(self) -> dict[str, Any]:
        """All that the front-end half is responsible for in both worlds, to compare end states."""
        client = Client()
        return {
            "hosts": {one.name: (one.state, one.template) for one in client.hosts()},
            "ranges": {
                network.name: sorted((one.ip, sorted(one.attributes.items())) for one in network.ranges)
                for network in client.networks()
            },
            "vms": {one.vm_id: one.user_template for one in client.vms(0, -1)},
            "elastic_ips": sorted(
                (one["PublicIp"], one.get("PrivateIpAddress"), one.get("NetworkInterfaceId"))
                for one in self.ec2.client.describe_addresses()["Addresses"]
            ),
            "interfaces": sorted(
                (one["NetworkInterfaceId"], sorted(each["PrivateIpAddress"] for each in one["PrivateIpAddresses"]))
                for one in self.ec2.client.describe_network_interfaces()["NetworkInterfaces"]
            ),
        }

    def forget_calls(self) -> None:
        """Begin the records of calls anew."""
        self.ec2.forget_calls()
        self.oned.forget_calls()

    def mutating_calls(self) -> list[str]:
        """The calls that change something, to either world."""
        return [*self.ec2.mutating_calls(), *self.oned.mutating_calls()]

    def probed(self, *hosts: str, **values: object) -> None:
        """Let the probes of hosts have reported just now: that all is well, but for these values of AWS_OVS_ keys."""
        for name in hosts:
            well = {"TIME": int(time.time()), "VERSION": __version__, "PEERS_UP": 0, "PEERS_DOWN": 0, "ERROR": ""}
            printed = "\n".join(f'AWS_OVS_{key}="{value}"' for key, value in {**well, **values}.items())
            self.oned.monitored(self.host(name).host_id, printed)

    def told(self, host: str) -> dict[str, str]:
        """The peers that a host was told last, by name."""
        path = self.ssh / f"{host}.list"
        peers = json.loads(path.read_text())["peers"] if path.exists() else []
        return {peer["name"]: peer["vtep"] for peer in peers}

    def ssh_calls(self) -> list[str]:
        """The hosts that were called, in order."""
        path = self.ssh / "calls"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    # What administrators and users do.

    def add_metal(self, *names: str, instance_type: str = "c5n.metal", subnet: str | None = None) -> list[Instance]:
        """Run instances that are to be hosts."""
        return self.ec2.add_instances(names, instance_type, tags=HOST, subnet=subnet)

    def add_network(self, name: str, ready: bool = True, **values: str) -> int:
        """Create a network of the driver."""
        given = {"NAME": name, "VN_MAD": "aws_ovs", "BRIDGE": f"br{name}"[:15], **values}
        text = "\n".join(value if key == "AR" else f'{key}="{value}"' for key, value in given.items())
        return self.oned.add_vnet(text, ready=ready)

    def add_pool(self, name: str = "public", ready: bool = True, **values: str) -> int:
        """Create a network that is a pool of the Elastic IPs tagged `Pool=web`."""
        given = {
            "AWS_EIP_POOL": "tag:Pool=web",
            "NETWORK_ADDRESS": "192.168.0.0",
            "NETWORK_MASK": "255.255.255.0",
            "GATEWAY": "192.168.0.1",
        }
        return self.add_network(name, ready, **{**given, **values})

    def add_eips(self, count: int, tags: Mapping[str, str] = POOL) -> list[str]:
        """Allocate Elastic IPs."""
        return [one.public_ip for one in self.ec2.allocate_eips([tags] * count)]

    def run_vm(self, vnet_id: int, ar_ids: Sequence[int], host: str) -> int:
        """Run a VM with a NIC for each of these ranges, whose first free address it gets."""
        network = self.network(vnet_id)
        vm_id = self.oned.add_vm(RUNNING_VM, host_id=self.host(host).host_id)
        nics = []
        for ar_id in ar_ids:
            held = next(one for one in network.ranges if one.ar_id == ar_id)
            nics.append({"IP": self.oned.lease(vnet_id, ar_id, vm_id), **held.attributes})
        self.set_nics(vm_id, vnet_id, nics)
        return vm_id

    def set_nics(self, vm_id: int, vnet_id: int, nics: Sequence[Mapping[str, str]]) -> None:
        """Give a VM these NICs instead of those it has; the recorded one lends the rest of its attributes."""

        each = [{"NETWORK_ID": str(vnet_id), **values} for values in nics]
        self.oned.edit_vm(vm_id, lambda root: oned_vm.give_nics(root, each))

    def together(self, *actions: Any) -> list[Any]:
        """Do things at the same time; what they returned."""
        with ThreadPoolExecutor(len(actions)) as pool:
            return list(pool.map(lambda action: action(), actions))
