"""Make EC2 instances that match the host filter OpenNebula hosts, recognised by EC2_INSTANCE_ID.

A host is never deleted. One whose instance is terminated is disabled and flagged; the administrator deletes it when its VMs
are gone.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter

from .. import names
from ..addresses import shown
from ..errors import AwsOvsError
from . import endings
from .ec2_errors import Ec2Error
from .ec2_objects import Instance
from .objects import STATE_DISABLED, STATE_OFFLINE, Host
from .plan import Plan
from .tags import CLOUD, of_other_cloud
from .world import World

METAL, NESTED, NONE = "metal", "nested", "none"
"""By what an instance can run KVM guests."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,126}[A-Za-z0-9])?\Z")


def plan(world: World) -> Plan:
    """Plan the changes that make the hosts those of the instances.

    The number of free addresses is left to `room`.
    """
    result = Plan()
    by_instance = _by_instance(world, result)
    chosen = _names(world, result)
    seen = {**_hidden(world, by_instance), **world.instances}
    by_name = {host.name: host for host in world.hosts}
    adopted: set[int] = set()
    new: list[tuple[Instance, str]] = []
    for instance_id, name in sorted(chosen.items(), key=lambda item: item[1]):
        instance = world.instances[instance_id]
        host, namesake = by_instance.get(instance_id), by_name.get(name)
        if not _has_network(instance, result, host):
            continue
        if host is None and namesake is not None:
            if not _free(namesake, seen):
                _refuse(result, instance, name, namesake, seen)
                continue
            host = namesake  # made by hand, or its instance was replaced by this one
            adopted.add(host.host_id)
        if host is not None:
            _keep(world, result, instance, host)
            if host.name != name and namesake is not None:
                _refuse(result, instance, name, namesake, seen)
            elif host.name != name:
                result.change(f"host {host.name}", f"rename it to {name}", world.oned.rename_host, host.host_id, name)
        elif instance.state == "running":
            new.append((instance, name))
    _add(world, result, new)
    for instance_id, host in by_instance.items():
        if host.host_id not in adopted:
            _check(world, result, instance_id, host, seen.get(instance_id))
    _unknown_types(world, result)
    endings.add(world, result)
    return result


def _by_instance(world: World, result: Plan) -> dict[str, Host]:
    hosts: dict[str, Host] = {}
    for host in sorted(world.hosts, key=lambda host: host.host_id):
        instance_id = host.template.get(names.INSTANCE_ID, "")
        if instance_id in hosts:
            what = f"has the same {names.INSTANCE_ID} {instance_id} as host {hosts[instance_id].name}"
            result.problem(f"host {host.name}", what, "delete one of the two")
        elif instance_id:
            hosts[instance_id] = host
    return hosts


def _names(world: World, result: Plan) -> dict[str, str]:
    """Choose the name of each live instance's host; those that cannot have one are left out and reported."""
    chosen: dict[str, str] = {}
    live = [instance for instance in world.instances.values() if not instance.gone]
    for instance in sorted(live, key=lambda instance: instance.instance_id):
        name = _name(instance, world.settings.host_name)
        if _NAME.match(name):
            chosen[instance.instance_id] = name
        else:
            what = f"its {world.settings.host_name} {name[:60]!r} is not a host name"
            result.problem(f"instance {instance.instance_id}", what, "set it, or host_name in the settings")
    twice = [name for name, count in Counter(chosen.values()).items() if count > 1]
    for name in twice:
        twins = sorted(key for key, value in chosen.items() if value == name)
        result.problem(f"instances {' '.join(twins)}", f"all are named {name}", "rename all but one")
    return {key: name for key, name in chosen.items() if name not in twice}


def _name(instance: Instance, rule: str) -> str:
    if rule == "private-ip":
        return instance.private_ip
    return instance.private_dns if rule == "private-dns" else instance.tags.get(rule[4:], "")


