"""Reads and completes the addresses of services: what is no address, which vhost is meant, which authorities are trusted.

An address says itself how its TLS is checked, in the words of its library: `cafile`, `certfile`, `keyfile` of
`amqps://`; `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` of `rediss://`; `sslmode`, `sslrootcert`, `sslcert`, `sslkey`
of `postgresql://`; `cafile` of `https://`. `ISH_CA_FILE` is added where an address names no authority.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

DEFAULT_VHOST = "/"

FORMS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "amqp_url": (("amqp", "amqps"), "RabbitMQ", "amqp://user:password@host:port/vhost"),
    "postgres_url": (("postgresql", "postgres"), "PostgreSQL", "postgresql://user:password@host:port/database"),
    "redis_url": (("redis", "rediss", "unix"), "Redis", "redis://user:password@host:port/0"),
    "rabbitmq_management_url": (("http", "https"), "RabbitMQ's management API", "http://user:password@host:port"),
    "gateway_url": (("http", "https"), "a gateway", "http://host:port"),
}
"""By setting: the schemes that it takes, whose address it is, and what one looks like."""

_CA_OPTIONS = {"amqps": "cafile", "rediss": "ssl_ca_certs", "https": "cafile"}
_POSTGRES_SCHEMES = FORMS["postgres_url"][0]
_VERIFYING = ("verify-ca", "verify-full")


def check(name: str, url: str) -> None:
    """Refuse what is no address of its service, without repeating it: a password may stand anywhere in it.

    Args:
        name: One of `FORMS`.
        url: The value; empty is no address, and fine.

    Raises:
        ValueError: With the form that it should have.
    """
    if not url:
        return
    schemes, whose, form = FORMS[name]
    try:
        parts = urlsplit(url)
        several = "," in parts.netloc  # PostgreSQL takes several hosts
        good = parts.scheme in schemes and (several or parts.port is None or parts.port > 0)
        good = good and bool(parts.hostname or several or parts.scheme == "unix" or name == "postgres_url")
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"is not the address of {whose}, such as {form} (in a user's name or password write / as %2F, @ as %40, : as %3A, # as %23)"
        )


def check_authority(ca_file: Path) -> None:
    """Refuse a file that holds no certificate: each client's own complaint of it would be another riddle.

    Args:
        ca_file: `ISH_CA_FILE`.

    Raises:
        ValueError: It cannot be read, or holds none.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise ValueError(f"ISH_CA_FILE: {ca_file} holds no certificate in PEM form") from error
    except OSError as error:
        raise ValueError(f"ISH_CA_FILE: cannot read {ca_file}: {error.strerror}") from error


def completed(url: str, *, ca_file: Path | None) -> str:
    """The address with the authority to trust, where it names none and its TLS is verified.

    Args:
        url: Of any service.
        ca_file: `ISH_CA_FILE`.
    """
    if not url:
        return url
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    changed = dict(query)
    if parts.scheme in _POSTGRES_SCHEMES:
        if "ssl" in changed:  # asyncpg's own word, which libpq does not know
            changed.setdefault("sslmode", changed.pop("ssl"))
        option = "sslrootcert" if changed.get("sslmode") in _VERIFYING else None
    else:
        option = _CA_OPTIONS.get(parts.scheme)
    if option and ca_file is not None and not {option, "capath"} & set(changed):
        changed[option] = str(ca_file.absolute())
    if changed == query:
        return url
    return urlunsplit(parts._replace(query=urlencode(changed, quote_via=quote)))


def vhost_of(amqp_url: str) -> str:
    """The vhost that an address means to this product: none means the default one.

    Args:
        amqp_url: amqp:// or amqps://.
    """
    return unquote(urlsplit(amqp_url).path.removeprefix("/")) or DEFAULT_VHOST


def with_explicit_vhost(amqp_url: str) -> str:
    """The same address with its vhost written out: to other clients an address that ends in `/` is the empty vhost.

    Args:
        amqp_url: amqp:// or amqps://.
    """
    return urlunsplit(urlsplit(amqp_url)._replace(path=f"/{quote(vhost_of(amqp_url), safe='')}"))


def for_http(url: str) -> tuple[str, ssl.SSLContext | bool]:
    """An HTTP address without its TLS options, and how httpx verifies with them.

    Args:
        url: http:// or https://.

    Raises:
        OSError: The file of authorities cannot be read.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    bare = urlunsplit(parts._replace(query="", fragment=""))
    if parts.scheme != "https":
        return bare, True
    context = ssl.create_default_context()
    if "cafile" in options:
        context.load_verify_locations(cafile=options["cafile"])
    if "certfile" in options:
        context.load_cert_chain(options["certfile"], options.get("keyfile"))
    return bare, context
