"""The one root-owned program of a node: `aws-ovs VERB`.

It starts in the boot path of every VM, so it parses its few arguments itself and imports a verb only when that verb
runs.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the module `signal` adds 1 ms to every driver call
import contextlib
import io
import os
import re
import sys
import time
from typing import Any, NamedTuple, TextIO

from .. import __version__, config
from ..errors import AwsOvsError
from ..journal import ERROR, INFO, explain, log
from ..processes import ENVIRONMENT
from ..table import printable

_VM, _PEERS, _STAND_INS = "VM document", "peer list", "list of stand-in addresses"
_LIMIT = 12 * 1024 * 1024
"""Bytes that are read from stdin: more than any valid document has, whose own check names its limit."""


class Verb(NamedTuple):
    """How a verb is called: `run` of a module does it, with the node and the document or whether the option is given."""

    help: str
    arguments: tuple[str, ...] = ()
    option: str = ""
    vm_option: str = ""
    """An option with the ID of a VM behind it; `run` gets the ID last."""
    stdin: str = ""
    """The document on stdin, which the verb's option takes the place of."""
    reader: str = "parse"
    """The function of vm.py that reads the VM document."""
    module: str = ""
    """Of this package; nothing when it has the verb's name."""
    has_origin: bool = False
    """Whether `run` also gets the last argument, the host from which a VM may have come."""
    locks: bool = True
    """Whether it runs alone, and with the node; without, it gets nothing."""
    for_root: bool = False
    """Whether it is for root alone: oneadmin has no use for it."""
    patience: int = 0
    """Seconds that it waits for the lock, instead of the setting."""


VERBS = {
    "pre": Verb("check the VM's NICs and prepare their bridges", stdin=_VM),
    "post": Verb("open the NICs' ports", ("DEPLOY_ID", "HOST"), stdin=_VM, has_origin=True),
    "clean": Verb("remove the VM, or the NIC or alias marked ATTACH=YES", ("HOST",), stdin=_VM, reader="parse_leaving"),
    "update_sg": Verb("write the ports of the VM anew", ("DEPLOY_ID",), stdin=_VM, reader="parse_whole", module="post"),
    "update_nic": Verb("", ("DEPLOY_ID", "VNET_ID"), stdin=_VM, reader="parse_whole", module="post"),
    "peers": Verb("follow the peer list (JSON) on stdin, or the stored one again", option="--apply", stdin=_PEERS),
    "stand-ins": Verb(
        "use the addresses (JSON) on stdin for those of other subnets", stdin=_STAND_INS, module="stand_ins"
    ),
    "probe": Verb("what OpenNebula's monitoring is to know of this node", locks=False),
    "check": Verb(
        "print what is not as it should be, with remedies; exit code 1 if there is anything", option="--json"
    ),
    "restore": Verb("build everything that should be on this node; what is right stays"),
    "heal": Verb("put back what others have changed in this node's kernel", for_root=True, patience=5),
    "watch": Verb("run for ever, and heal when something has changed", locks=False, for_root=True),
    "show": Verb(
        "peers, networks, VMs with addresses, counters; or the rules of a VM's security groups",
        option="--json",
        vm_option="--rules",
    ),
}
"""All verbs. oneadmin may run each that is not for root alone: without words, with its option, with the option for a VM and any
words behind it, or with any words if it takes arguments."""

_USAGE = """\
Usage: aws-ovs VERB [ARGUMENT...] [--dry-run]

The node's part of the aws_ovs network driver. OpenNebula calls, with a VM document (base64) on stdin:
{opennebula}

The front-end and administrators call:
{administrators}

Options:
  --dry-run   print the changes, make none
  --version   print the version
  --help      print this text

Exit codes: 0 done, 1 failed (one sentence on stderr says why), 2 wrong usage. Log: journalctl -t aws_ovs
Files: /var/tmp/one/etc/vnm/aws_ovs.yaml, /var/lib/aws_ovs/{{peers,stand_ins}}.json, /run/aws_ovs/
"""

_WORD = re.compile(r"[A-Za-z0-9_.:@-]{1,255}\Z")


def main(argv: list[str] | None = None) -> int:
    """Run the verb that `argv` names after the program, and return the exit code; without, be the program itself."""
    trouble = _take_nothing_over() if argv is None else ""
    _, *words = sys.argv if argv is None else argv
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"aws_ovs {__version__}")
        return 0
    name, *words = words
    verb = VERBS.get(name)
    vm_id, rest = _vm_id(words, verb.vm_option) if verb else ([], words)
    options = {word for word in rest if word.startswith("--")}
    arguments = [word for word in rest if not word.startswith("--")]
    if (
        verb is None
        or not options <= {"--dry-run", verb.option}
        or len(arguments) > len(verb.arguments)
        or not all(map(_WORD.match, arguments))
    ):
        print(f"aws-ovs: cannot take {' '.join([name, *words])[:200]!r}; see 'aws-ovs --help'", file=sys.stderr)
        return 2
    arguments += vm_id
    line = " ".join([name, *arguments])
    return _fail(name, verb, line, trouble) if trouble else _report(name, verb, options, arguments)


