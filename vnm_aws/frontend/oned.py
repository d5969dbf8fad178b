"""Talk to OpenNebula's daemon through pyone: the few calls that the front-end half makes, in its own words.

Values are read from oned's XML: pyone's objects leave out custom attributes of address ranges, and making those of thousands of
VMs takes longer than all else. Where oned is and who we are is OpenNebula's own business: ONE_XMLRPC, ONE_AUTH.
"""

from __future__ import annotations

import os
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError

import pyone
import requests
from lxml import etree
from pyone.server_xrpc import OneServerXRPC, RequestsTransport

from ..addresses import shown
from ..errors import AwsOvsError
from . import hook_objects, objects
from .deadline import Deadline
from .hook_objects import Execution, Hook
from .objects import AwsVm, Group, Host, Network

_ENDPOINT = "http://localhost:2633/RPC2"
_EVERYBODYS, _ALL = -2, -1
_ACTIVE, _NOT_DONE = 3, -1
_APPEND = 1
_ENABLED, _DISABLED = 0, 1
_SOLO, _LEADER = "0", "3"
_CONNECT_S, _READ_S = 10, 60


class Attributes(NamedTuple):
    """Which attributes of VMs and of networks only administrators may set, and which NICs get of their networks."""

    of_vms: set[str]
    of_networks: set[str]
    inherited: set[str]


class NotFoundError(AwsOvsError):
    """oned does not have the object (any more)."""


class UnreadableError(AwsOvsError):
    """What oned sends is not XML: it has kept a character that XML does not know, or it is no oned."""


def template(values: Mapping[str, str], separator: str = "\n") -> str:
    """Write attributes in OpenNebula's template syntax."""
    return separator.join(f'{key}="{_escaped(value)}"' for key, value in values.items())


def range_template(values: Mapping[str, str]) -> str:
    """Write an address range in OpenNebula's template syntax."""
    return f"AR=[ {template(values, ', ')} ]"


def _escaped(value: str) -> str:
    """Escape quotes, all that a value needs; a backslash at its end would escape the quote that ends it."""
    return value.replace('"', '\\"').rstrip("\\")


def _session() -> str:
    path = os.environ.get("ONE_AUTH") or os.path.expanduser("~/.one/one_auth")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        what = f"OpenNebula's credentials {path} cannot be read ({error.strerror})"
        raise AwsOvsError(what, "run this as oneadmin, or set ONE_AUTH") from None


class _Transport(RequestsTransport):  # type: ignore[misc]
    """Do as pyone's does, but wait for oned no longer than is left; pyone's waits for ever, whatever its `timeout`."""

    def __init__(self, patience: float, deadline: Deadline) -> None:
        super().__init__()
        self._patience, self._deadline = patience, deadline

    def request(self, host: str, handler: str, request_body: bytes, verbose: bool = False) -> Any:
        url = self._build_url(host, handler)
        wait = (self._deadline.left(_CONNECT_S), self._deadline.left(self._patience))
        reply = requests.post(url, data=request_body, headers=self.headers, timeout=wait, allow_redirects=False)
        if reply.status_code != requests.codes.ok:
            raise xmlrpc.client.ProtocolError(url, reply.status_code, reply.reason, {})
        return self.parse_response(reply)


class _Server(OneServerXRPC):  # type: ignore[misc]
    """Do as pyone's does, but make an element tree of a document that oned sends, instead of pyone's objects."""

    def __init__(self, endpoint: str, session: str, transport: _Transport) -> None:
        super().__init__(endpoint, session=session)
        transport.set_https(endpoint.startswith("https"))
        self._ServerProxy__transport = transport  # pyone takes none

    def _do_request(self, method: str, params: tuple[object, ...]) -> list[object]:
        succeeded, value, *rest = super()._do_request(method, params)
        if succeeded and isinstance(value, str) and value.startswith("<"):
            parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
            value = etree.fromstring(value.encode(), parser)
        return [succeeded, value, *rest]


