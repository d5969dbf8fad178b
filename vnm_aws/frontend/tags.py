"""Read the tags that things in AWS must have, as settings and networks name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..addresses import shown
from ..errors import AwsOvsError

CLOUD = "aws_ovs:cloud"
"""The tag that says which OpenNebula an instance or an Elastic IP belongs to, by the name that its settings give it."""
VMS = "aws_ovs:vm"
"""The tag that says which VMs of it something serves, by their IDs."""


def of_other_cloud(tags: Mapping[str, str], cloud: str) -> bool:
    """Say whether a thing belongs to another OpenNebula than that of this name; one without the tag belongs to all."""
    return tags.get(CLOUD, cloud) != cloud


class TagFilter(NamedTuple):
    """Tags that a thing must have, all of them: `tag:Pool=web,tag:Stage=live`."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str, what: str) -> TagFilter:
        """Read a filter.

        Raises:
            AwsOvsError: it is no filter; `what` names it.
        """
        pairs = []
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            if not name.startswith("tag:") or not name[4:] or not value:
                raise AwsOvsError(f"{what} {shown(text)} is not a tag filter like tag:Pool=web", "correct it")
            pairs.append((name[4:], value))
        return cls(tuple(pairs))

    def matches(self, tags: dict[str, str]) -> bool:
        """Say whether `tags` has all of them."""
        return all(tags.get(name) == value for name, value in self.pairs)

    def __str__(self) -> str:
        return ",".join(f"tag:{name}={value}" for name, value in self.pairs)
