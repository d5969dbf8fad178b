"""The probe that OpenNebula's monitoring runs on every host: what it reports, and that it never fails."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.world.hosts.host import Host
from tests.world.lab import Lab
from vnm_aws.overlay.tunnels import Peer, PeerList, digest

PROBE = "/var/tmp/one/im/kvm-probes.d/host/system/aws_ovs.sh"
REPOSITORY = Path(__file__).parents[2]
KEYS = {
    "TIME",
    "VERSION",
    "VTEP",
    "UNDERLAY_MTU",
    "GUEST_MTU",
    "PEERS_UP",
    "PEERS_DOWN",
    "MESH",
    "ERROR",
    "CONNECTIONS",
    "CONNECTIONS_FULL",
    "CONNECTIONS_DROPPED",
}

# Stands in the way of the real one, which is in /usr/bin.
_SUDO = "/usr/local/bin/sudo"


def probe(host: Host) -> dict[str, str]:
    """What the probe prints, as OpenNebula would read it, without the prefix of the keys."""
    done = host.run([PROBE], user="oneadmin")
    assert done.stderr == ""
    lines = [re.fullmatch(r'AWS_OVS_([A-Z_]+)="([^"\\\[\]]*)"', line) for line in done.stdout.splitlines()]
    assert lines
    assert all(lines), done.stdout
    values = {line[1]: line[2] for line in lines if line}
    assert len(values) == len(lines), "a key comes twice"
    return values


@pytest.fixture
def host(fresh_lab: Lab) -> Host:
    return fresh_lab.hosts["h1"]


def mesh(lab: Lab) -> str:
    instances = {name: host.instance for name, host in lab.hosts.items()}
    peers = [Peer(name, instance.private_ip) for name, instance in instances.items()]
    public = tuple(instance.public_ip for instance in instances.values() if instance.public_ip)
    return digest(PeerList(peers, (lab.ec2.vpc_cidr,), public))


def test_it_reports_what_the_front_end_needs_to_know(fresh_lab: Lab, host: Host) -> None:
    fresh_lab.tunnels(host.name)
    values = probe(host)
    assert abs(int(values.pop("TIME")) - time.time()) < 60
    assert values == {
        "VERSION": host.run(["aws-ovs", "--version"]).stdout.split()[1],
        "VTEP": host.instance.private_ip,
        "UNDERLAY_MTU": "9001",
        "GUEST_MTU": "1450",
        "PEERS_UP": "2",
        "PEERS_DOWN": "0",
        "MESH": mesh(fresh_lab),
        "CONNECTIONS": "0",
        "CONNECTIONS_FULL": "0",
        "CONNECTIONS_DROPPED": "0",
        "ERROR": "",
    }


def test_a_tunnel_that_is_not_there_is_down(fresh_lab: Lab, host: Host) -> None:
    ports = host.run(["ovs-vsctl", "list-ports", "aws_ovs"]).stdout.split()
    first, second = [name for name in ports if name.startswith("vx-")]
    fresh_lab.tunnels(host.name)
    host.run(["ovs-vsctl", "del-port", "aws_ovs", first])
    assert (probe(host)["PEERS_UP"], probe(host)["PEERS_DOWN"]) == ("1", "1")
    # One that Open vSwitch cannot set up counts as well.
    host.run(["ovs-vsctl", "--no-wait", "set", "Interface", second, "options:remote_ip=nonsense"])
    host.run(["ovs-appctl", "ofproto/list"])
    deadline = time.monotonic() + 10
    while probe(host)["PEERS_DOWN"] != "2":
        assert time.monotonic() < deadline
    assert probe(host)["MESH"] == mesh(fresh_lab)


def test_a_host_that_was_told_nothing_has_no_peers(host: Host) -> None:
    host.run(["rm", "/var/lib/aws_ovs/peers.json"])
    values = probe(host)
    assert (values["PEERS_UP"], values["PEERS_DOWN"], values["MESH"]) == ("0", "0", digest(PeerList([])))
    assert values["ERROR"] == ""
    host.run(["sh", "-c", "echo nonsense >/var/lib/aws_ovs/peers.json"])
    values = probe(host)
    assert (values["PEERS_UP"], values["MESH"]) == ("", digest(PeerList([])))
    assert "the peer list is not valid" in values["ERROR"]


def test_a_dead_open_vswitch_is_an_error_with_a_remedy(fresh_lab: Lab, host: Host) -> None:
    host.kill_ovs("ovs-vswitchd")
    values = probe(host)
    assert set(values) == KEYS
    assert values["ERROR"] == "ovs-vswitchd does not run; start it: systemctl start openvswitch-switch"
    assert (values["PEERS_UP"], values["PEERS_DOWN"]) == ("0", "2")
    assert (values["VTEP"], values["MESH"]) == (host.instance.private_ip, mesh(fresh_lab))
    host.kill_ovs("ovsdb-server")
    assert "systemctl start openvswitch-switch" in probe(host)["ERROR"]
    host.start_ovs()
    assert "aws-ovs restore" in probe(host)["ERROR"], "the flows are gone"
    host.run(["/usr/sbin/aws-ovs", "restore"])
    assert probe(host)["ERROR"] == ""


def test_a_bad_configuration_is_an_error_in_one_line(host: Host) -> None:
    with replaced(host, "/var/tmp/one/etc/vnm/aws_ovs.yaml", 'datapath_type: "a\\"b[1]\\n\\\\"\n'):
        values = probe(host)
    assert set(values) == KEYS
    assert "datapath_type must be system or netdev" in values["ERROR"]
    assert values["VTEP"] == ""


def test_it_waits_for_no_action(host: Host) -> None:
    holder = host.spawn(["flock", "/run/aws_ovs/lock", "sh", "-c", "echo held; exec sleep 1000"])
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert probe(host)["ERROR"] == ""
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.wait()


def test_an_ovsdb_server_that_hangs_does_not_hang_the_monitoring(host: Host) -> None:
    pid = host.ovs_pids()["ovsdb-server"]
    host.run(["kill", "-STOP", str(pid)])
    try:
        assert "ovsdb-server stopped answering" in probe(host)["ERROR"]
    finally:
        host.run(["kill", "-CONT", str(pid)])


def test_without_the_driver_it_is_silent(host: Host) -> None:
    hide = (
        'mount --bind /dev/null /usr/sbin/aws-ovs; exec setpriv --reuid=oneadmin --regid=oneadmin --init-groups -- "$0"'
    )
    done = host.run(["unshare", "--mount", "sh", "-ec", hide, PROBE])
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(
    ("sudo", "sentence"),
    [
        (
            "echo 'sudo: a password is required' >&2; exit 1",
            "sudo: a password is required; run 'install.sh --node' on this",
        ),
        (
            "echo first >&2; printf 'sudo: \"a[b]\\\\\\t\\303\\244\" is bad' >&2; exit 1",
            "sudo: 'a(b)/' is bad; run 'install",
        ),
        ("echo first >&2; echo 'aws-ovs: probe: bad; do that' >&2; exit 1", "aws-ovs: probe: bad; do that"),
    ],
)
def test_a_program_that_cannot_run_is_an_error_too(host: Host, sudo: str, sentence: str) -> None:
    with replaced(host, _SUDO, f"#!/bin/sh\n{sudo}\n"):
        values = probe(host)
    assert values.pop("ERROR").startswith(sentence)
    assert values.pop("TIME").isdecimal()
    unknown = KEYS - {"TIME", "VERSION", "VTEP", "UNDERLAY_MTU", "GUEST_MTU", "ERROR"}
    assert values == dict.fromkeys(unknown, ""), "what was true earlier is not known now"


def test_what_sudo_has_to_say_does_not_reach_the_template(host: Host) -> None:
    warning = 'echo "sudo: unable to resolve host h1: Name or service not known" >&2'
    with replaced(host, _SUDO, f'#!/bin/sh\n{warning}\nexec /usr/bin/sudo "$@"\n'):
        assert set(probe(host)) == KEYS


def test_it_loads_nothing_heavy() -> None:
    script = "import sys; from vnm_aws.driver import main, probe; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not {"pyroute2", "yaml", "boto3", "pyone", "click", "subprocess"} & set(done.stdout.split())


@contextmanager
def replaced(host: Host, path: str, content: str) -> Iterator[None]:
    """A file, executable, that is as it was afterwards."""
    keep = '[ ! -e "$0" ] || cp -a "$0" "$0.kept"; cat >"$0"; chmod 755 "$0"'
    host.run(["sh", "-ec", keep, path], stdin=content)
    try:
        yield
    finally:
        host.run(["sh", "-ec", 'if [ -e "$0.kept" ]; then mv "$0.kept" "$0"; else rm "$0"; fi', path])
