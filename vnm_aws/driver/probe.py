"""`probe`: what OpenNebula's monitoring puts into this host's template, one `KEY="value"` a line.

It takes no lock: monitoring waits for no action and no action waits for monitoring. All keys come every time, because
OpenNebula keeps the last value of one that does not come.
"""

from __future__ import annotations

import time

from .. import __version__, config
from ..errors import AwsOvsError
from ..overlay import tunnels
from ..overlay.grants import stored
from ..overlay.guest_port import GuestPort
from ..overlay.ovsdb import Ovsdb
from ..table import printable
from ..underlay import kernel
from . import connections, node, state, strangers

_KEYS = (
    *("TIME", "VERSION", "VTEP", "UNDERLAY_MTU", "GUEST_MTU", "PEERS_UP", "PEERS_DOWN", "MESH"),
    *("CONNECTIONS", "CONNECTIONS_FULL", "CONNECTIONS_DROPPED", "ERROR"),
)
_TIMEOUT = 5.0
"""Seconds for Open vSwitch to answer; all other probes of the host wait meanwhile."""

# In OpenNebula's template syntax a double quote ends a value and "]]>" spoils one.
_HARMLESS = str.maketrans('"\\[]', "'/()")


def run() -> None:
    """Print it; what keeps this node from working is the value of AWS_OVS_ERROR."""
    values = dict.fromkeys(_KEYS, "") | {"TIME": str(int(time.time())), "VERSION": __version__}
    try:
        _gather(values)
    except AwsOvsError as bad:
        values["ERROR"] = " ".join(str(bad).split())
    for key, value in values.items():
        print(f'AWS_OVS_{key}="{printable(value).translate(_HARMLESS)}"')


def _gather(values: dict[str, str]) -> None:
    """Fill in the values, as far as this gets: what needs the least comes first."""
    settings = config.load()
    underlay = node.find_underlay(settings, stored())
    values["VTEP"] = underlay.address
    values["UNDERLAY_MTU"] = str(underlay.mtu)
    values["GUEST_MTU"] = str(underlay.guest_mtu(settings.internet_mtu, leaves=True))
    values["MESH"] = tunnels.digest(tunnels.PeerList([]))
    told = tunnels.load()
    others = [peer for peer in told.peers if peer.vtep != underlay.address]
    values["MESH"] = tunnels.digest(told)
    values["PEERS_UP"], values["PEERS_DOWN"] = "0", str(len(others))
    here = node.Node(settings, underlay, Ovsdb(timeout=_TIMEOUT))
    seen = tunnels.observe(here.db)
    vswitchd = node.vswitchd()
    if vswitchd == node.NOT_RUNNING:
        # The database still has the port numbers of the tunnels that were.
        raise AwsOvsError("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")
    count = sum(seen.get(peer.name, tunnels.MISSING).state == "up" for peer in others)
    values["PEERS_UP"], values["PEERS_DOWN"] = str(count), str(len(others) - count)
    here.refuse_overlap(told.vpc_cidrs)
    if marker := node.read_marker():
        if marker.get("ovs-vswitchd") != vswitchd:
            raise AwsOvsError("ovs-vswitchd was restarted and has forgotten the VMs' flows", "run 'aws-ovs restore'")
        ports = state.everything().ports
        tracked = connections.look(here, ports, _TIMEOUT)
        values["CONNECTIONS"] = str(sum(nic.connections for nic in tracked.values()))
        values["CONNECTIONS_FULL"] = str(sum(nic.is_nearly_full for nic in tracked.values()))
        values["CONNECTIONS_DROPPED"] = str(sum(nic.dropped for nic in tracked.values()))
        _look_at_kernel(here, ports)
        for (vm_id, nic_id), nic in tracked.items():
            if nic.is_full:
                what = f"VM {vm_id} NIC {nic_id} has all {nic.limit} connections that it may have"
                raise AwsOvsError(what, connections.REMEDY.format(vm_id))


def _look_at_kernel(here: node.Node, ports: list[GuestPort]) -> None:
    """Look at what others may have changed.

    Raises:
        AwsOvsError: something keeps packets of VMs from their way.
    """
    for entry, whose in strangers.taken(strangers.private_addresses(here.transit, here.underlay, ports)):
        what = f"{entry.address} of {whose} is configured on this node itself ({entry.interface})"
        raise AwsOvsError(what, f"remove it: ip address del {entry}")
    for what in kernel.glance(here.underlay, here.config):
        raise AwsOvsError(what, "run 'aws-ovs restore'")
    for missing in strangers.missing(here.underlay):
        raise missing
