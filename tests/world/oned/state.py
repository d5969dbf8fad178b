"""What the oned stand-in holds: its pools, how their documents select and print, and the ways to find an object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from . import vm as oned_vm
from .objects import Cluster, Hook, Host, Usage
from .template import Template, TemplateError, parse
from .vm import Vm
from .vnet import VirtualNetwork
from .wire import INTERNAL, NO_EXISTS, RPC_API, OneError, Parameters

T = TypeVar("T")

Handler = Callable[["State", Parameters], int | str]
METHODS: dict[str, tuple[Handler, bool]] = {}
"""Every method that is served: what does it, and whether it changes anything."""

ONEADMIN = 0
_LEAST_FILTER = -4


def method(name: str, mutates: bool = False) -> Callable[[Handler], Handler]:
    """Register what a method does."""

    def register(handler: Handler) -> Handler:
        METHODS[name] = (handler, mutates)
        return handler

    return register


class State:
    """The pools. Whoever uses it holds the lock of its Oned."""

    def __init__(self) -> None:
        self.clusters: dict[int, Cluster] = {0: Cluster(0, "default", [0, 1, 2])}
        self.hosts: dict[int, Host] = {}
        self.vnets: dict[int, VirtualNetwork] = {}
        self.vms: dict[int, Vm] = {}
        self.hooks: dict[int, Hook] = {}
        self.next_ids = {"CLUSTER": 100, "HOST": 0, "VNET": 0, "VM": 0, "HOOK": 0}
        self.raft_state, self.server_id = 0, -1

    def new_id(self, kind: str) -> int:
        """The next ID of "CLUSTER", "HOST", "VNET", "VM" or "HOOK"; the ID of what was deleted never comes back."""
        number = self.next_ids[kind]
        self.next_ids[kind] += 1
        return number

    def usage(self) -> dict[int, Usage]:
        """What VMs take, by host ID; hosts without VMs are missing."""
        taken: dict[int, Usage] = {}
        for vm in self.vms.values():
            if vm.takes_capacity:
                usage = taken.setdefault(vm.host_id, Usage())
                usage.vms.append(vm.vm_id)
                usage.cpu += vm.cpu
                usage.memory += vm.memory
        return taken

    def host_xml(self, host: Host, taken: Mapping[int, Usage]) -> str:
        """A host's document."""
        return host.xml(self.clusters[host.cluster_id].name, taken.get(host.host_id) or Usage())

    def cluster_xml(self, cluster: Cluster) -> str:
        """A cluster's document."""
        number = cluster.cluster_id
        hosts = [host.host_id for host in self.hosts.values() if host.cluster_id == number]
        return cluster.xml(hosts, [vnet.vnet_id for vnet in self.vnets.values() if number in vnet.clusters])

    def edit_vm(self, vm_id: int, edit: Callable[[oned_vm.Element], None]) -> None:
        """Change a VM's document. Raises KeyError for an unknown one."""
        self.vms[vm_id].change(edit)


def known(pool: Mapping[int, T], number: int, kind: str) -> T:
    """The object of that ID. Raises OneError when there is none; `kind` is oned's word for it."""
    try:
        return pool[number]
    except KeyError:
        raise OneError(NO_EXISTS, f"Error getting {kind} [{number}].", number) from None


def template(text: str, code: int = INTERNAL, before: str = "") -> Template:
    """What a client sent. Raises OneError with `before` in front of the parser's message."""
    try:
        return parse(text)
    except TemplateError as error:
        raise OneError(code, before + str(error)) from None


def update(current: Template, parameters: Parameters, default: int | None = None) -> Template:
    """The template after an update method's parameters: ID, template, 0 to replace or 1 to append."""
    how = parameters.integer(3, default)
    if how not in (0, 1):
        raise OneError(RPC_API, "Wrong update type")
    wanted = template(parameters.string(2), before="Cannot update template. ")
    if how == 0:
        return wanted
    merged = Template(current)
    merged.merge(wanted)
    return merged


def pool(name: str, documents: Iterable[str]) -> str:
    """The document of a pool."""
    return f"<{name}>" + "".join(documents) + f"</{name}>"


def descending(objects: Mapping[int, T]) -> list[T]:
    """All objects of a pool in oned's order, the newest first."""
    return [objects[number] for number in sorted(objects, reverse=True)]


def page(
    objects: Mapping[int, T], parameters: Parameters, accepts: Callable[[T], bool], owner: Callable[[T], int]
) -> list[T]:
    """What the parameters of a pool's method select: filter flag, start and end.

    With an end of at least -1 the two are IDs, -1 for no limit; below it, start is an offset and -end the number of
    objects. A filter flag of 0 or more is a user ID.
    """
    flag, start, end = (parameters.integer(number) for number in (1, 2, 3))
    if flag < _LEAST_FILTER:
        raise OneError(RPC_API, "Incorrect filter_flag")
    numbers = [
        number
        for number in sorted(objects, reverse=True)
        if accepts(objects[number]) and (flag < 0 or owner(objects[number]) == flag)
    ]
    if end < -1:
        start = max(start, 0)
        numbers = numbers[start : start - end]
    elif start != -1:
        numbers = [number for number in numbers if number >= start and (end == -1 or number <= end)]
    return [objects[number] for number in numbers]
