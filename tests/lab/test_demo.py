"""The demo itself: the main job, with every check that it prints, and the drawing."""

from __future__ import annotations

import re

from lxml import etree

from tests.demo import demo
from tests.demo.topology import as_svg, as_text
from tests.lab.support.checks import Check
from tests.world.lab import Lab


def test_the_main_job(fresh_lab: Lab) -> None:
    found: list[Check] = []
    hosts = demo.run(fresh_lab, found)
    assert [str(check) for check in found if not check.passed] == []
    assert len(found) >= 20
    moved = next(host for host in hosts if any(vm.name == "VM A" for vm in host.vms))
    assert moved.name == "h3"
    (way,) = (line.strip() for line in as_text(hosts).splitlines() if demo.ELASTIC_IP in line)
    assert re.fullmatch(rf"ovsbr0  {demo.ELASTIC_IP} → 10\.0\.0\.\d+ → 192\.168\.0\.\d+", way)
    assert way in etree.tostring(etree.fromstring(as_svg(hosts).encode()), encoding="unicode")
