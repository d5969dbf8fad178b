"""A VM on a host in another subnet than its AWS_PRIVATE_IP: what stands for that there, as the node is told it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.alive import cold_migration, live_migration, remains, unhealthy
from tests.lab.support.checks import Check, Report
from tests.lab.support.pings import A_EIP, PUBLIC
from tests.lab.test_front_end import NETWORK
from tests.lab.test_operations import last
from tests.world.front_end import FrontEnd
from tests.world.hosts import datapath
from tests.world.hosts.executor import CommandError
from tests.world.hosts.host import Host
from tests.world.lab import DriverError, Lab
from tests.world.recording import load, substitute
from tests.world.vpc.vpc import CLIENT, SERVER

DOCUMENT = last("deploy")
PRIVATE, STAND_IN, OTHER = "10.0.0.41", "10.0.2.77", "10.0.2.78"
PORT = "7000"
STREAM = ["/usr/bin/python3", "-c", (Path(__file__).parent / "support" / "stream.py").read_text(encoding="utf-8")]
FILE = "/var/lib/aws_ovs/stand_ins.json"


@pytest.fixture(scope="module")
def two_subnets() -> Iterator[Lab]:
    """h1 in one subnet, h2 in another; as the test before has left them."""
    try:
        with Lab(hosts=2, elsewhere=["h2"]) as started:
            yield started
    except datapath.UnavailableError as missing:
        pytest.skip(f"NOT RUN: {missing}")


@pytest.fixture
def zones(two_subnets: Lab) -> Lab:
    two_subnets.reset()
    for host in two_subnets.hosts.values():
        tell(host)
    return two_subnets


def tell(host: Host, **pairs: str) -> None:
    """Tell a host what stands there for `PRIVATE`, or with other words for others, as the front-end does."""
    named = {PRIVATE if key == "private" else key.replace("_", "."): value for key, value in pairs.items()}
    text = json.dumps({"stand_ins": named})
    host.run(["sudo", "-n", "/usr/sbin/aws-ovs", "stand-ins"], user="oneadmin", stdin=text)


def lead(lab: Lab, private_ip: str, host: str) -> None:
    """Let the VM's Elastic IP lead to an address of a host, as the front-end does."""
    lab.ec2.give_eip(lab.ec2.allocate_eip(PUBLIC), lab.hosts[host].instance.eni_id, private_ip)
    lab.vpc.settle()


def shown(host: Host) -> list[str]:
    """What AWS_PRIVATE_IP is on a host, as `show` says."""
    ports = json.loads(host.run(["aws-ovs", "show", "--json"]).stdout)["ports"]
    return [reach["outside"] for port in ports for reach in port["reaches"] if PRIVATE in reach["aws_private_ip"]]


@pytest.fixture
def front_end(zones: Lab) -> Iterator[FrontEnd]:
    """A front-end that knows the hosts, and has a pool with the Elastic IP."""
    with FrontEnd(zones) as started:
        zones.ec2.allocate_eip(PUBLIC, {"Pool": "web"})
        started.oneaws("host", "sync")
        yield started


def test_tcp_through_the_elastic_ip_survives_migrations_between_subnets(
    zones: Lab, front_end: FrontEnd, report: Report
) -> None:
    """Live from one subnet to the other, and cold back. Data flows both ways; the guest's addresses stay."""
    lab, vnet_id = zones, front_end.create_network(NETWORK)
    front_end.oneaws("reconcile")
    (line,) = front_end.elastic_ips()
    home, away = line["HOST"], next(name for name in lab.hosts if name != line["HOST"])
    given = {"AWS_PRIVATE_IP": line["PRIVATE_IP"], "EXTERNAL_IP": PUBLIC, "AWS_ALLOCATION_ID": line["ALLOCATION"]}
    values = {PRIVATE: line["PRIVATE_IP"], "eipalloc-0a1": line["ALLOCATION"]}  # recorded: ours
    deploy = substitute(load("deploy"), hosts={"h1": home}, values=values)
    document = deploy.steps[-1].xml or b""
    lab.play(deploy, follow=False)
    front_end.run_vm(1, home, vnet_id, int(line["AR"]), given)
    lab.vpc.settle()
    with checks.Web() as servers:
        servers.serve(lab.guest(1).spawn([*STREAM, "listen", PORT]))
        servers.serve(lab.vpc.internet_spawn([*STREAM, "listen", PORT]))
        running = {
            "Internet → VM": lab.vpc.internet_spawn([*STREAM, "connect", CLIENT, PUBLIC, PORT, "both"]),
            "VM → Internet": lab.guest(1).spawn([*STREAM, "connect", A_EIP, SERVER, PORT, "both"]),
        }
        for process in running.values():
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for migration, host in ((live_migration, away), (cold_migration, home)):
            lab.play(migration(document, home if host == away else away, host), follow=False)
            front_end.migrate_vm(1, host)
            lab.vpc.settle()
            time.sleep(1)
            (line,) = front_end.elastic_ips()
            assert (line["HOST"], line["STATUS"]) == (host, "ok")
            assert unhealthy(lab) + remains(lab, document, [home if host == away else away]) == []
        for process in running.values():
            process.terminate()
        results = {name: json.loads(process.communicate(timeout=60)[0] or "{}") for name, process in running.items()}
    report([Check(name, bool(result.get("whole")), str(result)) for name, result in results.items()])
    assert [result.get("whole") for result in results.values()] == [True, True]
    front_end.oneaws("reconcile")
    assert front_end.oneaws("reconcile").stdout == "Nothing to change.\n"


