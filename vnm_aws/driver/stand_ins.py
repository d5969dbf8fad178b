"""`stand-ins`: use the addresses that stand on this node for private addresses of other subnets, as the front-end tells them."""

from __future__ import annotations

import contextlib

from .. import files
from ..addresses import Prefix
from ..errors import AwsOvsError
from ..names import STAND_INS
from ..overlay import stand_ins
from ..overlay.flows import Change
from ..overlay.stand_ins import StandIns
from ..underlay import eni
from . import state
from .node import Node
from .ports import carry_out


def run(node: Node, document: bytes) -> None:
    """Make the ports of VMs follow a list, and store it.

    The list is stored last: killed before, this is done again, by the same call or by `restore`.

    Raises:
        AwsOvsError: the list is not valid, or cannot be on this node; the stored list and the flows are as before then.
    """
    wanted = stand_ins.parse(document)
    stored = state.everything()
    _check(node, wanted, stored)
    node.ensure_base()
    earlier = node.stand_ins
    try:
        _follow(node, wanted, stored)
        if not node.dry_run and wanted != _stored():
            _store(wanted)
    except BaseException:
        with contextlib.suppress(Exception):
            _follow(node, earlier, stored)
        raise


def _check(node: Node, wanted: StandIns, stored: state.Stored) -> None:
    """Refuse a list that does not fit this node."""
    subnet = Prefix(node.underlay.subnet, "subnet")
    owners = {address: port.vm_id for port in stored.ports for address in port.private_addresses(node.transit)}
    for private_ip, address in wanted.pairs.items():
        what = f"{address}, which is to stand for {private_ip},"
        if address not in subnet:
            remedy = "send it to a node of its subnet, or run 'oneaws reconcile' on the front-end"
            raise AwsOvsError(f"{what} is not in {subnet}, the subnet of this node", remedy)
        if eni.is_local(address):
            remedy = f"remove it: 'ip address show to {address}' says where it is"
            raise AwsOvsError(f"{what} is configured on this node itself, which would keep its packets", remedy)
        if address in owners:
            remedy = "choose another address to stand in"
            raise AwsOvsError(f"{what} is AWS_PRIVATE_IP of VM {owners[address]} on this node", remedy)


def _follow(node: Node, wanted: StandIns, stored: state.Stored) -> None:
    """Write the flows of the NICs for which a list makes a difference anew."""
    earlier, node.stand_ins = node.stand_ins, wanted
    different = [port for port in stored.ports if earlier.in_force(port) != wanted.in_force(port)]
    for vm_id in sorted({port.vm_id for port in different}):
        ports = [port for port in stored.ports if port.vm_id == vm_id]
        concerned = {port.nic_id for port in different if port.vm_id == vm_id}
        carry_out(node, node.observe(), Change(vm_id, ports, ports, concerned))


def _store(wanted: StandIns) -> None:
    if wanted.pairs:
        files.replace(STAND_INS, stand_ins.document(wanted))
    else:
        files.remove(STAND_INS)


def _stored() -> StandIns | None:
    """Read the stored list; None when there is none that can be read."""
    try:
        return stand_ins.read()
    except AwsOvsError:
        return None
