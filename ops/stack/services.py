"""RabbitMQ, PostgreSQL, Redis and the adb server of one stack, as one thing to start, stop and address."""

from dataclasses import dataclass

from ops.stack.adb_server import AdbServer
from ops.stack.binaries import Finder, adb
from ops.stack.child import Spec
from ops.stack.layout import Layout
from ops.stack.postgres import Postgres, written_by
from ops.stack.rabbitmq import RabbitMQ
from ops.stack.redis_server import Redis


@dataclass(frozen=True, slots=True)
class Services:
    """What a stack starts itself; None for what is given from outside."""

    rabbitmq: RabbitMQ | None
    postgres: Postgres | None
    redis: Redis | None
    adb: AdbServer | None

    @classmethod
    def find(cls, layout: Layout, finder: Finder, *, without: frozenset[str] = frozenset()) -> "Services":
        """Find (or download) the programs and prepare every service for its start.

        Args:
            layout: Folders and ports.
            finder: Of programs.
            without: Names among rabbitmq, postgres, redis, adb that are given from outside.

        Raises:
            StackError: A program is nowhere to be had.
        """
        layout.create()
        services = cls(
            rabbitmq=None if "rabbitmq" in without else RabbitMQ(layout, finder.rabbitmq()),
            postgres=None if "postgres" in without else Postgres(layout, finder.postgres(major=written_by(layout))),
            redis=None if "redis" in without else Redis(layout, finder.redis()),
            adb=None if "adb" in without else AdbServer(layout, adb()),
        )
        for service in (services.rabbitmq, services.postgres, services.redis):
            if service is not None:
                service.prepare()
        return services

    def specs(self) -> list[Spec]:
        """What to run, in the order to start it; RabbitMQ, the slowest, first."""
        specs = [self.rabbitmq.epmd_spec(), self.rabbitmq.spec()] if self.rabbitmq else []
        specs += [service.spec() for service in (self.postgres, self.redis, self.adb) if service is not None]
        return specs