def test_a_stand_in_may_be_told_before_the_vm_comes_or_after(zones: Lab) -> None:
    host = zones.hosts["h2"]
    arrival = promise.deploy(DOCUMENT, "h2")
    tell(host, private=STAND_IN)
    zones.play(arrival, follow=False)
    before = zones.dump("h2")
    assert shown(host) == [STAND_IN]
    tell(host, private=STAND_IN)
    assert zones.dump("h2") == before
    tell(host)
    assert shown(host) == [PRIVATE]
    assert f"{PRIVATE} of VM 1 cannot be in 10.0.2.0/24" in "".join(unhealthy(zones))
    tell(host, private=OTHER)
    tell(host, private=STAND_IN)
    assert zones.dump("h2") == before
    lead(zones, STAND_IN, "h2")
    with checks.Web() as web:
        web.guest(zones.guest(1), {80})
        web.internet(zones)
        assert checks.fetch_in(zones, PUBLIC) == CLIENT
        assert checks.fetch_out(zones.guest(1), A_EIP) == PUBLIC


def test_a_reboot_and_the_loss_of_all_flows_change_nothing(zones: Lab) -> None:
    host = zones.hosts["h2"]
    tell(host, private=STAND_IN)
    zones.play(promise.deploy(DOCUMENT, "h2"), follow=False)
    before = zones.dump("h2")
    host.run(["ovs-ofctl", "del-flows", "aws_ovs"])
    assert unhealthy(zones) != []
    host.run(["aws-ovs", "restore"])
    assert unhealthy(zones) == []
    assert zones.dump("h2") == before


def test_a_damaged_file_is_named_and_replaced_by_the_next_list(zones: Lab) -> None:
    host = zones.hosts["h2"]
    tell(host, private=STAND_IN)
    host.run(["sh", "-c", f"echo '{{' >{FILE}"])
    (line,) = unhealthy(zones)
    assert "the list of stand-in addresses is not valid" in line
    tell(host, private=STAND_IN)
    assert unhealthy(zones) == []


REFUSED = [
    ({"private": "10.0.0.77"}, "10.0.0.77, which is to stand for 10.0.0.41, is not in 10.0.2.0/24"),
    ({"private": "10.0.2.12"}, "10.0.2.12, which is to stand for 10.0.0.41, is configured on this node itself"),
    ({"private": OTHER, "10_0_0_42": OTHER}, "'10.0.2.78' is twice in the list"),
    ({"private": "127.0.0.1"}, "127.0.0.1 is not an address that a VM can use"),
    (
        {"private": OTHER, "10_0_0_43": STAND_IN},
        "10.0.2.77, which is to stand for 10.0.0.43, is AWS_PRIVATE_IP of VM 2",
    ),
]


def test_lists_that_do_not_fit_are_refused_and_change_nothing(zones: Lab) -> None:
    host = zones.hosts["h2"]
    ips = {"192.168.0.10": "192.168.0.102", "192.168.0.250": "192.168.0.202"}
    second = substitute(load("deploy"), vm_id=2, hosts={"h1": "h2"}, ips=ips, values={PRIVATE: STAND_IN})
    zones.play(second, follow=False)
    tell(host, private="10.0.2.79")
    before = zones.dump("h2")
    for pairs, reason in REFUSED:
        with pytest.raises(CommandError) as refusal:
            tell(host, **pairs)
        assert reason in str(refusal.value)
        assert zones.dump("h2") == before


def test_two_vms_with_one_private_address_are_refused_there_too(zones: Lab) -> None:
    tell(zones.hosts["h2"], private=STAND_IN)
    zones.play(promise.deploy(DOCUMENT, "h2"), follow=False)
    ips = {"192.168.0.10": "192.168.0.102", "192.168.0.250": "192.168.0.202"}
    second = substitute(load("deploy"), vm_id=2, hosts={"h1": "h2"}, ips=ips)
    with pytest.raises(DriverError, match=f"{PRIVATE} is in use on this node by VM 1"):
        zones.play(second, follow=False)
