"""The peer list."""

from __future__ import annotations

import json

import pytest

from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay.tunnels import Eni, Peer, PeerList, digest, parse


def test_a_list_is_read() -> None:
    text = json.dumps({"peers": [{"name": "h1", "vtep": "10.0.0.11"}, {"name": "h2", "vtep": "10.0.0.12"}]})
    assert parse(text.encode()).peers == [Peer("h1", "10.0.0.11"), Peer("h2", "10.0.0.12")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"peers": 5}',
        '{"peers": [{"name": "h1"}]}',
        '{"peers": [{"name": 5, "vtep": "10.0.0.1"}]}',
        '{"peers": [{"name": "h1", "vtep": "10.0.0.1; id"}]}',
        '{"peers": [{"name": "h1", "vtep": "127.0.0.1"}]}',
        '{"peers": [{"name": "a", "vtep": "10.0.0.1"}, {"name": "b", "vtep": "10.0.0.1"}]}',
        "[" * 100_000,
        "x" * (1 << 21),
    ],
)
def test_a_wrong_list_is_refused(text: str) -> None:
    with pytest.raises(AwsOvsError):
        parse(text.encode())


def test_a_list_tells_more_than_peers_and_may_lack_it() -> None:
    more = {"vpc_cidrs": ["10.0.0.0/16"], "node_addresses": ["203.0.113.11"], "private_ips": ["10.0.0.42", "10.0.0.41"]}
    told = parse(json.dumps({"peers": [], **more, "of_a_newer_version": 1}).encode())
    assert told == PeerList([], ("10.0.0.0/16",), ("203.0.113.11",), ("10.0.0.41", "10.0.0.42"))
    assert digest(told) != digest(parse(b'{"peers": []}')) == digest(PeerList([]))


@pytest.mark.parametrize(
    "more",
    [
        '"vpc_cidrs": "10.0.0.0/16"',
        '"vpc_cidrs": ["10.0.0.1/16"]',
        '"vpc_cidrs": [16]',
        '"private_ips": ["10.0.0.300"]',
        '"private_ips": {"10.0.0.41": 1}',
        '"node_addresses": ["0.0.0.0"]',
    ],
)
def test_what_is_no_list_of_addresses_is_refused(more: str) -> None:
    with pytest.raises(AwsOvsError, match=more.split('"')[1]):
        parse(f'{{"peers": [], {more}}}'.encode())


ENI = {
    "mac": "06:00:00:00:00:02",
    "address": "10.0.0.77",
    "subnet": "10.0.0.0/24",
    "addresses": ["10.0.0.9", "10.0.0.8"],
}


def test_a_list_tells_a_node_its_further_enis_in_their_order() -> None:
    other = {"mac": "06:00:00:00:00:01", "address": "10.0.0.78", "subnet": "10.0.0.0/24", "addresses": []}
    told, turned = (parse(json.dumps({"peers": [], "enis": enis}).encode()) for enis in ([ENI, other], [other, ENI]))
    assert told.enis[0] == Eni("06:00:00:00:00:02", "10.0.0.77", "10.0.0.0/24", ("10.0.0.8", "10.0.0.9"))
    assert told.enis == turned.enis[::-1]
    fewer = told._replace(enis=(told.enis[0]._replace(addresses=("10.0.0.8",)), told.enis[1]))
    assert len({digest(told), digest(turned), digest(fewer), digest(told._replace(enis=()))}) == 4


@pytest.mark.parametrize(
    "enis",
    [
        5,
        [5],
        [{**ENI, "mac": "01:00:00:00:00:02"}],
        [{**ENI, "mac": None}],
        [{**ENI, "address": "10.0.0.300"}],
        [{**ENI, "subnet": "10.0.0.1/24"}],
        [{**ENI, "addresses": "10.0.0.9"}],
        [{**ENI, "addresses": ["::1"]}],
        [{**ENI, "address": "10.0.1.77"}],
        [ENI, ENI],
        [ENI, {**ENI, "mac": "06:00:00:00:00:03", "address": "10.0.0.78"}],
        [{"mac": ENI["mac"]}],
        [{**ENI, "mac": f"06:00:00:00:00:{n:02x}", "address": f"10.0.0.{n + 1}", "addresses": []} for n in range(64)],
    ],
)
def test_what_is_no_list_of_enis_is_refused(enis: object) -> None:
    with pytest.raises(AwsOvsError, match="the peer list"):
        parse(json.dumps({"peers": [], "enis": enis}).encode())
