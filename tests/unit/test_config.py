"""The configuration file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vnm_aws import config
from vnm_aws.errors import AwsOvsError

SHIPPED = Path(__file__).parent.parent.parent / "remotes/etc/vnm/aws_ovs.yaml"


def test_the_shipped_file_says_the_defaults_and_every_key() -> None:
    assert config.parse(str(SHIPPED)) == config.Config()
    text = SHIPPED.read_text()
    assert [key for key in config.Config()._asdict() if f"{key}:" not in text] == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("vni_bse: 5", "unknown key 'vni_bse'"),
        ("vni_base: '5'", "vni_base must be a number"),
        ("vni_base: true", "vni_base must be a number"),
        ("vni_base: 0", "vni_base must be from 1"),
        ("internet_mtu: 625", "internet_mtu must be from 626"),
        ("datapath_type: dpdk", "system or netdev"),
        ("gateway_mac: 01:00:00:00:00:01", "gateway_mac"),
        ("transit_range: 198.18.0.1/15", "transit_range"),
        ("transit_range: 198.18.0.0/30", "too small"),
        ("underlay_interface: 'eth0; id'", "underlay_interface"),
        ("- a", "'key: value'"),
        ("a: [", "line 1"),
        ("a: !!python/object/apply:os.system ['id']", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    file = tmp_path / "aws_ovs.yaml"
    file.write_text(text)
    with pytest.raises(AwsOvsError, match=names) as caught:
        config.parse(str(file))
    assert "\n" not in str(caught.value)


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert config.load(str(tmp_path / "none"), str(tmp_path / "cache")) == config.Config()


def test_an_edit_is_seen_although_the_result_is_cached(tmp_path: Path) -> None:
    file, cache = tmp_path / "aws_ovs.yaml", tmp_path / "cache.json"
    file.write_text("vni_base: 7\n")
    assert config.load(str(file), str(cache)).vni_base == 7
    assert cache.exists()
    assert config.load(str(file), str(cache)).vni_base == 7
    file.write_text("vni_base: 8\n")
    os.utime(file, ns=(1, 1))
    assert config.load(str(file), str(cache)).vni_base == 8
    cache.write_text("{")
    assert config.load(str(file), str(cache)).vni_base == 8


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(AwsOvsError, match=r"cannot be read \(Is a directory\); check its owner and mode"):
        config.parse(str(tmp_path))
