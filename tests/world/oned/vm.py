"""Virtual machines of the oned stand-in: kept as their documents, for it makes no difference what is in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lxml import etree

from .objects import number_of, text_of
from .template import Template, element, from_element

ACTIVE, DONE = 3, 6
RUNNING = 3
_KEEPS_CAPACITY = (3, 5, 8)  # ACTIVE, SUSPENDED, POWEROFF

Element = etree._Element

_PARSER = etree.XMLParser(remove_blank_text=True, strip_cdata=False, resolve_entities=False)
_NIC_OPTIONAL = ("IP", "EXTERNAL_IP", "IP6", "IP6_ULA", "IP6_LINK", "IP6_GLOBAL", "NETWORK_MODE")
_NIC_ALWAYS = ("MAC", "NETWORK", "NETWORK_ID", "NIC_ID", "SECURITY_GROUPS")
_DISK = [
    *("DISK_ID", "DATASTORE", "DATASTORE_ID", "IMAGE", "IMAGE_ID", "SIZE", "TYPE"),
    *("CLONE", "CLONE_TARGET", "LN_TARGET", "DISK_SNAPSHOT_TOTAL_SIZE"),
]
_HEAD = (
    *("ID", "UID", "GID", "UNAME", "GNAME", "NAME", "LAST_POLL", "STATE", "LCM_STATE"),
    *("RESCHED", "STIME", "ETIME", "DEPLOY_ID"),
)
_USER_SHORT = ("LABELS", "ERROR", "SCHED_MESSAGE", "SCHED_RANK", "SCHED_DS_RANK", "SCHED_REQUIREMENTS")


def _edit(node: etree._Element, path: str, text: object) -> None:
    """Change the text of a child that is there, as CDATA when it was."""
    child = node.find(path)
    if child is not None:
        child.text = etree.CDATA(str(text)) if b"<![CDATA[" in etree.tostring(child) else str(text)


def _serialized(root: etree._Element) -> str:
    return etree.tostring(root, encoding="unicode")


@dataclass
class Vm:
    """A VM: what calls select by, and its document; `host_id` is -1 before it was ever deployed."""

    vm_id: int
    uid: int
    state: int
    host_id: int
    cpu: int
    memory: int
    document: str
    short: str | None = None

    @classmethod
    def of(cls, root: etree._Element) -> Vm:
        """The VM of a document."""
        hosts = root.findall("HISTORY_RECORDS/HISTORY/HID")
        return cls(
            number_of(root, "ID"),
            number_of(root, "UID"),
            number_of(root, "STATE"),
            int(hosts[-1].text or -1) if hosts else -1,
            round(float(text_of(root, "TEMPLATE/CPU") or 0) * 100),
            number_of(root, "TEMPLATE/MEMORY") * 1024,
            _serialized(root),
        )

    @property
    def takes_capacity(self) -> bool:
        """Whether its host counts it."""
        return self.host_id >= 0 and self.state in _KEEPS_CAPACITY

    def change(self, edit: Callable[[etree._Element], None]) -> None:
        """Let `edit` change the document."""
        root = etree.fromstring(self.document, _PARSER)
        edit(root)
        self.__dict__.update(Vm.of(root).__dict__)

    def short_document(self) -> str:
        """What one.vmpool.info prints of it."""
        if self.short is None:
            self.short = _short(etree.fromstring(self.document, _PARSER))
        return self.short

    def pool_document(self) -> str:
        """What one.vmpool.infoextended prints of it: only the last of its history."""
        if self.document.count("<HISTORY>") < 2:
            return self.document
        root = etree.fromstring(self.document, _PARSER)
        records = root.find("HISTORY_RECORDS")
        assert records is not None
        for record in records.findall("HISTORY")[:-1]:
            records.remove(record)
        return _serialized(root)


def renumber(root: etree._Element, vm_id: int) -> None:
    """Give a document another ID, wherever the ID is."""
    old = text_of(root, "ID")
    _edit(root, "ID", vm_id)
    _edit(root, "TEMPLATE/VMID", vm_id)
    if text_of(root, "DEPLOY_ID") == f"one-{old}":
        _edit(root, "DEPLOY_ID", f"one-{vm_id}")
    for record in root.findall("HISTORY_RECORDS/HISTORY"):
        _edit(record, "OID", vm_id)
    for name in ("NIC", "NIC_ALIAS"):
        for nic in root.findall(f"TEMPLATE/{name}"):
            target = text_of(nic, "TARGET")
            if target.startswith(f"one-{old}-"):
                _edit(nic, "TARGET", f"one-{vm_id}-" + target.removeprefix(f"one-{old}-"))


def place(root: etree._Element, host_id: int, name: str, cluster_id: int) -> None:
    """Write another host into the last record of the history."""
    record = root.findall("HISTORY_RECORDS/HISTORY")[-1]
    _edit(record, "HID", host_id)
    _edit(record, "HOSTNAME", name)
    _edit(record, "CID", cluster_id)


def move(root: etree._Element, host_id: int, name: str, cluster_id: int) -> None:
    """Add a record to the history, as a migration does."""
    records = root.find("HISTORY_RECORDS")
    assert records is not None
    last = records.findall("HISTORY")[-1]
    copy = etree.fromstring(etree.tostring(last), _PARSER)
    _edit(last, "ETIME", number_of(last, "STIME") + 1)
    _edit(last, "RETIME", number_of(last, "STIME") + 1)
    records.append(copy)
    _edit(copy, "SEQ", number_of(copy, "SEQ") + 1)
    place(root, host_id, name, cluster_id)


def set_state(root: etree._Element, state: int, lcm_state: int) -> None:
    """Change the state."""
    _edit(root, "PREV_STATE", text_of(root, "STATE"))
    _edit(root, "PREV_LCM_STATE", text_of(root, "LCM_STATE"))
    _edit(root, "STATE", state)
    _edit(root, "LCM_STATE", lcm_state)


def user_template(root: etree._Element) -> Template:
    """The USER_TEMPLATE."""
    node = root.find("USER_TEMPLATE")
    return Template() if node is None else from_element(node)


def set_user_template(root: etree._Element, template: Template) -> None:
    """Put another USER_TEMPLATE in the place of the one that is there."""
    new = etree.fromstring(template.xml("USER_TEMPLATE"), _PARSER)
    old = root.find("USER_TEMPLATE")
    if old is None:
        root.append(new)
    else:
        root.replace(old, new)


def read(document: bytes) -> etree._Element:
    """A document as a tree, without the blanks of a pretty print."""
    return etree.fromstring(document, _PARSER)


def copies(document: bytes) -> Callable[[int, int, str, int], Vm]:
    """A function that makes VMs of one document quickly: of VM ID, host ID, host name and cluster ID."""
    root = read(document)
    # Numbers that are nowhere else in a document mark the places; they have the form of what they stand for.
    vm_mark, host_mark, name_mark, cluster_mark = 2**40 + 1, 2**40 + 2, "host-name-mark", 2**40 + 3
    renumber(root, vm_mark)
    place(root, host_mark, name_mark, cluster_mark)
    marked = Vm.of(root)
    short = marked.short_document()
    pattern = re.compile(f"{vm_mark}|{host_mark}|{name_mark}|{cluster_mark}")

    def copy(vm_id: int, host_id: int, name: str, cluster_id: int) -> Vm:
        texts = {
            str(vm_mark): str(vm_id),
            str(host_mark): str(host_id),
            name_mark: name,
            str(cluster_mark): str(cluster_id),
        }
        long, brief = (pattern.sub(lambda match: texts[match[0]], text) for text in (marked.document, short))
        return Vm(vm_id, marked.uid, marked.state, host_id, marked.cpu, marked.memory, long, brief)

    return copy


def _short(root: etree._Element) -> str:
    head = "".join(f"<{name}>{text_of(root, name)}</{name}>" for name in _HEAD)
    lock = root.find("LOCK")
    if lock is not None:
        head += f"<LOCK><LOCKED>{text_of(lock, 'LOCKED')}</LOCKED></LOCK>"
    sizes = "".join(f"<{name}>{text_of(root, f'TEMPLATE/{name}')}</{name}>" for name in ("CPU", "MEMORY", "VCPU"))
    disks = "".join(_named("DISK", node, _DISK) for node in root.findall("TEMPLATE/DISK"))
    # oned keeps NICs and aliases together by NIC_ID, and prints both as NIC here.
    nodes = [*root.findall("TEMPLATE/NIC"), *root.findall("TEMPLATE/NIC_ALIAS")]
    nics = "".join(
        _named("NIC", node, [*(name for name in _NIC_OPTIONAL if text_of(node, name)), *_NIC_ALWAYS])
        for node in sorted(nodes, key=lambda node: number_of(node, "NIC_ID"))
    )
    graphics = root.find("TEMPLATE/GRAPHICS")
    more = "" if graphics is None else _serialized(graphics)
    return (
        f"<VM>{head}<TEMPLATE>{sizes}{disks}{nics}{more}</TEMPLATE><MONITORING/>{_short_user_template(root)}"
        f"{_short_history(root)}</VM>"
    )


def _named(tag: str, node: etree._Element, names: list[str]) -> str:
    return f"<{tag}>" + "".join(element(name, text_of(node, name)) for name in names) + f"</{tag}>"


def _short_user_template(root: etree._Element) -> str:
    template = user_template(root)
    if not len(template):
        return "<USER_TEMPLATE/>"
    texts = "".join(element(name, template.text(name)) for name in _USER_SHORT if template.text(name))
    return f"<USER_TEMPLATE>{texts}</USER_TEMPLATE>"


def _short_history(root: etree._Element) -> str:
    records = root.findall("HISTORY_RECORDS/HISTORY")
    if not records:
        return "<HISTORY_RECORDS/>"
    last = records[-1]
    texts = "".join(
        f"<{name}>{text_of(last, name)}</{name}>"
        if name in ("OID", "SEQ", "HID", "CID", "DS_ID")
        else element(name, text_of(last, name))
        for name in ("OID", "SEQ", "HOSTNAME", "HID", "CID", "DS_ID", "VM_MAD", "TM_MAD", "ACTION")
    )
    return f"<HISTORY_RECORDS><HISTORY>{texts}</HISTORY></HISTORY_RECORDS>"


def give_nics(root: etree._Element, nics: Sequence[Mapping[str, str]]) -> None:
    """Give a VM these NICs of the driver instead of those it has; one of them lends the rest of its attributes."""
    template = root.find("TEMPLATE")
    recorded = root.find("TEMPLATE/NIC[VN_MAD='aws_ovs']")
    assert template is not None
    assert recorded is not None
    for old in (*template.findall("NIC"), *template.findall("NIC_ALIAS")):
        template.remove(old)
    for number, values in enumerate(nics):
        nic = etree.fromstring(etree.tostring(recorded))
        for key in ("AWS_PRIVATE_IP", "EXTERNAL_IP", "AWS_ALLOCATION_ID"):
            for old in nic.findall(key):
                nic.remove(old)
        for key, value in {"NIC_ID": str(number), **values}.items():
            found = nic.find(key)
            (etree.SubElement(nic, key) if found is None else found).text = value
        template.append(nic)
