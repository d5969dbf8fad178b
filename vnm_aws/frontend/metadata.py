"""Ask the instance that the front-end itself runs on where it is: EC2's instance metadata service, with a session token (IMDSv2).

botocore's own fetcher does it, which goes by AWS_EC2_METADATA_DISABLED and AWS_EC2_METADATA_SERVICE_ENDPOINT.
"""

from __future__ import annotations

from botocore.exceptions import BotoCoreError
from botocore.session import get_session
from botocore.utils import IMDSFetcher

_PATIENCE_S = 1
"""Off EC2 nobody answers; in EC2 the service is on the same machine."""


class _Fetcher(IMDSFetcher):  # type: ignore[misc]
    def read(self, *paths: str) -> str:
        """Read a value; what one path gives takes the place of `{}` in the next. Empty when nobody answers."""
        value = ""
        try:
            token = self._fetch_metadata_token()
            for path in paths if token else ():
                value = self._get_request(f"latest/meta-data/{path.format(value)}", None, token).text.strip()
        except (BotoCoreError, self._RETRIES_EXCEEDED_ERROR_CLS):
            return ""
        return value


def region() -> str:
    """Name the Region of the front-end; empty when it is not in EC2."""
    return _fetcher().read("placement/region")


def vpc_id() -> str:
    """Name the VPC of the front-end's first ENI; empty when it is not in EC2."""
    return _fetcher().read("mac", "network/interfaces/macs/{}/vpc-id")


def _fetcher() -> _Fetcher:
    session = get_session()
    keys = ("ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode")
    config = {key: session.get_config_variable(key) for key in keys}
    return _Fetcher(timeout=_PATIENCE_S, num_attempts=1, config=config)
