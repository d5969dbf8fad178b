"""Packets of all protocols, and their answers, with checksums that are right: connection tracking looks at them.

Each has a token in it, by which it is known where it arrives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.lab.support import ethernet as eth
from tests.verdicts.cases import ANSWERED, ESP, GRE, ICMP, ICMPV6, PROTOCOLS, SCTP, TCP, UDP, Packet

_NAMES = {number: name for name, number in PROTOCOLS.items()}
_AH, _NOTHING = 51, 59
_SYN, _SYN_ACK = 0x02, 0x12
_INIT, _INIT_ACK = 1, 2
_ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMPV6: (1, 2, 3, 4)}
_ABOUT = (53123, 33434)
"""Ports of a packet that nobody has sent, about which an ICMP error is."""


class Ends(NamedTuple):
    """From which address a packet goes to which, as whoever sends or gets it sees them."""

    source: str
    target: str

    def swapped(self) -> Ends:
        """Return the ends of what goes the other way."""
        return Ends(self.target, self.source)


_NONCE = 14
"""An option of neighbour discovery in which anything may be."""
_DISCOVERY: dict[int, Callable[[Ends, str], bytes]] = {
    eth.ROUTER_SOLICITATION: lambda ends, mac: bytes(4),
    eth.ROUTER_ADVERTISEMENT: lambda ends, mac: eth.router(),
    eth.NEIGHBOUR_SOLICITATION: lambda ends, mac: eth.neighbour(eth.NEIGHBOUR_SOLICITATION, ends.target, mac),
    eth.NEIGHBOUR_ADVERTISEMENT: lambda ends, mac: eth.neighbour(eth.NEIGHBOUR_ADVERTISEMENT, ends.source, mac),
    eth.REDIRECT: lambda ends, mac: eth.redirected(ends.source, ends.source),
}


def request(packet: Packet, ends: Ends, token: bytes, mac: str) -> bytes:
    """Make the packet of a case, from the IP header on; `mac` is whose it is, for neighbour discovery."""
    ports = (packet.source_port, packet.port)
    if packet.protocol == TCP:
        return _ip(ends, TCP, _tcp(ends, ports, token, bytes(4), _SYN))
    if packet.protocol == SCTP:
        return _ip(ends, SCTP, _sctp(ports, bytes(4), _INIT, token))
    if packet.protocol in (ICMP, ICMPV6):
        return _icmp(ends, packet.protocol, packet.type, packet.code, _icmp_body(packet, ends, token, mac))
    return _stateless(ends, packet.protocol, ports, token)


def answer(packet: Packet, ends: Ends, token: bytes) -> bytes:
    """Make the answer to the packet of a case, with the same token; the ends are those of the answer."""
    ports = (packet.port, packet.source_port)
    if packet.protocol == TCP:
        return _ip(ends, TCP, _tcp(ends, ports, token, _next(token), _SYN_ACK))
    if packet.protocol == SCTP:
        return _ip(ends, SCTP, _sctp(ports, token, _INIT_ACK, token))
    if packet.protocol in (ICMP, ICMPV6):
        kind = ANSWERED[packet.protocol][packet.type]
        return _icmp(ends, packet.protocol, kind, 0, _identified(token))
    return _stateless(ends, packet.protocol, ports, token)


def described(packet: Packet, ends: Ends) -> str:
    """Say in words what the packet of a case is."""
    name = _NAMES.get(packet.protocol, f"protocol {packet.protocol}")
    if packet.protocol in (TCP, UDP, SCTP):
        return f"{name} {ends.source} port {packet.source_port} to {ends.target} port {packet.port}"
    if packet.protocol in (ICMP, ICMPV6):
        name = f"{name} type {packet.type} code {packet.code}"
    return f"{name} {ends.source} to {ends.target}"


def is_request(packet: Packet, frame: bytes, ends: Ends, token: bytes) -> bool:
    """Tell whether a frame has the packet of a case."""
    icmp_type = packet.type if packet.protocol in (ICMP, ICMPV6) else None
    return _holds(frame, packet.protocol, ends, token, icmp_type)


def is_answer(packet: Packet, frame: bytes, ends: Ends, token: bytes) -> bool:
    """Tell whether a frame has the answer to the packet of a case."""
    icmp_type = ANSWERED[packet.protocol][packet.type] if packet.protocol in (ICMP, ICMPV6) else None
    return _holds(frame, packet.protocol, ends, token, icmp_type)


def _holds(frame: bytes, protocol: int, ends: Ends, token: bytes, icmp_type: int | None) -> bool:
    if frame[12:14] == b"\x08\x00":
        number, source, target, payload = frame[23], frame[26:30], frame[30:34], frame[34:]
    elif frame[12:14] == b"\x86\xdd":
        number, source, target, payload = frame[20], frame[22:38], frame[38:54], frame[54:]
    else:
        return False
    if (number, source, target) != (protocol, eth.packed(ends.source), eth.packed(ends.target)):
        return False
    return token in payload and icmp_type in (None, payload[0])


def _ip(ends: Ends, protocol: int, payload: bytes) -> bytes:
    make = eth.ipv6 if ":" in ends.source else eth.ipv4
    return make(ends.source, ends.target, protocol, payload)


def _stateless(ends: Ends, protocol: int, ports: tuple[int, int], token: bytes) -> bytes:
    if protocol == UDP:
        message = struct.pack("!HHHH", *ports, 8 + len(token), 0) + token
        return _ip(ends, UDP, eth.summed(ends.source, ends.target, UDP, message, 6))
    if protocol == ESP:
        return _ip(ends, ESP, token + struct.pack("!I", 1) + token * 8)
    if protocol == GRE:
        return _ip(ends, GRE, struct.pack("!HH", 0, 0x0800) + token * 8)
    if protocol == _AH:  # in IPv6 an extension header, which must say what follows: nothing
        return _ip(ends, _AH, bytes((_NOTHING, 1, 0, 0)) + token * 8)
    return _ip(ends, protocol, token * 8)


def _tcp(ends: Ends, ports: tuple[int, int], sequence: bytes, acknowledged: bytes, flags: int) -> bytes:
    message = struct.pack("!HH4s4sBBHHH", *ports, sequence, acknowledged, 5 << 4, flags, 64000, 0, 0)
    return eth.summed(ends.source, ends.target, TCP, message, 16)


def _next(sequence: bytes) -> bytes:
    return ((int.from_bytes(sequence, "big") + 1) & 0xFFFFFFFF).to_bytes(4, "big")


def _sctp(ports: tuple[int, int], tag: bytes, chunk: int, own_tag: bytes) -> bytes:
    """Make SCTP's first packet or the answer to it: header, and one chunk."""
    parameters = struct.pack("!IHHI", 65536, 1, 1, 1)
    # A state cookie, without which an answer is none.
    cookie = struct.pack("!HH", 7, 8) + own_tag if chunk == _INIT_ACK else b""
    body = struct.pack("!BBH", chunk, 0, 20 + len(cookie)) + own_tag + parameters + cookie
    head = struct.pack("!HH4s", *ports, tag)
    return head + struct.pack("<I", _crc32c(head + bytes(4) + body)) + body


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _icmp(ends: Ends, protocol: int, kind: int, code: int, body: bytes) -> bytes:
    message = struct.pack("!BBH", kind, code, 0) + body
    if protocol == ICMPV6:
        return _ip(ends, protocol, eth.summed(ends.source, ends.target, protocol, message, 2))
    return _ip(ends, protocol, message[:2] + struct.pack("!H", eth.checksum(message)) + message[4:])


def _icmp_body(packet: Packet, ends: Ends, token: bytes, mac: str) -> bytes:
    """Make what follows the checksum: for an error, the packet that it is about, of a connection that nobody has."""
    if packet.type in _ERRORS[packet.protocol]:
        return bytes(4) + _stateless(ends.swapped(), UDP, _ABOUT, token * 4)
    if packet.protocol == ICMPV6 and packet.type in _DISCOVERY:
        return _DISCOVERY[packet.type](ends, mac) + bytes((_NONCE, 1)) + token + bytes(2)
    return _identified(token)


def _identified(token: bytes) -> bytes:
    """Make identifier and sequence number, which an answer has too, and what is sent along."""
    return token[2:] + bytes((0, 1)) + token * 8
