"""The lab's VPC: what it does with each packet, checksums included."""

from __future__ import annotations

import struct

import pytest

from tests.world.vpc.router import HOP, INTERNET, ROUTER_MAC, Router, checksum, fragments, state

MAC1, MAC2 = "02:00:00:00:00:01", "02:00:00:00:00:02"
H1, H2, EIP1, EIP2, WORLD = "10.0.0.11", "10.0.0.12", "54.0.0.1", "54.0.0.2", "203.0.113.10"


def ip(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@pytest.fixture
def router() -> Router:
    made = Router((ip("10.0.0.0"), 16), ip("10.0.0.1"))
    made.state = state([("eni-1", MAC1, [H1, "10.0.0.41"]), ("eni-2", MAC2, [H2])], [(EIP1, "10.0.0.41"), (EIP2, H2)])
    return made


def packet(source: str, destination: str, protocol: int, payload: bytes, flags: int = 0, ttl: int = 64) -> bytes:
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, flags, ttl, protocol, 0) + ip(source) + ip(destination)
    )
    header[10:12] = checksum(header).to_bytes(2, "big")
    return bytes(header) + payload


def udp(source: str, destination: str, data: bytes = b"hello", flags: int = 0) -> bytes:
    segment = struct.pack("!HHHH", 1000, 53, 8 + len(data), 0) + data
    pseudo = ip(source) + ip(destination) + struct.pack("!BBH", 0, 17, len(segment))
    segment = segment[:6] + checksum(pseudo + segment).to_bytes(2, "big") + segment[8:]
    return packet(source, destination, 17, segment, flags)


def frame(data: bytes, source: str = MAC1, to: bytes = ROUTER_MAC, kind: bytes = b"\x08\x00") -> bytes:
    return to + mac(source) + kind + data


def assert_right(data: bytes) -> None:
    """All checksums of a packet, the quoted header of an ICMP error included."""
    assert checksum(data[:20]) == 0
    body = data[20:]
    if data[9] == 17 and not struct.unpack("!H", data[6:8])[0] & 0x3FFF:
        assert checksum(data[12:20] + struct.pack("!BBH", 0, 17, len(body)) + body) == 0
    if data[9] == 1:
        assert checksum(body) == 0
        if body[0] in (3, 11, 12):
            assert checksum(body[8:28]) == 0


def test_between_instances_nothing_but_the_macs_changes(router: Router) -> None:
    sent = udp(H1, H2)
    ((port, out),) = router.frame("eni-1", frame(sent))
    assert port == "eni-2"
    assert out[:12] == mac(MAC2) + ROUTER_MAC
    assert out[14:] == sent


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("wrong-mac", frame(udp(H1, H2), source=MAC2)),
        ("source-not-on-eni", frame(udp("192.168.0.250", H2))),
        ("source-not-on-eni", frame(udp(H2, H1))),
        ("multicast", frame(udp(H1, "239.0.0.1"), to=mac("01:00:5e:00:00:01"))),
        ("broadcast", frame(udp(H1, "255.255.255.255"), to=b"\xff" * 6)),
        ("unknown-destination-mac", frame(udp(H1, H2), to=mac(MAC2))),
        ("not-ip", frame(udp(H1, H2), kind=b"\x86\xdd")),
        ("no-such-address", frame(udp(H1, "10.0.0.99"))),
        ("link-local", frame(udp(H1, "169.254.169.254"))),
        ("no-public-address", frame(udp(H1, WORLD))),
        ("too-big", frame(udp(H1, H2, b"x" * 9000))),
        ("ttl", frame(packet("10.0.0.41", WORLD, 17, b"x" * 8, ttl=1))),
        ("short", b"\0" * 20),
    ],
)
def test_each_drop_is_counted_by_its_reason(router: Router, reason: str, sent: bytes) -> None:
    assert router.frame("eni-1", sent) == []
    assert dict(router.drops) == {reason: 1}
    assert len(router.last[reason]) == 1


def test_unknown_elastic_ips_are_dropped(router: Router) -> None:
    assert router.frame(INTERNET, frame(udp(WORLD, "54.0.0.9"))) == []
    assert dict(router.drops) == {"unknown-eip": 1}


