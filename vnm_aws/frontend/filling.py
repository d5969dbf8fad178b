"""Give Elastic IPs of a pool their private addresses and ranges, many at once: one call an ENI, and one look for all.

A range can be leased as soon as oned has it, so EC2 is asked first: a private address is put on an ENI, as one that nobody may
have, and only when EC2 shows it there the range is written. What EC2 refuses is replaced by the next candidate.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from ..errors import AwsOvsError
from ..names import ALLOCATION_ID, EXTERNAL_IP, PRIVATE_IP
from .attempts import Attempts
from .deadline import OverError
from .ec2_errors import Ec2Error
from .ec2_objects import ElasticIp
from .elastic_ips import led_to, untag
from .free_addresses import Chooser, NoRoomError
from .objects import AddressRange, Network
from .plan import Plan, SeveralErrors
from .world import World

READY = 25
"""So many Elastic IPs of a pool lead to their private addresses while no VM has them; the others do when a VM gets them. Each
takes a call of its own, for nobody's good yet."""

_CALLS = 64
"""How often EC2 is asked for other addresses of an ENI in a run; the next run goes on with those that are left."""

_OF_ADDRESSES = {"InvalidParameterValue", "PrivateIpAddressInUse", "InvalidIPAddress.InUse"}
"""What EC2 says of an address that cannot be had: another ENI has it, perhaps one of another account, or a prefix holds it."""

_ADDRESS = re.compile(r"(?<![\d.])\d+\.\d+\.\d+\.\d+(?![\d./])")


@dataclass
class Need:
    """What an Elastic IP lacks.

    Attributes:
        eip: the Elastic IP.
        item: its range; None when it is to get one.
        inside: the address in the network, for a new range.
        address: the private address.
        eni_id: where that is, or is to be; empty when it is associated already.
        fresh: it is not there yet.
        lead: the Elastic IP is to lead to it.
        error: why it cannot be done.
    """

    eip: ElasticIp
    item: AddressRange | None
    inside: str
    address: str
    eni_id: str = ""
    fresh: bool = False
    lead: bool = False
    error: AwsOvsError | None = None

    def values(self) -> dict[str, str]:
        """Compose the attributes of its range."""
        own = {ALLOCATION_ID: self.eip.allocation_id, EXTERNAL_IP: self.eip.public_ip, PRIVATE_IP: self.address}
        return {**(self.item.attributes if self.item else {}), **own}


