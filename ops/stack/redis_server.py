"""The stack's own Redis: a cache with a password, on loopback, that keeps nothing on disk."""

from ops.stack.binaries import Programs
from ops.stack.child import Spec, environment
from ops.stack.layout import LOOPBACK, Layout
from ops.stack.probes import redis_answers
from ops.stack.secrets import secret, write_private

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
protected-mode yes
daemonize no
requirepass {password}
save ""
appendonly no
maxmemory 256mb
maxmemory-policy volatile-lru
dir {folder}
"""


class Redis:
    """One private Redis server."""

    def __init__(self, layout: Layout, programs: Programs) -> None:
        self._layout = layout
        self._programs = programs
        self._home = layout.folder("redis")
        self._password = secret(layout.secrets_dir, "redis")

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"redis://:{self._password}@{LOOPBACK}:{self._layout.ports.redis}/0"

    def prepare(self) -> None:
        """Write its configuration."""
        values = {"port": self._layout.ports.redis, "password": self._password, "folder": self._home}
        write_private(self._home / "redis.conf", _CONFIGURATION.format(**values))

    def spec(self) -> Spec:
        """How to run it."""
        program = next(name for name in ("redis-server", "valkey-server") if (self._programs.folder / name).exists())
        return Spec(
            name="redis",
            argv=(self._programs.path(program), str(self._home / "redis.conf")),
            environment=environment(self._programs.environment),
            log_file=self._layout.logs_dir / "redis.log",
            ready=lambda: redis_answers(self.url),
            listens=((LOOPBACK, self._layout.ports.redis),),
            folder=self._home,
        )
