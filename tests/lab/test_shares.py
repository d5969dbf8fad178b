"""What the VMs of a node share has shares: the flood of one VM harms no other, and `aws-ovs show` tells of it."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.support import checks, promise
from tests.world.guests.guest import Guest
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import SERVER

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
A, A_EIP, NEIGHBOUR = "192.168.0.10", "192.168.0.250", "192.168.0.60"
PORT = 4000
SHARE = 4096

_ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{SERVER}", {PORT}))
print("ready", flush=True)
while True:
    data, sender = s.recvfrom(2000)
    if data != b"flood":
        s.sendto(data, sender)
"""

# Asks from so many new sockets, and prints how many are answered.
_ASK = """
import socket, sys
source, count = sys.argv[1], int(sys.argv[2])
sockets = []
for _ in range(count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((source, 0))
    s.settimeout(2)
    s.sendto(b"ask", (sys.argv[3], int(sys.argv[4])))
    sockets.append(s)
answered = 0
for s in sockets:
    try:
        answered += s.recv(100) == b"ask"
    except TimeoutError:
        pass
print(answered)
"""

# A connection of its own, then one of each port there is, then again the first; prints how often that was answered.
_FLOOD = """
import socket, sys, time
source, target = sys.argv[1], (sys.argv[2], int(sys.argv[3]))
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
old.bind((source, 1023))
old.settimeout(2)
def ask():
    old.sendto(b"mine", target)
    return old.recv(100) == b"mine"
answered = ask()
for port in range(1024, 65536):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((source, port))
        s.sendto(b"flood", target)
    if port % 256 == 0:
        time.sleep(0.01)
print(answered + ask())
"""


def show(host: Host) -> list[dict[str, Any]]:
    """The ports that `aws-ovs show` knows."""
    ports: list[dict[str, Any]] = json.loads(host.run(["aws-ovs", "show", "--json"]).stdout)["ports"]
    return ports


def asked(guest: Guest, source: str, count: int = 20) -> int:
    """How many of so many new connections of a guest to the Internet are answered."""
    done = guest.run(["/usr/bin/python3", "-c", _ASK, source, str(count), SERVER, str(PORT)])
    return int(done.stdout)


def test_a_flood_of_connections_uses_up_the_share_of_its_vm_only(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 2, NEIGHBOUR), "h1"))
    with checks.Web() as servers:
        servers.serve(lab.vpc.internet_spawn(["/usr/bin/python3", "-c", _ECHO]))
        assert asked(lab.guest(1), A) == asked(lab.guest(2), NEIGHBOUR) == 20
        flood = lab.guest(1).run(["/usr/bin/python3", "-c", _FLOOD, A, SERVER, str(PORT)])
        assert asked(lab.guest(2), NEIGHBOUR) == 20
        assert flood.stdout.strip() == "2", "its own connection of before lives on"
        assert asked(lab.guest(1), A) == 0
        # What has an Elastic IP needs no share.
        assert asked(lab.guest(1), A_EIP) == 20
    refused = {port["name"]: port["connections_refused"] for port in show(lab.hosts["h1"])}
    assert refused["one-1-0"] > 10 * SHARE
    assert (refused["one-1-1"], refused["one-2-0"]) == (0, 0)
    assert lab.hosts["h1"].run(["aws-ovs", "check"]).stdout.startswith("ok: ")
