"""A metal host as a machine with Debian's kernel, whose module forwards as on a real node."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from tests.world.guests.document import Card

from .disk import Disk
from .executor import CommandError
from .host import ENI, ENI_MTU, Host
from .ovs import OpenVswitch
from .qemu import EmulatedCard, Qemu

if TYPE_CHECKING:
    from tests.world.ec2.region import Instance

SLOTS = 64
"""Cards of guests that a host can have at a time."""
_ENI_TAP = "eni"
_GUEST_MTU = 9216
_SETTLE_S = 120
_WATCH = "aws_ovs-watch.service"
_INIT, _SYSTEMD = "/usr/lib/lab/init", "/lib/systemd/systemd"

# ovs-vswitchd 3.1.0 that starts in the first ten seconds never gets a packet from the kernel.
_UPTIME = 'until read -r uptime rest </proc/uptime && [ "${uptime%.*}" -ge 11 ]; do sleep 0.1; done'

# What comes in at one device leaves by the other, as on a cable.
_CABLE = """
table netdev {table}
delete table netdev {table}
table netdev {table} {{
  chain one {{ type filter hook ingress device "{one}" priority 0; fwd to "{other}"; }}
  chain other {{ type filter hook ingress device "{other}" priority 0; fwd to "{one}"; }}
}}
"""


class KernelHost(Qemu, Host):
    """See the module and `Host`.

    Args:
        name: host name, as OpenNebula knows it.
        instance: what EC2 knows of it.
        disk: what it starts from.
        init: its first process.
    """

    datapath_type = "system"
    offloads = True

    def __init__(self, name: str, instance: Instance, disk: Disk, init: str = _INIT) -> None:
        self.instance = instance
        self._slots: dict[str, str] = {}
        names = [f"slot{number}" for number in range(SLOTS)]
        self._free_slots = deque(names)
        address = instance.private_ip
        words = [
            f"init={init}",
            f"lab.eni={address}/24",
            f"lab.router={address.rpartition('.')[0]}.1",
            f"lab.mtu={ENI_MTU}",
        ]
        cards = [EmulatedCard(_ENI_TAP, instance.mac, ENI_MTU)]
        cards += [EmulatedCard(name, f"02:00:00:00:01:{number:02x}", _GUEST_MTU) for number, name in enumerate(names)]
        super().__init__(name, disk, words, cards)
        self.ovs = OpenVswitch(self)

    def _underlay(self) -> None:
        self.network(["ip", "link", "set", ENI, "up"])
        self._cable(ENI, _ENI_TAP)
        self.wait()

    def _cable(self, one: str, other: str) -> None:
        self.network(["nft", "-f", "-"], _CABLE.format(table=f"lab_{other}", one=one, other=other))

    def start_ovs(self) -> None:
        """Start the daemons of Open vSwitch that do not run."""
        self.run(["sh", "-ec", _UPTIME])
        super().start_ovs()

    def plug(self, card: Card) -> None:
        """See `Host.plug`; a free card of the machine becomes the device, and a cable leads to it."""
        if not self._free_slots:
            raise CommandError(f"{self.name} has {SLOTS} cards of guests already; let SLOTS be more")
        slot = self._slots[card.target] = self._free_slots.popleft()  # many may come at once
        self.network(["ip", "link", "set", card.target, "up"])
        self._cable(card.target, slot)
        self.run(
            ["ip", "-batch", "-"],
            stdin=f"link set {slot} name {card.target} address fe:{card.mac[3:]} mtu {max(card.mtu, 1500)}\n"
            f"link set {card.target} addrgenmode none\nlink set {card.target} up\n",
        )

    def unplug(self, card: Card) -> None:
        """See `Host.unplug`."""
        if card.target in self._slots:
            self._free(card.target)

    def _free(self, *devices: str) -> None:
        slots = {device: self._slots.pop(device) for device in devices}
        self.network(["nft", "-f", "-"], "".join(f"delete table netdev lab_{slot}\n" for slot in slots.values()))
        lines = [f"link set {device} down\nlink set {device} name {slot}\n" for device, slot in slots.items()]
        self.run(["ip", "-batch", "-"], stdin="".join(lines))
        self._free_slots += slots.values()

    def reset(self) -> None:
        """See `Host.reset`; guests are gone, but not their devices on the host."""
        super().reset()
        if self._slots:
            self._free(*self._slots)


class SystemdHost(KernelHost):
    """A host whose first process is systemd, which starts Open vSwitch and what the driver has installed.

    Args:
        name: host name, as OpenNebula knows it.
        instance: what EC2 knows of it.
        disk: what it starts from.
    """

    def __init__(self, name: str, instance: Instance, disk: Disk) -> None:
        super().__init__(name, instance, disk, _SYSTEMD)

    def boot(self) -> None:
        """Wait until systemd has started everything."""
        self._underlay()
        self._started()

    def _started(self) -> None:
        self.run(["systemctl", "is-system-running", "--wait"], check=False)
        failed = self.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout
        if failed:
            raise CommandError(f"{self.name}: systemd could not start everything: {failed}")

    def start_ovs(self) -> None:
        """See `Host.start_ovs`."""
        self.run(["systemctl", "start", "openvswitch-switch"], timeout=120)

    def start_watch(self) -> None:
        """See `Host.start_watch`."""
        self.run(["systemctl", "start", _WATCH])

    def stop_watch(self) -> None:
        """See `Host.stop_watch`."""
        self.run(["systemctl", "stop", _WATCH])

    def reboot(self) -> None:
        """Reboot, and wait until systemd has started everything; its VMs must be gone."""
        self.run(["systemctl", "reboot"], check=False)
        self.disconnected()
        self.wait()
        self._started()

    def settled(self, gone: int) -> None:
        """Wait until another ovs-vswitchd than process `gone` runs, and systemd has nothing more to start.

        Raises:
            TimeoutError: that does not happen.
        """
        deadline = time.monotonic() + _SETTLE_S
        busy = (
            "systemctl list-jobs --no-legend; systemctl list-units --state=activating,deactivating,failed --no-legend"
        )
        while self.ovs_pids().get("ovs-vswitchd", gone) == gone or self.run(["sh", "-c", busy]).stdout:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {self.run(['sh', '-c', busy]).stdout}")
            time.sleep(0.2)
