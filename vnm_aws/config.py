"""Read the configuration of the driver: one YAML file beside OpenNebula's own.

OpenNebula distributes it with `onehost sync`. It is written by oneadmin and read by root, so it is data only: parsed
safely, every key and value checked. Parsing YAML costs more than all the rest of a driver call's start,
so the checked result is kept as JSON under /run, valid as long as the file's inode, size and time are the same.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from . import __version__, files, mtu
from .addresses import Prefix, device_name, mac
from .errors import AwsOvsError
from .names import RUN

PATH = "/var/tmp/one/etc/vnm/aws_ovs.yaml"
CACHE = f"{RUN}/config.json"
_SIZE_LIMIT = 65536
_LONGEST = 2048
"""Characters of a value; a number that Python does not print again is longer."""
_AGAIN = "put the one that was installed there again"


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
    connections_per_nic: int = 16384


_RANGES = {
    "internet_mtu": (mtu.LEAST + mtu.VXLAN_OVERHEAD, mtu.VPC),  # guests must be left what the driver asks of them
    "vni_base": (1, 16_000_000),  # tunnels speak of themselves with VNI 0
    "learned_macs": (1, 4096),
    "lock_timeout": (1, 3600),
    "connections_per_address": (64, 16384),
    "flood_limit": (10, 100_000),
    "connections_per_nic": (64, 1_000_000),
}


_UNUSABLE = {
    "0.0.0.0/8": "this network",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local addresses",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved addresses",
}
"""What addresses stand for that the kernel does not forward, or not as those of a host."""


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
            kind = {bool: "true or false", int: "a number"}.get(type(defaults[key]), "text")
            raise AwsOvsError(f"{path}: {key} must be {kind}, not {str(value)[:40]!r}", "correct it")
        if key in ranges and not ranges[key][0] <= value <= ranges[key][1]:
            low, high = ranges[key]
            raise AwsOvsError(f"{path}: {key} must be from {low} to {high}, not {str(value)[:40]}", "correct it")
    return {**defaults, **values}


def check(values: object, path: str = PATH) -> Config:
    """Check a parsed file and return the configuration that it means."""
    config = Config(**typed(values, Config()._asdict(), _RANGES, path))
    if config.datapath_type not in ("system", "netdev"):
        what = f"{path}: datapath_type must be system or netdev, not {config.datapath_type[:40]!r}"
        raise AwsOvsError(what, "correct it")
    device_name(config.underlay_interface, f"{path}: underlay_interface")
    if config.underlay_interface == "lo":
        what = f"{path}: underlay_interface lo leads to no other host"
        raise AwsOvsError(what, "name the ENI, or say auto for the interface of the default route")
    transit = Prefix(config.transit_range, f"{path}: transit_range")
    if transit.prefix_length > 24:
        raise AwsOvsError(f"{path}: transit_range {transit} is too small", "use a /24 or larger")
    for text, meaning in _UNUSABLE.items():
        if transit.overlaps(Prefix(text, "")):
            what = f"{path}: transit_range {transit} overlaps {text}, which is for {meaning}"
            raise AwsOvsError(what, f"use a network like {Config().transit_range}")
    return config._replace(gateway_mac=mac(config.gateway_mac, f"{path}: gateway_mac"))


def read(path: str, then: str = "") -> object:
    """Read a YAML file; None when there is none. `then` is what to do after correcting it, for the error.

    Raises:
        AwsOvsError: it is not a file that may be read here, not valid YAML, too large, or holds more than values.
    """
    try:
        text = _text(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    import yaml  # costs 20 ms: only when the cache is stale

    try:
        if (odd := _odd(yaml.parse(text, yaml.SafeLoader))) is not None:
            what = f"{path} line {odd.start_mark.line + 1} is not 'key: value' with a short plain value"
            raise AwsOvsError(what, f"correct it{then}")
        values: object = yaml.safe_load(text)
        return values
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise AwsOvsError(f"{path}{line} is not valid YAML", f"correct it{then}") from None


def _text(path: str) -> bytes:
    """Read a file, in which oneadmin may have put anything, without waiting, and nothing that he could not read himself."""
    is_root = os.geteuid() == 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if is_root else 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AwsOvsError(f"{path} is not a regular file", _AGAIN)
        keeper = os.stat(os.path.dirname(path) or ".").st_uid  # who can put anything there
        # It could be a hard link to a secret of root, whose text would be seen in an error.
        if is_root and not _may_read(keeper, status):
            raise AwsOvsError(f"{path} is another user's file, which not everybody may read", _AGAIN)
        text = file.read(_SIZE_LIMIT + 1)
    if len(text) > _SIZE_LIMIT:
        raise AwsOvsError(f"{path} is larger than {_SIZE_LIMIT} bytes", _AGAIN)
    return text


def _may_read(user: int, status: os.stat_result) -> bool:
    """Tell whether a user may read a file, by its owner, group or mode."""
    if user in (0, status.st_uid) or status.st_mode & stat.S_IROTH:
        return True
    if not status.st_mode & stat.S_IRGRP:
        return False
    import pwd  # costs time, and the installed file needs none

    try:
        entry = pwd.getpwuid(user)
        return status.st_gid in os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        return False


def _unreadable(path: str, error: OSError) -> AwsOvsError:
    if error.errno == errno.ELOOP:
        return AwsOvsError(f"{path} is a symbolic link, which is not followed as root", _AGAIN)
    return AwsOvsError(f"{path} cannot be read ({error.strerror})", "check its owner and mode")


def _odd(events: Iterable[Any]) -> Any:
    """Find the first event of the YAML parser that is not of one mapping with short plain values; None without.

    What aliases, nesting and long numbers grow to knows no bounds, so nothing is built of them.
    """
    inside = False
    for event in events:
        starts = type(event).__name__ == "MappingStartEvent"
        special = (
            getattr(event, "anchor", None) or getattr(event, "tag", None) or len(getattr(event, "value", "")) > _LONGEST
        )
        if special or (starts and inside) or type(event).__name__ in ("SequenceStartEvent", "AliasEvent"):
            return event
        inside = inside or starts
    return None


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
    except OSError as error:
        raise _unreadable(path, error) from None
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
