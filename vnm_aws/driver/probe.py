"""`probe`: what OpenNebula's monitoring puts into this host's template, one `KEY="value"` a line.

It takes no lock: monitoring waits for no action and no action waits for monitoring. All keys come every time, because
OpenNebula keeps the last value of one that does not come.
"""

from __future__ import annotations

from .. import __version__, config
from ..errors import AwsOvsError
from ..overlay import tunnels
from ..overlay.ovsdb import Ovsdb
from ..table import printable
from ..underlay import eni
from . import node

_KEYS = ("VERSION", "VTEP", "UNDERLAY_MTU", "GUEST_MTU", "PEERS_UP", "PEERS_DOWN", "MESH", "ERROR")
_TIMEOUT = 5.0
"""Seconds for Open vSwitch to answer; all other probes of the host wait meanwhile."""

# In OpenNebula's template syntax a double quote ends a value and "]]>" spoils one.
_HARMLESS = str.maketrans('"\\[]', "'/()")


def run() -> None:
    """Print it; what keeps this node from working is the value of AWS_OVS_ERROR."""
    values = dict.fromkeys(_KEYS, "") | {"VERSION": __version__}
    try:
        _gather(values)
    except AwsOvsError as bad:
        values["ERROR"] = " ".join(str(bad).split())
    for key, value in values.items():
        print(f'AWS_OVS_{key}="{printable(value).translate(_HARMLESS)}"')


def _gather(values: dict[str, str]) -> None:
    """Fill in the values, as far as this gets: what needs the least comes first."""
    settings = config.load()
    underlay = eni.find(settings.underlay_interface)
    values["VTEP"] = underlay.address
    values["UNDERLAY_MTU"] = str(underlay.mtu)
    values["GUEST_MTU"] = str(underlay.guest_mtu(settings.internet_mtu, leaves=True))
    told = tunnels.load()
    others = [peer for peer in told.peers if peer.vtep != underlay.address]
    values["MESH"] = tunnels.digest(told)
    values["PEERS_UP"], values["PEERS_DOWN"] = "0", str(len(others))
    seen = tunnels.observe(Ovsdb(timeout=_TIMEOUT))
    vswitchd = node.vswitchd()
    if vswitchd == node.NOT_RUNNING:
        # The database still has the port numbers of the tunnels that were.
        raise AwsOvsError("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")
    count = sum(seen.get(peer.name, tunnels.MISSING).state == "up" for peer in others)
    values["PEERS_UP"], values["PEERS_DOWN"] = str(count), str(len(others) - count)
    made_for = (node.read_marker() or {}).get("ovs-vswitchd", vswitchd)
    if made_for != vswitchd:
        raise AwsOvsError("ovs-vswitchd was restarted and has forgotten the VMs' flows", "run 'aws-ovs restore'")
