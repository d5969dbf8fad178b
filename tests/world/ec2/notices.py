"""What AWS is going to do with instances: DescribeInstanceStatus and DescribeSpotInstanceRequests, from marks.

* `Events` of an instance: its scheduled events. DescribeInstanceStatus shows running instances only, and of an event that is over
  a description that begins with `[Completed]` for up to a week (EC2 reference, InstanceStatusEvent).
* `SpotStatus` of an instance: the status code of its Spot request; `marked-for-termination` and `marked-for-stop` two minutes
  before AWS takes it back (EC2 guide, "Get the status of a Spot Instance request"). Its `InstanceLifecycle` is to be `spot`.
"""

from __future__ import annotations

from typing import Any

from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.spot_instances import SpotInstances

from .describe import _answer, _filtered, _page, _view
from .marks import marked

_STATUS = {"event.code": "Events.Code", "instance-state-name": "InstanceState.Name"}
_SPOT = {"status-code": "Status.Code", "instance-id": "InstanceId"}


def _instances(call: Any) -> list[dict[str, Any]]:
    return [item["Instances"][0] for item in _view(call).reservations]


def _describe_instance_status(self: Any) -> str:
    """DescribeInstanceStatus: MaxResults and a list of ids exclude each other; all running instances without filters."""
    self.error_on_dryrun()
    items = [
        {
            "InstanceId": item["InstanceId"],
            "InstanceState": item["State"],
            "Events": marked(item["InstanceId"], "Events") or [],
            "Tags": [],
        }
        for item in _instances(self)
        if item["State"]["Name"] == "running"
    ]
    page, token = _page(self, _filtered(self, items, _STATUS), self._get_param("InstanceIds", []))
    return _answer("DescribeInstanceStatus", InstanceStatuses=page, NextToken=token)


def _describe_spot_instance_requests(self: Any) -> str:
    self.error_on_dryrun()
    items = [
        {"InstanceId": item["InstanceId"], "Status": {"Code": marked(item["InstanceId"], "SpotStatus")}, "Tags": []}
        for item in _instances(self)
        if item.get("InstanceLifecycle") == "spot"
    ]
    page, token = _page(self, _filtered(self, items, _SPOT), [])
    return _answer("DescribeSpotInstanceRequests", SpotInstanceRequests=page, NextToken=token)


def correct() -> None:
    """Put these in place of moto's."""
    InstanceResponse.describe_instance_status = _describe_instance_status
    SpotInstances.describe_spot_instance_requests = _describe_spot_instance_requests
