"""The desired state of the node's guest ports: one file a VM under /run, because VMs do not outlive a reboot either.

A file outlives updates of the driver, and returns to an older version. Whoever changes `GuestPort`, or what is in it:

- A new field gets a default, which means what the driver did before there was the field. Files that lack it are read,
  and versions that do not know it ignore it.
- Anything else (a field that goes or means something else) is a new `SCHEMA`, and `_decode` reads the older ones.

What cannot be read is not unknown: `restore` leaves the VM's flows and marks as they are until OpenNebula sends the VM again.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from .. import files
from ..errors import AwsOvsError
from ..names import RUN
from ..overlay.guest_port import GuestPort, Mapping, SharedAddress, choose_slot
from ..rules import PROTOCOLS, Net, Rule
from ..vm import PortRange, port_name

DIRECTORY = f"{RUN}/vms"
SCHEMA = 1
SEND = (
    "let OpenNebula send the VM again: 'onesecgroup commit' with a security group of one of its NICs, or power it off "
    "and resume it"
)
"""The remedy for what this node has forgotten of a VM."""


class Stored(NamedTuple):
    """What the files of all VMs say.

    Attributes:
        ports: their guest ports.
        unreadable: the VMs whose files cannot be read, each with the reason and a remedy.
    """

    ports: list[GuestPort]
    unreadable: dict[int, AwsOvsError]


def load(vm_id: int) -> list[GuestPort] | None:
    """Read the ports of a VM: an empty list when the node does not know it, None when its file cannot be read."""
    read = _read(vm_id)
    return None if isinstance(read, AwsOvsError) else read


def everything() -> Stored:
    """Read the ports of all VMs; those of older versions get a slot, always the same as long as the files are."""
    stored = Stored([], {})
    names = os.listdir(DIRECTORY) if os.path.isdir(DIRECTORY) else []
    for vm_id in sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal()):
        read = _read(vm_id)
        if isinstance(read, AwsOvsError):
            stored.unreadable[vm_id] = read
        else:
            stored.ports.extend(read)
    slots = {port.slot for port in stored.ports}
    numbered = [port if port.slot else port._replace(slot=choose_slot(0, slots)) for port in stored.ports]
    return stored._replace(ports=numbered)


def save(vm_id: int, ports: list[GuestPort]) -> None:
    """Keep the ports of a VM; without any, the node forgets the VM."""
    if ports:
        document = {"schema": SCHEMA, "ports": _objects(ports)}
        files.replace(_path(vm_id), json.dumps(document, separators=(",", ":")))
    else:
        files.remove(_path(vm_id))


def _path(vm_id: int) -> str:
    return f"{DIRECTORY}/{vm_id}.json"


def _read(vm_id: int) -> list[GuestPort] | AwsOvsError:
    """Read the ports of a VM, or tell why that is not possible."""
    whose = f"the file of VM {vm_id} in {DIRECTORY}"
    try:
        with open(_path(vm_id), encoding="utf-8") as file:
            document = json.load(file)
        if isinstance(document, dict) and document["schema"] > SCHEMA:
            # Its fields may mean something else here; the flows that the other version made are right.
            what = f"{whose} has schema {document['schema']}, of a newer version of the driver"
            return AwsOvsError(what, f"install that version again, or {SEND}")
        return _decode(document, vm_id)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return AwsOvsError(f"{whose} is damaged", SEND)


def _objects(value: Any) -> Any:
    """Turn tuples with names into objects, at every depth: JSON would make lists of them."""
    if not isinstance(value, (list, tuple)):
        return value
    values, names = [_objects(element) for element in value], getattr(value, "_fields", None)
    return dict(zip(names, values, strict=True)) if names else values


def _decode(document: Any, vm_id: int) -> list[GuestPort]:
    stored = document if isinstance(document, list) else document["ports"]  # 0.1.0 wrote a list
    ports = [_port(fields) for fields in stored]
    if not ports or any(port.vm_id != vm_id for port in ports):
        raise ValueError(document)
    return ports


def _port(fields: dict[str, Any]) -> GuestPort:
    port: GuestPort = _fill(GuestPort, fields)
    numbers = (port.vm_id, port.nic_id, port.vni, port.network_id, port.slot, port.picks_up_until, *port.alias_networks)
    numbers += tuple(port.groups or ())
    texts = (port.name, port.bridge, port.mac, *port.addresses, *port.ip6, *port.gateways, *port.vpc_access, *port.dns)
    if not all(isinstance(value, int) for value in numbers) or not all(isinstance(value, str) for value in texts):
        raise TypeError(fields)
    if port.name != port_name(port.vm_id, port.nic_id):  # a user's TARGET, which older versions took for it
        raise ValueError(fields)
    return port._replace(
        addresses=tuple(port.addresses),
        ip6=tuple(port.ip6),
        gateways=tuple(port.gateways),
        vpc_access=tuple(port.vpc_access),
        dns=tuple(port.dns),
        alias_networks=tuple(port.alias_networks),
        further_claims=(),
        mappings=tuple(_fill(Mapping, mapping) for mapping in port.mappings),
        withheld=tuple(_fill(Mapping, mapping) for mapping in port.withheld),
        shared=tuple(_shared(shared) for shared in port.shared),
        groups=None if port.groups is None else tuple(port.groups),
        rules=None if port.rules is None else tuple(map(_rule, port.rules)),
    )


def _rule(fields: Any) -> Rule:
    rule: Rule = _fill(Rule, fields)
    ports = tuple((int(low), int(high)) for low, high in rule.ports)
    nets = None if rule.nets is None else tuple(_fill(Net, net) for net in rule.nets)
    if rule.protocol not in PROTOCOLS or not isinstance(rule.inbound, bool):
        raise ValueError(fields)
    return rule._replace(ports=ports, nets=nets)


def _shared(fields: Any) -> SharedAddress:
    shared: SharedAddress = _fill(SharedAddress, fields)
    return shared._replace(ports=shared.ports and _fill(PortRange, shared.ports))


def _fill(kind: Any, values: Any) -> Any:
    """Make a tuple with names of its values: an object's, whose unknown keys are ignored, or a list's as in 0.1.0."""
    if isinstance(values, dict):
        return kind(**{key: values[key] for key in kind._fields if key in values})
    return kind(*values)
