"""What the methods on hosts, clusters, VMs, hooks and the zone do."""

from __future__ import annotations

from . import vm as oned_vm
from .objects import HOST_DISABLED, HOST_OFFLINE, MONITORED, Cluster, Hook, Host
from .state import State, descending, known, method, pool, updated
from .template import Template, parse
from .vm import DONE, Vm
from .wire import ACTION, ALLOCATE, INTERNAL, OneError

VERSION = "7.2.0"

_ENABLED, _DISABLED, _OFFLINE = 0, 1, 2


@method()
def system_version(state: State) -> str:
    return VERSION


@method()
def zone_raftstatus(state: State) -> str:
    term, index, log_term = (0, -1, -1) if state.raft_state == 0 else (1, 100, 1)
    return (
        f"<RAFT><SERVER_ID>{state.server_id}</SERVER_ID><STATE>{state.raft_state}</STATE><TERM>{term}</TERM>"
        f"<VOTEDFOR>-1</VOTEDFOR><COMMIT>{max(index, 0)}</COMMIT><LOG_INDEX>{index}</LOG_INDEX>"
        f"<LOG_TERM>{log_term}</LOG_TERM><FEDLOG_INDEX>-1</FEDLOG_INDEX></RAFT>"
    )


@method()
def hostpool_info(state: State) -> str:
    vms, clusters = state.vms_by_host(), state.clusters
    hosts = descending(state.hosts)
    return pool("HOST_POOL", (host.xml(clusters[host.cluster_id].name, vms[host.host_id]) for host in hosts))


@method()
def host_info(state: State, host_id: int) -> str:
    host = known(state.hosts, host_id, "host")
    return host.xml(state.clusters[host.cluster_id].name, state.vms_by_host()[host_id])


@method(mutates=True)
def host_allocate(state: State, name: str, im_mad: str, vm_mad: str, cluster_id: int) -> int:
    cluster = known(state.clusters, max(cluster_id, 0), "cluster")
    for host in state.hosts.values():
        if host.name == name:
            text = f"Error allocating a new host. NAME is already taken by HOST {host.host_id}."
            raise OneError(ALLOCATE, text)
    number = state.new_id("HOST")
    texts = {"IM_MAD": im_mad, "RESERVED_CPU": "", "RESERVED_MEM": "", "VM_MAD": vm_mad}
    state.hosts[number] = Host(number, name, cluster.cluster_id, Template(texts.items()))
    return number


@method(mutates=True)
def host_update(state: State, host_id: int, text: str, how: int) -> int:
    host = known(state.hosts, host_id, "host")
    wanted = updated(host.template, text, how)
    for name in ("IM_MAD", "VM_MAD"):
        wanted.put(name, wanted.text(name) or host.template.text(name))
    host.template = wanted
    return host_id


@method(mutates=True)
def host_status(state: State, host_id: int, status: int) -> int:
    host = known(state.hosts, host_id, "host")
    enabled = MONITORED if host.state == HOST_DISABLED and host.is_measured else 0
    states = {_ENABLED: enabled, _DISABLED: HOST_DISABLED, _OFFLINE: HOST_OFFLINE}
    if status not in states:
        raise OneError(INTERNAL, "Wrong status code")
    host.set_state(states[status])
    return host_id


@method(mutates=True)
def host_rename(state: State, host_id: int, name: str) -> int:
    host = known(state.hosts, host_id, "host")
    for other in state.hosts.values():
        if other.name == name and other is not host:
            text = f"host cannot be renamed to {name} because it collides with host {other.host_id}"
            raise OneError(ACTION, text)
    host.name = name
    for vm_id in state.vms_by_host()[host_id]:
        state.vms[vm_id].change(lambda root: oned_vm.place(root, host_id, name, host.cluster_id))
    return host_id


@method(mutates=True)
def host_delete(state: State, host_id: int) -> int:
    known(state.hosts, host_id, "host")
    if state.vms_by_host()[host_id]:
        raise OneError(ACTION, "Cannot delete host. Can not remove a host with running VMs")
    del state.hosts[host_id]
    return host_id


