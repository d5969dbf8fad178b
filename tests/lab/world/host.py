"""A metal host: a namespace with Open vSwitch and one ENI, on which the driver is installed as on a real one.

`run` and `spawn` are the only way in for tests, so that they serve hosts of another kind as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .namespace import Namespace
from .ovs import DAEMONS, OpenVswitch

if TYPE_CHECKING:
    from .ec2 import Instance

ENI = "ens5"
ENI_MTU = 9001
VXLAN_PORT = 4789
PHYSICAL_BRIDGE = "brphy"

# What a boot does on a machine with systemd.
_BOOT = """
for file in /etc/sysctl.d/*aws_ovs*.conf; do [ ! -e "$file" ] || sysctl -q -p "$file"; done
for file in /usr/lib/tmpfiles.d/*aws_ovs*.conf /etc/tmpfiles.d/*aws_ovs*.conf; do
    [ -e "$file" ] || continue
    while read -r type path mode user group rest; do
        [ "$type" != d ] || install -d -m "${mode#-}" -o "${user#-}" -g "${group#-}" "$path"
    done <"$file"
done
"""

# Policy rules of the kernel's own have priorities 0, 32766 and 32767; routes out of deleted devices are gone with these.
_FORGET = """
rm -rf /run/aws_ovs /var/lib/aws_ovs/*
ip rule show | while IFS=: read -r priority rest; do
    case $priority in 0 | 32766 | 32767) ;; *) ip rule del priority "$priority" ;; esac
done
"""


class Host(Namespace):
    """See the module; it has no ENI and no Open vSwitch until `boot`.

    Args:
        name: host name, as OpenNebula knows it.
        instance: what EC2 knows of it.
        layer: what is installed on it, a tar archive of files.
    """

    def __init__(self, name: str, instance: Instance, *, layer: Path | None = None) -> None:
        super().__init__(name, layer=layer)
        self.instance = instance
        self._ovs = OpenVswitch(self)

    def boot(self) -> None:
        """Bring up the ENI, which must be there as `ens5`, and start Open vSwitch."""
        address = self.instance.private_ip
        router = address.rpartition(".")[0] + ".1"
        self.run(
            ["ip", "-batch", "-"],
            stdin=f"link set {ENI} mtu {ENI_MTU} up\n"
            f"address add {address}/24 dev {ENI}\n"
            f"route add default via {router} dev {ENI}\n",
        )
        self.run(["sh", "-ec", _BOOT])
        self._firewall()
        self._ovs.create()
        self.start_ovs()

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
        self._ovs.start()
        self._physical_bridge()

    def stop_ovs(self) -> None:
        """End both daemons in good order; the database stays, flows do not."""
        self._ovs.stop()

    def kill_ovs(self, *daemons: str) -> None:
        """Kill the named daemons, by default both, as a crash would."""
        self._ovs.stop(daemons or DAEMONS, "KILL")

    def restart_ovs(self) -> None:
        """Stop and start both daemons."""
        self.stop_ovs()
        self.start_ovs()

    def ovs_pids(self) -> dict[str, int]:
        """Pids, inside the host, of the daemons that run."""
        return self._ovs.pids()

    def _physical_bridge(self) -> None:
        """A tunnel of the userspace datapath leaves only through a port of some bridge: one that passes only tunnels.

        The kernel keeps the ENI, its address and all else that it carries.
        """
        address, mac = self.instance.private_ip, self.instance.mac
        bridge = PHYSICAL_BRIDGE
        self.run(
            [
                *("ovs-vsctl", "--timeout=10", "--may-exist", "add-br", bridge),
                *("--", "set", "Bridge", bridge, "datapath_type=netdev", "fail_mode=secure"),
                f"other_config:hwaddr={mac}",
                *("--", "--may-exist", "add-port", bridge, ENI),
            ]
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

    def reset(self) -> None:
        """Bring the host back to where `boot` left it; what is installed stays."""
        self.start_ovs()
        bridges = [name for name in self.run(["ovs-vsctl", "list-br"]).stdout.split() if name != PHYSICAL_BRIDGE]
        deletions = [part for name in bridges for part in ("--", "--if-exists", "del-br", name)]
        self.run(["ovs-vsctl", "--timeout=10", "init", *deletions])
        self._firewall()
        self.run(["ovs-appctl", "dpctl/flush-conntrack"], check=False)
        self.run(["sh", "-ec", _FORGET])
        self.run(["sh", "-ec", _BOOT])
