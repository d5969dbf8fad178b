"""What the oned stand-in holds, the methods that it serves, and what these share."""

from __future__ import annotations

import inspect
import xmlrpc.client
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from .objects import Cluster, Hook, Host
from .template import Template, parse
from .vm import Vm
from .vnet import VirtualNetwork
from .wire import NO_EXISTS, RPC_API, WRONG_TYPE, OneError

T = TypeVar("T")

Handler = Callable[..., int | str]
METHODS: dict[str, tuple[Handler, bool]] = {}
"""Every method that is served: what does it, and whether it changes anything."""


def method(mutates: bool = False) -> Callable[[Handler], Handler]:
    """Register what a method does: the function `vn_add_ar` does one.vn.add_ar."""

    def register(handler: Handler) -> Handler:
        METHODS["one." + handler.__name__.replace("_", ".", 1)] = (handler, mutates)
        return handler

    return register


def arguments(handler: Handler, values: tuple[object, ...]) -> tuple[object, ...]:
    """Select what a handler gets of a call's arguments; oned ignores what is beyond its parameters.

    Raises:
        Fault: an argument is missing or of another type.
    """
    _, *parameters = inspect.signature(handler).parameters.values()
    for parameter, value in zip(parameters, values, strict=False):
        if type(value).__name__ != parameter.annotation:
            raise xmlrpc.client.Fault(WRONG_TYPE, f"Parameter that is supposed to be {parameter.annotation} is not")
    if any(parameter.default is parameter.empty for parameter in parameters[len(values) :]):
        raise xmlrpc.client.Fault(WRONG_TYPE, "Not enough parameters")
    return values[: len(parameters)]


class State:
    """The pools. Whoever uses it holds the lock of its Oned."""

    def __init__(self) -> None:
        self.clusters: dict[int, Cluster] = {0: Cluster(0, "default", (0, 1, 2))}
        self.hosts: dict[int, Host] = {}
        self.vnets: dict[int, VirtualNetwork] = {}
        self.vms: dict[int, Vm] = {}
        self.hooks: dict[int, Hook] = {}
        self.next_ids = {"CLUSTER": 100, "HOST": 0, "VNET": 0, "VM": 0, "HOOK": 0}
        self.raft_state, self.server_id = 0, -1

    def new_id(self, kind: str) -> int:
        """Give the next ID of "CLUSTER", "HOST", "VNET", "VM" or "HOOK"; that of a deleted object never comes back."""
        number = self.next_ids[kind]
        self.next_ids[kind] += 1
        return number

    def vms_by_host(self) -> dict[int, list[int]]:
        """List the VMs that each host counts; a host without VMs has an empty list."""
        counted: dict[int, list[int]] = defaultdict(list)
        for vm in self.vms.values():
            if vm.takes_capacity:
                counted[vm.host_id].append(vm.vm_id)
        return counted


def known(objects: Mapping[int, T], number: int, kind: str) -> T:
    """Give the object of that ID. Raises OneError when there is none; `kind` is oned's word for it."""
    try:
        return objects[number]
    except KeyError:
        raise OneError(NO_EXISTS, f"Error getting {kind} [{number}].", number) from None


def updated(current: Template, text: str, how: int, before: str = "Cannot update template. ") -> Template:
    """Give the template after an update that replaces it (0) or is appended to it (1)."""
    if how not in (0, 1):
        raise OneError(RPC_API, "Wrong update type")
    merged = Template(current if how == 1 else ())
    merged.merge(parse(text, before))
    return merged


def pool(name: str, documents: Iterable[str]) -> str:
    """Write the document of a pool."""
    return f"<{name}>" + "".join(documents) + f"</{name}>"


def descending(objects: Mapping[int, T], first: int = -1, last: int = -1) -> list[T]:
    """List the objects of a pool with IDs from `first` to `last` (-1: all to the end), the newest first, as oned."""
    numbers = sorted(objects, reverse=True)
    return [objects[number] for number in numbers if number >= first and (last == -1 or number <= last)]
