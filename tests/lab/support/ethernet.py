"""Frames, byte by byte: what a guest may send is not only what its kernel would."""

from __future__ import annotations

import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY_MAC = "00:00:00:00:00:00"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"

ARP_REQUEST, ARP_REPLY, RARP_REPLY = 1, 2, 4
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT, REDIRECT = 135, 136, 137
SOURCE_LINK, TARGET_LINK = 1, 2


def mac(text: str) -> bytes:
    """A MAC address as bytes."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(to: str, source: str, kind: int, payload: bytes) -> bytes:
    """A frame; `kind` is its ethertype, or its length as in IEEE 802.3."""
    return mac(to) + mac(source) + struct.pack("!H", kind) + payload


def tagged(frame: bytes, vlan: int, kind: int = 0x8100) -> bytes:
    """The frame with a VLAN tag."""
    return frame[:12] + struct.pack("!HH", kind, vlan) + frame[12:]


def arp(
    to: str, source: str, operation: int, sender: tuple[str, str], target: tuple[str, str], kind: int = 0x0806
) -> bytes:
    """An ARP packet, or RARP with another `kind`; `sender` and `target` are a MAC and an IP address each."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    ends = b"".join(mac(hardware) + socket.inet_aton(ip) for hardware, ip in (sender, target))
    return ethernet(to, source, kind, head + ends)


def rarp(source: str, announced: str) -> bytes:
    """What a hypervisor sends for a VM that has moved."""
    ends = (announced, "0.0.0.0")
    return arp(BROADCAST, source, RARP_REPLY - 1, ends, ends, 0x8035)


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, target: str, protocol: int, payload: bytes, ttl: int = 64) -> bytes:
    """An IPv4 packet."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0)
    return head[:10] + struct.pack("!H", checksum(head + ends)) + ends + payload


def udp4(source: str, target: str, ports: tuple[int, int], payload: bytes, ttl: int = 64) -> bytes:
    """An IPv4 packet with UDP from one port to another; without a checksum, which is allowed."""
    return ipv4(source, target, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, ttl)


SYN, ACK, DATA, END = 2, 16, 24, 17
"""Flags of TCP segments; DATA are those of one from the middle of a connection, END those of its last one."""


def tcp4(
    source: str, target: str, ports: tuple[int, int], flags: int, payload: bytes = b"", sequence: int = 1
) -> bytes:
    """An IPv4 packet with a TCP segment; what it acknowledges is the number of its own first byte."""
    head = struct.pack("!HHIIBBHHH", *ports, sequence, sequence if flags & ACK else 0, 5 << 4, flags, 8192, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 6, len(head) + len(payload))
    checked = struct.pack("!H", checksum(ends + head + payload))
    return ipv4(source, target, 6, head[:16] + checked + head[18:] + payload)


def ping4(source: str, target: str, payload: bytes) -> bytes:
    """An echo request."""
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + payload
    return ipv4(source, target, 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def ipv6(source: str, target: str, protocol: int, payload: bytes, hops: int = 255) -> bytes:
    """An IPv6 packet."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + ends + payload


def udp6(source: str, target: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """An IPv6 packet with UDP."""
    return ipv6(source, target, 17, summed(source, target, 17, _udp6(ports, payload), 6))


def _udp6(ports: tuple[int, int], payload: bytes) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


def icmp6(source: str, target: str, kind: int, body: bytes) -> bytes:
    """An IPv6 packet with ICMPv6; `body` is what follows the checksum."""
    return ipv6(source, target, 58, icmp6_payload(source, target, kind, body))


def icmp6_payload(source: str, target: str, kind: int, body: bytes) -> bytes:
    """An ICMPv6 message alone."""
    return summed(source, target, 58, struct.pack("!BBH", kind, 0, 0) + body, 2)


def packed(address: str) -> bytes:
    """An address of either family as bytes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def summed(source: str, target: str, protocol: int, message: bytes, at: int) -> bytes:
    """Put the checksum, which covers the addresses too, into a message."""
    ends = packed(source) + packed(target)
    total = checksum(ends + struct.pack("!II", len(message), protocol) + message)
    return message[:at] + struct.pack("!H", total) + message[at + 2 :]


def neighbour(kind: int, target: str, link: str = "") -> bytes:
    """The body of a neighbour solicitation or advertisement about `target`; `link` is the MAC in its option."""
    flags = 0x20 << 24 if kind == NEIGHBOUR_ADVERTISEMENT else 0
    option = TARGET_LINK if kind == NEIGHBOUR_ADVERTISEMENT else SOURCE_LINK
    return (
        struct.pack("!I", flags)
        + socket.inet_pton(socket.AF_INET6, target)
        + (bytes([option, 1]) + mac(link) if link else b"")
    )


def router(lifetime: int = 1800) -> bytes:
    """The body of a router advertisement."""
    return struct.pack("!BBHII", 64, 0, lifetime, 0, 0)


def redirected(target: str, destination: str) -> bytes:
    """The body of an ICMPv6 redirect."""
    return bytes(4) + b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (target, destination))


def solicited(target: str) -> tuple[str, str]:
    """The multicast address, and its MAC, at which the owner of an IPv6 address listens."""
    tail = socket.inet_pton(socket.AF_INET6, target)[-3:]
    address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + tail)
    return address, f"33:33:ff:{tail[0]:02x}:{tail[1]:02x}:{tail[2]:02x}"


def bfd(state: int) -> bytes:
    """A BFD control message: 0 is administratively down, 1 down, 2 init, 3 up."""
    return struct.pack("!BBBBIIIII", 0x20, state << 6, 3, 24, 0x1234, 0, 1_000_000, 1_000_000, 0)
