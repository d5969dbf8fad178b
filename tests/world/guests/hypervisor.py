"""The hypervisor driver's part of a recorded operation: `vmm-…` steps, carried out on guests."""

from __future__ import annotations

from collections.abc import Mapping

from tests.world.hosts.host import Host

from .document import Document
from .guest import Guest, HypervisorError


class Hypervisor:
    """All guests of a lab.

    Args:
        hosts: the hosts by name.

    Attributes:
        guests: the VMs that exist, by ID, suspended ones too.
    """

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self.guests: dict[int, Guest] = {}

    def step(self, action: str, argv: tuple[str, ...], document: Document | None) -> None:
        """Carry out a recorded step.

        Args:
            action: its name, such as `vmm-deploy`.
            argv: as recorded; the last two are always the VM's ID and the host where it is (or will be).
            document: the VM as the last driver action saw it.

        Raises:
            HypervisorError: libvirt would have failed.
        """
        verb = action.removeprefix("vmm-")
        vm_id, host = int(argv[-2]), self._host(argv[-1])
        if verb in ("deploy", "restore"):
            self._start(vm_id, host, document, fresh=verb == "deploy")
        elif verb == "cancel":
            guest = self.guests.get(vm_id)
            if guest and guest.host in (host, None):  # OpenNebula's script does not mind when there is no such VM
                self.destroy(vm_id)
        elif verb == "save":
            self._guest(vm_id, host).suspend()
        elif verb == "migrate":
            self._guest(vm_id, host).migrate(self._host(argv[1]))
        elif verb == "attach_nic":
            _, mac, bridge, *_, target = argv[:-2]
            assert document, "an attach without the document of its pre"
            card = next(card for card in document.cards if card.mac == mac)
            self._guest(vm_id, host).plug(card._replace(bridge=bridge, target=target))
        elif verb == "detach_nic":
            self._guest(vm_id, host).detach(argv[1])
        elif verb == "reconfigure":
            assert document, "a reconfiguration without a document"
            self._guest(vm_id, host).reconfigure(document.cards)
        elif verb not in ("reset", "prereconfigure"):  # those two change nothing for the network
            raise ValueError(f"the lab does not know the hypervisor step {action}")

    def destroy(self, vm_id: int) -> None:
        """Power a VM off, if it exists."""
        guest = self.guests.pop(vm_id, None)
        if guest:
            guest.destroy()

    def _start(self, vm_id: int, host: Host, document: Document | None, fresh: bool) -> None:
        if document is None:
            raise ValueError(f"VM {vm_id} starts without the document of its pre")
        guest = self.guests.get(vm_id)
        if guest and guest.host:
            raise HypervisorError(f"operation failed: domain 'one-{vm_id}' is already active on {guest.host.name}")
        if fresh or not guest:
            self.destroy(vm_id)
            guest = self.guests[vm_id] = Guest(vm_id)
        try:
            guest.start(host, document.cards)
        except BaseException:
            self.destroy(vm_id)
            raise

    def _guest(self, vm_id: int, host: Host) -> Guest:
        guest = self.guests.get(vm_id)
        if guest is None or guest.host is not host:
            raise HypervisorError(f"Domain not found: no domain with matching name 'one-{vm_id}' on {host.name}")
        return guest

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            raise ValueError(f"the recording names the host {name}; the lab has {', '.join(self._hosts)}")
        return self._hosts[name]
