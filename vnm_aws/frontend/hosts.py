"""Metal hosts: EC2 instances that match the host filter are OpenNebula hosts, recognised by EC2_INSTANCE_ID.

A host is never deleted. One whose instance is terminated is disabled and flagged; the administrator deletes it when its VMs
are gone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial

from ..errors import AwsOvsError
from .ec2 import Instance
from .objects import STATE_DISABLED, STATE_OFFLINE, Host
from .plan import Plan
from .world import ENI_ID, INSTANCE_ID, STATE, TERMINATED, TYPE, VTEP, World

FREE = "EC2_FREE_ADDRESSES"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,126}[A-Za-z0-9])?\Z")


def plan(world: World) -> Plan:
    """What makes the hosts those of the instances; without the number of free addresses, which `plan_free` keeps."""
    result = Plan()
    by_instance = _by_instance(world, result)
    names = _names(world, result)
    seen = {**_hidden(world, by_instance), **world.instances}
    by_name = {host.name: host for host in world.hosts}
    adopted: set[int] = set()
    new: list[tuple[Instance, str]] = []
    for instance_id, name in sorted(names.items(), key=lambda item: item[1]):
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
                rename = partial(world.oned.rename_host, host.host_id, name)
                result.change(f"host {host.name}", f"rename it to {name}", rename)
        elif instance.state == "running":
            new.append((instance, name))
    _add(world, result, new)
    for instance_id, host in by_instance.items():
        if host.host_id not in adopted:
            _check(world, result, instance_id, host, seen.get(instance_id))
    return result


def _by_instance(world: World, result: Plan) -> dict[str, Host]:
    found: dict[str, Host] = {}
    for host in sorted(world.hosts, key=lambda one: one.host_id):
        instance_id = host.template.get(INSTANCE_ID, "")
        if instance_id in found:
            result.problem(
                f"host {host.name}",
                f"has the same {INSTANCE_ID} {instance_id} as host {found[instance_id].name}; delete one of the two",
            )
        elif instance_id:
            found[instance_id] = host
    return found


def _names(world: World, result: Plan) -> dict[str, str]:
    """The name of each live instance's host; those that cannot have one are left out and reported."""
    names: dict[str, str] = {}
    live = [one for one in world.instances.values() if not one.gone]
    for instance in sorted(live, key=lambda one: one.instance_id):
        name = _name(instance, world.settings.host_name)
        if _NAME.match(name):
            names[instance.instance_id] = name
        else:
            result.problem(
                f"instance {instance.instance_id}",
                f"its {world.settings.host_name} {name[:60]!r} is not a host name; set it, or host_name in the settings",
            )
    for name, count in Counter(names.values()).items():
        if count > 1:
            twins = sorted(key for key, value in names.items() if value == name)
            result.problem(f"instances {' '.join(twins)}", f"all are named {name}; rename all but one")
            for key in twins:
                del names[key]
    return names


def _name(instance: Instance, rule: str) -> str:
    if rule == "private-ip":
        return instance.private_ip
    return instance.private_dns if rule == "private-dns" else instance.tags.get(rule[4:], "")


def _has_network(instance: Instance, result: Plan, host: Host | None) -> bool:
    if instance.eni_id and instance.private_ip:
        return True
    if instance.state == "running" or host:
        result.problem(
            f"instance {instance.instance_id}", "has no network interface with device index 0; attach one to it"
        )
    return False


def _hidden(world: World, by_instance: dict[str, Host]) -> dict[str, Instance]:
    """The instances of hosts that the filter does not show (a terminated one is in no VPC any more) but EC2 knows."""
    unseen = {
        key
        for key, host in by_instance.items()
        if key not in world.instances and host.template.get(STATE) != TERMINATED
    }
    return {one.instance_id: one for one in world.ec2.instances(unseen)} if unseen else {}


def _free(host: Host, seen: dict[str, Instance]) -> bool:
    """True for a host without an instance, or whose instance is gone."""
    instance_id = host.template.get(INSTANCE_ID, "")
    return not instance_id or host.template.get(STATE) == TERMINATED or (instance_id in seen and seen[instance_id].gone)


def _refuse(result: Plan, instance: Instance, name: str, namesake: Host, seen: dict[str, Instance]) -> None:
    if _free(namesake, seen):
        text = f"host {name} exists already; run 'onehost delete {namesake.host_id}', or rename the instance"
    else:
        other = namesake.template[INSTANCE_ID]
        text = f"host {name} exists already for instance {other}; rename one of the two instances"
    result.problem(f"instance {instance.instance_id}", text)


