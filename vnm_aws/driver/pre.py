"""`pre`: before the hypervisor plugs a NIC in, check everything, and make its bridge and patch ports."""

from __future__ import annotations

from ..errors import AwsOvsError
from ..vm import Vm
from . import state
from .node import Node
from .ports import check_mtu, ensure_networks, plan_ports, refuse_targets


def run(node: Node, vm: Vm) -> None:
    """Prepare the node for the NICs that the action is about.

    Raises:
        AwsOvsError: a NIC cannot work here.
    """
    for device in vm.passthrough:
        what = f"{device} is a passthrough device in a network of aws_ovs, which serves no PCI devices"
        raise AwsOvsError(what, "use a NIC in that network, or a network of another driver for the PCI device")
    if vm.foreign_targets:
        refuse_targets(node, vm)
    nics = vm.concerned
    if not nics:
        return
    check_mtu(node, nics)
    node.ensure_base()  # first: what a reboot has left behind takes no address
    plan_ports(node, node.observe(), vm.vm_id, nics, state.load(vm.vm_id) or [])
    networks = {(nic.bridge, nic.vni(node.config.vni_base)) for nic in nics}
    ensure_networks(node, networks, {nic.target for nic in nics})
