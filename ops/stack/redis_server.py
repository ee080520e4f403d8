"""The stack's own Redis: a cache on loopback that keeps nothing on disk, with a user for each role that uses it.

Each user may touch its own keys with the commands that its process sends (Redis 6.2 and later, Valkey). The default user,
whose password is the oldest secret of a state folder, may do everything: it is for set-up and for a person.
Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

import hashlib
from collections.abc import Mapping

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
{users}
"""

RIGHTS: Mapping[str, str] = {
    "gateway": "~ish:result:* ~ish:tokens:* +get +set +xread +xadd +expire",
    "worker": (
        "~ish:answer:* ~ish:unrecorded:* ~ish:tokens:* ~{ish:ai}* &{ish:ai}:freed"
        " +get +set +del +getdel +exists +expire +pexpire +incr +incrby +decrby +time"
        " +hget +hset +hdel +hgetall +hmget +xadd"
        " +zadd +zcard +zrange +zrangebyscore +zrank +zrem +zremrangebyscore"
        " +eval +evalsha +script|load +subscribe +unsubscribe +publish"
    ),
    "ops": "~ish:* ~{ish:ai}* +get +ttl +pttl +type +scan +xread +xlen +hgetall +zrange +zcard +dbsize +info",
}
"""What each role's user may do, beside logging in. The outbox worker uses no Redis."""
_EVERYBODY = "+auth +hello +ping +select +client|setname +client|id"


class Redis:
    """One private Redis server."""

    def __init__(self, layout: Layout, programs: Programs) -> None:
        self._layout = layout
        self._programs = programs
        self._home = layout.folder("redis")
        self._password = secret(layout.secrets_dir, "redis")
        self._passwords = {role: secret(layout.secrets_dir, f"redis-{role}") for role in RIGHTS}

    @property
    def url(self) -> str:
        """Its address as the user that may do everything."""
        return f"redis://:{self._password}@{LOOPBACK}:{self._layout.ports.redis}/0"

    def url_of(self, role: str) -> str:
        """Its address for one role.

        Args:
            role: A key of `RIGHTS`.
        """
        return f"redis://{role}:{self._passwords[role]}@{LOOPBACK}:{self._layout.ports.redis}/0"

    def prepare(self) -> None:
        """Write its configuration."""
        values = {
            "port": self._layout.ports.redis,
            "password": self._password,
            "folder": self._home,
            "users": "\n".join(_user(role, password) for role, password in self._passwords.items()),
        }
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


def _user(role: str, password: str) -> str:
    digest = hashlib.sha256(password.encode()).hexdigest()
    return f"user {role} reset on #{digest} {RIGHTS[role]} {_EVERYBODY}"
