"""Says in one line which service cannot be used, where it was looked for, why, and what to do; never the password.

What connects a service calls `sentence` with the error that its library raised, so that every process and every command
says the same thing about the same fault.
"""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from contracts.plain_text import plain

_DEFAULT_PORTS = {
    "amqp": 5672,
    "amqps": 5671,
    "postgresql": 5432,
    "postgres": 5432,
    "redis": 6379,
    "rediss": 6379,
    "http": 80,
    "https": 443,
}


class ServiceTrouble(Exception):
    """A service cannot be used; the message is one line: which, where, why, and what to do, without the password."""


_ERRNO = re.compile(r"\[Errno (-?\d+)\]")
_UNRESOLVED = re.compile("Name or service not known|resolve host|translate host name|name resolution")
_LONGEST = 300
_FILES = (
    *("cafile", "certfile", "keyfile"),
    *("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
    *("sslrootcert", "sslcert", "sslkey"),
)
_NO_TLS = ("rejected SSL upgrade", "server does not support SSL")
_LASTING = ("WRONG_VERSION_NUMBER", "NO_CERTIFICATE_OR_CRL_FOUND", "PEM_LIB", "KEY_VALUES_MISMATCH")
"""OpenSSL's names of faults that no later try mends; a connection that ends in the handshake is none of them."""
_RESET = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


def place_of(url: str) -> str:
    """Where a URL leads, as host:port, without user and password.

    Args:
        url: Of a service; one that cannot be read is not repeated, since a password may stand anywhere in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "an address that cannot be read"
    if not host:
        return "no host"
    return plain(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def user_of(url: str) -> str:
    """The user that a URL names; empty for none.

    Args:
        url: Of a service.
    """
    try:
        return plain(unquote(urlsplit(url).username or ""))
    except ValueError:
        return ""


def sentence(service: str, url: str, error: BaseException, *, setting: str) -> str:
    """One line about a service that could not be connected.

    Args:
        service: Its name, for people.
        url: Where it was looked for.
        error: What the library raised.
        setting: The variable that holds the address.
    """
    user = user_of(url)
    whom = f" as {user}" if user else ""
    what, to_do = _of_files(url, error) or reason(error)
    return f"{service} at {place_of(url)}{whom}: {what}; {to_do.format(service=service, setting=setting)}"


def reason(error: BaseException) -> tuple[str, str]:
    """Why something could not be connected, and what to do about it, with `{service}` and `{setting}` to be filled in.

    Args:
        error: As raised; what it was raised from is looked at as well.
    """
    found = _recognised(error)
    if found:
        return found
    texts = (plain(" ".join(str(cause).split()))[:_LONGEST] for cause in _causes(error))
    return next(filter(None, texts), type(error).__name__), "check {setting}"


def _recognised(error: BaseException) -> tuple[str, str] | None:
    causes = list(_causes(error))
    for cause in causes:
        found = _of_tls(cause) or _of_names(cause)
        if found:
            return found
    return next(filter(None, map(_of_sockets, causes)), None)


_places: dict[str, str] = {}
"""Where this process looks for a service, by the service's name: it has one address of each."""


def note_place(service: str, url: str) -> None:
    """Remember where a service is looked for, so that the log of a process that goes on without it says so.

    Args:
        service: Its name, for people.
        url: Its address; user and password are left out.
    """
    _places[service] = f"{service} at {place_of(url)}"


def in_words(error: BaseException, *, service: str, setting: str) -> str:
    """For the log of a process that goes on without a service: why, and what to do; where that is not known, the error.

    Args:
        error: As raised; what it was raised from is looked at as well.
        service: Its name, for people.
        setting: The variable that holds its address.
    """
    where = _places.get(service, service)
    found = _recognised(error)
    if found is None:  # a driver quotes the values that it complains of
        return f"{where}: {type(error).__name__ if isinstance(error, ValueError) else repr(error)}"
    what, to_do = found
    return f"{where}: {what}; {to_do.format(service=service, setting=setting)}"


postgres_in_words = partial(in_words, service="PostgreSQL", setting="ISH_POSTGRES_URL")
redis_in_words = partial(in_words, service="Redis", setting="ISH_REDIS_URL")


def _of_files(url: str, error: BaseException) -> tuple[str, str] | None:
    """OpenSSL does not say which file it could not read: it is one of those that the address names."""
    for cause in _causes(error):
        if isinstance(cause, FileNotFoundError | PermissionError) and not cause.filename:
            named = [Path(value) for option, value in parse_qsl(urlsplit(url).query) if option in _FILES]
            for file in named:
                if not os.access(file, os.R_OK):
                    what = f"cannot read {plain(str(file))}: {cause.strerror}"
                    return what, "correct the file that {setting} or ISH_CA_FILE names"
    return None


def is_of_trust(url: str, error: BaseException) -> bool:
    """Whether waiting cannot help: a certificate is refused, one side does not speak TLS, or a file of TLS cannot be read.

    Args:
        url: Of the service.
        error: As raised; what it was raised from is looked at as well.
    """
    return _of_files(url, error) is not None or any(map(_is_of_trust, _causes(error)))


def _is_of_trust(error: BaseException) -> bool:
    if isinstance(error, ssl.SSLError):
        return isinstance(error, ssl.SSLCertVerificationError) or error.reason in _LASTING
    return any(words in str(error) for words in ("certificate verify failed", *_NO_TLS))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and what a group of errors holds."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += getattr(one, "exceptions", ())
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
        waiting += [each for each in one.args if isinstance(each, BaseException)]


def _of_tls(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error.verify_message or str(error))
    text = str(error)
    if "certificate verify failed" in text.lower():  # libpq and redis-py tell it in words
        return _of_certificate(text)
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS failed ({plain(error.reason or text)})",
            "does TLS belong on this port? Check the scheme of {setting}, and the certificates that it names",
        )
    if any(words in text for words in _NO_TLS):
        return "it offers no TLS, which {setting} asks for".replace("{setting}", "the address"), (
            "turn TLS on in {service}, or correct {setting}"
        )
    return None