def _has_network(instance: Instance, result: Plan, host: Host | None) -> bool:
    has = bool(instance.eni_id and instance.private_ip)
    if not has and (instance.state == "running" or host):
        what, remedy = "has no network interface with device index 0 on network card 0", "attach one to it"
        if instance.ipv6_only:
            what = f"its primary network interface {instance.eni_id} has no IPv4 address, and hosts need one for their tunnels"
            remedy = "replace it by an instance in a subnet that has IPv4 addresses, or take its tag away"
        result.problem(f"instance {instance.instance_id}", what, remedy)
    return has


def _hidden(world: World, by_instance: dict[str, Host]) -> dict[str, Instance]:
    """Read the instances of hosts that the filter does not show (a terminated one is in no VPC any more) but EC2 knows."""
    unseen = {key for key, host in by_instance.items() if key not in world.instances and not host.terminated}
    return {instance.instance_id: instance for instance in world.ec2.instances(unseen)} if unseen else {}


def _free(host: Host, seen: dict[str, Instance]) -> bool:
    """Say whether a host is one without an instance, or whose instance is gone."""
    instance_id = host.template.get(names.INSTANCE_ID, "")
    return not instance_id or host.terminated or (instance_id in seen and seen[instance_id].gone)


def _refuse(result: Plan, instance: Instance, name: str, namesake: Host, seen: dict[str, Instance]) -> None:
    if _free(namesake, seen):
        what, remedy = "", f"run 'onehost delete {namesake.host_id}', or rename the instance"
    else:
        what, remedy = f" for instance {namesake.template[names.INSTANCE_ID]}", "rename one of the two instances"
    result.problem(f"instance {instance.instance_id}", f"host {name} exists already{what}", remedy)


def virtualization(world: World, instance: Instance) -> str:
    """Say by what an instance can run KVM guests: it is metal, or has nested virtualization; empty when that is not known."""
    try:
        kind = world.kind(instance)
    except Ec2Error:
        return ""
    if kind.metal if kind else ".metal" in instance.instance_type:
        return METAL
    return NESTED if instance.nested else NONE


def powerless(world: World) -> list[tuple[Host, AwsOvsError]]:
    """List the hosts that are to run KVM guests and cannot, and what to do."""
    lines = []
    for host in world.hosts:
        instance = world.instances.get(host.template.get(names.INSTANCE_ID, ""))
        if instance is not None and world.settings.vm_mad == "kvm" and virtualization(world, instance) == NONE:
            kind = world.kind(instance)
            what = f"its instance {instance.instance_id}, a {instance.instance_type}, can run no KVM guests"
            if kind and kind.can_nest:
                command = f"aws ec2 modify-instance-cpu-options --instance-id {instance.instance_id}"
                remedy = f"stop it, run '{command} --nested-virtualization enabled', and start it"
            else:
                remedy = "use a metal type, or one of c8i, m8i, r8i with nested virtualization"
            lines.append((host, AwsOvsError(what, remedy)))
    return lines


def attributes(world: World, instance: Instance) -> dict[str, str]:
    """Compose what a host's template says of its instance."""
    first = world.interfaces.get(instance.eni_id)
    further = [eni for eni in world.tagged if first is not None and eni.goes_with(first)]
    kind = virtualization(world, instance)
    return ({names.VIRTUALIZATION: kind} if kind else {}) | {
        names.INSTANCE_ID: instance.instance_id,
        names.INSTANCE_TYPE: instance.instance_type,
        names.ZONE: instance.zone,
        names.SUBNET_ID: instance.subnet_id,
        names.ENI_ID: instance.eni_id,
        names.ENI_IDS: " ".join([instance.eni_id, *(eni.eni_id for eni in further)]) if further else "",
        names.VTEP: instance.private_ip,
        names.INSTANCE_STATE: instance.state,
    }


def _add(world: World, result: Plan, new: list[tuple[Instance, str]]) -> None:
    if not new:
        return
    settings = world.settings
    cluster = next((key for key, value in world.oned.clusters().items() if value == settings.cluster), None)
    if cluster is None:
        remedy = f"run 'onecluster create {settings.cluster}', or correct cluster in the settings"
        result.problem(f"cluster {settings.cluster}", "OpenNebula has none of that name", remedy)
        return
    for instance, name in new:
        text = f"create it for instance {instance.instance_id}"
        if settings.vm_mad == "kvm" and virtualization(world, instance) == NONE:
            text += ", which can run no KVM guests: it is neither metal nor has it nested virtualization"
        result.change(f"host {name}", text, _create, world, cluster, instance, name)