class Filling:
    """Collect what the Elastic IPs of a pool need, as changes of a plan that are made together when the first is applied.

    Args:
        world: both worlds.
        network: the pool, with its leases.
        result: gets the changes.
        idle: the Elastic IPs that no VM has.
    """

    def __init__(self, world: World, network: Network, result: Plan, idle: Collection[ElasticIp]) -> None:
        self._world, self._network, self._result = world, network, result
        self._attempts = Attempts(world.settings.state_directory)
        ready = sum(bool(eip.private_ip) for eip in idle)
        self.chooser = Chooser(world, network, self._attempts, len(idle) - ready)
        self._left = READY - ready
        self._needs: list[Need] = []
        self._prepared = False
        self._trouble: AwsOvsError | None = None
        self._stop: AwsOvsError | None = None
        self._led: dict[str, ElasticIp] | None = None

    def add_range(self, eip: ElasticIp) -> None:
        """Plan a range for an Elastic IP that has none.

        Raises:
            AwsOvsError: there is no address for it, or it must not have one.
        """
        need = Need(eip, None, self.chooser.inside(), eip.private_ip)
        if not eip.private_ip:
            self._find_address(need)
        self._plan(need)

    def keep_range(self, eip: ElasticIp, item: AddressRange, address: str) -> None:
        """Plan what an Elastic IP lacks whose range nobody has a lease of. An empty address is any.

        Raises:
            AwsOvsError: there is no address for it, or it must not have one.
        """
        need = Need(eip, item, "", address)
        eni = self._world.eni_of_address.get(address)
        if not eip.private_ip and eni is not None:
            need.eni_id = eni.eni_id
        elif not eip.private_ip:
            place = self.chooser.place(eip, address) if address else None
            if address and place is None:
                return  # It had to leave, and returns when there is room.
            if place is None:
                self._find_address(need)
            else:
                self._look(eip)
                need.eni_id, need.fresh = place, True
        self._plan(need)

    def _find_address(self, need: Need) -> None:
        """Find a private address for an Elastic IP: what an earlier run has put on an ENI for it, else a free one.

        Raises:
            AwsOvsError: there is none, or the Elastic IP must not have one.
        """
        need.address = self._attempts.meant(need.eip.allocation_id)
        need.eni_id = self._left_over(need.address)
        if not need.eni_id:
            self.chooser.require_room(need.eip)
        self._look(need.eip)
        if not need.eni_id:
            need.address, need.eni_id = self.chooser.private_ip(need.eip)
            need.fresh = True

    def _look(self, eip: ElasticIp) -> None:
        """Look whether an Elastic IP may get an address; what cannot be read is asked for once."""
        if self._trouble is None:
            try:
                if self.chooser.room:
                    self._world.reservations  # noqa: B018 - read here, where it can fail
                transferred = self._world.transferred
            except OverError:
                raise
            except AwsOvsError as error:
                self._trouble = error
            else:
                if eip.allocation_id in transferred:
                    what = (
                        "is in a pool, but offered to another account, which can accept it only while it leads nowhere"
                    )
                    disable = f"aws ec2 disable-address-transfer --allocation-id {eip.allocation_id}"
                    raise AwsOvsError(what, f"end that with '{disable}', or {untag(self._network, eip)}")
                return
        raise self._trouble

    def _left_over(self, address: str) -> str:
        """Name the ENI on which an earlier run has put an address and has not come to write its range; empty when none is."""
        eni = self._world.eni_of_address.get(address)
        if eni is None or eni.eni_id not in self.chooser.room or eni.primary == address:
            return ""
        noted = any(address in network.values_of_ranges(PRIVATE_IP) for network in self._world.networks)
        return "" if noted or led_to(self._world, address) else eni.eni_id

    def _plan(self, need: Need) -> None:
        need.lead = not need.eip.private_ip and self._left > 0
        self._left -= need.lead
        if need.item is None or need.values() != need.item.attributes or need.fresh or need.lead:
            self._needs.append(need)
            self._result.change(f"Elastic IP {need.eip.public_ip}", self._text(need), self._make, need)

    def _text(self, need: Need) -> str:
        if need.item is None:
            return f"add range {need.inside} with {need.address} to network {self._network.name}"
        where = f"range {need.item.ar_id} of network {self._network.name}"
        if need.values() != need.item.attributes:
            return f"set {where} to {need.address}"
        return (
            f"associate with {need.address} ({where})"
            if need.lead
            else f"put {need.address} on {need.eni_id} ({where})"
        )

    def _make(self, need: Need) -> str:
        """Make what an Elastic IP needs; with the first, all get private addresses, with the last, all is confirmed."""
        if not self._prepared:
            self._prepared = True
            self._assign_all([each for each in self._needs if each.fresh])
        try:
            if need.error is None:
                self._write(need)
                self._lead(need)
        except OverError:
            raise
        except AwsOvsError as error:
            need.error = error
        errors = [need.error] if need.error else []
        if need is self._needs[-1]:
            errors += self._end()
        if errors:
            raise SeveralErrors(errors)
        return self._text(need)

    def _write(self, need: Need) -> None:
        world, network = self._world, self._network
        if need.item is None:
            values = {"TYPE": "IP4", "IP": need.inside, "SIZE": "1", **need.values()}
            world.oned.add_range(network.network_id, values)
        elif need.values() != need.item.attributes:
            now = world.oned.network(network.network_id)
            if any(item.used for item in now.ranges if item.ar_id == need.item.ar_id):
                what = f"range {need.item.ar_id} of network {network.name} has been leased just now and cannot change"
                raise AwsOvsError(what, "run 'oneaws eip sync' again")
            world.oned.update_range(network.network_id, need.item.ar_id, need.values())

    def _assign_all(self, fresh: list[Need]) -> None:
        """Put private addresses on ENIs, and wait until EC2 shows all of them."""
        if not fresh:
            return
        by_eni: dict[str, list[Need]] = defaultdict(list)
        for need in fresh:
            by_eni[need.eni_id].append(need)
        self._attempts.mean({need.eip.allocation_id: need.address for need in fresh})
        for eni_id, needs in by_eni.items():
            self._assign(eni_id, needs)
        self._confirm_addresses([need for need in fresh if need.error is None])

    def _confirm_addresses(self, waiting: list[Need]) -> None:
        def visible() -> bool:
            shown = self._world.ec2.interfaces_with({need.eni_id for need in waiting}) if waiting else {}
            waiting[:] = [
                need for need in waiting if need.eni_id not in shown or need.address not in shown[need.eni_id].addresses
            ]
            return not waiting

        try:
            self._world.ec2.confirm(", ".join(f"{need.address} on {need.eni_id}" for need in waiting[:5]), visible)
        except OverError:
            raise
        except AwsOvsError as error:
            for need in waiting:
                need.error = error

    def _assign(self, eni_id: str, needs: list[Need]) -> None:
        """Put private addresses on an ENI, with others instead of those that EC2 refuses; a need that goes without says why."""
        asked, calls = [list(needs)], 0
        if self._stop:
            asked = []
            for need in needs:
                need.error = self._stop
        while asked:
            part, calls = asked.pop(), calls + 1
            try:
                addresses = [need.address for need in part]
                self._world.ec2.assign(eni_id, addresses, move=False)
                self._world.taken.note(eni_id, addresses, ())
            except OverError:
                raise
            except AwsOvsError as error:
                named = _refused(error, part)
                if named is None or calls > _CALLS:
                    for need in part:
                        need.error = error
                    if not isinstance(error, Ec2Error) or error.concerns_account:
                        self._stop = error
                elif named or len(part) == 1:
                    self._replace(eni_id, named or part, error)
                    asked.append([need for need in part if need.error is None])
                else:  # It says not which, so each half is asked for by itself.
                    asked += [part[: len(part) // 2], part[len(part) // 2 :]]
            asked = [each for each in asked if each]

    def _replace(self, eni_id: str, refused: list[Need], error: AwsOvsError) -> None:
        """Choose other addresses instead of refused ones."""
        self._attempts.refuse([need.address for need in refused])
        for need in refused:
            address = self.chooser.another(eni_id)
            if address is None:
                need.error = NoRoomError(f"{error.what}, and its subnet has no other free address", error.remedy)
            else:
                need.address = address
        self._attempts.mean({need.eip.allocation_id: need.address for need in refused if need.error is None})

    def _lead(self, need: Need) -> None:
        """Let an Elastic IP that leads nowhere lead to its private address, unless that has got another one meanwhile.

        Raises:
            AwsOvsError: it has; or EC2 refuses.
        """
        if not need.lead:
            return
        if self._stop:
            raise self._stop
        if self._led is None:
            self._led = self._look_who_leads()
        other = self._led.get(need.address)
        if other is not None:
            what = (
                f"{need.address} has the Elastic IP {other.public_ip} already, so {need.eip.public_ip} cannot have it"
            )
            raise AwsOvsError(what, "disassociate one")
        self._world.ec2.associate(need.eip.allocation_id, need.eni_id, need.address, move=False)

    def _look_who_leads(self) -> dict[str, ElasticIp]:
        """Read which Elastic IPs lead to the private addresses of the needs, just before they get their own."""
        needs = [need for need in self._needs if need.lead]
        here = {
            *self._world.interfaces,
            *(need.eni_id for need in needs),
        }  # another VPC may have the same private address
        try:
            eips = self._world.ec2.elastic_ips_at([need.address for need in needs]).values()
        except OverError:
            raise
        except AwsOvsError as error:
            self._stop = error
            raise
        return {eip.private_ip: eip for eip in eips if eip.eni_id in here}

    def _end(self) -> list[AwsOvsError]:
        """Forget what was meant, and wait until EC2 shows where the Elastic IPs lead; an error says what it does not show."""
        done = [need for need in self._needs if need.error is None]
        self._attempts.reached({need.eip.allocation_id for need in done})
        waiting = {need.eip.allocation_id: need for need in done if need.lead}

        def visible() -> bool:
            for key, eip in (self._world.ec2.elastic_ips([*waiting]) if waiting else {}).items():
                if eip.private_ip == waiting[key].address:
                    del waiting[key]
            return not waiting

        try:
            led = [f"{need.eip.public_ip} at {need.address}" for need in waiting.values()]
            self._world.ec2.confirm(", ".join(led[:5]), visible)
        except OverError:
            raise
        except AwsOvsError as error:
            return [error]
        return []


def _refused(error: AwsOvsError, needs: list[Need]) -> list[Need] | None:
    """Find the needs whose addresses EC2 refuses, as far as it names them; None when it is about something else."""
    if not isinstance(error, Ec2Error) or error.concerns_account:
        return None
    named = set(_ADDRESS.findall(error.what))
    result = [need for need in needs if need.address in named]
    return result if result or error.code in _OF_ADDRESSES else None
