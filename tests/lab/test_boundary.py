"""What oneadmin can make root do on a node: the verbs, and nothing else, whatever he hands over with them.

He may call the verbs of share/sudoers/aws_ovs, and writes the configuration. What is around a call (directory, environment,
umask, limits, standard files) is his; what root then reads, runs and leaves behind is not.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator

import pytest
from lxml import etree

from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load

DEPLOY = load("deploy")
DOCUMENT = base64.b64encode(DEPLOY.steps[-1].xml or b"").decode()
SUDO = "/usr/bin/sudo -n /usr/sbin/aws-ovs"
DIRECTORIES = ("/run/aws_ovs", "/var/lib/aws_ovs")
CONFIGURATION = "/var/tmp/one/etc/vnm/aws_ovs.yaml"
SECRET = "S3cretMarker"
SENTENCE = re.compile(r"(ERROR: (\w+): (.*)\n\2: \3|aws-ovs: \w+: .*)\n")

pytestmark = pytest.mark.only_on("userspace", reason="it is about processes and files, which are the same there")


@pytest.fixture
def host(fresh_lab: Lab) -> Host:
    """A host without VMs, whose tunnels are up."""
    fresh_lab.tunnels("h1")
    return fresh_lab.hosts["h1"]


@pytest.fixture
def configuration(host: Host) -> Iterator[None]:
    """Keeps the configuration that the test puts something else in the place of, whichever test is first."""
    kept = "/root/kept.yaml"
    host.run(["cp", "-p", CONFIGURATION, kept])
    yield
    host.run(["sh", "-ec", f"rm -rf {CONFIGURATION}; cp -p {kept} {CONFIGURATION}"])


def shell(host: Host, script: str, *, user: str = "oneadmin", stdin: str = "", **more: str) -> tuple[int, str, str]:
    """Run a script; gives its exit code, and what it printed."""
    env = {"P": SUDO if user == "oneadmin" else "/usr/sbin/aws-ovs", **more}
    done = host.run(["bash", "-c", script], user=user, stdin=stdin, env=env, check=False, timeout=30)
    return done.returncode, done.stdout, done.stderr


def refused(done: tuple[int, str, str]) -> str:
    """The sentence of a call that must have failed with one, and with nothing else."""
    code, out, error = done
    assert (code, out) == (1, ""), done
    assert SENTENCE.fullmatch(error), error
    assert "internal error" not in error
    assert all(line.isprintable() for line in error.splitlines()), error
    return error


# Each module, and each tool, writes down who ran it.
_TRAPS = r"""
mkdir -p /tmp/evil/vnm_aws /tmp/evil/lxml /tmp/evil/bin /tmp/evil/lib/python3.11/site-packages
cd /tmp/evil
echo 'import os; open("/tmp/evil/ran", "a").write(f"{__file__} {os.geteuid()}\n")' >trap.py
for name in vnm_aws/__init__ lxml/__init__ json re os sitecustomize usercustomize yaml syslog encodings _signal; do
    cp trap.py "$name.py"
