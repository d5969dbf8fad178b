"""`oneaws`: the administrator's command on the front-end."""

from __future__ import annotations

import json
import sys

import click

from . import __version__, config
from .errors import AwsOvsError

INSTALLED = "/var/lib/one/remotes/etc/vnm/aws_ovs.yaml"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oneaws")
def main() -> None:
    """Administer the aws_ovs network driver of an OpenNebula front-end."""


@main.command("config")
@click.option("--file", "path", default=INSTALLED, show_default=True, help="The configuration to check.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_config(path: str, as_json: bool) -> None:
    """Check the configuration and print what is in force, defaults included.

    Run it after an edit, before 'onehost sync -f' carries the file to the nodes. Exit code 1: it is not valid.
    """
    try:
        values = config.parse(path)._asdict()
    except AwsOvsError as bad:
        click.echo(f"oneaws: {bad}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    width = max(map(len, values))
    for key, value in values.items():
        click.echo(f"{key.ljust(width)}  {value}")
