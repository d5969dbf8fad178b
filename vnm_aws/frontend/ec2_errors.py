"""Say what EC2 refused, and what to do about it."""

from __future__ import annotations

from botocore.exceptions import ClientError

from ..errors import AwsOvsError


class Ec2Error(AwsOvsError):
    """Say that EC2 refused a call, or cannot be called.

    Attributes:
        code: EC2's error code, such as PrivateIpAddressLimitExceeded; for a call that got no answer, boto3's name of the error.
        concerns_account: it is no fault of what the call was about, so the same call fails for everything else, too.
    """

    def __init__(self, what: str, remedy: str, code: str, concerns_account: bool) -> None:
        super().__init__(what, remedy)
        self.code, self.concerns_account = code, concerns_account

    @property
    def concerns_all_calls(self) -> bool:
        """Say whether no other call can succeed: the credentials are not accepted, or EC2 is not there."""
        return self.concerns_account and self.code not in _OF_ONE_ACTION

    @property
    def spares_vms(self) -> bool:
        """Say whether it is no fault of a VM; what the policy does not allow may concern one Elastic IP."""
        return self.concerns_account and self.code != _UNAUTHORIZED

    @property
    def throttled(self) -> bool:
        """Say whether there were too many calls of one action."""
        return self.code in _THROTTLING


_UNAUTHORIZED = "UnauthorizedOperation"
_POLICY = "allow it with share/aws/iam-policy.json"
_KEYS = "correct the access key in ~/.aws/credentials of this user, or use an instance profile with share/aws/iam-policy.json"
_FAULT = "wait: EC2 has a fault, and the next 'oneaws reconcile' tries again"
_THROTTLED = "EC2 throttles this account; it will be tried again by the next 'oneaws reconcile'"

_THROTTLING = {
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_OF_ONE_ACTION = {_UNAUTHORIZED, "InternalError", "InternalFailure", "Unavailable", *_THROTTLING}

_OF_ACCOUNT = {
    "AccessDenied": _POLICY,
    "AuthFailure": "check the AWS credentials of this user",
    "Blocked": "let the owner of the AWS account write to aws-verification@amazon.com: AWS has blocked it",
    "ExpiredToken": "renew the AWS credentials of this user; those of an instance profile renew themselves",
    "IncompleteSignature": _KEYS,
    "InternalError": _FAULT,
    "InternalFailure": _FAULT,
    "InvalidClientTokenId": _KEYS,
    "MissingAuthenticationToken": _KEYS,
    "OptInRequired": "enable EC2 and this Region for the AWS account in its console, or correct region in the settings",
    "PendingVerification": "wait until AWS has verified the account, which takes up to two hours",
    "RequestExpired": "set the clock of the front-end right: 'timedatectl' shows whether it is synchronised",
    "ServiceUnavailable": _FAULT,
    "SignatureDoesNotMatch": f"{_KEYS}; if the key is right, set the clock of the front-end right",
    "Unavailable": _FAULT,
    _UNAUTHORIZED: _POLICY,
    **dict.fromkeys(_THROTTLING, _THROTTLED),
}
"""What is no fault of the things that a call names, and what to do: "Common client error codes" of EC2's API reference."""

_REMEDIES = {
    "PrivateIpAddressLimitExceeded": "move a VM with an Elastic IP to another host",
    "InsufficientFreeAddressesInSubnet": "free addresses in the subnet, or use a larger one",
}

_OF_ONE_THING = ("does not belong to you", "specified resource")
"""EC2 says AuthFailure, too, of an Elastic IP or an ENI that belongs to another account or to a service."""


def refused(action: str, error: ClientError) -> Ec2Error:
    """Make the error for a call that EC2 has refused."""
    details = error.response.get("Error", {})
    code = str(details.get("Code", "unknown"))
    # The encoded part of an authorization failure is for machines, and long.
    message = " ".join(str(details.get("Message", "")).split("Encoded authorization")[0].split())[:200].rstrip(". ")
    of_account = code in _OF_ACCOUNT and not (code == "AuthFailure" and any(part in message for part in _OF_ONE_THING))
    remedy = _OF_ACCOUNT[code] if of_account else _REMEDIES.get(code, "look the code up in Amazon's EC2 API reference")
    return Ec2Error(f"EC2 refused {action}, {code}: {message}", remedy, code, of_account)
