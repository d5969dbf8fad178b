"""Find the oned that this machine has installed, and make a private configuration for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

VARIABLE = "ONED"
"""The environment variable that says which oned the tests of the front-end use: `real`, or by default the stand-in."""

NOT_RUN = 3
"""The exit code of a run that was to use a real oned where there is none."""

_INSTALL = Path(__file__).parents[3] / "install.sh"
_SETTING = r"^[ \t]*{name}[ \t]*=[ \t]*(\[[^\]]*\]|\"[^\"]*\"|[^\n]*)"
_REPLACED = (
    *("LOG", "DB", "PORT", "LISTEN_ADDRESS", "GRPC_PORT", "GRPC_LISTEN_ADDRESS", "DATASTORE_CAPACITY_CHECK"),
    *("IM_MAD", "VM_MAD", "TM_MAD", "DATASTORE_MAD", "MARKET_MAD", "IPAM_MAD", "SCHED_MAD", "HM_MAD", "AUTH_MAD"),
)


class UnavailableError(Exception):
    """This machine has no oned; the message is a sentence for the user."""


class Parts(NamedTuple):
    """The directories of OpenNebula's own drivers: their programs, libraries and the scripts that they call. `linked` maps those
    that are only read to their places below ONE_LOCATION."""

    mads: Path
    remotes: Path
    linked: dict[str, Path]


class Installed(NamedTuple):
    """An installed oned: its program and the directory of its configuration."""

    program: Path
    configuration: Path

    def parts(self) -> Parts:
        """Find OpenNebula's own drivers."""
        packaged = self.configuration == Path("/etc/one")
        home = self.program.parents[1]
        library, share = (Path("/usr/lib/one"), Path("/usr/share/one")) if packaged else (home / "lib", home / "share")
        linked = {"lib/ruby": library / "ruby", "lib/sh": library / "sh", "share/gems": share / "gems"}
        remotes = Path("/var/lib/one/remotes") if packaged else home / "var" / "remotes"
        return Parts(library / "mads", remotes, linked)

    def version(self) -> str:
        """Ask the program for its version."""
        printed = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout
        return printed.strip().splitlines()[0]


def wanted() -> bool:
    """Tell whether the tests are to use the real oned."""
    return os.environ.get(VARIABLE) == "real"


def find() -> Installed:
    """Find the oned in ONE_LOCATION or, without that variable, on PATH.

    Raises:
        UnavailableError: there is none.
    """
    home = os.environ.get("ONE_LOCATION")
    program = shutil.which("oned", path=f"{home}/bin" if home else None)
    configuration = Path(home, "etc") if home else Path("/etc/one")
    if program is None or not (configuration / "oned.conf").is_file():
        place = f"in ONE_LOCATION ({home})" if home else "on PATH with /etc/one/oned.conf, and ONE_LOCATION is not set"
        raise UnavailableError(
            f"NOT RUN: this machine has no real oned {place}; install OpenNebula's front-end, or run `make frontend`, "
            "which uses the stand-in"
        )
    return Installed(Path(program), configuration)


def configuration(installed: Installed, own: str) -> str:
    """Make the text of a private oned.conf: the installed one, `own` instead of its drivers and ports, and the lines that
    install.sh adds."""
    text = (installed.configuration / "oned.conf").read_text()
    text = re.sub(r"^[ \t]*#.*\n", "", text, flags=re.MULTILINE)
    for name in _REPLACED:
        text = re.sub(_SETTING.format(name=name), "", text, flags=re.MULTILINE)
    return f"{text}\n{own}\n" + _lines_of_the_driver(text)


def _lines_of_the_driver(text: str) -> str:
    """Let install.sh say which lines this configuration lacks."""
    code = f'source <(sed -n "/^INHERITED=/,/^}}/p" {_INSTALL}); oned_lines /dev/stdin'
    done = subprocess.run(["bash", "-ec", code], input=text, capture_output=True, text=True, check=True)
    return done.stdout
