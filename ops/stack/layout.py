"""Where one stack keeps its files and which ports it uses; two stacks differ in nothing else."""

import os
from dataclasses import dataclass
from pathlib import Path

from contracts.settings import Settings


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one stack, each its default plus the offset."""

    gateway: int
    postgres: int
    redis: int
    amqp: int
    management: int
    broker_metrics: int
    erlang: int
    epmd: int
    adb: int
    phone: int
    model: int
    worker_metrics: int
    """The first of a row: each worker process takes the next one."""

    @classmethod
    def at(cls, offset: int, *, gateway: int | None = None) -> "Ports":
        """The ports of a stack.

        Args:
            offset: Added to every default, `ISH_PORT_OFFSET`.
            gateway: The gateway's port when it was chosen by itself, `ISH_GATEWAY_PORT`.
        """
        return cls(
            gateway=gateway if gateway is not None else 8000 + offset,
            postgres=5435 + offset,
            redis=6380 + offset,
            amqp=5673 + offset,
            management=15673 + offset,
            broker_metrics=15693 + offset,
            erlang=25673 + offset,
            epmd=4370 + offset,
            adb=5038 + offset,
            phone=5600 + offset,
            model=8089 + offset,
            worker_metrics=9101 + offset,
        )


LOOPBACK = "127.0.0.1"
PHONE_HOST = "127.0.0.2"
"""Not 127.0.0.1: adb shows a device listening there as an emulator, under another serial."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One stack's folders and ports."""

    state_dir: Path
    ports: Ports
    gateway_host: str = LOOPBACK

    @classmethod
    def of(cls, settings: Settings) -> "Layout":
        """The layout that the settings ask for.

        Args:
            settings: Where `ISH_STATE_DIR`, `ISH_PORT_OFFSET` and the gateway's address stand.
        """
        chosen = settings.gateway_port if "gateway_port" in settings.model_fields_set else None
        return cls(
            state_dir=settings.state_dir.expanduser().absolute(),
            ports=Ports.at(settings.port_offset, gateway=chosen),
            gateway_host=settings.gateway_host,
        )

    @property
    def gateway_url(self) -> str:
        """Where a person on this machine finds the gateway."""
        host = LOOPBACK if self.gateway_host in {"0.0.0.0", "::"} else self.gateway_host  # noqa: S104  # compared, not bound
        return f"http://{host}:{self.ports.gateway}"

    @property
    def secrets_dir(self) -> Path:
        """Generated passwords and the URLs that carry them."""
        return self.state_dir / "secrets"

    @property
    def logs_dir(self) -> Path:
        """One log file per service and process."""
        return self.state_dir / "logs"

    @property
    def state_file(self) -> Path:
        """What runs now: pids with start times, ports, states."""
        return self.state_dir / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one supervisor of this stack."""
        return self.state_dir / "lock"

    @property
    def environment_file(self) -> Path:
        """Addresses and the key, for scripts to source."""
        return self.state_dir / "env"

    def folder(self, name: str) -> Path:
        """A private folder under the state folder, created if need be.

        Args:
            name: A service's or process's name.
        """
        path = self.state_dir / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def create(self) -> None:
        """Create the folders; others may pass through the state folder but see nothing in it."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        # PostgreSQL runs as another user when the stack runs as root, and must reach its data in here
        self.state_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.folder("secrets")
        self.folder("logs")
