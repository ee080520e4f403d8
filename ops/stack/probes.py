"""Whether a service really answers: one fresh connection and one exchange of its own protocol, within two seconds."""

import socket
from urllib.parse import unquote, urlsplit

import httpx
import psycopg

_TIMEOUT_SECONDS = 2.0


def amqp_answers(host: str, port: int) -> bool:
    """The broker greets.

    Its management API answers before the boot has finished, and on a boot that then fails; a greeting on the AMQP port
    comes from a broker that has finished booting.

    Args:
        host: Where it listens.
        port: Its AMQP port.
    """
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def http_answers(url: str) -> bool:
    """The address answers with a success status.

    Args:
        url: Without credentials.
    """
    try:
        return httpx.get(url, timeout=_TIMEOUT_SECONDS, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def worker_consumes(url: str) -> bool:
    """A worker's own metrics say that it has a live consumer.

    Args:
        url: Its metrics.
    """
    try:
        answer = httpx.get(url, timeout=_TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return False
    alive = [line for line in answer.text.splitlines() if line.startswith("ish_consumer_alive{")]
    return bool(alive) and all(line.endswith(" 1.0") for line in alive)


def postgres_answers(url: str) -> bool:
    """The server accepts the role and answers a query.

    Args:
        url: With the role's password.
    """
    try:
        with psycopg.connect(url, connect_timeout=int(_TIMEOUT_SECONDS), autocommit=True) as connection:
            connection.execute("select 1")
    except psycopg.Error:
        return False
    return True


def redis_answers(url: str) -> bool:
    """The server accepts the password and answers PING.

    Args:
        url: `redis://[user]:password@host:port/0`.
    """
    parts = urlsplit(url)
    request = b"PING\r\n"
    if parts.password:
        credentials = [unquote(part).encode() for part in (parts.username, parts.password) if part]
        request = _resp(b"AUTH", *credentials) + request
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 6379), _TIMEOUT_SECONDS) as connection:
            connection.sendall(request)
            answer = b""
            while b"PONG" not in answer:
                received = connection.recv(256)
                if not received or b"-" in received[:1]:
                    return False
                answer += received
    except OSError:
        return False
    return True


def adb_answers(host: str, port: int) -> bool:
    """The adb server answers `host:version`.

    Args:
        host: Where the server listens.
        port: Its port.
    """
    return adb_query(host, port, "host:version") is not None


def adb_query(host: str, port: int, query: str) -> str | None:
    """One host query to an adb server.

    Args:
        host: Where the server listens.
        port: Its port.
        query: A `host:` service that answers with one length-prefixed text.

    Returns:
        Its answer; None when the server is not there or refuses the query.
    """
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(f"{len(query):04x}{query}".encode())
            with connection.makefile("rb") as answer:
                if answer.read(4) != b"OKAY":
                    return None
                length = int(answer.read(4) or b"0", 16)
                return answer.read(length).decode()
    except (OSError, ValueError):
        return None


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen here now.

    Args:
        host: The address to listen on.
        port: The port.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _resp(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