done
for python in /usr/lib/python3.*; do
    site=.local/lib/${python##*/}/site-packages
    mkdir -p "$site"; cp trap.py "$site/usercustomize.py"; echo 'import trap' >"$site/evil.pth"; cp trap.py "$site"
done
for tool in ovs-ofctl ovs-vsctl ovs-appctl nft ip sysctl id sh python3; do
    printf '#!/bin/sh\necho %s $(/usr/bin/id -u) >>/tmp/evil/ran\n' "$tool" >"bin/$tool"
done
chmod -R a+rX . && chmod 755 bin/* && touch ran && chmod 666 ran
"""
_HOSTILE = {
    "HOME": "/tmp/evil", "PATH": "/tmp/evil/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/tmp/nowhere",
    "PYTHONPATH": "/tmp/evil", "PYTHONHOME": "/tmp/evil", "PYTHONUSERBASE": "/tmp/evil/.local",
    "PYTHONSTARTUP": "/tmp/evil/trap.py", "PYTHONBREAKPOINT": "trap.x", "PYTHONINSPECT": "1", "PYTHONWARNINGS": "e",
    "PYTHONPLATLIBDIR": "/tmp/evil", "PYTHONPYCACHEPREFIX": "/tmp/evil", "PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0",
    "LC_ALL": "POSIX", "LANGUAGE": "xx", "OVS_RUNDIR": "/tmp/evil", "OVS_DBDIR": "/tmp/evil", "OVS_SYSCONFDIR": "/tmp",
    "BASH_ENV": "/tmp/evil/rc", "ENV": "/tmp/evil/rc", "IFS": "/", "CDPATH": "/tmp/evil", "SUDO_ASKPASS": "/tmp/evil/bin/sh",
}  # fmt: skip
_LOADER = {"LD_PRELOAD": "/tmp/evil/a.so", "LD_AUDIT": "/tmp/evil/a.so", "LD_LIBRARY_PATH": "/tmp/evil"}


@pytest.mark.parametrize("user", ["oneadmin", "root"])
def test_nothing_of_the_caller_is_run(host: Host, user: str) -> None:
    """Not by sudo, and not when root's own shell has such an environment."""
    host.run(["sh", "-ec", _TRAPS])
    program = SUDO.split() if user == "oneadmin" else ["/usr/sbin/aws-ovs"]
    for verb in ("pre", "check", "show", "probe", "peers --apply", "restore"):
        # What the loader does for root is before any program of ours.
        environment = _HOSTILE | (_LOADER if user == "oneadmin" else {})
        command = ["env", *(f"{key}={value}" for key, value in environment.items()), *program, *verb.split()]
        done = host.run(command, user=user, cwd="/tmp/evil", stdin=DOCUMENT if verb == "pre" else "", check=False)
        assert host.run(["cat", "/tmp/evil/ran"]).stdout == "", verb
        assert done.returncode == 0, (verb, done.stdout, done.stderr)


def test_oneadmin_may_call_the_verbs_and_nothing_else(host: Host) -> None:
    for words in (
        *(
            "-e /etc/passwd",
            "-s",
            "-i",
            "/usr/bin/id",
            "/bin/sh -c id",
            "/usr/sbin/aws-ovs",
            "/usr/sbin/aws-ovs --version",
        ),
        *("/usr/sbin/aws-ovs pre --dry-run", "/usr/sbin/aws-ovs restore --dry-run", "/usr/sbin/aws-ovs show --dry-run"),
        *("-u daemon /usr/sbin/aws-ovs show", "-g daemon /usr/sbin/aws-ovs show", "-D /tmp /usr/sbin/aws-ovs show"),
        *("-R /tmp /usr/sbin/aws-ovs show", "-C 5 /usr/sbin/aws-ovs show", "-T 1 /usr/sbin/aws-ovs show"),
        *("PATH=/tmp /usr/sbin/aws-ovs show", "LD_PRELOAD=/tmp/x /usr/sbin/aws-ovs show", "-E /usr/sbin/aws-ovs show"),
        *("/usr/lib/aws_ovs/venv/bin/python -c 0", "/usr/bin/ovs-vsctl show", "/usr/sbin/aws-ovs show --json --json"),
    ):
        code, out, error = shell(host, f"/usr/bin/sudo -n {words}")
        assert (code, out) == (1, ""), words
        assert re.search(r"password is required|not allowed|not permitted", error), (words, error)
    code, _, error = shell(host, "sudoedit -n /etc/passwd")
    assert (code, "password is required" in error) == (1, True)


_WORDS = [
    "a\nERROR: b", "a\r\x1b[2J", "\x07", "\x7f", "\u202egro.live", "\u2028", "$(id)", "`id`", "*", "a;b", "a b", "--file", "--",
    "--settings=/etc/shadow", "", "../h1", "/etc/shadow", "x" * 256, "x" * 100_000, "\udcff\udcfe",
]  # fmt: skip


def test_words_of_no_verb_are_refused_in_a_line_and_are_not_acted_upon(host: Host) -> None:
    """sudo hands over all that follows a verb."""
    for word in _WORDS:
        done = host.run([*SUDO.split(), "post", word, "h1"], user="oneadmin", stdin=DOCUMENT, check=False)
        assert (done.returncode, done.stdout) == (2, ""), word
        assert re.fullmatch(r"aws-ovs: cannot take '.*'; see 'aws-ovs --help'\n", done.stderr), word
        assert done.stderr[:-1].isprintable(), word
        assert len(done.stderr) < 1100, word


@pytest.mark.parametrize("user", ["oneadmin", "root"])
@pytest.mark.parametrize("umask", ["000", "777"])
def test_what_root_leaves_is_roots_whatever_the_umask(fresh_lab: Lab, umask: str, user: str) -> None:
    host = fresh_lab.hosts["h1"]
    fresh_lab.play(DEPLOY)
    host.run(["sh", "-ec", "rm -r /run/aws_ovs/* /var/lib/aws_ovs/*"])
    peers = json.dumps({"peers": [{"name": "h1", "vtep": "10.0.0.11"}]})
    for verb, stdin in (("peers", peers), ("post one-1 h1", DOCUMENT)):
        assert shell(host, f"umask {umask}; $P {verb}", user=user, stdin=stdin) == (0, "", "")
    seen = host.run(["find", *DIRECTORIES, "-printf", r"%P %M %u:%g\n"]).stdout.splitlines()
    assert "vms/1.json -rw-r--r-- root:root" in seen
    assert "lock -rw------- root:root" in seen
    others = [line.partition(" ")[2] for line in seen if not line.startswith("lock ")]
    assert set(others) == {"drwxr-xr-x root:root", "-rw-r--r-- root:root"}


def test_what_root_keeps_is_out_of_reach(fresh_lab: Lab) -> None:
    """So no link can wait there under a name that root is about to write, and nobody but root has the lock."""
    host = fresh_lab.hosts["h1"]
    fresh_lab.play(DEPLOY)
    attempts = [
        "ln -s /etc/shadow {d}/config.json.1.tmp", "touch {d}/new", "mkdir {d}/vms2", "rm -f {d}/lock {d}/peers.json",
        "mv {d} {d}2", "ln /etc/hostname {d}/hard", "chmod 777 {d}", "echo >>{d}/node.json", "echo >>{d}/peers.json",
        "ln -s /etc {d}/vms/link", "flock -n {d}/lock true", "flock -n -s {d}/lock true",
    ]  # fmt: skip
    before = host.run(["find", *DIRECTORIES, "-printf", r"%p %M %u %s\n"]).stdout
    for attempt in attempts:
        for directory in DIRECTORIES:
            if "/vms/" not in attempt or directory.startswith("/run"):
                code, _, _ = shell(host, f"! {{ {attempt.format(d=directory)}; }} 2>/dev/null")
                assert code == 0 or (attempt.startswith("rm") and directory.startswith("/var")), attempt
    assert host.run(["find", *DIRECTORIES, "-printf", r"%p %M %u %s\n"]).stdout == before


_CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full")


@pytest.mark.parametrize("user", ["oneadmin", "root"])
def test_closed_standard_files_do_no_harm(fresh_lab: Lab, user: str) -> None:
    """What is opened next would get their numbers: a file of root that a message is written into, a tool's standard input."""
    lab = fresh_lab
    host = lab.hosts["h1"]
    lab.play(DEPLOY)
    before = lab.dump("h1")
    calls = {"update_sg one-1": DOCUMENT, "peers": "{", "show": "", "restore": "", "clean h1": "%%%"}
    for closed in _CLOSED:
        for verb, stdin in calls.items():
            host.run(["rm", "-f", "/run/aws_ovs/config.json"])
            code, out, error = shell(host, f"$P {verb} {closed}", user=user, stdin=stdin)
            what = (closed, verb, code, out, error)
            assert code in (0, 1), what
            assert code == 1 or (verb not in ("peers", "clean h1") and not ("<" in closed and stdin)), what
            assert code == 0 or verb in ("peers", "clean h1") or closed not in ("2>&-", "2>/dev/full"), what
            assert "2>" in closed or (error == "") == (code == 0), what
            assert error == "" or SENTENCE.fullmatch(error), what
            assert "internal error" not in error, what
            assert out == "" or (verb == "show" and "2>" in closed) or closed == "<&-", what
    assert lab.dump("h1") == before


@pytest.mark.parametrize("signal", ["PIPE", "CHLD"])
def test_a_signal_that_the_caller_ignores_is_not_ignored(fresh_lab: Lab, signal: str) -> None:
    host = fresh_lab.hosts["h1"]
    fresh_lab.play(DEPLOY)
    before = fresh_lab.dump("h1")
    script = f"import os, signal, sys; signal.signal(signal.SIG{signal}, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    for verb in ("update_sg one-1", "restore"):
        call = ["python3", "-c", script, *SUDO.split(), *verb.split()]
        done = host.run(call, user="oneadmin", stdin=DOCUMENT, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), verb
    assert fresh_lab.dump("h1") == before


def test_a_limit_of_the_caller_stops_all_or_nothing(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    lab.play(DEPLOY)
    opened = lab.dump("h1")
    assert shell(host, "$P clean h1", stdin=DOCUMENT)[0] == 0
    closed, failures = lab.dump("h1"), 0
    for limit in ("-f 0", "-f 1", "-f 2", "-f 4", "-v 20000", "-t 1", "-c unlimited"):
        code, _, error = shell(host, f"ulimit {limit} && $P post one-1 h1", stdin=DOCUMENT)
        assert lab.dump("h1") == (closed if code else opened), (limit, error)
        assert (error == "") == (code == 0), (limit, error)
        assert code == 0 or SENTENCE.fullmatch(error), (limit, error)
        failures += code
        assert code or shell(host, "$P clean h1", stdin=DOCUMENT)[0] == 0
    assert failures >= 3, "a limit that lets all pass shows nothing"


# What oneadmin puts in the configuration's place, and what is said of it.
_INSTEAD = {
    "ln -s /etc/aws_ovs_secret {f}": "is a symbolic link, which is not followed as root",
    "ln -s /dev/zero {f}": "is a symbolic link",
    "ln -s {f} {f}": "is a symbolic link",
    "mkfifo {f}": "is not a regular file",
    "mkdir {f}": "cannot be read (Is a directory)",
    "truncate -s 1G {f}": "is larger than 65536 bytes",
    "cp /bin/sh {f}": "is larger than 65536 bytes",
    "head -c 3000 /bin/sh >{f}": "is not valid YAML",
    r"printf 'vni_base: \377' >{f}": "is not valid YAML",
    "echo 'a: [&a [0], &b [*a,*a]]' >{f}": "line 1 is not 'key: value' with a short plain value",
    r"""printf 'gateway_mac: "\\e[2J\\nERROR: x"' >{f}""": "is not a MAC address",
    "printf 'vni_base: 1\\n\\033[2J: 3' >{f}": "is not valid YAML",
}


@pytest.mark.usefixtures("configuration")
def test_what_oneadmin_puts_in_the_configurations_place_is_a_sentence(host: Host) -> None:
    host.run(["sh", "-ec", f"umask 077; echo 'root: {SECRET}' >/etc/aws_ovs_secret"])
    for instead, said in _INSTEAD.items():
        script = f"rm -rf {CONFIGURATION}; {instead.format(f=CONFIGURATION)}"
        host.run(["sh", "-ec", script], user="oneadmin")
        for verb, stdin in (("pre", DOCUMENT), ("peers --apply", "")):
            error = refused(shell(host, f"ulimit -v 300000; $P {verb}", stdin=stdin))
            assert CONFIGURATION in error, instead
            assert said in error, instead
            assert SECRET not in error, instead
        code, printed, _ = shell(host, "ulimit -v 300000; $P probe")
        assert (code, SECRET in printed, f'ERROR="{CONFIGURATION}' in printed) == (0, False, True), (
            instead,
            printed,
        )


@pytest.mark.usefixtures("configuration")
def test_a_hard_link_to_a_secret_of_root_is_not_read(host: Host) -> None:
    secret = "/var/tmp/secret"  # on the same file system
    host.run(
        ["sh", "-ec", f"umask 077; echo 'root: {SECRET}' >{secret}; rm {CONFIGURATION}; ln {secret} {CONFIGURATION}"]
    )
    error = refused(shell(host, "$P pre", stdin=DOCUMENT))
    assert "is another user's file, which not everybody may read; put the one that was installed" in error
    assert SECRET not in error
    host.run(["chmod", "644", secret])
    assert SECRET not in refused(shell(host, "$P pre", stdin=DOCUMENT)), "an unknown key is shown, its value is not"


_PEERS = "/var/lib/aws_ovs/peers.json"


def _named(name: str) -> str:
    return f"""printf '%s' '{{"peers": [{{"name": "{name}", "vtep": "10.0.0.12"}}]}}'"""


_SENT = [
    "head -c 1G /dev/zero",
    "yes '{'",
    "head -c 900000 /dev/zero | tr '\\0' '['",
    "printf '\\377'",
    "printf '{\"peers\": []}' | iconv -t UTF-16",
    "printf '\\357\\273\\277{\"peers\": []}'",
    *map(
        _named, (r"a\u001b[2J", r"a\nERROR: b", r"\u202egro", r"\ud800", r"\u009b2J", r"\u0000", "a\u202eb", "x" * 256)
    ),
]


def test_a_peer_list_that_means_harm_is_refused_and_the_stored_one_stays(host: Host) -> None:
    before = host.run(["cat", _PEERS]).stdout
    for sent in _SENT:
        error = refused(shell(host, f"ulimit -v 300000; {sent} | $P peers"))
        assert "peer list" in error or re.search(r"the peer '.*' is not valid", error), (sent, error)
    assert host.run(["cat", _PEERS]).stdout == before


def test_a_stored_peer_list_that_somebody_has_spoilt_is_a_sentence_and_is_replaced(host: Host) -> None:
    good = host.run(["cat", _PEERS]).stdout
    names = json.dumps({"peers": [{"name": "\x1b[2J\nERROR: x", "vtep": "10.0.0.12"}]})
    for spoil in (f"truncate -s 1G {_PEERS}", f"echo '{names}' >{_PEERS}", f"printf '\\xff' >{_PEERS}"):
        host.run(["sh", "-ec", spoil])
        for verb in ("show", "peers --apply", "restore"):
            assert "the peer" in refused(shell(host, f"ulimit -v 300000; $P {verb}"))
        code, out, _ = shell(host, "ulimit -v 300000; $P check")
        assert (code, out.isprintable(), "run 'oneaws mesh sync --all'" in out) == (1, False, True)
        assert all(line.isprintable() for line in out.splitlines())
        assert shell(host, "ulimit -v 300000; $P peers", stdin=good) == (0, "", "")


def test_names_in_open_vswitch_do_nothing_to_a_terminal(host: Host) -> None:
    """They are root's and libvirt's, but what is on a terminal of root is believed."""
    host.run(["ovs-vsctl", "--no-wait", "add-port", "aws_ovs", "a\x1b[2J\nok: everything\u202e"])
    host.run(["ovs-vsctl", "--no-wait", "set", "Interface", "aws_icmp", "external_ids:aws_ovs-port=\x1b[2J"])
    done = host.run(["aws-ovs", "check"], check=False)
    assert "port a\\x1b[2J\\nok: everything\\u202e on bridge aws_ovs is of no VM" in done.stdout
    for verb in ("show", "check", "restore --dry-run", "peers --apply --dry-run"):
        done = host.run(["aws-ovs", *verb.split()], check=False)
        assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n")), verb


_SIZE = 8 * 1024 * 1024 - 100
_DOCTYPE = b"<!DOCTYPE VM [<!ENTITY a '%s'>%s]><VM>%s</VM>"
_BOMBS = {
    "elements": b"<VM>" + b"<a/>" * (_SIZE // 4) + b"</VM>",
    "NICs": b"<VM><ID>1</ID><TEMPLATE>" + b"<NIC/>" * (_SIZE // 6) + b"</TEMPLATE></VM>",
    "attributes": b"<VM " + b" ".join(b'a%d=""' % number for number in range(600_000)) + b"/>",
    "namespaces": b"<VM " + b" ".join(b'xmlns:a%d="b"' % number for number in range(300_000)) + b"/>",
    "depth": b"<VM>" * (_SIZE // 4),
    "a long text": b"<VM><ID>" + b"9" * _SIZE + b"</ID></VM>",
    "a long name": b"<" + b"a" * _SIZE + b"/>",
    "more than is read": b"<VM>" + b" " * 20_000_000,
    "entities in entities": _DOCTYPE
    % (b"x" * 10, b"".join(b"<!ENTITY %c '%s'>" % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(20)), b"&u;"),
    "an entity often": _DOCTYPE % (b"x" * 100_000, b"", b"&a;" * 100_000),
    "a file": b"<!DOCTYPE VM [<!ENTITY a SYSTEM 'file:///etc/shadow'>]><VM><ID>&a;</ID></VM>",
    "a file of declarations": b"<!DOCTYPE VM [<!ENTITY % a SYSTEM 'file:///etc/shadow'> %a;]><VM><ID>1</ID></VM>",
}


def test_a_document_that_means_harm_costs_little_and_is_a_sentence(host: Host) -> None:
    for name, document in _BOMBS.items():
        started = time.monotonic()
        sent = base64.b64encode(document).decode()
        error = refused(shell(host, "ulimit -v 700000; $P pre", stdin=sent))
        assert "VM" in error, name
        assert "root:" not in error, name
        assert len(error) < 1000, name
        assert time.monotonic() - started < 60, name  # a second or two when nobody else is at work
    assert "is larger than" in refused(shell(host, "head -c 1G /dev/zero | $P pre"))


# What XML lets through: no control characters but these, and all that turns the direction of text.
_HARM = "a\nERROR: b\r\x7f\x9b2J\u202e\u2028c\x85"


def test_a_value_of_a_document_begins_no_line_of_opennebulas(host: Host) -> None:
    """OpenNebula reads stderr line by line, and shows what follows `ERROR:`."""
    for place in ("BRIDGE", "TARGET", "MAC", "IP", "NIC_ID", "VLAN_ID", "AWS_PRIVATE_IP", "MTU", "GATEWAY"):
        root = etree.fromstring(DEPLOY.steps[0].xml or b"")
        for element in root.iterfind("TEMPLATE/NIC"):
            value = element.find(place)
            (etree.SubElement(element, place) if value is None else value).text = _HARM
        sent = base64.b64encode(etree.tostring(root)).decode()
        for verb in ("pre", "post --dry-run one-1 h1", "clean h1"):
            code, out, error = shell(host, f"$P {verb}", stdin=sent)
            assert all(line.isprintable() for line in out.split("\n")), (place, verb)
            assert error == "" or refused((code, out, error)), (place, verb)
