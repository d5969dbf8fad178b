"""The one root-owned program of a node: `aws-ovs VERB`.

It starts in the boot path of every VM, so it parses its few arguments itself and imports a verb only when that verb
runs.
"""

from __future__ import annotations

import re
import sys
import time

from .. import __version__, config
from ..journal import ERROR, INFO, explain, log

USAGE = """\
Usage: aws-ovs VERB [ARGUMENT...] [--dry-run]

The node's part of the aws_ovs network driver. OpenNebula calls, with a VM document (base64) on stdin:
  pre                     check the VM's NICs and prepare their bridges
  post DEPLOY_ID HOST     open the NICs' ports
  clean HOST              remove the VM, or the NIC or alias marked ATTACH=YES
  update_sg DEPLOY_ID     write the ports of the VM anew
  update_nic DEPLOY_ID VNET_ID

The front-end and administrators call:
  peers [--apply]         follow the peer list (JSON) on stdin, or the stored one again
  probe                   what OpenNebula's monitoring is to know of this node
  check [--json]          print what is not as it should be, with remedies; exit code 1 if there is anything
  restore                 build everything that should be on this node; what is right stays
  show [--json]           peers with tunnels, networks, VMs with addresses, counters

Options:
  --dry-run   print the changes, make none
  --version   print the version
  --help      print this text

Exit codes: 0 done, 1 failed (one sentence on stderr says why), 2 wrong usage. Log: journalctl -t aws_ovs
Files: /var/tmp/one/etc/vnm/aws_ovs.yaml, /var/lib/aws_ovs/peers.json, /run/aws_ovs/
"""

_ARGUMENTS = {
    "pre": 0, "post": 2, "clean": 1, "update_sg": 1, "update_nic": 2, "peers": 0, "probe": 0, "check": 0, "restore": 0,
    "show": 0,
}  # fmt: skip
_OPTIONS = {"peers": {"--apply"}, "check": {"--json"}, "show": {"--json"}}
_WORD = re.compile(r"[A-Za-z0-9_.:@-]{1,255}\Z")


def main(argv: list[str] | None = None) -> int:
    """Run a verb.

    Args:
        argv: the program's name and its arguments.

    Returns:
        the exit code.
    """
    _, *words = sys.argv if argv is None else argv
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"aws_ovs {__version__}")
        return 0
    verb, *words = words
    options = {word for word in words if word.startswith("--")}
    arguments = [word for word in words if not word.startswith("--")]
    unknown = options - {"--dry-run"} - _OPTIONS.get(verb, set())
    if verb not in _ARGUMENTS or unknown or len(arguments) > _ARGUMENTS[verb] or not all(map(_WORD.match, arguments)):
        print(f"aws-ovs: cannot take {' '.join([verb, *words])[:200]!r}; see 'aws-ovs --help'", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        code = _run(verb, options)
    except KeyboardInterrupt:
        return _fail(verb, "interrupted; run it again")
    except Exception as error:  # noqa: BLE001 - an administrator gets a sentence, never a traceback
        return _fail(verb, explain(error, verb))
    log(INFO, f"{verb} {' '.join(arguments)}: done in {(time.monotonic() - started) * 1000:.0f} ms")
    return code


def _run(verb: str, options: set[str]) -> int:
    if verb == "probe":
        from . import probe

        probe.run()
        return 0
    # The document comes first: nothing is read, locked or changed for one that is not valid.
    document = (
        sys.stdin.buffer.read(_stdin_limit())
        if verb not in ("check", "restore", "show") and "--apply" not in options
        else None
    )
    vm = None
    if verb in ("pre", "post", "clean", "update_sg", "update_nic"):
        from ..vm import decode, parse

        vm = parse(decode(document or b""))
    from ..lock import held
    from .node import Node

    settings = config.load()
    with held(f"{verb} of VM {vm.vm_id}" if vm else verb, settings.lock_timeout):
        node = Node.find(settings, dry_run="--dry-run" in options)
        if verb == "pre" and vm:
            from . import pre

            pre.run(node, vm)
        elif verb == "clean" and vm:
            from . import clean

            clean.run(node, vm)
        elif vm:
            from . import post

            post.run(node, vm)
        elif verb == "peers":
            from . import peers

            peers.run(node, document)
        elif verb == "restore":
            from . import restore

            restore.run(node)
        elif verb == "check":
            from . import check

            return check.run(node, as_json="--json" in options)
        else:
            from . import show

            show.run(node, as_json="--json" in options)
    return 0


def _stdin_limit() -> int:
    return 12 * 1024 * 1024  # more than any valid document: its own check names the limit


def _fail(verb: str, sentence: str) -> int:
    """Report twice, as OpenNebula needs it: the ERROR line for the VM's log, the plain one for its ERROR attribute."""
    sentence = " ".join(sentence.split())
    print(f"ERROR: {verb}: {sentence}", file=sys.stderr)
    print(f"{verb}: {sentence}", file=sys.stderr)
    log(ERROR, f"{verb}: {sentence}")
    return 1
