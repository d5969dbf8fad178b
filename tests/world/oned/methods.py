"""What the methods on hosts, clusters, VMs, hooks and the zone do."""

from __future__ import annotations

from . import vm as oned_vm
from .objects import HOST_DISABLED, HOST_OFFLINE, MONITORED, Cluster, Hook, Host
from .state import State, descending, known, method, page, pool, template, update
from .template import Template
from .vm import DONE, Vm
from .wire import ACTION, ALLOCATE, INTERNAL, RPC_API, OneError, Parameters

VERSION = "7.2.0"

_ENABLED, _DISABLED, _OFFLINE = 0, 1, 2
_LAST_VM_STATE = 11
_HOOK_STATES = {
    "PROLOG": ("ACTIVE", "PROLOG"),
    "RUNNING": ("ACTIVE", "RUNNING"),
    "SHUTDOWN": ("ACTIVE", "EPILOG"),
    "STOP": ("STOPPED", "LCM_INIT"),
    "DONE": ("DONE", "LCM_INIT"),
    "UNKNOWN": ("ACTIVE", "UNKNOWN"),
}


@method("one.system.version")
def system_version(state: State, parameters: Parameters) -> str:
    return VERSION


@method("one.zone.raftstatus")
def zone_raftstatus(state: State, parameters: Parameters) -> str:
    solo = state.raft_state == 0
    term, index, log_term = (0, -1, -1) if solo else (1, 100, 1)
    return (
        f"<RAFT><SERVER_ID>{state.server_id}</SERVER_ID><STATE>{state.raft_state}</STATE><TERM>{term}</TERM>"
        f"<VOTEDFOR>-1</VOTEDFOR><COMMIT>{max(index, 0)}</COMMIT><LOG_INDEX>{index}</LOG_INDEX>"
        f"<LOG_TERM>{log_term}</LOG_TERM><FEDLOG_INDEX>-1</FEDLOG_INDEX></RAFT>"
    )


@method("one.hostpool.info")
def hostpool_info(state: State, parameters: Parameters) -> str:
    taken = state.usage()
    return pool("HOST_POOL", (state.host_xml(host, taken) for host in descending(state.hosts)))


@method("one.host.info")
def host_info(state: State, parameters: Parameters) -> str:
    return state.host_xml(known(state.hosts, parameters.integer(1), "host"), state.usage())


@method("one.host.allocate", mutates=True)
def host_allocate(state: State, parameters: Parameters) -> int:
    name, im_mad, vm_mad = (parameters.string(number) for number in (1, 2, 3))
    cluster_id = max(parameters.integer(4), 0)
    known(state.clusters, cluster_id, "cluster")
    for problem, happens in (
        ("Invalid NAME, it cannot be empty", not name),
        ("IM_MAD_NAME cannot be empty.", not im_mad),
        ("VMM_MAD_NAME cannot be empty.", not vm_mad),
    ):
        if happens:
            raise OneError(ALLOCATE, f"Error allocating a new host. {problem}")
    for host in state.hosts.values():
        if host.name == name:
            text = f"Error allocating a new host. NAME is already taken by HOST {host.host_id}."
            raise OneError(ALLOCATE, text)
    number = state.new_id("HOST")
    state.hosts[number] = Host.allocated(number, name, im_mad, vm_mad, cluster_id)
    return number


@method("one.host.update", mutates=True)
def host_update(state: State, parameters: Parameters) -> int:
    host = known(state.hosts, parameters.integer(1), "host")
    host.template = update(host.template, parameters)
    host.updated()
    return host.host_id


@method("one.host.status", mutates=True)
def host_status(state: State, parameters: Parameters) -> int:
    host, status = known(state.hosts, parameters.integer(1), "host"), parameters.integer(2)
    if status == _ENABLED:
        was_monitored = host.state == HOST_DISABLED and host.capacity["TOTAL_CPU"] > 0
        host.set_state(MONITORED if was_monitored else 0)
    elif status in (_DISABLED, _OFFLINE):
        host.set_state(HOST_DISABLED if status == _DISABLED else HOST_OFFLINE)
    else:
        raise OneError(INTERNAL, "Wrong status code")
    return host.host_id


