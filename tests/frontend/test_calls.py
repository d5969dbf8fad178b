"""Which calls the front-end half makes: none that the policy does not allow, and not more because there is more."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from .cloud import Cloud
from .mixed import assert_at_rest, mixed
from .scale import settle

ROOT = Path(__file__).parents[2]


def allowed() -> set[str]:
    """The actions that the policy for the front-end allows."""
    policy = json.loads((ROOT / "share" / "aws" / "iam-policy.json").read_text())
    lists = [statement["Action"] for statement in policy["Statement"]]
    return {action.removeprefix("ec2:") for one in lists for action in ([one] if isinstance(one, str) else one)}


def test_every_command_and_hook_together_need_what_the_policy_allows(cloud: Cloud) -> None:
    mixed(cloud)
    network = cloud.add_pool("more", ready=False, AWS_EIP_POOL="tag:Pool=more", NETWORK_ADDRESS="192.168.7.0")
    cloud.add_eips(1, {"Pool": "more"})
    cloud.oneaws("reconcile", "--dry-run")
    cloud.oneaws("host", "sync")
    cloud.vnet_create(network)
    for event, kind, number in (("vm_running", "VM", 0), ("host_state", "HOST", 0), ("vnet_ready", "VNET", network)):
        cloud.hook(event, cloud.oned.document(kind, number))
    for words in (
        "reconcile",
        "eip sync",
        "eip follow",
        "eip follow 1",
        "mesh sync --all",
        "hooks register",
        "hooks remove",
    ):
        cloud.oneaws(*words.split())
    cloud.oneaws("check", code=1)
    for words in ("host list", "mesh show", "eip list", "hooks list", "config", "settings"):
        cloud.oneaws(*words.split(), "--json")
    assert set(cloud.ec2.calls()) <= allowed()


def test_the_policy_allows_nothing_that_is_not_used(cloud: Cloud) -> None:
    source = (ROOT / "vnm_aws" / "frontend" / "ec2.py").read_text()
    assert [action for action in allowed() if f'"{action}"' not in source] == []


def test_its_calls_do_not_grow_with_elastic_ips_and_with_vms_only_by_pages(cloud: Cloud) -> None:
    calls = []
    for vms, eips in ((100, 10), (600, 100)):
        cloud.ec2.reset()
        cloud.oned.reset()
        settle(cloud, 20, vms, eips)
        assert_at_rest(cloud)
        calls.append(Counter(cloud.ec2.calls() + cloud.oned.calls()))
    pages = [one.pop("one.vmpool.infoextended") for one in calls]
    assert calls[0] == calls[1]
    assert pages == [1, 2]
    assert calls[0].total() < 12