def _vm_id(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Find the ID of a VM behind an option: a list of the ID, empty without, and the words but these two."""
    place = words.index(option) if option and option in words else len(words)
    vm_id = [word for word in words[place + 1 : place + 2] if re.fullmatch("[0-9]{1,9}", word)]
    return vm_id, words[:place] + words[place + 2 :] if vm_id else words


def _take_nothing_over() -> str:
    """Be the same whoever has started us, and return why that is not possible.

    sudo, and a shell of root even more, hands over more than words and a document. The environment names tools,
    directories for temporary files and encodings, the umask decides who may read our files, an ignored SIGCHLD hides how
    tools ended, and a file of ours would get the number of a standard file that is closed.
    """
    try:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
    except OSError as error:
        return f"{os.devnull} cannot be opened ({error.strerror}); look at it: ls -l {os.devnull}"
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.umask(0o022)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return ""


def usage() -> str:
    """Compose the text of `--help`."""
    lines: dict[bool, list[str]] = {True: [], False: []}
    for name, verb in VERBS.items():
        options = [f"[{verb.option}]"] if verb.option else []
        options += [f"[{verb.vm_option} VM_ID]"] if verb.vm_option else []
        call = " ".join([name, *verb.arguments, *options])
        lines[verb.stdin == _VM].append(f"  {call:<29}  {verb.help}".rstrip())
    return _USAGE.format(opennebula="\n".join(lines[True]), administrators="\n".join(lines[False]))


def _report(name: str, verb: Verb, options: set[str], arguments: list[str]) -> int:
    """Run a verb; its result goes to the journal, and a failure also to whoever has called."""
    started, line = time.monotonic(), " ".join([name, *arguments])
    printed = io.StringIO()
    try:
        # The document comes first: nothing is read, locked or changed for one that is not valid.
        document: Any = _read(verb) if verb.stdin and verb.option not in options else None
        holder = name
        if verb.stdin == _VM:
            from .. import vm
            from ..document import decode

            document = getattr(vm, verb.reader)(decode(document))
            nics = ",".join(map(str, document.concerned_ids))
            holder = f"{name} of VM {document.vm_id}"
            line += f": VM {document.vm_id}" + (f" NIC {nics}" if nics else "")
        try:
            with contextlib.redirect_stdout(printed):
                code = _run(name, verb, options, document, holder, arguments)
        finally:
            # Now that there is no lock any more: whoever reads it may be slow.
            _print(printed.getvalue())
    except KeyboardInterrupt:
        return _fail(name, verb, line, "interrupted; run it again")
    except Exception as error:  # noqa: BLE001 - an administrator gets a sentence, never a traceback
        return _fail(name, verb, line, explain(error, line))
    log(INFO, f"{line}: done in {(time.monotonic() - started) * 1000:.0f} ms")
    return code


def _read(verb: Verb) -> bytes:
    try:
        return sys.stdin.buffer.read(_LIMIT)
    except OSError as error:
        what = f"the {verb.stdin} cannot be read from stdin ({error.strerror})"
        raise AwsOvsError(what, "send it there") from None


def _print(text: str) -> None:
    """Print what a verb has written, which may have come from anywhere, so that it does nothing to a terminal."""
    if text and (reason := _put("\n".join(map(printable, text.split("\n"))), sys.stdout)):
        raise AwsOvsError(f"what it prints cannot be written ({reason})", "look where its output goes")


def _put(text: str, stream: TextIO) -> str:
    """Write to a standard file, and return why that is not possible; Python is not to complain of it once more."""
    try:
        print(text, end="", file=stream, flush=True)
        return ""
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error.strerror or str(error)


def _run(name: str, verb: Verb, options: set[str], document: Any, holder: str, arguments: list[str]) -> int:
    run = __import__(f"{__package__}.{verb.module or name}", fromlist=["run"]).run
    if not verb.locks:
        return run() or 0
    from ..lock import held
    from .node import Node

    settings = config.load()
    with held(holder, verb.patience or settings.lock_timeout):
        node = Node.find(settings, dry_run="--dry-run" in options)
        given = [document] if verb.stdin else [verb.option in options] if verb.option else []
        return run(node, *given, *(arguments[-1:] if verb.has_origin or verb.vm_option else ())) or 0


def _fail(name: str, verb: Verb, line: str, sentence: str) -> int:
    """Report a failure to the journal and on stderr."""
    log(ERROR, f"{line}: {sentence}")
    if verb.stdin == _VM and not sys.stderr.isatty():
        # OpenNebula reads it twice: the ERROR line for the VM's log, the plain one for its ERROR attribute.
        _put(f"ERROR: {name}: {sentence}\n{name}: {sentence}\n", sys.stderr)
    else:
        _put(f"aws-ovs: {name}: {sentence}\n", sys.stderr)
    return 1