@method("one.host.rename", mutates=True)
def host_rename(state: State, parameters: Parameters) -> int:
    host, name = known(state.hosts, parameters.integer(1), "host"), parameters.string(2)
    for other in state.hosts.values():
        if other.name == name and other is not host:
            text = f"host cannot be renamed to {name} because it collides with host {other.host_id}"
            raise OneError(ACTION, text)
    if not name:
        raise OneError(ACTION, "Invalid NAME, it cannot be empty")
    host.name = name
    for vm in state.vms.values():
        if vm.host_id == host.host_id and vm.takes_capacity:
            vm.change(lambda root: oned_vm.place(root, host.host_id, name, host.cluster_id))
    return host.host_id


@method("one.host.delete", mutates=True)
def host_delete(state: State, parameters: Parameters) -> int:
    host = known(state.hosts, parameters.integer(1), "host")
    if host.host_id in state.usage():
        raise OneError(ACTION, "Cannot delete host. Can not remove a host with running VMs")
    del state.hosts[host.host_id]
    return host.host_id


@method("one.clusterpool.info")
def clusterpool_info(state: State, parameters: Parameters) -> str:
    return pool("CLUSTER_POOL", (state.cluster_xml(cluster) for cluster in descending(state.clusters)))


@method("one.cluster.info")
def cluster_info(state: State, parameters: Parameters) -> str:
    return state.cluster_xml(known(state.clusters, parameters.integer(1), "cluster"))


@method("one.cluster.allocate", mutates=True)
def cluster_allocate(state: State, parameters: Parameters) -> int:
    name = parameters.string(1)
    if not name:
        raise OneError(ALLOCATE, "Error allocating a new cluster. Invalid NAME, it cannot be empty")
    for cluster in state.clusters.values():
        if cluster.name == name:
            text = f"Error allocating a new cluster. NAME is already taken by CLUSTER {cluster.cluster_id}."
            raise OneError(ALLOCATE, text)
    number = state.new_id("CLUSTER")
    state.clusters[number] = Cluster(number, name)
    return number


@method("one.cluster.update", mutates=True)
def cluster_update(state: State, parameters: Parameters) -> int:
    cluster = known(state.clusters, parameters.integer(1), "cluster")
    cluster.template = update(cluster.template, parameters)
    return cluster.cluster_id


def _selected_vms(state: State, parameters: Parameters) -> list[Vm]:
    wanted = parameters.integer(4)
    parameters.string(5, "")
    if not -2 <= wanted <= _LAST_VM_STATE:
        raise OneError(RPC_API, f"Incorrect state filter {wanted}")

    def accepts(vm: Vm) -> bool:
        return wanted == -2 or (vm.state != DONE if wanted == -1 else vm.state == wanted)

    return page(state.vms, parameters, accepts, lambda vm: vm.uid)


@method("one.vmpool.info")
def vmpool_info(state: State, parameters: Parameters) -> str:
    return pool("VM_POOL", (vm.short_document() for vm in _selected_vms(state, parameters)))


@method("one.vmpool.infoextended")
def vmpool_infoextended(state: State, parameters: Parameters) -> str:
    return pool("VM_POOL", (vm.pool_document() for vm in _selected_vms(state, parameters)))


@method("one.vm.info")
def vm_info(state: State, parameters: Parameters) -> str:
    return known(state.vms, parameters.integer(1), "virtual machine").document


