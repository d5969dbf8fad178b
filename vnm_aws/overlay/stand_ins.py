"""Stand-in addresses: what stands for the AWS_PRIVATE_IP of a NIC on a node in another subnet, where that address cannot be.

The front-end chooses them and tells them to the node of the VM. A guest port as its VM's file has it knows nothing of them,
so one may come before the port and after it, and go. Where an address meets the VPC, the port `in_force` counts.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ..addresses import ipv4, shown
from ..errors import AwsOvsError
from ..names import STAND_INS
from .guest_port import GuestPort, Mapping

LIMIT = 256 << 10
"""Bytes of the list."""
_MOST = 4096
"""Of its pairs; an instance has fewer addresses."""
_EXAMPLE = 'send {"stand_ins": {"10.0.0.41": "10.0.2.41"}}'


class StandIns(NamedTuple):
    """The stand-in addresses of a node, by the private addresses that they stand for."""

    pairs: dict[str, str]

    def of(self, private_ip: str) -> str:
        """Name the address that a private address is by on this node: itself, unless another stands for it."""
        return self.pairs.get(private_ip, private_ip)

    def in_force(self, port: GuestPort) -> GuestPort:
        """Put stand-in addresses in the place of those that they stand for. The latter stay the port's own."""
        if not self.pairs:
            return port
        mappings = tuple(Mapping(pair.inside, self.of(pair.outside)) for pair in port.mappings)
        shared = tuple(
            item._replace(private_ip=self.of(item.private_ip), outside=self.of(item.outside)) for item in port.shared
        )
        if (mappings, shared) == (port.mappings, port.shared):
            return port
        now = port._replace(mappings=mappings, shared=shared)
        replaced = tuple(str(claim) for claim in port.claims if claim not in now.claims)
        return now._replace(further_claims=(*port.further_claims, *replaced))


def parse(text: bytes) -> StandIns:
    """Read a document like `{"stand_ins": {"10.0.0.41": "10.0.2.41"}}`.

    Raises:
        AwsOvsError: it is not such a document, or an address is in it twice.
    """
    if len(text) > LIMIT:
        raise AwsOvsError(f"the list of stand-in addresses is larger than {LIMIT} bytes", _EXAMPLE)
    try:
        pairs: Any = json.loads(text.decode(), object_pairs_hook=_once)["stand_ins"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AwsOvsError("the list of stand-in addresses is not valid", _EXAMPLE) from None
    if not isinstance(pairs, dict) or len(pairs) > _MOST or not all(isinstance(item, str) for item in pairs.values()):
        raise AwsOvsError(f"stand_ins is no object of at most {_MOST} pairs of addresses", _EXAMPLE)
    seen: set[str] = set()
    for address in (*pairs, *pairs.values()):
        ipv4(address, "a stand-in, or what it stands for,")
        if address in seen:
            what = f"{shown(address)} is twice in the list of stand-in addresses"
            raise AwsOvsError(what, "give each private address a stand-in of its own")
        seen.add(address)
    return StandIns(pairs)


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members, each of which is there once."""
    members = dict(items)
    if len(members) != len(items):
        raise ValueError(items)
    return members


def read() -> StandIns:
    """Read what this node was told; none when nothing was.

    Raises:
        AwsOvsError: the file is damaged.
    """
    try:
        with open(STAND_INS, "rb") as file:
            return parse(file.read(LIMIT + 1))
    except FileNotFoundError:
        return StandIns({})
    except OSError as error:
        raise AwsOvsError(f"{STAND_INS} cannot be read ({error.strerror})", f"see 'ls -l {STAND_INS}'") from None


def load() -> StandIns:
    """Read what this node was told, if it can be read: a damaged file, of which `check` tells, keeps no VM from starting."""
    try:
        return read()
    except AwsOvsError:
        return StandIns({})


def document(stand_ins: StandIns) -> str:
    """Write a list as a node reads it."""
    return json.dumps({"stand_ins": dict(sorted(stand_ins.pairs.items()))})