class Oned:
    """Connect to oned.

    Args:
        patience: seconds that a call may take.
        deadline: of the run.

    Attributes:
        changes: how many calls that change something were made.

    Raises:
        AwsOvsError: no credentials; and each call: oned is not there or refuses.
    """

    def __init__(self, patience: float = _READ_S, deadline: Deadline | None = None) -> None:
        self._patience, self._deadline = patience, deadline or Deadline()
        self._silent: AwsOvsError | None = None
        self.endpoint = os.environ.get("ONE_XMLRPC") or _ENDPOINT
        session = _session()
        try:
            self._one = _Server(self.endpoint, session, _Transport(patience, self._deadline))
        except OSError:
            what = f"ONE_XMLRPC {shown(self.endpoint)} is not an address like {_ENDPOINT}"
            raise AwsOvsError(what, "correct it") from None
        self.changes = 0

    def _call(self, method: str, *arguments: object) -> Any:
        self._deadline.check()
        if self._silent:  # after a minute of waiting; whatever else is to be done need not wait as long again
            raise self._silent
        call: Callable[..., Any] = reduce(getattr, method.split("."), self._one)
        try:
            return call(*arguments)
        except OverflowError:
            raise NotFoundError(f"OpenNebula has nothing with the ID {arguments[0]}", "give one that it has") from None
        except pyone.OneNoExistsException as error:
            raise NotFoundError(f"{_sentence(error)}", "it is gone") from None
        except pyone.OneAuthenticationException:
            what = f"oned at {self.endpoint} does not accept the credentials in ONE_AUTH"
            raise AwsOvsError(what, "run this as oneadmin") from None
        except pyone.OneException as error:
            raise AwsOvsError(f"oned refused: {_sentence(error)}", "see /var/log/one/oned.log") from None
        except (ExpatError, etree.XMLSyntaxError) as error:
            what = f"oned at {self.endpoint} does not answer {method} with XML ({_sentence(error)})"
            raise UnreadableError(what, "is ONE_XMLRPC the address of oned? It ends with /RPC2") from None
        except requests.Timeout:
            what = f"oned at {self.endpoint} has not answered {method} within {self._patience:.0f} s"
            remedy = "look at /var/log/one/oned.log; if it is only slow, raise oned_timeout in the settings"
            self._silent = AwsOvsError(what, remedy)
            raise self._silent from None
        except (requests.RequestException, OSError, xmlrpc.client.Error) as error:
            what = f"oned at {self.endpoint} does not answer ({type(error).__name__})"
            raise AwsOvsError(what, "is opennebula.service running?") from None

    def _change(self, method: str, *arguments: object) -> Any:
        self.changes += 1
        return self._call(method, *arguments)

    def version(self) -> str:
        """Read OpenNebula's version, such as 7.2.0."""
        return str(self._call("system.version"))

    def attributes(self) -> Attributes:
        """Read what oned itself does with attributes: as it runs, which oned.conf may not say any more."""
        root = self._call("system.config")
        kinds = ("VM_RESTRICTED_ATTR", "VNET_RESTRICTED_ATTR", "INHERIT_VNET_ATTR")
        return Attributes(*({(item.text or "").strip().upper() for item in root.iter(kind)} for kind in kinds))

    def leads(self) -> bool:
        """Say whether this front-end acts: it is alone, or the leader among several."""
        return self._call("zone.raftstatus").findtext("STATE") in (_SOLO, _LEADER)

    def clusters(self) -> dict[int, str]:
        """Read the names of all clusters by ID."""
        pool = self._call("clusterpool.info")
        return {int(item.findtext("ID") or "-1"): item.findtext("NAME") or "" for item in pool.iterfind("CLUSTER")}

    def hosts(self) -> list[Host]:
        """Read all hosts."""
        return [objects.read_host(item) for item in self._call("hostpool.info").iterfind("HOST")]

    def host(self, host_id: int) -> Host:
        """Read a host."""
        return objects.read_host(self._call("host.info", host_id))

    def add_host(self, name: str, im_mad: str, vm_mad: str, cluster_id: int) -> int:
        """Add a host and return its ID."""
        return int(self._change("host.allocate", name, im_mad, vm_mad, cluster_id))

    def update_host(self, host_id: int, values: Mapping[str, str]) -> None:
        """Add or replace attributes of a host; the others stay."""
        self._change("host.update", host_id, template(values), _APPEND)

    def rename_host(self, host_id: int, name: str) -> None:
        """Give a host another name."""
        self._change("host.rename", host_id, name)

    def disable_host(self, host_id: int) -> None:
        """Let the scheduler start no more VMs on a host."""
        self._change("host.status", host_id, _DISABLED)

    def enable_host(self, host_id: int) -> None:
        """Let the scheduler start VMs on a host."""
        self._change("host.status", host_id, _ENABLED)

    def networks(self) -> list[Network]:
        """Read all networks; their address ranges have no leases here."""
        pool = self._call("vnpool.info", _EVERYBODYS, _ALL, _ALL)
        return [objects.read_network(item) for item in pool.iterfind("VNET")]

    def network(self, network_id: int) -> Network:
        """Read a network, leases included."""
        return objects.read_network(self._call("vn.info", network_id))

    def update_network(self, network_id: int, values: Mapping[str, str]) -> None:
        """Add or replace attributes of a network; the others stay."""
        self._change("vn.update", network_id, template(values), _APPEND)

    def add_range(self, network_id: int, values: Mapping[str, str]) -> None:
        """Add an address range."""
        self._change("vn.add_ar", network_id, range_template(values))

    def update_range(self, network_id: int, ar_id: int, values: Mapping[str, str]) -> None:
        """Replace all custom attributes of an address range."""
        self._change("vn.update_ar", network_id, range_template({"AR_ID": str(ar_id), **values}))

    def remove_range(self, network_id: int, ar_id: int) -> None:
        """Remove an address range; oned refuses while an address of it is in use."""
        self._change("vn.rm_ar", network_id, ar_id)

    def vms(self, first: int, last: int) -> Iterator[AwsVm]:
        """Read the VMs that are not done, with IDs from `first` to `last`."""
        pool = self._call("vmpool.infoextended", _EVERYBODYS, first, last, _NOT_DONE)
        return map(objects.read_vm, pool.iterfind("VM"))

    def vm_documents(self, first: int, last: int) -> list[etree._Element]:
        """Read the documents of the active VMs with IDs from `first` to `last`, as hosts get them."""
        return list(self._call("vmpool.infoextended", _EVERYBODYS, first, last, _ACTIVE).iterfind("VM"))

    def vm(self, vm_id: int) -> AwsVm:
        """Read a VM."""
        return objects.read_vm(self._call("vm.info", vm_id))

    def update_vm(self, vm_id: int, values: Mapping[str, str]) -> None:
        """Add or replace attributes of a VM's user template; the others stay."""
        self._change("vm.update", vm_id, template(values), _APPEND)

    def security_groups(self) -> list[Group]:
        """Read all security groups of VMs."""
        pool = self._call("secgrouppool.info", _EVERYBODYS, _ALL, _ALL)
        return [objects.read_group(item) for item in pool.iterfind("SECURITY_GROUP")]

    def hooks(self) -> list[Hook]:
        """Read all hooks."""
        return [hook_objects.read_hook(item) for item in self._call("hookpool.info").iterfind("HOOK")]

    def executions(self, failed: bool, hook_id: int = -1, since: int = -1) -> list[Execution]:
        """Read the executions of hooks, or of one, that failed or did not, after a time; oned keeps the last of each."""
        log = self._call("hooklog.info", since, -1, hook_id, -1 if failed else 1)
        return [hook_objects.read_execution(item) for item in log.iterfind("HOOK_EXECUTION_RECORD")]

    def add_hook(self, text: str) -> int:
        """Register a hook by its template and return its ID."""
        return int(self._change("hook.allocate", text))

    def remove_hook(self, hook_id: int) -> None:
        """Remove a hook."""
        self._change("hook.delete", hook_id)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