def arp(operation: int, sender: str, target: str) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x800, 6, 4, operation) + mac(MAC1) + ip(sender) + b"\0" * 6 + ip(target)
    return frame(body, to=b"\xff" * 6, kind=b"\x08\x06")


@pytest.mark.parametrize(
    ("target", "answered"), [("10.0.0.1", True), (H2, True), (H1, False), ("10.0.0.41", False), ("10.0.0.77", False)]
)
def test_arp_is_answered_for_what_exists_elsewhere(router: Router, target: str, answered: bool) -> None:
    out = router.frame("eni-1", arp(1, H1, target))
    assert bool(out) is answered
    if answered:
        assert out[0][1][22:32] == ROUTER_MAC + ip(target)


def test_elastic_ip_outward_and_inward(router: Router) -> None:
    ((port, out),) = router.frame("eni-1", frame(udp("10.0.0.41", WORLD)))
    assert port == INTERNET
    assert (out[26:30], out[30:34], out[22]) == (ip(EIP1), ip(WORLD), 63)
    assert_right(out[14:])
    ((port, back),) = router.frame(INTERNET, frame(udp(WORLD, EIP1)))
    assert port == "eni-1"
    assert back[30:34] == ip("10.0.0.41")
    assert_right(back[14:])


def test_hairpin_goes_through_both_translations(router: Router) -> None:
    ((port, out),) = router.frame("eni-1", frame(udp("10.0.0.41", EIP2)))
    assert port == "eni-2"
    assert (out[26:30], out[30:34]) == (ip(EIP1), ip(H2))
    assert_right(out[14:])


def icmp_error(source: str, destination: str, about: bytes) -> bytes:
    body = bytearray(struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + about[:28])
    body[2:4] = checksum(body).to_bytes(2, "big")
    return packet(source, destination, 1, bytes(body))


def test_icmp_errors_quote_what_the_receiver_sent(router: Router) -> None:
    ((_, inward),) = router.frame(INTERNET, frame(icmp_error(WORLD, EIP1, udp(EIP1, WORLD))))
    assert inward[14 + 28 + 12 : 14 + 28 + 16] == ip("10.0.0.41")
    assert_right(inward[14:])
    # The host itself may answer about a packet to another of its private addresses.
    ((_, outward),) = router.frame("eni-2", frame(icmp_error(H2, WORLD, udp(WORLD, "10.0.0.41")), source=MAC2))
    assert outward[14 + 28 + 16 : 14 + 28 + 20] == ip(EIP1)
    assert_right(outward[14:])


@pytest.mark.parametrize("mtu", [1500, 1300])
def test_what_is_too_big_for_the_way_out_is_told_or_fragmented(router: Router, mtu: int) -> None:
    router.internet_mtu = mtu
    big = b"x" * (mtu - 20)
    ((port, told),) = router.frame("eni-1", frame(udp("10.0.0.41", WORLD, big, flags=0x4000)))
    assert port == "eni-1"
    assert struct.unpack("!BBxxxxH", told[34:42]) == (3, 4, mtu)
    assert told[26:30] == (ip("10.0.0.1") if mtu == 1500 else HOP)
    assert told[42 + 12 : 42 + 16] == ip("10.0.0.41")
    assert_right(told[14:])
    pieces = router.frame("eni-1", frame(udp("10.0.0.41", WORLD, big)))
    assert [port for port, _ in pieces] == [INTERNET, INTERNET]
    for _, piece in pieces:
        assert len(piece) <= 14 + mtu
        assert checksum(piece[14:34]) == 0
    data = b"".join(piece[34:] for _, piece in pieces)
    pseudo = ip(EIP1) + ip(WORLD) + struct.pack("!BBH", 0, 17, len(data))
    assert checksum(pseudo + data) == 0


def test_fragments_join_to_the_packet() -> None:
    whole = bytearray(udp(H1, H2, bytes(range(256)) * 20))
    pieces = fragments(whole, 1500)
    assert b"".join(bytes(piece[20:]) for piece in pieces) == bytes(whole[20:])
    assert [struct.unpack("!H", piece[6:8])[0] & 0x2000 for piece in pieces] == [0x2000] * (len(pieces) - 1) + [0]
