"""Metal hosts: EC2 instances that match the host filter are OpenNebula hosts, recognised by EC2_INSTANCE_ID.

A host is never deleted. One whose instance is terminated is disabled and flagged; the administrator deletes it when its VMs
are gone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from ..ec2 import Instance
from ..errors import AwsOvsError
from ..objects import STATE_DISABLED, Host
from .plan import Plan
from .world import ENI_ID, INSTANCE_ID, STATE, TERMINATED, TYPE, VTEP, World

FREE = "EC2_FREE_ADDRESSES"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,126}[A-Za-z0-9])?\Z")


def plan(world: World) -> Plan:
    """What makes the hosts those of the instances; without the number of free addresses, which `plan_free` keeps."""
    result = Plan()
    by_instance = _by_instance(world, result)
    names = _names(world, result)
    by_name = {host.name: host for host in world.hosts}
    adopted: set[int] = set()
    for instance_id, name in sorted(names.items(), key=lambda item: item[1]):
        instance = world.instances[instance_id]
        host, namesake = by_instance.get(instance_id), by_name.get(name)
        if not _has_network(instance, result, host):
            continue
        if host is None and namesake is not None:
            if not _free_to_adopt(world, namesake):
                _refuse(result, instance, name, namesake)
                continue
            host = namesake  # made by hand, or its instance was replaced by this one
            adopted.add(host.host_id)
        if host is not None:
            _keep(world, result, instance, name, host, by_name)
        elif instance.state == "running":
            _add(world, result, instance, name)
    left = {key: host for key, host in by_instance.items() if host.host_id not in adopted}
    for instance_id, host in left.items():
        if instance_id in world.instances and world.instances[instance_id].gone:
            _retire(world, result, host)
    _missing(world, result, left)
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


def _free_to_adopt(world: World, host: Host) -> bool:
    """A host without an instance, or whose instance is gone."""
    instance_id = host.template.get(INSTANCE_ID, "")
    instance = world.instances.get(instance_id)
    return not instance_id or host.template.get(STATE) == TERMINATED or (instance is not None and instance.gone)


def _refuse(result: Plan, instance: Instance, name: str, namesake: Host) -> None:
    result.problem(
        f"instance {instance.instance_id}",
        f"host {name} exists already for instance {namesake.template.get(INSTANCE_ID)}; rename one of the two instances",
    )


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


def _add(world: World, result: Plan, instance: Instance, name: str) -> None:
    cluster = next((key for key, value in world.oned.clusters().items() if value == world.settings.cluster), None)
    if cluster is None:
        result.problem(
            f"cluster {world.settings.cluster}",
            f"OpenNebula has none of that name; run 'onecluster create {world.settings.cluster}', or correct cluster in "
            "the settings",
        )
        return

    def apply() -> None:
        settings = world.settings
        host_id = world.oned.add_host(name, settings.im_mad, settings.vm_mad, cluster)
        world.oned.update_host(host_id, attributes(instance))

    result.change(f"host {name}", f"create it for instance {instance.instance_id}", apply)


def _keep(world: World, result: Plan, instance: Instance, name: str, host: Host, by_name: dict[str, Host]) -> None:
    wanted = attributes(instance)
    different = {key: value for key, value in wanted.items() if host.template.get(key, "") != value}
    if different:
        shown = ", ".join(f"{key}={value}" for key, value in different.items())
        result.change(f"host {host.name}", f"set {shown}", lambda: world.oned.update_host(host.host_id, different))
    if host.state == STATE_DISABLED and host.template.get(STATE) == TERMINATED:
        result.change(
            f"host {host.name}", "enable it: it has an instance again", lambda: world.oned.enable_host(host.host_id)
        )
    if host.name != name:
        if name in by_name:
            _refuse(result, instance, name, by_name[name])
        else:
            result.change(
                f"host {host.name}", f"rename it to {name}", lambda: world.oned.rename_host(host.host_id, name)
            )


def _retire(world: World, result: Plan, host: Host) -> None:
    target = f"host {host.name}"
    if host.state != STATE_DISABLED:
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


def _missing(world: World, result: Plan, by_instance: dict[str, Host]) -> None:
    """Hosts whose instance the filter does not show: gone for good, or only without the tag."""
    settings = world.settings
    missing = {key: host for key, host in by_instance.items() if key not in world.instances}
    unknown = {key for key, host in missing.items() if host.template.get(STATE) != TERMINATED}
    alive = {one.instance_id: one for one in world.ec2.instances(unknown)} if unknown else {}
    for instance_id, host in missing.items():
        instance = alive.get(instance_id)
        if instance is not None and not instance.gone:
            result.problem(
                f"host {host.name}",
                f"its instance {instance_id} does not match {settings.host_filter} (any more); tag it again, or delete "
                "the host",
            )
        elif instance is None and not world.instances and host.template.get(STATE) != TERMINATED:
            # EC2 forgets a terminated instance after an hour, but all of them at once mean another Region.
            result.problem(
                f"host {host.name}",
                f"EC2 knows no instance {instance_id}, nor any that matches {settings.host_filter}; correct region, "
                "vpc_id or host_filter in the settings",
            )
        else:
            _retire(world, result, host)


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
            f"host {host.name} has no {ENI_ID}; tag its instance so that host_filter matches, and run 'oneaws host sync'"
        )
    return eni