def _create(world: World, cluster: int, instance: Instance, name: str) -> None:
    host_id = world.oned.add_host(name, world.settings.im_mad, world.settings.vm_mad, cluster)
    world.oned.update_host(host_id, {key: value for key, value in attributes(world, instance).items() if value})


def _keep(world: World, result: Plan, instance: Instance, host: Host) -> None:
    wanted = attributes(world, instance)
    different = {key: value for key, value in wanted.items() if host.template.get(key, "") != value}
    retired = host.state == STATE_DISABLED and host.terminated
    if different:
        listed = ", ".join(f"{key}={value}" for key, value in different.items())
        enable = "enable it, for it has an instance again, and " if retired else ""
        result.change(f"host {host.name}", f"{enable}set {listed}", _update, world, host, different, retired)


def _update(world: World, host: Host, values: dict[str, str], retired: bool) -> None:
    if retired:  # first, for the attributes say that it is still to be done
        world.oned.enable_host(host.host_id)
    world.oned.update_host(host.host_id, values)


def _retire(world: World, result: Plan, host: Host) -> None:
    target = f"host {host.name}"
    if host.state not in (STATE_DISABLED, STATE_OFFLINE):
        result.change(target, "disable it: its instance is terminated", world.oned.disable_host, host.host_id)
    if not host.terminated:
        text, values = f"set {names.INSTANCE_STATE}={names.TERMINATED}", {names.INSTANCE_STATE: names.TERMINATED}
        result.change(target, text, world.oned.update_host, host.host_id, values)
    if host.vms:
        what = (
            f"its instance {host.template.get(names.INSTANCE_ID)} is terminated, but it still has the VMs "
            f"{' '.join(map(str, host.vms[:20]))}"
        )
        result.problem(target, what, f"recover them with 'onevm recover', then run 'onehost delete {host.host_id}'")


def _check(world: World, result: Plan, instance_id: str, host: Host, instance: Instance | None) -> None:
    """Look whether the instance of a host is gone for good, or the filter only does not show it."""
    if instance is not None and not instance.gone:
        if instance_id not in world.instances:
            what, remedy = _why_hidden(world, instance)
            result.problem(f"host {host.name}", f"its instance {instance_id} {what}", remedy)
    else:  # EC2 forgets a terminated instance after an hour
        _retire(world, result, host)


def _unknown_types(world: World, result: Plan) -> None:
    """Report hosts with an instance type that EC2 does not know; of an instance that it shows, it is put right."""
    with contextlib.suppress(AwsOvsError):  # whoever needs the limits says why they cannot be read
        for host in world.hosts:
            kind = host.template.get(names.INSTANCE_TYPE, "")
            shown_now = host.template.get(names.INSTANCE_ID) in world.instances
            if kind and not host.terminated and not shown_now and kind not in world.limits:
                what = f"EC2 knows no instance type {shown(kind)}, so there is no room for addresses of VMs"
                remedy = f"correct {names.INSTANCE_TYPE} with 'onehost update {host.host_id}'"
                result.problem(f"host {host.name}", what, remedy)


def _why_hidden(world: World, instance: Instance) -> tuple[str, str]:
    """Explain why the filter does not show an instance, and what to do."""
    settings = world.settings
    if world.vpc_id not in ("", instance.vpc_id):
        what = f"is in {instance.vpc_id}, not in {world.vpc_id}"
        return what, "correct vpc_id in the settings, or delete the host"
    if of_other_cloud(instance.tags, settings.cloud):
        what = f"has the tag {CLOUD}={instance.tags[CLOUD]}, and this OpenNebula is {shown(settings.cloud)}"
        return what, "correct the tag, or cloud in the settings, or delete the host"
    return f"does not match {settings.host_filter} (any more)", "tag it again, or delete the host"
