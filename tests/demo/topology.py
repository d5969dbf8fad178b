"""The lab as a drawing: hosts, tunnels, VMs and their addresses, as text and as SVG."""

from __future__ import annotations

from html import escape
from itertools import combinations
from typing import NamedTuple

WIDTH, HEAD, LINE, GAP = 370, 62, 20, 40


class DrawnVm(NamedTuple):
    """A VM: its name, and a line for each address."""

    name: str
    lines: tuple[str, ...]


class DrawnHost(NamedTuple):
    """A host and the VMs on it."""

    name: str
    vtep: str
    public_ip: str
    vms: tuple[DrawnVm, ...]


def as_text(hosts: list[DrawnHost]) -> str:
    """The drawing in characters."""
    lines = ["Internet", "|", "VPC: the Internet gateway maps Elastic IP to private IP", "|"]
    for number, host in enumerate(hosts):
        tunnels = ", ".join(other.name for other in hosts if other is not host)
        lines.append(f"+-- {host.name}  {host.vtep}, public {host.public_ip}, VXLAN tunnels to {tunnels}")
        stem = "|" if number + 1 < len(hosts) else " "
        for vm in host.vms:
            lines.append(f"{stem}   +-- {vm.name}")
            lines += [f"{stem}         {line}" for line in vm.lines]
        lines.append(stem)
    return "\n".join(line.rstrip() for line in lines).rstrip()


def as_svg(hosts: list[DrawnHost]) -> str:
    """The drawing as an SVG document."""
    rows = max(sum(2 + len(vm.lines) for vm in host.vms) for host in hosts)
    box, top = HEAD + rows * LINE, 130
    total = len(hosts) * (WIDTH + GAP) + GAP
    height = top + box + 30 + 34 * len(hosts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{total}" height="{height}" fill="white"/>',
        _text(total / 2, 28, "Internet", "middle", bold=True),
        f'<line x1="{total / 2}" y1="36" x2="{total / 2}" y2="56" stroke="#555"/>',
        f'<rect x="{GAP}" y="56" width="{total - 2 * GAP}" height="36" rx="6" fill="#fdf1dc" stroke="#c80"/>',
        _text(total / 2, 79, "VPC: the Internet gateway maps Elastic IP ⇄ private IP", "middle"),
    ]
    for number, host in enumerate(hosts):
        x = GAP + number * (WIDTH + GAP)
        middle = x + WIDTH / 2
        parts.append(f'<line x1="{middle}" y1="92" x2="{middle}" y2="{top}" stroke="#c80"/>')
        parts.append(f'<rect x="{x}" y="{top}" width="{WIDTH}" height="{box}" rx="8" fill="#eef4fb" stroke="#357"/>')
        parts.append(_text(x + 14, top + 24, f"{host.name}   {host.vtep}", bold=True))
        parts.append(_text(x + 14, top + 44, f"public {host.public_ip}"))
        y = top + HEAD
        for vm in host.vms:
            inner = (1 + len(vm.lines)) * LINE
            parts.append(
                f'<rect x="{x + 10}" y="{y - 6}" width="{WIDTH - 20}" height="{inner}" rx="5" fill="white" stroke="#8a8"/>'
            )
            parts.append(_text(x + 20, y + 10, vm.name, bold=True))
            for offset, line in enumerate(vm.lines, 1):
                parts.append(_text(x + 20, y + 10 + offset * LINE - 2, line))
            y += inner + LINE
    for number, (one, other) in enumerate(combinations(range(len(hosts)), 2)):
        left, right = (GAP + index * (WIDTH + GAP) + WIDTH / 2 + 12 * (number - 1) for index in (one, other))
        low = top + box + 24 + 30 * number
        path = f"M{left},{top + box} V{low} H{right} V{top + box}"
        parts.append(f'<path d="{path}" fill="none" stroke="#357" stroke-dasharray="6 3"/>')
        label = f"VXLAN {hosts[one].vtep} ⇄ {hosts[other].vtep}"
        parts.append(_text(left + 12, low - 5, label))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