def _of_certificate(message: str) -> tuple[str, str]:
    low = message.lower()
    if "expired" in low:
        return "its certificate has expired", "renew the certificate of {service}"
    if "not yet valid" in low:
        return "its certificate is not valid yet", "check the clocks of both machines"
    if "hostname mismatch" in low or "ip address mismatch" in low or "doesn't match" in low:
        return (
            f"its certificate is for another name ({plain(message)[:_LONGEST]})",
            "write a name that the certificate holds into {setting}, or renew the certificate",
        )
    return (
        f"its certificate is signed by none that is trusted here ({plain(message)[:_LONGEST]})",
        "set ISH_CA_FILE to the certificate of the authority that signed it",
    )


def _of_names(error: BaseException) -> tuple[str, str] | None:
    text = str(error)
    if isinstance(error, socket.gaierror) or "getaddrinfo" in text or _UNRESOLVED.search(text):
        return "the name of its host cannot be resolved", "correct {setting}"
    return None


def _of_sockets(error: BaseException) -> tuple[str, str] | None:
    number = _number(error)
    text = str(error)  # libpq tells everything in words
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT or "timeout expired" in text:
        return "it does not answer in time", "is {service} running and reachable from here? Check {setting}"
    if isinstance(error, ConnectionRefusedError) or number == errno.ECONNREFUSED or "Connection refused" in text:
        return "it does not answer: connection refused", "start {service}, or correct {setting}"
    if number in _UNREACHABLE:
        return "there is no way to its host", "check the network, or correct {setting}"
    if (
        isinstance(error, ConnectionResetError | BrokenPipeError | EOFError)
        or number in _RESET
        or "closed the connection" in text
    ):
        return "it closed the connection", "is that port the one of {service}? Check {setting}"
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename:
        return f"cannot read {plain(error.filename)}: {error.strerror}", "correct the file that {setting} names"
    return None


def _number(error: BaseException) -> int | None:
    if not isinstance(error, OSError):
        return None
    if error.errno is not None:
        return error.errno
    found = _ERRNO.search(str(error))  # asyncio joins the errors of several addresses into one text
    return int(found[1]) if found else None
