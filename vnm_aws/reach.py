"""Read what networks let their guests reach outside: DNS servers, and private addresses."""

from __future__ import annotations

from . import addresses
from .errors import AwsOvsError

_ANYWHERE = "0.0.0.0/0"
_MOST_PREFIXES = 64
_MOST_DNS_SERVERS = 8


def dns_servers(text: str) -> tuple[str, ...]:
    """List the IPv4 addresses in DNS; what else is there concerns the guest only."""
    return tuple(dict.fromkeys(filter(addresses.is_ipv4, text.replace(",", " ").split())))[:_MOST_DNS_SERVERS]


def vpc_access(text: str, what: str) -> tuple[str, ...]:
    """Read AWS_VPC_ACCESS: NO, YES, or prefixes and addresses with blanks or commas between them."""
    if text.upper() in ("", "NO"):
        return ()
    if text.upper() == "YES":
        return (_ANYWHERE,)
    words = text.replace(",", " ").split()
    if len(words) > _MOST_PREFIXES:
        what = f"{what} has {len(words)} prefixes, more than {_MOST_PREFIXES}"
        raise AwsOvsError(what, "join some of them into larger ones")
    prefixes = (word if "/" in word else f"{word}/32" for word in words)
    return tuple(str(addresses.Prefix(prefix, what)) for prefix in prefixes)
