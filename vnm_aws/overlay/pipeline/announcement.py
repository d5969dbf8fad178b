"""How nodes tell each other which MACs their NICs have: a RARP in the guest's name, to a group of the driver's own.

A node that opens a port announces it. Every node then knows behind which tunnel the MAC is now, and answers with the
announcements of its own NICs in that network, so that the new one knows them, too. Guests can send nothing to the group
(SWITCH of their bridge refuses it), so what comes to it is true. Older nodes read the source of the frame, as of any.
"""

from __future__ import annotations

import os

GROUPS = "03:a5:0e:00:00:00/fb:ff:ff:00:00:00"
"""The group of those that ask for answers, and of those that do not."""

ASKING = "03:a5:0e:00:00:00/ff:ff:ff:00:00:00"
ANSWER = "07:a5:0e:00:00:00"


def frame(mac: str, asks: bool) -> str:
    """Write an announcement of the NIC with a MAC, in hexadecimal.

    The hypervisor's own is lost: it comes before `post` opens the port.
    """
    plain = mac.replace(":", "")
    # Another group address each time: peers may still have the last one's way cached, and would learn nothing from it.
    group = f"{'03' if asks else '07'}a50e{os.urandom(3).hex()}"
    return f"{group}{plain}8035000108000604{'0003'}{plain}00000000{plain}00000000".ljust(120, "0")


def send(in_port: int, mac: str, asks: bool, actions: str = "table") -> str:
    """Write the line that sends an announcement as if it came from a port."""
    return f"packet-out in_port={in_port},packet={frame(mac, asks)},actions={actions}"
