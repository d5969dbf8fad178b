"""What the VPC, its Internet gateway and the Internet do with a packet: pure functions of EC2's state.

The rules are Amazon's: a VPC forwards by IP, answers ARP itself, passes a frame only from the ENI's own MAC with a
source address that EC2 lists on that ENI, drops multicast and broadcast, and translates an Elastic IP at the gateway,
also inside ICMP errors. Each drop has a reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import NamedTuple

ROUTER_MAC = bytes.fromhex("0a0000000001")
INTERNET_MAC = bytes.fromhex("0a0000000002")
INTERNET = "internet"
HOP = bytes((192, 0, 2, 1))
"""Address of the hop behind the gateway that has a smaller MTU when a test sets one."""

VPC_MTU, GATEWAY_MTU = 9001, 1500
_IPV4, _ARP = b"\x08\x00", b"\x08\x06"
_BROADCAST = b"\xff" * 6
_ICMP_ERRORS = (3, 11, 12)

Out = list[tuple[str, bytes]]


class Eni(NamedTuple):
    """An ENI as EC2 describes it."""

    eni_id: str
    mac: bytes
    addresses: frozenset[bytes]


class State(NamedTuple):
    """EC2's state: who owns each private address, and which public address it has."""

    enis: dict[str, Eni]
    owners: dict[bytes, Eni]
    public: dict[bytes, bytes]
    private: dict[bytes, bytes]


def state(interfaces: list[tuple[str, str, list[str]]], elastic: list[tuple[str, str]]) -> State:
    """A state from (ENI id, MAC, private addresses) and (public address, private address)."""
    enis = {
        eni_id: Eni(eni_id, bytes.fromhex(mac.replace(":", "")), frozenset(map(_ip, addresses)))
        for eni_id, mac, addresses in interfaces
    }
    owners = {address: eni for eni in enis.values() for address in eni.addresses}
    pairs = [(_ip(public), _ip(private)) for public, private in elastic]
    return State(enis, owners, {private: public for public, private in pairs}, dict(pairs))


