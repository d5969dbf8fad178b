"""The share that each guest address without an Elastic IP has of the node's connections.

All of them leave behind the node's one address, so they share its ports and the kernel's connection table. Each transit
address gets so many entries and no more; what it begins beyond them is dropped and counted. The rules are static: the
kernel makes an element of a set for each address that it sees. The MAC is part of the key, so that a NIC inherits nothing
with its address.
"""

from __future__ import annotations

import json

_ENTRY_S = 30
"""Seconds that a connection of one packet is in the table: a share per so many seconds is what the table allows anyway. It
is said as a pace, too, because `ct count` looks at each connection of the share for each new one, and does not count those
that have been closed, which stay for up to two minutes: four more shares at most."""


def rules(connections: int) -> str:
    """Write the sets and the chain `share`, which new connections have to pass.

    Who has been refused is forgotten an hour after the last time.
    """
    key = "ip saddr . ether saddr"
    kind = "type ipv4_addr . ether_addr; size 65535"
    return f"""\
  set live {{ {kind}; flags dynamic; }}
  set pace {{ {kind}; flags dynamic,timeout; timeout 1m; }}
  set refused {{ {kind}; flags dynamic,timeout; timeout 1h; }}
  chain refuse {{
    update @refused {{ {key} counter }} drop
  }}
  chain share {{
    update @pace {{ {key} limit rate over {connections // _ENTRY_S}/second burst {connections} packets }} goto refuse
    add @live {{ {key} ct count over {connections} }} goto refuse
  }}
"""


def refused(listing: str) -> dict[tuple[str, str], int]:
    """Count the packets that would have begun a connection too many, by transit address and MAC of the guest.

    `listing` is the set `refused` as nft shows it in JSON, empty where there is none.
    """
    counts = {}
    for entry in json.loads(listing or '{"nftables": []}')["nftables"]:
        for element in entry.get("set", {}).get("elem", []):
            address, mac = element["elem"]["val"]["concat"]
            counts[address, mac] = element["elem"]["counter"]["packets"]
    return counts
