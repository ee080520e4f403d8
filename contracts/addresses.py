"""Reads lists of network addresses as people give them: `host:port`, comma-separated."""

from collections.abc import Sequence

ADB_PORT = 5037
"""Where an adb server listens unless something else is said."""

_MOST = 65535


def read_addresses(value: str, *, default_port: int) -> list[tuple[str, int]]:
    """Hosts and ports, each once and in their order.

    Args:
        value: `host`, `host:port` or `[IPv6]:port`, comma-separated; empty names none.
        default_port: Of those without one.

    Raises:
        ValueError: A part is no address; the sentence quotes it and says how one is written.
    """
    parts = filter(None, (part.strip() for part in value.split(",")))
    return list(dict.fromkeys(_read(part, default_port) for part in parts))


def write_addresses(addresses: Sequence[tuple[str, int]]) -> str:
    """The list as it is given in a setting.

    Args:
        addresses: Hosts and ports.
    """
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses)


def _read(part: str, default_port: int) -> tuple[str, int]:
    host, colon, port = part.rpartition(":") if not part.endswith("]") else (part, "", "")
    if not colon:
        host, port = part, str(default_port)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_one = bare and not any(character.isspace() or character in "/@[]" for character in bare)
    if not is_one or (":" in bare and bare == host):
        raise ValueError(
            f"{part!r} is not host:port; several are separated by commas, as in 127.0.0.1:5037,10.0.0.2:5037"
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MOST):
        raise ValueError(f"{part!r} is not host:port: a port is a number from 1 to {_MOST}")
    return bare, int(port)
