"""ISH Chat's own processes and the stand-ins: what to run, with which settings, and when they are ready."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.settings import Settings, child_environment
from ops.stack.adb_server import AdbServer
from ops.stack.addresses import Addresses
from ops.stack.child import Spec
from ops.stack.layout import LOOPBACK, PHONE_HOST, Layout
from ops.stack.probes import http_answers, worker_consumes
from ops.stack.secrets import write_private

POOLS = ("relay", "ai", "android", "outbox")
MODEL = "smollm2-135m"

_ROOT = Path(__file__).parents[2]
_ROLES = {"gateway": "gateway", "outbox": "outbox"}
_CHOSEN_HERE = frozenset(
    {
        "amqp_url",
        "postgres_url",
        "redis_url",
        "rabbitmq_management_url",
        "gateway_url",
        "gateway_host",
        "gateway_port",
        "api_key",
        "adb_servers",
        "providers_file",
        "metrics_host",
        "metrics_port",
        "state_dir",
        "cache_dir",
        "port_offset",
        "log_format",
    }
)
"""Settings that the stack decides for each process; every other one is handed on as it was given."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Builds the specs of one stack's processes."""

    layout: Layout
    settings: Settings
    addresses: Addresses
    providers_file: str

    def gateway(self) -> Spec:
        """The HTTP gateway."""
        ports = self.layout.ports
        variables = {"ISH_GATEWAY_HOST": self.layout.gateway_host, "ISH_GATEWAY_PORT": str(ports.gateway)}
        return Spec(
            name="gateway",
            argv=_python("gateway"),
            environment=self._environment("gateway", variables),
            log_file=self.layout.logs_dir / "gateway.log",
            ready=lambda: http_answers(f"{self.layout.gateway_url}/ready"),
            listens=((self.layout.gateway_host, ports.gateway),),
            port_setting="ISH_GATEWAY_PORT or ISH_PORT_OFFSET",
            stop_seconds=self.settings.stop_grace_seconds + 10,
        )

    def workers(self, counts: Mapping[str, int]) -> list[Spec]:
        """The worker processes.

        Args:
            counts: Processes per pool; a pool that is not named gets one.
        """
        names = [(pool, number) for pool in POOLS for number in range(1, counts.get(pool, 1) + 1)]
        return [self._worker(pool, number, place) for place, (pool, number) in enumerate(names)]

    def model(self, libraries: Mapping[str, str]) -> Spec:
        """The small language model on this machine.

        Args:
            libraries: Added to its environment, so that it finds what the machine does not have.
        """
        port = self.layout.ports.model
        return Spec(
            name="model",
            argv=(*_python("ops.simulators.model"), "--port", str(port)),
            environment=_own_environment(libraries),
            log_file=self.layout.logs_dir / "model.log",
            ready=lambda: http_answers(f"http://{LOOPBACK}:{port}/health"),
            listens=((LOOPBACK, port),),
        )

    def phone(self, server: AdbServer) -> Spec:
        """The simulated phone; ready when the adb server may use it.

        Args:
            server: Which is told to connect to it.
        """
        device = f"{PHONE_HOST}:{self.layout.ports.phone}"
        return Spec(
            name="phone",
            argv=(*_python("ops.simulators.phone"), "--listen", device),
            environment=_own_environment({}),
            log_file=self.layout.logs_dir / "phone.log",
            ready=lambda: server.connect(device),
            listens=((PHONE_HOST, self.layout.ports.phone),),
        )

    def _worker(self, pool: str, number: int, place: int) -> Spec:
        port = self.layout.ports.worker_metrics + place
        variables = {"ISH_METRICS_PORT": str(port), "ISH_ADB_SERVERS": self.addresses.adb_servers}
        if self.providers_file:
            variables["ISH_PROVIDERS_FILE"] = self.providers_file
        name, metrics = f"{pool}-{number}", f"http://{LOOPBACK}:{port}/metrics"
        return Spec(
            name=name,
            argv=(*_python("workers"), pool),
            environment=self._environment(_ROLES.get(pool, "worker"), variables),
            log_file=self.layout.logs_dir / f"{name}.log",
            # the outbox worker has no work queue of its own to consume
            ready=lambda: http_answers(metrics) if pool == "outbox" else worker_consumes(metrics),
            listens=((LOOPBACK, port),),
            stop_seconds=self.settings.stop_grace_seconds + 10,
        )

    def _environment(self, role: str, variables: Mapping[str, str]) -> dict[str, str]:
        urls = {
            "ISH_AMQP_URL": self.addresses.amqp_by_user[role],
            "ISH_POSTGRES_URL": self.addresses.postgres_by_role[f"ish_{role}"],
            "ISH_REDIS_URL": self.addresses.redis_by_role.get(role, ""),
        }
        files = {}
        for name, url in urls.items():
            path = self.layout.secrets_dir / f"{name.removeprefix('ISH_').lower().replace('_', '-')}-{role}"
            if not url:
                path.unlink(missing_ok=True)  # an earlier version gave every role every address
                continue
            write_private(path, url)
            files[f"{name}_FILE"] = str(path)
        return _own_environment({**_handed_on(self.settings), **files, **variables})


def write_model_provider(layout: Layout) -> str:
    """Write the provider file that makes the local model the default provider.

    Args:
        layout: Folders and ports.

    Returns:
        Its path.
    """
    path = layout.state_dir / "providers.toml"
    write_private(
        path,
        f"""\
# Written at every start of the stack. To use other providers, write a file of your own and set ISH_PROVIDERS_FILE.
[providers.local]
dialect = "openai"
base_url = "http://{LOOPBACK}:{layout.ports.model}/v1"

[providers.local.models."{MODEL}"]

[aliases.default]
policy = "priority"
models = ["local/{MODEL}"]
""",
    )
    return str(path)


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module)


def _own_environment(variables: Mapping[str, str]) -> dict[str, str]:
    return child_environment(
        {
            "PYTHONPATH": str(_ROOT),
            "PYTHONSAFEPATH": "1",  # modules come from us and the environment, never from the current folder
            "PYTHONUNBUFFERED": "1",
            "ISH_LOG_FORMAT": "json",
            **variables,
        }
    )


def _handed_on(settings: Settings) -> dict[str, str]:
    names = settings.model_fields_set - _CHOSEN_HERE
    return {f"ISH_{name.upper()}": str(getattr(settings, name)) for name in sorted(names)}
