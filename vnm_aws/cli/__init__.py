"""Run `oneaws`, the administrator's command on the front-end.

Every command is in the module of what it is about; modules of the front-end are imported when they are used.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .. import __version__
from ..frontend import settings
from ..journal import explain
from . import everything, hosts, installation, networks
from .common import fail


class _Main(click.Group):
    """Group commands whose failures are one sentence on stderr, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, SystemExit):
            raise
        except BrokenPipeError:
            # Whoever read the output has gone; Python must not complain when it closes it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:  # noqa: BLE001 - an administrator gets a sentence; the journal has the rest
            fail(ctx, explain(error, "oneaws"))


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oneaws")
@click.option(
    "--settings", "path", envvar="AWS_OVS_SETTINGS", default=settings.PATH, show_default=True, help="Settings file."
)
@click.pass_context
def main(ctx: click.Context, path: str) -> None:
    """Administer the aws_ovs network driver of an OpenNebula front-end.

    It makes EC2 instances with a tag hosts of OpenNebula, tells every host its peers, fills networks with Elastic IPs, and
    moves private addresses to where their VMs run. Hooks and a timer do all that by themselves; these commands show it,
    do it now, and say what is wrong.

    Run it as oneadmin; started by root it acts as oneadmin, who owns the state directory. It finds OpenNebula by ONE_AUTH
    and ONE_XMLRPC, and AWS as every program that uses boto3: by instance role, ~/.aws or AWS_PROFILE. Everything can be
    interrupted and run again at any time.

    \b
    Exit codes: 0  all is as it should be, or is now
                1  something is not, or failed: a sentence on stderr for each
                2  wrong usage
    Files:      /etc/one/aws_ovs.yaml, /var/lib/one/aws_ovs/
    Log:        journalctl -t aws_ovs
    """
    ctx.obj = path


for _command in (
    *(hosts.host, hosts.mesh, networks.eip, networks.vnet),
    *(everything.reconcile_all, everything.check),
    *(installation.hooks, installation.check_config, installation.check_settings),
):
    main.add_command(_command)
