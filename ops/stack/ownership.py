"""Shows that what listens at an address of the local stack was started by it, before any secret is sent there.

The state folder's `env` file knows the addresses and `stack.json` the processes. A listening socket belongs to a service
when the recorded process holds it, or one of its session (the supervisor starts each in a session of its own, whose number
is that pid). Somebody else's service on the same port, or on this stack's while it is down, is thereby told apart.
Source: https://man7.org/linux/man-pages/man5/proc_pid_net.5.html
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ops.stack import state
from ops.stack.errors import StackError
from ops.stack.layout import LOOPBACK, Layout

_LISTENS = "0A"
_SESSION, _STATE = 3, 0
_NAMES = {"rabbitmq": "RabbitMQ", "postgres": "PostgreSQL", "redis": "Redis", "gateway": "gateway"}

Address = IPv4Address | IPv6Address


def check_ours(layout: Layout, service: str, url: str, *, setting: str) -> None:
    """Refuse an address of the local stack unless the stack's own service listens there now.

    A service that was given to the stack from outside is where its user said that it is.

    Args:
        layout: Which stack; only its state folder counts, its ports may be another's.
        service: Name of the process: rabbitmq, postgres, redis or gateway.
        url: As the state folder has it.
        setting: Variable that names another address.

    Raises:
        StackError: It does not run, or something else listens there.
    """
    parts = urlsplit(url)
    place, name = f"{parts.hostname}:{parts.port}", _NAMES[service]
    record = state.read(layout)
    child = next((one for one in record.children if one.name == service), None) if record else None
    if child is None and record is not None and any(one.name == "gateway" for one in record.children):
        return  # it has all its processes, and this is none of them
    if child is None or not child.alive or child.pid is None:
        raise StackError(
            f"the {name} of the local stack in {layout.state_dir} does not run, and nothing is sent to whatever listens "
            f"on {place}: start the stack with `ish up`, or set {setting}"
        )
    if not _all_held_by(child.pid, parts.hostname or "", parts.port or 0):
        raise StackError(
            f"what listens on {place} is not the {name} of the local stack in {layout.state_dir}, and nothing is sent to "
            f"it: look at `ish status`, or set {setting}"
        )


def _all_held_by(session: int, host: str, port: int) -> bool:
    """Whether every socket that may take a connection to an address is held in one session, and there is one."""
    inodes = set(_listening(_address(host), port))
    return bool(inodes) and inodes <= set(_sockets_of(session))


def _address(host: str) -> Address:
    if host == "localhost":
        return ip_address(LOOPBACK)
    try:
        return ip_address(host)
    except ValueError:
        raise StackError(f"{host} is a name, and not an address of the local stack") from None


def _listening(address: Address, port: int) -> Iterator[str]:
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines(file)[1:]:
            fields = line.split()
            host, _, number = fields[1].rpartition(":")
            if fields[3] == _LISTENS and int(number, 16) == port and _takes(_decoded(host), address):
                yield fields[9]


def _takes(listening: Address, wanted: Address) -> bool:
    if isinstance(listening, IPv6Address) and listening.ipv4_mapped is not None:
        listening = listening.ipv4_mapped
    return listening == wanted or listening.is_unspecified


def _decoded(text: str) -> Address:
    """The kernel writes addresses as 32-bit words of its own byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ip_address(b"".join(socket.htonl(word).to_bytes(4, "big") for word in words))


def _sockets_of(session: int) -> Iterator[str]:
    for pid in _pids_of(session):
        folder = f"/proc/{pid}/fd"
        with suppress(OSError):  # it has ended, or is another user's
            for descriptor in list(Path(folder).iterdir()):
                target = _target(descriptor)
                if target.startswith("socket:["):
                    yield target.removeprefix("socket:[").removesuffix("]")


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return ""


def _pids_of(session: int) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            content = "".join(_lines(f"/proc/{entry.name}/stat"))
            fields = content.rpartition(")")[2].split()
            if len(fields) > _SESSION and fields[_STATE] not in "ZX" and str(session) in (entry.name, fields[_SESSION]):
                yield entry.name


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
