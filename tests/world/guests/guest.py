"""A virtual machine: a namespace whose network cards are plugged into Open vSwitch of a host as libvirt would.

It is the same namespace from the VM's start to its end, wherever it runs, so its processes, addresses and
connections live through migration and suspension as a real guest's do.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from ipaddress import IPv4Interface

from tests.world.hosts.executor import CommandError
from tests.world.hosts.host import Host
from tests.world.hosts.namespace import Namespace

from .document import Card

_TABLE = 100
_METRIC = 100
_NO_OFFLOADS = ("tx", "off", "tso", "off", "gso", "off", "gro", "off")

# A guest may have several cards in one subnet: each answers for its own addresses only, and sends from them.
_SYSCTL = {
    "ipv4.conf.*.arp_ignore": 1,
    "ipv4.conf.*.arp_announce": 2,
    "ipv4.conf.*.rp_filter": 0,
    "ipv4.conf.*.promote_secondaries": 1,
}


class HypervisorError(Exception):
    """libvirt would have refused."""


class Guest(Namespace):
    """A VM; it has no network cards until `plug`.

    Args:
        vm_id: its ID in OpenNebula.

    Attributes:
        host: where it runs; None while it is suspended.
    """

    def __init__(self, vm_id: int) -> None:
        super().__init__(f"vm{vm_id}")
        self.vm_id = vm_id
        self.host: Host | None = None
        self._cards: dict[int, Card] = {}
        self._places: dict[int, Guest | Host] = {}
        settings = [
            f"net.{key.replace('*', kind)}={value}" for key, value in _SYSCTL.items() for kind in ("all", "default")
        ]
        self.run(["sysctl", "-q", "-w", *settings])

    @property
    def cards(self) -> tuple[Card, ...]:
        """The network cards that it has now."""
        return tuple(self._cards.values())

    def start(self, host: Host, cards: Sequence[Card]) -> None:
        """Run on `host`, with these cards plugged in there; those that the guest has already stay as they are inside.

        Raises:
            HypervisorError: a bridge is missing.
        """
        self.host = host
        for card in cards:
            self.plug(card)

    def plug(self, card: Card) -> None:
        """Plug in a network card and let the guest configure it.

        Raises:
            HypervisorError: its bridge is missing, or Open vSwitch does not take the port.
        """
        assert self.host, f"{self.name} does not run"
        if card.nic_id not in self._cards:
            self._create(card)
        self._move(card, self.host)
        _add_port(self.host, card, self.vm_id)
        self._address(card)

    def suspend(self) -> None:
        """Unplug all cards; the guest keeps them, without carrier."""
        for card in self.cards:
            self._unplug(card)
        self.host = None

    def migrate(self, destination: Host) -> None:
        """Unplug all cards and plug them in at another host.

        Raises:
            HypervisorError: a bridge is missing there; the guest runs on where it is.
        """
        cards = self.cards
        for card in cards:
            _require_bridge(destination, card)  # before anything is cut: then the VM just stays
        self.suspend()
        self.start(destination, cards)

    def detach(self, mac: str) -> None:
        """Take out the card with this MAC address."""
        for card in self.cards:
            if card.mac == mac:
                self._unplug(card)
                self.network(["ip", "-batch", "-"], "\n".join(self._rules("del", card, card.addresses)))
                self.network(["ip", "link", "delete", card.device])
                del self._cards[card.nic_id], self._places[card.nic_id]

    def reconfigure(self, cards: Sequence[Card]) -> None:
        """Let the guest adopt what its context says now of the cards that it has."""
        for card in cards:
            if card.nic_id in self._cards:
                self._address(card)

    def destroy(self) -> None:
        """Power off: ports, cards and processes go."""
        self.suspend()
        self.close()

    def close(self) -> None:
        """See `Executor.close`. The kernel deletes cards when it has time; the next VM may need their names at once."""
        deletions = [f"link delete {card.device}\n" for card in self.cards]
        with contextlib.suppress(CommandError):  # some may be gone already
            self.network(["ip", "-force", "-batch", "-"], "".join(deletions))
        super().close()

    def _create(self, card: Card) -> None:
        # The host's end: an MTU as libvirt's tap has it, no IPv6 of its own.
        outside = f"{card.target} address fe:{card.mac[3:]} mtu {max(card.mtu, 1500)}"
        self.network(
            ["ip", "-batch", "-"],
            f"link add {outside} type veth peer name {card.device} address {card.mac}\n"
            f"link set {card.target} addrgenmode none\nlink set {card.device} mtu {card.mtu} up\n",
        )
        assert self.host
        for end in () if self.host.offloads else (card.device, card.target):
            self.network(["ethtool", "-K", end, *_NO_OFFLOADS])
        self._cards[card.nic_id] = card._replace(addresses=(), gateway=None)
        self._places[card.nic_id] = self

    def _move(self, card: Card, place: Guest | Host) -> None:
        """Move the outer end of a card to a host, or into the guest where nobody sees it."""
        now = self._places[card.nic_id]
        if now is not place:
            now.network(["ip", "link", "set", card.target, "netns", str(place.pid)])
            self._places[card.nic_id] = place

    def _unplug(self, card: Card) -> None:
        if self.host and self._places[card.nic_id] is self.host:
            _delete_port(self.host, card)
            self._move(card, self)

    def _address(self, card: Card) -> None:
        """Change addresses, rules and routes from what they are to what `card` says."""
        before = self._cards[card.nic_id]
        new = [address for address in card.addresses if address not in before.addresses]
        old = [address for address in before.addresses if address not in card.addresses]
        device, table, metric = card.device, _TABLE + card.nic_id, _METRIC + card.nic_id
        lines = [f"address add {address} dev {device} noprefixroute" for address in new]
        lines += [f"address del {address} dev {device}" for address in old]
        lines += [*self._rules("add", card, new), *self._rules("del", card, old)]
        own = next((address for address in card.addresses if ":" not in address), None)
        if own and (new or old or card.gateway != before.gateway):
            subnet = IPv4Interface(own).network
            source = own.partition("/")[0]
            for where in (f"metric {metric}", f"table {table}"):
                lines.append(f"route replace {subnet} dev {device} src {source} {where}")
                if card.gateway:
                    lines.append(f"route replace default via {card.gateway} dev {device} onlink src {source} {where}")
        if card.mtu != before.mtu:
            lines.append(f"link set {device} mtu {card.mtu}")
        self.network(["ip", "-batch", "-"], "\n".join(lines))
        self._cards[card.nic_id] = card

    def _rules(self, verb: str, card: Card, addresses: Sequence[str]) -> list[str]:
        table = _TABLE + card.nic_id
        plain = [address.partition("/")[0] for address in addresses if ":" not in address]
        return [f"rule {verb} from {address} lookup {table} priority {table}" for address in plain]


def _require_bridge(host: Host, card: Card) -> None:
    if host.ovs.vsctl("br-exists", card.bridge, check=False).returncode:
        raise HypervisorError(f"{host.name}: Cannot get interface MTU on '{card.bridge}': No such device")


def _add_port(host: Host, card: Card, vm_id: int) -> None:
    """What libvirt does for an interface with `<virtualport type='openvswitch'/>`."""
    _require_bridge(host, card)
    host.plug(card)
    names = {
        "attached-mac": card.mac,
        "iface-id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{vm_id}-{card.nic_id}")),
        "vm-id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(vm_id))),
        "iface-status": "active",
    }
    external = [f'external-ids:{key}="{value}"' for key, value in names.items()]
    host.ovs.vsctl(
        *("--if-exists", "del-port", card.target),
        *("--", "add-port", card.bridge, card.target),
        *("--", "set", "Interface", card.target, *external),
    )
    error = host.ovs.vsctl("get", "Interface", card.target, "error").stdout.strip()
    if error != "[]":
        raise HypervisorError(f"{host.name}: Unable to add port {card.target} to OVS bridge {card.bridge}: {error}")


def _delete_port(host: Host, card: Card) -> None:
    # Open vSwitch may be dead; the machine that goes away has a right to go all the same.
    host.ovs.vsctl("--if-exists", "del-port", card.target, check=False)
    host.unplug(card)
