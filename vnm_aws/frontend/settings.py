"""Read the settings of the front-end: one YAML file, /etc/one/aws_ovs.yaml. Credentials are never in it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from .. import config
from ..config import Config
from ..errors import AwsOvsError
from .tags import TagFilter

PATH = "/etc/one/aws_ovs.yaml"
DRIVER_PATH = "/var/lib/one/remotes/etc/vnm/aws_ovs.yaml"
"""The nodes' configuration, whose VNIs and MTU a new network must fit."""


class Settings(NamedTuple):
    """Every key of the file, with its default."""

    region: str = ""
    vpc_id: str = ""
    cloud: str = ""
    write_tags: bool = False
    host_filter: str = "tag:opennebula=host"
    host_name: str = "private-dns"
    cluster: str = "default"
    im_mad: str = "kvm"
    vm_mad: str = "kvm"
    ssh_parallel: int = 16
    ssh_timeout: int = 20
    ec2_timeout: int = 60
    oned_timeout: int = 60
    run_timeout: int = 600
    lock_timeout: int = 300
    state_directory: str = "/var/lib/one/aws_ovs"

    @property
    def hosts(self) -> TagFilter:
        """Read `host_filter`."""
        return TagFilter.parse(self.host_filter, "host_filter")


_CLOUD = re.compile(r"[A-Za-z0-9._-]{0,64}")
_RANGES = {
    "ssh_parallel": (1, 256),
    "ssh_timeout": (1, 600),
    "ec2_timeout": (1, 600),
    "oned_timeout": (1, 600),
    "run_timeout": (1, 780),
    "lock_timeout": (1, 3600),
}


def load(file: str = "") -> Settings:
    """Read and check the settings; the defaults where there is no file.

    Raises:
        AwsOvsError: a key or value that makes no sense.
    """
    where = file or os.environ.get("AWS_OVS_SETTINGS") or PATH
    settings = Settings(**config.typed(config.read(where), Settings()._asdict(), _RANGES, where))
    TagFilter.parse(settings.host_filter, f"{where}: host_filter")
    named = settings.host_name
    if named not in ("private-dns", "private-ip") and not (named.startswith("tag:") and named[4:]):
        what = f"{where}: host_name must be private-dns, private-ip or tag:NAME, not {named[:40]!r}"
        raise AwsOvsError(what, "correct it")
    if not _CLOUD.fullmatch(settings.cloud):
        what = f"{where}: cloud must be letters, digits and ._-, 64 of them at most, not {settings.cloud[:70]!r}"
        raise AwsOvsError(what, "correct it")
    if not settings.state_directory.startswith("/"):
        what = f"{where}: state_directory must be an absolute path, not {settings.state_directory[:60]!r}"
        raise AwsOvsError(what, "correct it")
    return settings


def driver() -> Config:
    """Read the nodes' configuration."""
    return config.parse(os.environ.get("AWS_OVS_CONFIG") or DRIVER_PATH)
