"""A small operating system for a VM: Debian's kernel, and busybox in an initramfs.

It configures the network cards that its kernel command line names, and serves HTTP: `/cgi-bin/numbers` counts from 1 line
by line, slowly and without end, until somebody has fetched `/cgi-bin/enough`; then `end` is its last line.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.world.hosts.debian import Kernel

from .document import Card

BUSYBOX = Path("/bin/busybox")  # from Debian's busybox-static
UP = "the VM is up"
"""What is on its console then."""
END = "end"
"""The last line of `numbers`."""
AGREED = "so be it"
"""What `enough` answers."""

_MODULES = ("virtio_pci", "virtio_net")

# Each card answers for its own address only and sends from it, for several may be in one subnet.
_INIT = rf"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in $(ls /modules | sort -n); do insmod /modules/$module; done
sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip link set lo up
httpd -h /www
table=100
for word in $(cat /proc/cmdline); do
    case $word in card=*) ;; *) continue ;; esac
    set -- $(echo "${{word#card=}}" | tr , ' ')
    device=$(grep -l "$1" /sys/class/net/*/address | cut -d/ -f5)
    ip link set "$device" mtu "$4" up
    ip address add "$2" dev "$device"
    ip rule add from "${{2%/*}}" lookup $table
    ip route add default via "$3" dev "$device" table $table
    table=$((table + 1))
done
echo {UP}
while :; do sleep 3600; done
"""

_NUMBERS = rf"""#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
n=0
until [ -e /enough ]; do
    seq $((n + 1)) $((n + 1000))
    n=$((n + 1000))
    usleep 20000
done
echo {END}
"""

_ENOUGH = rf"""#!/bin/sh
: >/enough
printf 'Content-Type: text/plain\r\n\r\n'
printf %s '{AGREED}'
"""


def command_line(cards: Sequence[Card]) -> str:
    """The kernel's command line for a VM with these cards, each with one address and a gateway."""
    words = [f"card={card.mac},{card.addresses[0]},{card.gateway},{card.mtu}" for card in cards]
    return " ".join(["console=ttyS0", "quiet", *words])


def initramfs(kernel: Kernel) -> bytes:
    """The file system from which the VM runs."""
    directories = ("bin", "modules", "proc", "sys", "www", "www/cgi-bin")
    files: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in directories]
    files.append(("bin/busybox", 0o100755, BUSYBOX.read_bytes()))
    for number, module in enumerate(_modules(kernel)):
        files.append((f"modules/{number}.ko", 0o100644, module))
    scripts = {"init": _INIT, "www/cgi-bin/numbers": _NUMBERS, "www/cgi-bin/enough": _ENOUGH}
    files += [(name, 0o100755, script.encode()) for name, script in scripts.items()]
    return gzip.compress(_archive(files), compresslevel=1)


def _modules(kernel: Kernel) -> list[bytes]:
    """The kernel modules for the network cards, in the order in which they can be loaded."""
    needed: dict[str, None] = {}
    for line in (kernel.modules / "modules.dep").read_text(encoding="ascii").splitlines():
        module, _, others = line.partition(":")
        if Path(module).name.partition(".")[0] in _MODULES:
            needed |= dict.fromkeys([*reversed(others.split()), module])
    files = [kernel.modules / path for path in needed]
    return [lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes() for file in files]


def _archive(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive of files, each with its mode, in the format that the kernel reads ("newc")."""
    archive = b""
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += _padded(head) + _padded(content)
    return archive


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
