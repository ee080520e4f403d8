"""The stack's own RabbitMQ node and its epmd: configuration, users, and the environment its scripts want."""

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from contracts import topology
from ops.stack.binaries import Programs
from ops.stack.child import Spec, environment
from ops.stack.errors import StackError
from ops.stack.layout import LOOPBACK, Layout
from ops.stack.probes import amqp_answers, port_is_free
from ops.stack.secrets import secret, write_private

ADMINISTRATOR = "admin"
"""Used for set-up only."""
USERS = (ADMINISTRATOR, *topology.ROLES)

_CONFIGURATION = """\
listeners.tcp.default = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {metrics}
loopback_users = none
log.console = true
log.console.level = info
log.file = false
heartbeat = 10
max_message_size = 16777216
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 256MB
definitions.import_backend = local_filesystem
definitions.local.path = {definitions}
definitions.skip_if_unchanged = true
"""


_NAMES = """\
%% the node's name must resolve also on a machine without /etc/hosts
{host, {127,0,0,1}, ["localhost"]}.
{lookup, [file, native]}.
"""


class RabbitMQ:
    """One private RabbitMQ node."""

    def __init__(self, layout: Layout, programs: Programs) -> None:
        self._layout = layout
        self._programs = programs
        self._home = layout.folder("rabbitmq")
        self._passwords = {user: secret(layout.secrets_dir, f"rabbitmq-{user}") for user in USERS}

    def url(self, user: str) -> str:
        """A user's AMQP address.

        Args:
            user: One of `USERS`.
        """
        return f"amqp://{user}:{quote(self._passwords[user], safe='')}@{LOOPBACK}:{self._layout.ports.amqp}/%2F"

    def management_url(self, user: str) -> str:
        """A user's address of the management API.

        Args:
            user: `admin` or `ops`; the others may not use it.
        """
        return f"http://{user}:{quote(self._passwords[user], safe='')}@{LOOPBACK}:{self._layout.ports.management}"

    def prepare(self) -> None:
        """Write the configuration and the definitions that a boot imports.

        Raises:
            StackError: A folder's path holds a space.
        """
        for folder, setting in ((self._home, "ISH_STATE_DIR"), (self._programs.folder, "ISH_CACHE_DIR")):
            if " " in str(folder):
                message = f"RabbitMQ's scripts cannot take the space in {folder}: set {setting} to another folder"
                raise StackError(message)
        definitions = self._home / "definitions.json"
        write_private(definitions, json.dumps(self._definitions(), indent=2))
        ports = self._layout.ports
        configuration = _CONFIGURATION.format(
            amqp=ports.amqp, management=ports.management, metrics=ports.broker_metrics, definitions=definitions
        )
        write_private(self._home / "rabbitmq.conf", configuration)
        write_private(self._home / "advanced.config", "[].\n")
        write_private(self._home / "inetrc", _NAMES)
        write_private(self._home / "rabbitmq-env.conf", "")
        write_private(self._home / "enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n")

    def configure(self, lines: str) -> None:
        """Add to the configuration that `prepare` wrote.

        Args:
            lines: In the form of rabbitmq.conf.
        """
        with (self._home / "rabbitmq.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(lines)

    def epmd_spec(self) -> Spec:
        """Erlang's port mapper, on a port of this stack, so that it never meets another node's."""
        port = self._layout.ports.epmd
        return Spec(
            name="epmd",
            argv=(self._epmd(), "-port", str(port), "-address", LOOPBACK),
            environment=environment(self._programs.environment),
            log_file=self._layout.logs_dir / "epmd.log",
            ready=lambda: not port_is_free(LOOPBACK, port),
            listens=((LOOPBACK, port),),
        )

    def spec(self) -> Spec:
        """How to run the node; epmd must be running."""
        ports = self._layout.ports
        return Spec(
            name="rabbitmq",
            argv=(self._programs.path("rabbitmq-server"),),
            environment=environment({**self._programs.environment, **self._environment()}, without="RABBITMQ_"),
            log_file=self._layout.logs_dir / "rabbitmq.log",
            ready=lambda: amqp_answers(LOOPBACK, ports.amqp),
            listens=tuple(
                (LOOPBACK, port) for port in (ports.amqp, ports.management, ports.broker_metrics, ports.erlang)
            ),
            folder=self._home,
            start_seconds=120,
            stop_seconds=30,
        )

    def _epmd(self) -> str:
        for folder in self._programs.environment.get("PATH", "").split(":"):
            if (Path(folder) / "epmd").exists():
                return str(Path(folder) / "epmd")
        return "epmd"

    def _environment(self) -> dict[str, str]:
        home = self._home
        return {
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "RABBITMQ_NODENAME": "ish@localhost",
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_MNESIA_DIR": str(home / "mnesia/ish"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(home / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_LOG_BASE": str(home / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_DIST_PORT": str(self._layout.ports.erlang),
            "ERL_EPMD_PORT": str(self._layout.ports.epmd),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_INETRC": str(home / "inetrc"),
            "ERL_MAX_PORTS": "4096",
            # idle schedulers sleep instead of spinning; Erlang's own port stays on loopback
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def _definitions(self) -> dict[str, object]:
        return {
            "vhosts": [{"name": "/"}],
            "users": [
                {
                    "name": user,
                    "password_hash": password_hash(self._passwords[user]),
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": {"admin": ["administrator"], "ops": ["monitoring"]}.get(user, []),
                }
                for user in USERS
            ],
            "permissions": [{"user": user, "vhost": "/", **_permissions(user)} for user in USERS],
            "topic_permissions": [],
            "parameters": [],
            "policies": [],
            "queues": [],
            "exchanges": [],
            "bindings": [],
        }


def password_hash(password: str) -> str:
    """RabbitMQ's salted hash; see https://www.rabbitmq.com/docs/passwords.

    The salt is made from the password, so that unchanged passwords give unchanged definitions, which a boot skips.

    Args:
        password: 256 random bits or so: a guessable one would need a random salt.
    """
    salt = hashlib.sha256(b"ish salt " + password.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _permissions(user: str) -> dict[str, str]:
    if user == ADMINISTRATOR:
        return {"configure": ".*", "write": ".*", "read": ".*"}
    rights = asdict(topology.permissions(user))
    return {name: rights[name] for name in ("configure", "write", "read")}
