"""A metal host as a namespace; Open vSwitch forwards in its own process, the only way without its kernel module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.world.guests.document import Card

from .host import ENI, ENI_MTU, Host
from .namespace import Namespace
from .ovs import OpenVswitch

if TYPE_CHECKING:
    from tests.world.ec2.region import Instance

VXLAN_PORT = 4789
PHYSICAL_BRIDGE = "brphy"


class UserspaceHost(Namespace, Host):
    """See the module and `Host`.

    Args:
        name: host name, as OpenNebula knows it.
        instance: what EC2 knows of it.
        layer: what is installed on it, a tar archive of files.
    """

    datapath_type = "netdev"
    offloads = False  # this datapath does not fill in checksums that a kernel leaves to the device
    own_bridge = PHYSICAL_BRIDGE

    def __init__(self, name: str, instance: Instance, *, layer: Path | None = None) -> None:
        super().__init__(name, layer=layer)
        self.instance = instance
        self.ovs = OpenVswitch(self)

    def _underlay(self) -> None:
        address = self.instance.private_ip
        router = address.rpartition(".")[0] + ".1"
        self.run(
            ["ip", "-batch", "-"],
            stdin=f"link set {ENI} mtu {ENI_MTU} up\n"
            f"address add {address}/24 dev {ENI}\n"
            f"route add default via {router} dev {ENI}\n",
        )
        self._firewall()

    def _firewall(self) -> None:
        # The kernel hears the tunnels too and would answer "port unreachable". On a real node Open vSwitch's own
        # module takes them.
        rules = (
            "flush ruleset\ntable ip lab_underlay { chain prerouting { type filter hook prerouting priority raw; "
            f'iifname "{ENI}" udp dport {VXLAN_PORT} drop; }}; }}\n'
        )
        self.run(["nft", "-f", "-"], stdin=rules)

    def start_ovs(self) -> None:
        """Start the daemons of Open vSwitch that do not run, and what tunnels in the userspace datapath need."""
        super().start_ovs()
        self._physical_bridge()

    def _physical_bridge(self) -> None:
        """A tunnel of the userspace datapath leaves only through a port of some bridge: one that passes only tunnels.

        The kernel keeps the ENI, its address and all else that it carries.
        """
        address, mac = self.instance.private_ip, self.instance.mac
        bridge = PHYSICAL_BRIDGE
        self.ovs.vsctl(
            *("--may-exist", "add-br", bridge),
            *("--", "set", "Bridge", bridge, "datapath_type=netdev", "fail_mode=secure", f"other_config:hwaddr={mac}"),
            *("--", "--may-exist", "add-port", bridge, ENI),
        )
        self.run(["ip", "address", "replace", f"{address}/32", "dev", bridge])
        udp = f"udp,tp_dst={VXLAN_PORT}"
        flows = [
            f"{udp},nw_src={address},actions=IN_PORT",
            f"{udp},nw_dst={address},actions=LOCAL",
            f"arp,arp_op=1,arp_spa={address},actions=IN_PORT",
            f"arp,arp_op=2,arp_tpa={address},actions=LOCAL",
        ]
        self.run(["ovs-ofctl", "--bundle", "replace-flows", bridge, "-"], stdin="\n".join(flows))

    def plug(self, card: Card) -> None:
        """See `Host.plug`; the end itself is the device."""
        self.network(["ip", "link", "set", card.target, "up"])
        # Under a real node's datapath the host's own network never hears these frames; here it must not either.
        table = _table(card)
        hook = f'type filter hook ingress device "{card.target}" priority 0; policy drop;'
        self.run(["nft", "-f", "-"], stdin=f"table netdev {table} {{ chain port {{ {hook} }}; }}\n")

    def unplug(self, card: Card) -> None:
        """See `Host.unplug`."""
        self.run(["nft", "delete", "table", "netdev", _table(card)], check=False)


def _table(card: Card) -> str:
    return "lab_" + "".join(letter if letter.isalnum() else "_" for letter in card.target)
