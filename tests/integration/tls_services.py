"""Real services whose certificates come from an authority that nobody else knows, and addresses that insist on TLS."""

import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
import trustme
from typing_extensions import override

from contracts.service_urls import completed
from ops.stack.addresses import DATABASE, Addresses
from ops.stack.session import Session, free_offset
from tests.conftest import own_services
from tests.integration.gateway_process import DEADLINE_SECONDS

_AMQPS, _HTTPS, _REDISS = 4391, 4392, 4394
"""With the offset added: no port of any offset's services is one of them."""

_RABBITMQ = """
listeners.ssl.default = 127.0.0.1:{amqps}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
management.ssl.ip = 127.0.0.1
management.ssl.port = {https}
management.ssl.cacertfile = {ca}
management.ssl.certfile = {certificate}
management.ssl.keyfile = {key}
"""

_ACCESS = """\
hostssl postgres all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
hostssl all all 127.0.0.1/32 scram-sha-256
"""
"""The database `postgres` asks for a certificate of the client as well."""


@dataclass(frozen=True, slots=True)
class TlsSession(Session):
    """A session whose addresses all mean TLS and name their authority."""

    bare: Addresses
    """The same without an authority."""
    ca: trustme.CA
    ca_file: Path

    @override
    def environment(self, role: str) -> dict[str, str]:
        """Settings for a process: addresses without an authority, and `ISH_CA_FILE`.

        Args:
            role: gateway, worker, outbox or ops.
        """
        plain = Session(self.layout, self.bare, self._children, self._declared_at)
        return {**plain.environment(role), "ISH_CA_FILE": str(self.ca_file)}

    def operator(self) -> dict[str, str]:
        """Settings for operators' commands, likewise."""
        return {
            "ISH_STATE_DIR": str(self.layout.state_dir / "elsewhere"),
            "ISH_AMQP_URL": self.bare.amqp_by_user["admin"],
            "ISH_RABBITMQ_MANAGEMENT_URL": self.bare.management_by_user["admin"],
            "ISH_POSTGRES_URL": self.bare.postgres_by_role["ish_ops"],
            "ISH_REDIS_URL": self.bare.redis,
            "ISH_CA_FILE": str(self.ca_file),
        }


@contextmanager
def tls_services() -> Iterator[TlsSession]:
    """Start them; PostgreSQL then takes nobody without TLS."""
    ca = trustme.CA()
    folder = Path(tempfile.mkdtemp(prefix="ish-tls-"))
    folder.chmod(0o711)
    try:
        leaf = ca.issue_cert("127.0.0.1", "localhost")
        ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
        for blob in leaf.cert_chain_pems:
            blob.write_to_path(str(folder / "certificate.pem"), append=True)
        for name in ("ca.pem", "certificate.pem"):
            (folder / name).chmod(0o644)
        (folder / "key.pem").chmod(0o600)
        with free_offset() as offset:
            lines = _RABBITMQ.format(
                amqps=_AMQPS + offset,
                https=_HTTPS + offset,
                ca=folder / "ca.pem",
                certificate=folder / "certificate.pem",
                key=folder / "key.pem",
            )
            with own_services(offset=offset, rabbitmq_lines=lines) as running:
                _turn_on_in_redis(running, folder, _REDISS + offset)
                _turn_on_in_postgres(running, folder)
                yield _session(running, ca, folder / "ca.pem", offset)
    finally:
        shutil.rmtree(folder)


def server_context(ca: trustme.CA, *names: str, **options: object) -> ssl.SSLContext:
    """A server's side of TLS.

    Args:
        ca: Who signs.
        names: Of the certificate.
        options: More of `trustme.CA.issue_cert`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, **options).configure_cert(context)  # type: ignore[arg-type]  # passed on
    return context


def _session(running: Session, ca: trustme.CA, ca_file: Path, offset: int) -> TlsSession:
    def at(url: str, scheme: str, port: int) -> str:
        parts = urlsplit(url)
        return parts._replace(scheme=scheme, netloc=f"{parts.netloc.rpartition(':')[0]}:{port}").geturl()

    plain = running.addresses
    verified = "?sslmode=verify-full"
    bare = replace(
        plain,
        amqp_by_user={user: at(url, "amqps", _AMQPS + offset) for user, url in plain.amqp_by_user.items()},
        management_by_user={user: at(url, "https", _HTTPS + offset) for user, url in plain.management_by_user.items()},
        postgres_by_role={role: url + verified for role, url in plain.postgres_by_role.items()},
        postgres_administrator=plain.postgres_administrator + verified,
        redis=at(plain.redis, "rediss", _REDISS + offset),
        redis_by_role={role: at(url, "rediss", _REDISS + offset) for role, url in plain.redis_by_role.items()},
    )

    def named(urls: object) -> object:
        if isinstance(urls, str):
            return completed(urls, ca_file=ca_file)
        assert isinstance(urls, dict)
        return {name: completed(url, ca_file=ca_file) for name, url in urls.items()}

    whole = {one.name: named(getattr(bare, one.name)) for one in fields(bare)}
    kept = {one.name: getattr(running, one.name) for one in fields(running)}
    return TlsSession(**{**kept, "addresses": Addresses(**whole)}, bare=bare, ca=ca, ca_file=ca_file)  # type: ignore[arg-type]  # as they were


def _turn_on_in_redis(running: Session, folder: Path, port: int) -> None:
    with redis.Redis.from_url(running.redis_url) as connection:
        for name, value in {
            "tls-cert-file": folder / "certificate.pem",
            "tls-key-file": folder / "key.pem",
            "tls-ca-cert-file": folder / "ca.pem",
            "tls-auth-clients": "no",
            "tls-port": port,
        }.items():
            connection.config_set(name, str(value))


def _turn_on_in_postgres(running: Session, folder: Path) -> None:
    url = urlsplit(running.addresses.postgres_administrator)._replace(path=f"/{DATABASE}").geturl()
    with psycopg.connect(url, autocommit=True) as connection:
        places = connection.execute("select current_setting('data_directory'), current_setting('hba_file')").fetchone()
        assert places
        data, access = map(Path, places)
        key, owner = data / "key.pem", data.stat()
        shutil.copy(folder / "key.pem", key)
        os.chown(key, owner.st_uid, owner.st_gid)
        connection.execute(f"alter system set ssl_cert_file = '{folder / 'certificate.pem'}'".encode())
        connection.execute(f"alter system set ssl_key_file = '{key}'".encode())
        connection.execute("alter system set ssl = on")
        connection.execute(f"alter system set ssl_ca_file = '{folder / 'ca.pem'}'".encode())
        access.write_text(_ACCESS, encoding="ascii")
        connection.execute("select pg_reload_conf()")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (_opens(f"{url}?sslmode=require") and not _opens(f"{url}?sslmode=disable")):
        assert time.monotonic() < deadline, "PostgreSQL does not turn TLS on"
        time.sleep(0.05)


def _opens(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error:
        return False
    return True