def attributes(instance: Instance) -> dict[str, str]:
    """What a host's template says of its instance."""
    return {
        INSTANCE_ID: instance.instance_id,
        TYPE: instance.instance_type,
        "EC2_AZ": instance.zone,
        "EC2_SUBNET_ID": instance.subnet_id,
        ENI_ID: instance.eni_id,
        VTEP: instance.private_ip,
        STATE: instance.state,
    }


def _add(world: World, result: Plan, new: list[tuple[Instance, str]]) -> None:
    if not new:
        return
    settings = world.settings
    cluster = next((key for key, value in world.oned.clusters().items() if value == settings.cluster), None)
    if cluster is None:
        result.problem(
            f"cluster {settings.cluster}",
            f"OpenNebula has none of that name; run 'onecluster create {settings.cluster}', or correct cluster in the "
            "settings",
        )
        return

    def add(instance: Instance, name: str) -> None:
        host_id = world.oned.add_host(name, settings.im_mad, settings.vm_mad, cluster)
        world.oned.update_host(host_id, attributes(instance))

    for instance, name in new:
        result.change(f"host {name}", f"create it for instance {instance.instance_id}", partial(add, instance, name))


def _keep(world: World, result: Plan, instance: Instance, host: Host) -> None:
    wanted = attributes(instance)
    different = {key: value for key, value in wanted.items() if host.template.get(key, "") != value}
    retired = host.state == STATE_DISABLED and host.template.get(STATE) == TERMINATED

    def apply() -> None:
        if retired:  # first, for the attributes say that it is still to be done
            world.oned.enable_host(host.host_id)
        world.oned.update_host(host.host_id, different)

    if different:
        shown = ", ".join(f"{key}={value}" for key, value in different.items())
        enable = "enable it, for it has an instance again, and " if retired else ""
        result.change(f"host {host.name}", f"{enable}set {shown}", apply)


def _retire(world: World, result: Plan, host: Host) -> None:
    target = f"host {host.name}"
    if host.state not in (STATE_DISABLED, STATE_OFFLINE):
        result.change(target, "disable it: its instance is terminated", lambda: world.oned.disable_host(host.host_id))
    if host.template.get(STATE) != TERMINATED:
        result.change(
            target,
            f"set {STATE}={TERMINATED}",
            lambda: world.oned.update_host(host.host_id, {STATE: TERMINATED}),
        )
    if host.vms:
        result.problem(
            target,
            f"its instance {host.template.get(INSTANCE_ID)} is terminated, but it still has the VMs "
            f"{' '.join(map(str, host.vms[:20]))}; recover them with 'onevm recover', then run 'onehost delete {host.host_id}'",
        )


def _check(world: World, result: Plan, instance_id: str, host: Host, instance: Instance | None) -> None:
    """Whether the instance of a host is gone for good, or the filter only does not show it."""
    settings = world.settings
    if instance is not None and not instance.gone:
        if instance_id not in world.instances:
            result.problem(f"host {host.name}", f"its instance {instance_id} {_why_hidden(world, instance)}")
    elif instance is None and not world.instances and host.template.get(STATE) != TERMINATED:
        # EC2 forgets a terminated instance after an hour, but all of them at once mean another Region.
        result.problem(
            f"host {host.name}",
            f"EC2 knows no instance {instance_id}, nor any that matches {settings.host_filter}; correct region, vpc_id "
            "or host_filter in the settings",
        )
    else:
        _retire(world, result, host)


def _why_hidden(world: World, instance: Instance) -> str:
    settings = world.settings
    if settings.vpc_id and instance.vpc_id != settings.vpc_id:
        return f"is in {instance.vpc_id}, not in {settings.vpc_id}; correct vpc_id in the settings, or delete the host"
    return f"does not match {settings.host_filter} (any more); tag it again, or delete the host"


def plan_free(world: World) -> Plan:
    """What makes EC2_FREE_ADDRESSES of every host right: the scheduler keeps VMs with Elastic IPs where there is room."""
    result = Plan()
    for host in world.hosts:
        eni = world.interfaces.get(host.template.get(ENI_ID, ""))
        limit = world.limit(host)
        if eni is None or not limit:
            continue
        free = str(max(0, limit - len(eni.addresses)))
        if host.template.get(FREE) != free:
            result.change(f"host {host.name}", f"set {FREE}={free}", _set_free(world, host.host_id, free))
    return result


def _set_free(world: World, host_id: int, free: str) -> Callable[[], None]:
    return lambda: world.oned.update_host(host_id, {FREE: free})


def eni_of(host: Host) -> str:
    """The ENI of a host.

    Raises:
        AwsOvsError: OpenNebula does not know it.
    """
    eni = host.template.get(ENI_ID)
    if not eni:
        raise AwsOvsError(
            f"host {host.name} has no {ENI_ID}",
            "tag its instance so that host_filter matches, and run 'oneaws host sync'",
        )
    return eni
