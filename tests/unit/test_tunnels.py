"""The peer list."""

from __future__ import annotations

import json

import pytest

from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay.tunnels import Peer, parse


def test_a_list_is_read() -> None:
    text = json.dumps({"peers": [{"name": "h1", "vtep": "10.0.0.11"}, {"name": "h2", "vtep": "10.0.0.12"}]})
    assert parse(text.encode()) == [Peer("h1", "10.0.0.11"), Peer("h2", "10.0.0.12")]


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
