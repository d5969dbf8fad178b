"""Virtual machines of the oned stand-in: kept as their documents, for it makes no difference what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lxml import etree

from .template import from_element
from .wire import ACTION

ACTIVE, DONE = 3, 6
RUNNING = 3
_KEEPS_CAPACITY = (3, 5, 8)  # ACTIVE, SUSPENDED, POWEROFF

Element = etree._Element

_PARSER = etree.XMLParser(remove_blank_text=True, strip_cdata=False, resolve_entities=False)


def read(document: bytes | str) -> Element:
    """Read a document as a tree, without the blanks of a pretty print."""
    return etree.fromstring(document, _PARSER)


def _number(root: Element, path: str, default: int = 0) -> int:
    return int(root.findtext(path) or default)


def _edit(node: Element, **texts: object) -> None:
    """Change the texts of children that are there, as CDATA where they were."""
    for name, text in texts.items():
        child = node.find(name)
        if child is not None:
            child.text = etree.CDATA(str(text)) if b"<![CDATA[" in etree.tostring(child) else str(text)


def _records(root: Element) -> list[Element]:
    return root.findall("HISTORY_RECORDS/HISTORY")


@dataclass
class Vm:
    """A VM: what calls select by, and its document; `host_id` is -1 before it was ever deployed."""

    vm_id: int
    state: int
    host_id: int
    document: str

    @classmethod
    def of(cls, root: Element) -> Vm:
        """Make the VM of a document."""
        records = _records(root)
        return cls(
            _number(root, "ID"),
            _number(root, "STATE"),
            _number(records[-1], "HID", -1) if records else -1,
            etree.tostring(root, encoding="unicode"),
        )

    @property
    def takes_capacity(self) -> bool:
        """Tell whether its host counts it."""
        return self.host_id >= 0 and self.state in _KEEPS_CAPACITY

    def change(self, edit: Callable[[Element], None]) -> None:
        """Let `edit` change the document."""
        root = read(self.document)
        edit(root)
        self.__dict__.update(Vm.of(root).__dict__)


def renumber(root: Element, vm_id: int) -> None:
    """Give a document another ID, wherever somebody reads it."""
    _edit(root, ID=vm_id)
    for record in _records(root):
        _edit(record, OID=vm_id)
    for template in root.findall("TEMPLATE"):
        _edit(template, VMID=vm_id)


def place(root: Element, host_id: int, name: str, cluster_id: int) -> None:
    """Write another host into the last record of the history."""
    _edit(_records(root)[-1], HID=host_id, HOSTNAME=name, CID=cluster_id)


def move(root: Element, host_id: int, name: str, cluster_id: int) -> None:
    """Add a record to the history, as a migration does."""
    last = _records(root)[-1]
    copy = read(etree.tostring(last))
    end = _number(last, "STIME") + 1
    _edit(last, ETIME=end, RETIME=end)
    _edit(copy, SEQ=_number(copy, "SEQ") + 1)
    last.addnext(copy)
    place(root, host_id, name, cluster_id)


def set_state(root: Element, state: int, lcm_state: int) -> None:
    """Change the state."""
    _edit(root, PREV_STATE=root.findtext("STATE"), PREV_LCM_STATE=root.findtext("LCM_STATE"))
    _edit(root, STATE=state, LCM_STATE=lcm_state)


def update(root: Element, text: str, how: int) -> None:
    """Update USER_TEMPLATE, as one.vm.update does."""
    old = root.find("USER_TEMPLATE")
    assert old is not None, "every VM has one"
    root.replace(old, read(from_element(old).updated(text, how, "", ACTION).xml("USER_TEMPLATE")))


def give_nics(root: Element, nics: Sequence[Mapping[str, str]]) -> None:
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
