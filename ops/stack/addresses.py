"""Which address each process uses: the stack's own services, or what `ISH_*` gives from outside.

Every user and role has an address of its own. For services given from outside the address given must be an
administrator's: set-up makes the same users and roles there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from contracts.addresses import ADB_PORT, read_addresses, write_addresses
from contracts.settings import Settings
from ops.stack import rabbitmq, redis_server
from ops.stack.errors import StackError
from ops.stack.layout import LOOPBACK, PHONE_HOST, Layout
from ops.stack.secrets import secret
from ops.stack.services import Services

OWNER_ROLE = "ish_owner"
POSTGRES_ROLES = (OWNER_ROLE, "ish_gateway", "ish_worker", "ish_outbox", "ish_ops")
DATABASE = "ish"
_TLS_OPTIONS = ("cafile", "certfile", "keyfile")
_OWN_HOSTS = {LOOPBACK, "localhost", "::1", PHONE_HOST}


@dataclass(frozen=True, slots=True)
class Given:
    """Addresses from outside; empty for what the stack starts itself."""

    amqp_url: str
    management_url: str
    postgres_url: str
    redis_url: str
    adb_servers: str
    """Those of others, comma-separated."""
    providers_file: str
    adb_too: bool = False
    """Whether the stack's own adb server was named beside others."""

    @classmethod
    def of(cls, settings: Settings, layout: Layout) -> "Given":
        """What the settings give, without this stack's own addresses, which `source .ish/env` leaves in a shell.

        Args:
            settings: The settings.
            layout: This stack's ports.
        """
        ports = layout.ports

        def foreign(url: str, port: int) -> str:
            parts = urlsplit(url)
            if "," in parts.netloc:
                return url  # several hosts, as PostgreSQL's own clients take them
            return "" if parts.hostname in _OWN_HOSTS and parts.port == port else url

        amqp_url = foreign(settings.amqp_url, ports.amqp)
        named = read_addresses(settings.adb_servers, default_port=ADB_PORT)
        others = [(host, port) for host, port in named if host not in _OWN_HOSTS or port != ports.adb]
        return cls(
            amqp_url=amqp_url,
            management_url=foreign(settings.rabbitmq_management_url, ports.management) or _management_beside(amqp_url),
            postgres_url=foreign(settings.postgres_url, ports.postgres),
            redis_url=foreign(settings.redis_url, ports.redis),
            adb_servers=write_addresses(others),
            adb_too=0 < len(others) < len(named),
            providers_file=_foreign_file(settings.providers_file, layout),
        )

    @classmethod
    def nothing(cls) -> "Given":
        """No address is given: the stack starts everything."""
        return cls("", "", "", "", "", "")

    @property
    def services(self) -> frozenset[str]:
        """Names of the services that the stack must not start."""
        named = {
            "rabbitmq": self.amqp_url,
            "postgres": self.postgres_url,
            "redis": self.redis_url,
            "adb": "" if self.adb_too else self.adb_servers,
        }
        return frozenset(name for name, address in named.items() if address)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every address of one stack, with passwords: for files of mode 0600, never for logs or command lines."""

    amqp_by_user: Mapping[str, str]
    management_by_user: Mapping[str, str]
    postgres_by_role: Mapping[str, str]
    postgres_administrator: str
    redis: str
    redis_by_role: Mapping[str, str]
    """Of the roles that use Redis; one given from outside is used as it was given."""
    adb_servers: str

    @classmethod
    def of(cls, layout: Layout, services: Services, given: Given) -> "Addresses":
        """Put together what is started and what is given.

        Args:
            layout: Folders and ports.
            services: What the stack starts.
            given: What it does not.
        """
        if services.rabbitmq:
            amqp = {user: services.rabbitmq.url(user) for user in rabbitmq.USERS}
            management = {user: services.rabbitmq.management_url(user) for user in (rabbitmq.ADMINISTRATOR, "ops")}
        else:
            passwords = {user: secret(layout.secrets_dir, f"rabbitmq-{user}") for user in rabbitmq.USERS}
            amqp = {user: with_login(given.amqp_url, user, password) for user, password in passwords.items()}
            amqp[rabbitmq.ADMINISTRATOR] = given.amqp_url
            management = {
                rabbitmq.ADMINISTRATOR: given.management_url,
                "ops": with_login(given.management_url, "ops", passwords["ops"]),
            }
        administrator = services.postgres.administrator_url if services.postgres else given.postgres_url
        database = urlsplit(administrator)
        if services.postgres:
            database = database._replace(path=f"/{DATABASE}")
        return cls(
            amqp_by_user=amqp,
            management_by_user=management,
            postgres_by_role={
                role: with_login(urlunsplit(database), role, secret(layout.secrets_dir, f"postgres-{role}"))
                for role in POSTGRES_ROLES
            },
            postgres_administrator=administrator,
            redis=services.redis.url if services.redis else given.redis_url,
            redis_by_role={
                role: services.redis.url_of(role) if services.redis else given.redis_url for role in redis_server.RIGHTS
            },
            adb_servers=",".join(filter(None, (services.adb.address if services.adb else "", given.adb_servers))),
        )


def with_login(url: str, user: str, password: str) -> str:
    """The same address for another user.

    Args:
        url: Any URL with a host.
        user: Its user.
        password: Its password, quoted as needed.
    """
    parts = urlsplit(url)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"))


def _management_beside(amqp_url: str) -> str:
    """RabbitMQ's management API is on the broker's host, port 15672 (15671 with TLS), unless something else is said."""
    if not amqp_url:
        return ""
    parts = urlsplit(amqp_url)
    if not parts.hostname or not parts.username:
        raise StackError("ISH_AMQP_URL must be an administrator's address, amqp://user:password@host:port/%2F")
    login = parts.netloc.rsplit("@", 1)[0]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.scheme != "amqps":
        return f"http://{login}@{host}:15672"
    options = urlencode([one for one in parse_qsl(parts.query) if one[0] in _TLS_OPTIONS], quote_via=quote)
    return f"https://{login}@{host}:15671" + (f"/?{options}" if options else "")


def _foreign_file(path: str, layout: Layout) -> str:
    return "" if not path or Path(path).absolute().parent == layout.state_dir else path