@method()
def clusterpool_info(state: State) -> str:
    def document(cluster: Cluster) -> str:
        number = cluster.cluster_id
        hosts = [host.host_id for host in state.hosts.values() if host.cluster_id == number]
        return cluster.xml(hosts, [vnet.vnet_id for vnet in state.vnets.values() if number in vnet.clusters])

    return pool("CLUSTER_POOL", map(document, descending(state.clusters)))


@method(mutates=True)
def cluster_allocate(state: State, name: str) -> int:
    number = state.new_id("CLUSTER")
    state.clusters[number] = Cluster(number, name)
    return number


@method(mutates=True)
def cluster_update(state: State, cluster_id: int, text: str, how: int) -> int:
    cluster = known(state.clusters, cluster_id, "cluster")
    cluster.template = updated(cluster.template, text, how)
    return cluster_id


def _selected_vms(state: State, first: int, last: int, wanted: int) -> list[Vm]:
    return [
        vm
        for vm in descending(state.vms, first, last)
        if wanted in (-2, vm.state) or (wanted == -1 and vm.state != DONE)
    ]


@method()
def vmpool_info(state: State, owner: int, first: int, last: int, wanted: int) -> str:
    """Answer as recorded, without VMs: the short form of their documents is nobody's need."""
    if _selected_vms(state, first, last, wanted):
        raise OneError(INTERNAL, "The stand-in prints VMs in one.vmpool.infoextended alone.")
    return pool("VM_POOL", ())


@method()
def vmpool_infoextended(state: State, owner: int, first: int, last: int, wanted: int) -> str:
    return pool("VM_POOL", (vm.pool_document() for vm in _selected_vms(state, first, last, wanted)))


@method()
def vm_info(state: State, vm_id: int) -> str:
    return known(state.vms, vm_id, "virtual machine").document


@method(mutates=True)
def vm_update(state: State, vm_id: int, text: str, how: int) -> int:
    vm = known(state.vms, vm_id, "virtual machine")

    def edit(root: oned_vm.Element) -> None:
        oned_vm.set_user_template(root, updated(oned_vm.user_template(root), text, how, ""))

    vm.change(edit)
    return vm_id


@method()
def hookpool_info(state: State) -> str:
    return pool("HOOK_POOL", (hook.xml() for hook in descending(state.hooks)))


@method(mutates=True)
def hook_allocate(state: State, text: str) -> int:
    wanted = parse(text)
    kind, name = wanted.take("TYPE").lower(), wanted.take("NAME")
    for hook in state.hooks.values():
        if hook.name == name:
            raise OneError(INTERNAL, f"NAME is already taken by Hook {hook.hook_id}.")
    for given, problem in (
        (kind in ("state", "api"), f"Invalid Hook type: {kind}"),
        (name, "Invalid name."),
        (wanted.text("COMMAND"), "No COMMAND in template for Hook."),
    ):
        if not given:
            raise OneError(INTERNAL, problem)
    _check_trigger(kind, wanted)
    wanted.put("REMOTE", "YES" if wanted.text("REMOTE").upper() == "YES" else "NO")
    number = state.new_id("HOOK")
    state.hooks[number] = Hook(number, name, kind, wanted)
    return number


def _check_trigger(kind: str, wanted: Template) -> None:
    """Check what a hook is triggered by, and write it as oned does. Of the values of ON, two are enough for tests."""
    call, resource, on = wanted.text("CALL"), wanted.text("RESOURCE").upper(), ""
    if kind == "state" and resource == "VM":
        on = wanted.take("ON").upper()
        if on == "RUNNING":
            wanted.put("STATE", "ACTIVE")
            wanted.put("LCM_STATE", "RUNNING")
    if kind == "api" and not call.startswith("one."):
        problem = f"API call does not exist or is not supported: {call}"
    elif kind == "state" and resource not in ("VM", "HOST", "IMAGE", "NET"):
        problem = f"Invalid resource type: {resource}"
    elif kind == "state" and resource == "VM" and on not in ("CUSTOM", "RUNNING"):
        problem = f"Unkown state condition: {on}"  # oned's spelling
    elif kind == "state" and not wanted.text("STATE"):
        problem = "Invalid STATE: "
    else:
        return
    raise OneError(INTERNAL, problem)


@method(mutates=True)
def hook_delete(state: State, hook_id: int) -> int:
    known(state.hooks, hook_id, "hook")
    del state.hooks[hook_id]
    return hook_id
