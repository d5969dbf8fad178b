"""A metal host: a machine with Open vSwitch and one ENI, on which the driver is installed as on a real one.

There are two kinds, `UserspaceHost` and `KernelHost`. Tests do not know them apart: `run` and `spawn` are the only way in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .executor import Executor, Process
from .ovs import DAEMONS, OpenVswitch

if TYPE_CHECKING:
    from tests.world.ec2.region import Instance
    from tests.world.guests.document import Card

ENI = "ens5"
ENI_MTU = 9001

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


class Host(Executor):
    """See the module; it has no Open vSwitch until `boot`.

    Attributes:
        instance: what EC2 knows of it.
        datapath_type: of its bridges, as Open vSwitch names it.
        offloads: whether guests may leave checksums and segmentation to their cards.
        ovs: its Open vSwitch.
        pid: a process whose network namespace has, on this machine, what is plugged into it.
    """

    datapath_type: str
    offloads: bool
    instance: Instance
    pid: int
    ovs: OpenVswitch

    @abstractmethod
    def network(self, argv: Sequence[str], stdin: str = "") -> str:
        """Run one of this machine's programs in the network namespace of `pid`; see `Namespace.network`."""

    @abstractmethod
    def plug(self, card: Card) -> None:
        """Make the outer end of a guest's card, which is in the network namespace of `pid`, a device of the host."""

    @abstractmethod
    def unplug(self, card: Card) -> None:
        """The reverse of `plug`."""

    @abstractmethod
    def _underlay(self) -> None:
        """Bring up the ENI."""

    def boot(self) -> None:
        """Bring up the ENI, which must be there as `ens5`, and start Open vSwitch."""
        self._underlay()
        self.run(["sh", "-ec", _BOOT])
        self.ovs.create()
        self.start_ovs()
        self.start_watch()

    def start_watch(self) -> None:
        """Start what heals the node, as systemd does on a real one."""
        self._watch = self.spawn(["aws-ovs", "watch"])

    def stop_watch(self) -> None:
        """End it; a heal that it has begun comes to its end before."""
        if self._watch:
            self._watch.terminate()
            self._watch.wait()
            self._watch = None
            self.run(["flock", "/run/aws_ovs/lock", "true"], check=False)

    def start_ovs(self) -> None:
        """Start the daemons of Open vSwitch that do not run."""
        self.ovs.start()

    def stop_ovs(self) -> None:
        """End both daemons in good order; the database stays, flows do not."""
        self.ovs.stop()

    def kill_ovs(self, *daemons: str) -> None:
        """Kill the named daemons, by default both, as a crash would."""
        self.ovs.stop(daemons or DAEMONS, "KILL")

    def restart_ovs(self) -> None:
        """Stop and start both daemons."""
        self.stop_ovs()
        self.start_ovs()

    def ovs_pids(self) -> dict[str, int]:
        """Pids, inside the host, of the daemons that run."""
        return self.ovs.pids()

    def reset(self) -> None:
        """Bring the host back to where `boot` left it; what is installed stays."""
        self.stop_watch()
        self.start_ovs()
        bridges = [name for name in self.ovs.vsctl("list-br").stdout.split() if name != self.own_bridge]
        deletions = [part for name in bridges for part in ("--", "--if-exists", "del-br", name)]
        self.ovs.vsctl("init", *deletions)
        self._firewall()
        self.run(["ovs-appctl", "dpctl/flush-conntrack"], check=False)
        self.run(["sh", "-ec", _FORGET])
        self.run(["sh", "-ec", _BOOT])
        self.start_watch()

    _watch: Process | None = None

    own_bridge = ""
    """A bridge that is the lab's."""

    def _firewall(self) -> None:
        """Leave no nft rules but the lab's."""
        self.run(["nft", "flush", "ruleset"])
