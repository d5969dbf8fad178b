"""Say what EC2 refused, and what to do about it."""

from __future__ import annotations

from botocore.exceptions import ClientError

from ..errors import AwsOvsError


class Ec2Error(AwsOvsError):
    """Say that EC2 refused a call.

    Attributes:
        code: EC2's error code, such as PrivateIpAddressLimitExceeded.
    """

    def __init__(self, what: str, remedy: str, code: str) -> None:
        super().__init__(what, remedy)
        self.code = code


_REMEDIES = {
    "UnauthorizedOperation": "allow it with share/aws/iam-policy.json",
    "AuthFailure": "check the AWS credentials of this user",
    "PrivateIpAddressLimitExceeded": "move a VM with an Elastic IP to another host",
    "InsufficientFreeAddressesInSubnet": "free addresses in the subnet, or use a larger one",
    "RequestLimitExceeded": "EC2 throttles this account; it will be tried again by the next 'oneaws reconcile'",
}


def refused(action: str, error: ClientError) -> Ec2Error:
    """Make the error for a call that EC2 has refused."""
    details = error.response.get("Error", {})
    code = str(details.get("Code", "unknown"))
    # The encoded part of an authorization failure is for machines, and long.
    message = " ".join(str(details.get("Message", "")).split("Encoded authorization")[0].split())[:200].rstrip(". ")
    remedy = _REMEDIES.get(code, "look the code up in Amazon's EC2 API reference")
    return Ec2Error(f"EC2 refused {action}, {code}: {message}", remedy, code)
