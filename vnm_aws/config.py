"""Read the configuration of the driver: one YAML file beside OpenNebula's own.

OpenNebula distributes it with `onehost sync`. It is written by oneadmin and read by root, so it is data only: parsed
safely, every key and value checked. Parsing YAML costs more than all the rest of a driver call's start,
so the checked result is kept as JSON under /run, valid as long as the file's inode, size and time are the same.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from . import __version__, files, mtu
from .addresses import Prefix, device_name, mac
from .errors import AwsOvsError
from .names import RUN

PATH = "/var/tmp/one/etc/vnm/aws_ovs.yaml"
CACHE = f"{RUN}/config.json"
_SIZE_LIMIT = 65536


class Config(NamedTuple):
    """Hold every key of the file, with its default."""

    datapath_type: str = "system"
    underlay_interface: str = "auto"
    internet_mtu: int = 1500
    vni_base: int = 1048576
    gateway_mac: str = "02:a5:0e:00:00:01"
    transit_range: str = "198.18.0.0/15"
    learned_macs: int = 64
    lock_timeout: int = 60
    connections_per_address: int = 4096
    flood_limit: int = 200


_RANGES = {
    "internet_mtu": (mtu.LEAST + mtu.VXLAN_OVERHEAD, mtu.VPC),  # guests must be left what the driver asks of them
    "vni_base": (1, 16_000_000),  # tunnels speak of themselves with VNI 0
    "learned_macs": (1, 4096),
    "lock_timeout": (1, 3600),
    "connections_per_address": (64, 16384),
    "flood_limit": (10, 100_000),
}


def typed(values: object, defaults: dict[str, Any], ranges: dict[str, tuple[int, int]], path: str) -> dict[str, Any]:
    """Lay the values of a parsed file over their defaults; check that each has its default's type and is in range.

    Raises:
        AwsOvsError: an unknown key, or a value of the wrong type or out of range.
    """
    if values is None:
        return defaults
    if not isinstance(values, dict):
        raise AwsOvsError(f"{path} must hold 'key: value' lines, not {type(values).__name__}", "correct it")
    for key, value in values.items():
        if key not in defaults:
            raise AwsOvsError(f"{path}: unknown key {str(key)[:40]!r}", f"the keys are {', '.join(defaults)}")
        if type(value) is not type(defaults[key]):
            kind = "a number" if isinstance(defaults[key], int) else "text"
            raise AwsOvsError(f"{path}: {key} must be {kind}, not {str(value)[:40]!r}", "correct it")
        if key in ranges and not ranges[key][0] <= value <= ranges[key][1]:
            low, high = ranges[key]
            raise AwsOvsError(f"{path}: {key} must be from {low} to {high}, not {value}", "correct it")
    return {**defaults, **values}


def check(values: object, path: str = PATH) -> Config:
    """Check a parsed file and return the configuration that it means."""
    config = Config(**typed(values, Config()._asdict(), _RANGES, path))
    if config.datapath_type not in ("system", "netdev"):
        what = f"{path}: datapath_type must be system or netdev, not {config.datapath_type[:40]!r}"
        raise AwsOvsError(what, "correct it")
    device_name(config.underlay_interface, f"{path}: underlay_interface")
    transit = Prefix(config.transit_range, f"{path}: transit_range")
    if transit.prefix_length > 24:
        raise AwsOvsError(f"{path}: transit_range {transit} is too small", "use a /24 or larger")
    return config._replace(gateway_mac=mac(config.gateway_mac, f"{path}: gateway_mac"))


def read(path: str, then: str = "") -> object:
    """Read a YAML file; None when there is none. `then` is what to do after correcting it, for the error.

    Raises:
        AwsOvsError: it is not valid YAML, or too large.
    """
    import yaml  # costs 20 ms: only when the cache is stale

    try:
        with open(path, "rb") as file:
            text = file.read(_SIZE_LIMIT + 1)
        if len(text) > _SIZE_LIMIT:
            raise AwsOvsError(f"{path} is larger than {_SIZE_LIMIT} bytes", "restore the one that was installed")
        values: object = yaml.safe_load(text)
        return values
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AwsOvsError(f"{path} cannot be read ({error.strerror})", "check its owner and mode") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise AwsOvsError(f"{path}{line} is not valid YAML", f"correct it{then}") from None


def parse(path: str) -> Config:
    """Read and check the YAML file itself."""
    return check(read(path, " and run 'onehost sync -f'"), path)


def load(path: str = PATH, cache: str = CACHE) -> Config:
    """Return the configuration in force; the defaults where there is no file."""
    try:
        status = os.stat(path)
        stamp = [__version__, status.st_ino, status.st_size, status.st_mtime_ns]
    except FileNotFoundError:
        return Config()
    try:
        with open(cache, encoding="utf-8") as file:
            kept = json.load(file)
        if kept["stamp"] == stamp:
            return Config(*kept["values"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no usable cache
    config = parse(path)
    files.replace(cache, json.dumps({"stamp": stamp, "values": list(config)}))
    return config
