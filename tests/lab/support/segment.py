"""VMs of one network of the lab's, made for tests of what they may do to each other."""

from __future__ import annotations

from tests.lab.support import promise
from tests.world.lab import Lab

BRIDGE, VNI = "onebr7", 700


def mac(ip: str) -> str:
    """The MAC that OpenNebula gives to the NIC with an address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in ip.split("."))


def document(vm_id: int, ip: str, **more: str) -> bytes:
    """A VM with one NIC; `more` are further elements of the NIC, or others for those here."""
    values = {
        "BRIDGE": BRIDGE, "VLAN_ID": str(VNI), "NETWORK_ID": "7", "NIC_ID": "0", "TARGET": f"one-{vm_id}-0",
        "IP": ip, "MAC": mac(ip), "MTU": "1450", "VN_MAD": "aws_ovs", **more,
    }  # fmt: skip
    nic = "".join(f"<{key}>{value}</{key}>" for key, value in values.items())
    history = "<HISTORY_RECORDS><HISTORY><HOSTNAME>h1</HOSTNAME></HISTORY></HISTORY_RECORDS>"
    return f"<VM><ID>{vm_id}</ID><TEMPLATE><NIC>{nic}</NIC></TEMPLATE>{history}</VM>".encode()


def start(lab: Lab, vm: bytes, host: str) -> None:
    """Deploy a VM."""
    lab.play(promise.deploy(vm, host), follow=False)


def stop(lab: Lab, vm: bytes, host: str) -> None:
    """End a VM."""
    lab.play(promise.terminate(vm, host), follow=False)