def _ip(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _adjust(packet: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Correct the checksum at `at` for `old` having become `new` (RFC 1624)."""
    total = ~int.from_bytes(packet[at : at + 2], "big") & 0xFFFF
    for index in (0, 2):
        total += (~int.from_bytes(old[index : index + 2], "big") & 0xFFFF) + int.from_bytes(
            new[index : index + 2], "big"
        )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")


def _exchange(packet: bytearray, at: int, new: bytes, start: int = 0) -> None:
    """Replace the address at offset `at` of the IP header at `start`, and correct all checksums that cover it."""
    old = bytes(packet[start + at : start + at + 4])
    if old == new:
        return
    packet[start + at : start + at + 4] = new
    _adjust(packet, start + 10, old, new)
    payload = start + (packet[start] & 15) * 4
    if int.from_bytes(packet[start + 6 : start + 8], "big") & 0x1FFF:
        return  # only the first fragment has the transport header
    protocol = packet[start + 9]
    if protocol == 6 and len(packet) >= payload + 18:
        _adjust(packet, payload + 16, old, new)
    elif protocol == 17 and len(packet) >= payload + 8 and packet[payload + 6 : payload + 8] != b"\0\0":
        _adjust(packet, payload + 6, old, new)


def _quoted(packet: bytearray) -> int:
    """Offset of the IP header that an ICMP error quotes, or 0."""
    payload = (packet[0] & 15) * 4
    first = not int.from_bytes(packet[6:8], "big") & 0x1FFF
    if packet[9] == 1 and first and len(packet) >= payload + 28 and packet[payload] in _ICMP_ERRORS:
        return payload + 8
    return 0


def _exchange_quoted(packet: bytearray, start: int, at: int, new: bytes) -> None:
    _exchange(packet, at, new, start)
    payload = (packet[0] & 15) * 4
    packet[payload + 2 : payload + 4] = b"\0\0"
    packet[payload + 2 : payload + 4] = checksum(packet[payload:]).to_bytes(2, "big")


class Router:
    """The fabric; `frame` takes a frame and returns what comes out where.

    Args:
        vpc: first address and prefix length of the VPC, such as (b"\\n\\0\\0\\0", 16).
        router: address of the subnet's router. Each further subnet is a /24, and has its router at its first address, too.
    """

    def __init__(self, vpc: tuple[bytes, int], router: bytes) -> None:
        self._mask = ~((1 << (32 - vpc[1])) - 1) & 0xFFFFFFFF
        self._vpc = int.from_bytes(vpc[0], "big") & self._mask
        self._router = router
        self.state = State({}, {}, {}, {})
        self.internet_mtu = GATEWAY_MTU
        self.drops: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.last: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=20))

    def frame(self, port: str, frame: bytes) -> Out:
        """A frame from ENI `port`, or from the Internet."""
        if len(frame) < 34:
            return self._drop("short", port, frame)
        if port == INTERNET:
            if frame[12:14] != _IPV4:
                return []
            return self._inward(bytearray(frame[14 : 14 + int.from_bytes(frame[16:18], "big")]), port, frame)
        eni = self.state.enis.get(port)
        if eni is None:
            return self._drop("no-such-eni", port, frame)
        if frame[6:12] != eni.mac:
            return self._drop("wrong-mac", port, frame)
        kind = frame[12:14]
        if kind == _ARP:
            return self._arp(eni, frame)
        if kind != _IPV4:
            return self._drop("not-ip", port, frame)
        source, destination, to = frame[26:30], frame[30:34], frame[:6]
        if to == _BROADCAST or destination == b"\xff\xff\xff\xff":
            return self._drop("broadcast", port, frame)
        if to[0] & 1 or 224 <= destination[0] < 240:
            return self._drop("multicast", port, frame)
        if source not in eni.addresses:
            return self._drop("source-not-on-eni", port, frame)
        if to != ROUTER_MAC:
            return self._drop("unknown-destination-mac", port, frame)
        if destination[:2] == b"\xa9\xfe":
            return self._drop("link-local", port, frame)
        packet = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
        owner = self.state.owners.get(destination)
        if owner is not None:
            return self._deliver(owner, packet, port, frame)
        if int.from_bytes(destination, "big") & self._mask == self._vpc:
            return self._drop("no-such-address", port, frame)
        return self._outward(eni, bytearray(packet), port, frame)

    def _drop(self, reason: str, port: str, frame: bytes) -> Out:
        self.drops[reason] += 1
        what = f"{port} {frame[6:12].hex(':')}"
        if frame[12:14] == _IPV4 and len(frame) >= 34:
            what += f" {_dotted(frame[26:30])} > {_dotted(frame[30:34])} protocol {frame[23]}"
        self.last[reason].append(what)
        return []

    def _deliver(self, owner: Eni, packet: bytes | bytearray, port: str, frame: bytes) -> Out:
        if len(packet) > VPC_MTU:
            return self._drop("too-big", port, frame)
        self.delivered[owner.eni_id] += 1
        return [(owner.eni_id, owner.mac + ROUTER_MAC + _IPV4 + packet)]

    def _arp(self, eni: Eni, frame: bytes) -> Out:
        operation, sender, target = frame[20:22], frame[28:32], frame[38:42]
        exists = self._is_router(target) or target in self.state.owners
        if operation != b"\0\1" or not exists or target in eni.addresses:
            return self._drop("arp", eni.eni_id, frame)
        answer = frame[14:20] + b"\0\2" + ROUTER_MAC + target + eni.mac + sender
        return [(eni.eni_id, eni.mac + ROUTER_MAC + _ARP + answer)]

    def _is_router(self, address: bytes) -> bool:
        in_vpc = int.from_bytes(address, "big") & self._mask == self._vpc
        return address == self._router or (in_vpc and address[3] == 1)

    def _outward(self, eni: Eni, packet: bytearray, port: str, frame: bytes) -> Out:
        source, destination = bytes(packet[12:16]), bytes(packet[16:20])
        public = self.state.public.get(source)
        if public is None:
            return self._drop("no-public-address", port, frame)
        if packet[8] <= 1:
            return self._drop("ttl", port, frame)
        if len(packet) > GATEWAY_MTU:
            if packet[6] & 0x40:
                self.drops["frag-needed"] += 1
                return self._deliver(eni, _frag_needed(self._router, packet, GATEWAY_MTU), port, frame)
            return [out for piece in fragments(packet, GATEWAY_MTU) for out in self._outward(eni, piece, port, frame)]
        _hop(packet)
        _exchange(packet, 12, public)
        quoted = _quoted(packet)
        if quoted:
            inner = self.state.public.get(bytes(packet[quoted + 16 : quoted + 20]))
            if inner is not None:
                _exchange_quoted(packet, quoted, 16, inner)
        if destination in self.state.private:
            return self._inward(packet, port, frame)
        if len(packet) > self.internet_mtu and packet[6] & 0x40:
            self.drops["frag-needed"] += 1
            return self._inward(_frag_needed(HOP, packet, self.internet_mtu), port, frame)
        return [(INTERNET, INTERNET_MAC + ROUTER_MAC + _IPV4 + piece) for piece in fragments(packet, self.internet_mtu)]

    def _inward(self, packet: bytearray, port: str, frame: bytes) -> Out:
        if len(packet) < 20:
            return self._drop("short", port, frame)
        private = self.state.private.get(bytes(packet[16:20]))
        if private is None:
            return self._drop("unknown-eip", port, frame)
        owner = self.state.owners.get(private)
        if owner is None:
            return self._drop("no-such-address", port, frame)
        if packet[8] <= 1:
            return self._drop("ttl", port, frame)
        if len(packet) > self.internet_mtu and packet[6] & 0x40 and port == INTERNET:
            self.drops["frag-needed"] += 1
            return [(INTERNET, INTERNET_MAC + ROUTER_MAC + _IPV4 + _frag_needed(HOP, packet, self.internet_mtu))]
        _hop(packet)
        _exchange(packet, 16, private)
        quoted = _quoted(packet)
        if quoted:
            inner = self.state.private.get(bytes(packet[quoted + 12 : quoted + 16]))
            if inner is not None:
                _exchange_quoted(packet, quoted, 12, inner)
        return self._deliver(owner, packet, port, frame)


def _hop(packet: bytearray) -> None:
    old = bytes(packet[8:10]) + b"\0\0"
    packet[8] -= 1
    _adjust(packet, 10, old, bytes(packet[8:10]) + b"\0\0")


def _frag_needed(source: bytes, packet: bytes | bytearray, mtu: int) -> bytearray:
    """ICMP "fragmentation needed" about `packet`, from `source` to its sender (RFC 1191)."""
    body = bytearray(b"\x03\x04\0\0\0\0" + mtu.to_bytes(2, "big") + packet[: (packet[0] & 15) * 4 + 64])
    body[2:4] = checksum(body).to_bytes(2, "big")
    header = bytearray(
        b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + b"\0\0\0\0\x40\x01\0\0" + source + packet[12:16]
    )
    header[10:12] = checksum(header).to_bytes(2, "big")
    return header + body


def fragments(packet: bytearray, mtu: int) -> list[bytearray]:
    """The packet in pieces of `mtu` bytes at most."""
    if len(packet) <= mtu:
        return [packet]
    size = (packet[0] & 15) * 4
    step = (mtu - size) // 8 * 8
    flags = int.from_bytes(packet[6:8], "big")
    pieces = []
    for at in range(size, len(packet), step):
        piece = packet[:size] + packet[at : at + step]
        more = 0x2000 if at + step < len(packet) else flags & 0x2000
        piece[6:8] = (more | (flags & 0x1FFF) + (at - size) // 8).to_bytes(2, "big")
        piece[2:4] = len(piece).to_bytes(2, "big")
        piece[10:12] = b"\0\0"
        piece[10:12] = checksum(piece[:size]).to_bytes(2, "big")
        pieces.append(piece)
    return pieces