@method("one.vm.update", mutates=True)
def vm_update(state: State, parameters: Parameters) -> int:
    vm, how = known(state.vms, parameters.integer(1), "virtual machine"), parameters.integer(3)
    if how not in (0, 1):
        raise OneError(RPC_API, "Wrong update type")
    wanted = template(parameters.string(2), ACTION)

    def edit(root: oned_vm.Element) -> None:
        kept = oned_vm.user_template(root) if how == 1 else Template()
        kept.merge(wanted)
        oned_vm.set_user_template(root, kept)

    vm.change(edit)
    return vm.vm_id


@method("one.hookpool.info")
def hookpool_info(state: State, parameters: Parameters) -> str:
    return pool("HOOK_POOL", (hook.xml() for hook in descending(state.hooks)))


@method("one.hook.info")
def hook_info(state: State, parameters: Parameters) -> str:
    return known(state.hooks, parameters.integer(1), "hook").xml(log=True)


@method("one.hook.allocate", mutates=True)
def hook_allocate(state: State, parameters: Parameters) -> int:
    wanted = template(parameters.string(1))
    kind = wanted.remove("TYPE").lower()
    if kind not in ("state", "api"):
        raise OneError(INTERNAL, f"Invalid Hook type: {kind}")
    name = wanted.remove("NAME")
    if not name:
        raise OneError(INTERNAL, "Invalid name.")
    for hook in state.hooks.values():
        if hook.name == name:
            raise OneError(INTERNAL, f"NAME is already taken by Hook {hook.hook_id}.")
    if not wanted.text("COMMAND"):
        raise OneError(INTERNAL, "No COMMAND in template for Hook.")
    _complete_hook(kind, wanted)
    number = state.new_id("HOOK")
    state.hooks[number] = Hook(number, name, kind, wanted)
    return number


def _complete_hook(kind: str, wanted: Template) -> None:
    """Check what a hook is triggered by, and write it as oned does."""
    wanted.replace("REMOTE", "YES" if wanted.text("REMOTE").upper() == "YES" else "NO")
    if kind == "api":
        if not wanted.text("CALL").startswith("one."):
            text = f"API call does not exist or is not supported: {wanted.text('CALL')}"
            raise OneError(INTERNAL, text)
        return
    resource = wanted.text("RESOURCE").upper()
    if not resource:
        raise OneError(INTERNAL, "RESOURCE attribute is required for STATE hooks.")
    if resource not in ("VM", "HOST", "IMAGE", "NET"):
        raise OneError(INTERNAL, f"Invalid resource type: {resource}")
    if resource != "VM":
        if not wanted.text("STATE"):
            raise OneError(INTERNAL, "Invalid STATE: ")
        return
    on = wanted.remove("ON").upper()
    if on == "CUSTOM":
        for name in ("STATE", "LCM_STATE"):
            if not wanted.text(name):
                raise OneError(INTERNAL, f"Wrong {name}: ")
    elif on in _HOOK_STATES:
        for name, value in zip(("STATE", "LCM_STATE"), _HOOK_STATES[on], strict=True):
            wanted.replace(name, value)
    else:
        # The spelling is oned's.
        raise OneError(INTERNAL, f"Unkown state condition: {on}")


@method("one.hook.update", mutates=True)
def hook_update(state: State, parameters: Parameters) -> int:
    hook = known(state.hooks, parameters.integer(1), "hook")
    changed, before = update(hook.template, parameters), "Cannot update template. "
    needs = {"api": ("CALL",), "state": ("STATE", "LCM_STATE")}[hook.kind]
    if hook.kind == "state" and hook.template.text("RESOURCE") != "VM":
        needs = ("STATE",)
    for name, text in (("COMMAND", "is not defined."), *((name, "is not defined or it's invalid.") for name in needs)):
        if not changed.text(name):
            raise OneError(INTERNAL, f"{before}The {name} attribute {text}")
    hook.template = changed
    return hook.hook_id


@method("one.hook.delete", mutates=True)
def hook_delete(state: State, parameters: Parameters) -> int:
    hook = known(state.hooks, parameters.integer(1), "hook")
    del state.hooks[hook.hook_id]
    return hook.hook_id
