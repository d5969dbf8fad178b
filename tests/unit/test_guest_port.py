"""From a NIC to the desired state of its port."""

from __future__ import annotations

import pytest

from tests.unit.documents import recorded, with_value
from vnm_aws import vm
from vnm_aws.addresses import Prefix
from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay.guest_port import Claim, GuestPort, Mapping, SharedAddress, plan, without
from vnm_aws.vm import PortRange

TRANSIT = Prefix("198.18.0.0/15", "transit_range")


def ports(document: bytes, used: set[str] | None = None) -> list[GuestPort]:
    machine = vm.parse(document)
    used = set() if used is None else used
    return [plan(machine.vm_id, nic, nic.vni(1000), TRANSIT, {}, used) for nic in machine.nics]


def test_a_private_ip_is_the_outside_address_and_others_get_a_transit_address() -> None:
    plain, elastic = ports(recorded("deploy", "03-post.xml"))
    assert plain.mappings == (Mapping("192.168.0.10", "198.18.0.1"),)
    assert elastic.mappings == (Mapping("192.168.0.250", "10.0.0.41"),)
    assert not plain.shared
    assert not elastic.shared


def test_an_external_alias_gives_its_private_ip_to_the_parent() -> None:
    parent = ports(recorded("attach-alias-external", "02-post.xml"))[0]
    assert parent.addresses == ("192.168.0.10",)
    assert parent.mappings == (Mapping("192.168.0.10", "10.0.0.42"),)


def test_an_alias_that_the_guest_configures_has_an_address_of_its_own() -> None:
    document = with_value(recorded("attach-alias-external", "02-post.xml"), "TEMPLATE/NIC_ALIAS/EXTERNAL", "NO")
    parent = ports(document)[0]
    assert parent.addresses == ("192.168.0.10", "192.168.0.251")
    assert parent.mappings == (Mapping("192.168.0.251", "10.0.0.42"), Mapping("192.168.0.10", "198.18.0.1"))


def test_the_ipv6_addresses_of_an_alias_are_the_guests_until_it_goes() -> None:
    recording = recorded("attach-alias-external", "02-post.xml")
    added = b"<NIC_ALIAS><IP6_GLOBAL>2001:DB8::0:251</IP6_GLOBAL>"
    external = recording.replace(b"<NIC_ALIAS>", added)
    assert external != recording
    document = with_value(external, "TEMPLATE/NIC_ALIAS/EXTERNAL", "NO")
    assert ports(external)[0].ip6 == ()  # the guest does not configure it
    (parent, *_) = ports(document)
    assert parent.ip6 == ("2001:db8::251",)
    (alias,) = vm.parse_leaving(document).aliases
    assert without(parent, alias, TRANSIT, set()).ip6 == ()


def test_a_second_private_ip_for_one_address_is_mapped_with_state() -> None:
    document = with_value(recorded("attach-alias-external", "02-post.xml"), "TEMPLATE/NIC/AWS_PRIVATE_IP", "10.0.0.40")
    parent = ports(document)[0]
    assert parent.mappings == (Mapping("192.168.0.10", "10.0.0.40"),)
    assert parent.shared == (SharedAddress("10.0.0.42", "10.0.0.40", None),)


def test_a_private_ip_shared_by_ports_leads_to_a_transit_address() -> None:
    shared = ports(recorded("deploy-ports", "03-post.xml"))[0]
    assert shared.mappings == (Mapping("192.168.0.120", "198.18.0.1"),)
    assert shared.shared == (SharedAddress("10.0.0.45", "198.18.0.1", PortRange(9001, 1, 10)),)
    assert "10.0.0.45:9001-9010" in map(str, shared.claims)


def test_a_network_without_gateway_leads_nowhere() -> None:
    isolated = ports(with_value(recorded("deploy", "03-post.xml"), "TEMPLATE/NIC/GATEWAY", ""))[0]
    assert isolated.mappings == ()


def test_transit_addresses_are_used_once_and_kept() -> None:
    used = {"198.18.0.1"}
    assert ports(recorded("deploy", "03-post.xml"), used)[0].mappings[0].outside == "198.18.0.2"
    machine = vm.parse(recorded("deploy", "03-post.xml"))
    kept = plan(1, machine.nics[0], 5, TRANSIT, {"192.168.0.10": "198.18.7.7"}, set())
    assert kept.mappings[0].outside == "198.18.7.7"


def test_a_guest_address_keeps_its_transit_address_when_another_alias_goes() -> None:
    nic = vm.parse(recorded("deploy", "03-post.xml")).nics[0]
    aliases = [
        vm.Alias(number, f"192.168.0.{number}", False, None, None, "192.168.0.1", False) for number in (21, 22, 23)
    ]
    before = plan(1, nic._replace(aliases=tuple(aliases)), 5, TRANSIT, {}, set())
    kept = dict(before.mappings)
    after = dict(plan(1, nic._replace(aliases=(aliases[2], aliases[0])), 5, TRANSIT, kept, set()).mappings)
    assert after == {inside: kept[inside] for inside in ("192.168.0.10", "192.168.0.23", "192.168.0.21")}


def test_an_exhausted_transit_range_is_said() -> None:
    machine = vm.parse(recorded("deploy", "03-post.xml"))
    full = {f"198.18.0.{number}" for number in range(256)}
    with pytest.raises(AwsOvsError, match=r"198\.18\.0\.0/24 has no free address"):
        plan(1, machine.nics[0], 5, Prefix("198.18.0.0/24", "transit_range"), {}, full)


@pytest.mark.parametrize("external", ["YES", "NO"])
@pytest.mark.parametrize("private_ip", ["", "10.0.0.40"], ids=["transit", "elastic"])
def test_what_is_left_without_an_alias_is_what_the_nic_alone_would_have(external: str, private_ip: str) -> None:
    document = with_value(recorded("attach-alias-external", "02-post.xml"), "TEMPLATE/NIC_ALIAS/EXTERNAL", external)
    document = with_value(document, "TEMPLATE/NIC/AWS_PRIVATE_IP", private_ip)
    nic = vm.parse(document).nics[0]
    both, alone = (plan(1, one, 5, TRANSIT, {}, set()) for one in (nic, nic._replace(aliases=())))
    (alias,) = vm.parse_leaving(document).aliases
    assert alias.parent_id == "0"
    assert without(both, alias, TRANSIT, set()) == alone


def test_an_ipv6_address_is_claimed_like_any_other() -> None:
    document = with_value(recorded("deploy", "03-post.xml"), "TEMPLATE/NIC/IP6_GLOBAL", "2001:DB8:0:0::7")
    assert Claim("2001:db8::7", vni=1001) in ports(document)[0].claims
