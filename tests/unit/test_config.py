"""The configuration file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vnm_aws import config
from vnm_aws.errors import AwsOvsError

REPOSITORY = Path(__file__).parents[2]
SHIPPED = REPOSITORY / "remotes/etc/vnm/aws_ovs.yaml"


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
        ("transit_range: 127.0.0.0/8", "overlaps 127.0.0.0/8, which is for loopback"),
        ("transit_range: 127.64.0.0/16", "for loopback"),
        ("transit_range: 169.254.0.0/24", "for link-local addresses"),
        ("transit_range: 168.0.0.0/7", "for link-local addresses"),
        ("transit_range: 239.1.0.0/16", "for multicast"),
        ("transit_range: 0.0.0.0/8", "for this network"),
        ("transit_range: 255.0.0.0/8", "for reserved addresses"),
        ("transit_range: 128.0.0.0/1", "overlaps"),
        ("underlay_interface: lo", "underlay_interface lo leads to no other host"),
        ("underlay_interface: 'eth0; id'", "underlay_interface"),
        ("- a", "'key: value'"),
        ("a: [", "line 1"),
        ("a: !!python/object/apply:os.system ['id']", "line 1"),
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
    file = tmp_path / "file"
    file.touch()
    for read in (config.parse, lambda path: config.load(path, str(tmp_path / "cache"))):
        with pytest.raises(AwsOvsError, match=r"cannot be read \(Not a directory\); check its owner and mode"):
            read(f"{file}/aws_ovs.yaml")


_BOMB = "[" + "".join(f"&{chr(97 + n)} [{','.join([f'*{chr(96 + n)}'] * 9) if n else '0'}]," for n in range(9)) + "*i]"


@pytest.mark.parametrize(
    "value",
    [
        *(
            _BOMB,
            "[" * 60000,
            "{a: " * 15000,
            "- " * 30000,
            "? " * 30000,
            "&a 3",
            "*a",
            "{<<: {vni_base: 3}}",
            "!!int ''",
        ),
        *("!!bool x", "!!float ''", "!!timestamp x", "!", "9" * 60000, "0x" + "f" * 60000, "0b" + "1" * 60000, "0x_"),
        *(
            "1" + ":59" * 20000,
            "1" + ":59" * 20000 + ".5",
            "1" + ":59" * 600 + ".5",
            "0x" + "f" * 2000,
            ".inf",
            "2001-99-99",
        ),
        *('"\\ud800"', '"\\e[2J\\n"', "\0", "\x1b[2J", "\u2028x: 3"),
    ],
    ids=lambda value: value[:20].encode("unicode_escape").decode(),
)
def test_a_value_that_means_harm_costs_nothing_and_is_a_sentence(tmp_path: Path, value: str) -> None:
    """YAML can say in a line what fills any memory, and no limit of bytes keeps it from that."""
    file = tmp_path / "aws_ovs.yaml"
    file.write_text(f"vni_base: {value}\n")
    script = f"""
import resource; from vnm_aws import config; from vnm_aws.errors import AwsOvsError
resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28)); resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
try: config.parse({str(file)!r})
except AwsOvsError as error: print(str(error) if str(error).isprintable() else "raw")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert str(file) in done.stdout
    assert len(done.stdout) < 400
