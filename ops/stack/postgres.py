"""The stack's own PostgreSQL: its data folder, its configuration and the user it runs as."""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from ops.stack.binaries import Programs
from ops.stack.child import RunAs, Spec, environment
from ops.stack.errors import StackError
from ops.stack.layout import LOOPBACK, Layout
from ops.stack.probes import postgres_answers
from ops.stack.secrets import secret, write_private

ADMINISTRATOR = "postgres"
"""The superuser; used for set-up only."""

_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
password_encryption = scram-sha-256
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %u '

# a client that is gone or frozen must not hold rows: a half-open connection is freed in 5 s, a killed client's
# statement in half a second, a transaction that somebody forgot in 10 s
tcp_keepalives_idle = 3
tcp_keepalives_interval = 1
tcp_keepalives_count = 3
tcp_user_timeout = 5000
client_connection_check_interval = 500
idle_in_transaction_session_timeout = 10s
lock_timeout = 10s
"""
_ACCESS = """\
# only over TCP on this machine, only with a password
host all all 127.0.0.1/32 scram-sha-256
"""


class Postgres:
    """One private PostgreSQL server."""

    def __init__(self, layout: Layout, programs: Programs) -> None:
        self._layout = layout
        self._programs = programs
        self._user = _service_user()
        self._home = _home(layout, self._user)
        self.password = secret(layout.secrets_dir, "postgres-postgres")

    @property
    def data_dir(self) -> Path:
        """The cluster's files."""
        return self._home / "data"

    @property
    def administrator_url(self) -> str:
        """The superuser's address, to the database `postgres`."""
        return f"postgresql://{ADMINISTRATOR}:{self.password}@{LOOPBACK}:{self._layout.ports.postgres}/postgres"

    def prepare(self) -> None:
        """Create the cluster at the first start, and write its configuration.

        Raises:
            StackError: The data is of another major version, or initdb failed.
        """
        if (self.data_dir / "PG_VERSION").exists():
            self._refuse_other_version()
        else:
            self._initialise()
        self._give("postgresql.conf", f"port = {self._layout.ports.postgres}\n{_CONFIGURATION}")
        self._give("pg_hba.conf", _ACCESS)

    def spec(self) -> Spec:
        """How to run it."""
        return Spec(
            name="postgres",
            argv=(
                self._programs.path("postgres"),
                "-D",
                str(self.data_dir),
                f"--config_file={self._home / 'postgresql.conf'}",
                f"--hba_file={self._home / 'pg_hba.conf'}",
            ),
            environment=self._environment(),
            log_file=self._layout.logs_dir / "postgres.log",
            ready=lambda: postgres_answers(self.administrator_url),
            listens=((LOOPBACK, self._layout.ports.postgres),),
            run_as=self._user,
            folder=self._home,
            stop_signal=signal.SIGINT,  # "fast": disconnects clients; SIGTERM would wait for them
        )

    def _environment(self) -> dict[str, str]:
        return environment({**self._programs.environment, "LC_ALL": "C.UTF-8", "TZ": "UTC"}, without="PG")

    def _refuse_other_version(self) -> None:
        major = (self.data_dir / "PG_VERSION").read_text(encoding="ascii").strip()
        if int(major) != self._programs.version[0]:
            message = (
                f"the data in {self.data_dir} was written by PostgreSQL {major}, and the one found here is "
                f"{self._programs.version[0]}: install {major}, or set ISH_STATE_DIR to start with empty data"
            )
            raise StackError(message)

    def _initialise(self) -> None:
        fresh = self._home / "data.new"  # renamed when whole, so that an interrupted start leaves no half of it
        shutil.rmtree(fresh, ignore_errors=True)
        self._give("password", self.password)
        argv = [
            self._programs.path("initdb"),
            f"--pgdata={fresh}",
            f"--username={ADMINISTRATOR}",
            f"--pwfile={self._home / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        finished = subprocess.run(
            argv,
            env=self._environment(),
            cwd=self._home,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        (self._home / "password").unlink()
        if finished.returncode:
            said = (finished.stderr.strip() or "no message").splitlines()
            message = f"PostgreSQL's initdb failed: {' '.join(line.strip() for line in said)[:500]}"
            raise StackError(message)
        fresh.rename(self.data_dir)

    def _give(self, name: str, content: str) -> None:
        path = self._home / name
        write_private(path, content)
        if self._user:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)


def written_by(layout: Layout) -> int | None:
    """The major version that existing data needs; None when there is no data yet.

    Args:
        layout: The stack's folders.
    """
    version = _home(layout, _service_user()) / "data" / "PG_VERSION"
    return int(version.read_text(encoding="ascii")) if version.exists() else None


def _service_user() -> "pwd.struct_passwd | None":
    """The user for PostgreSQL when the stack runs as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackError("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")


def _home(layout: Layout, user: RunAs | None) -> Path:
    """The service's folder: in the state folder, or under /var/tmp when its user could not get there."""
    inside = layout.state_dir / "postgres"
    if user is None:
        return layout.folder("postgres")
    place = inside
    if not _passable(layout.state_dir):
        key = hashlib.sha256(str(layout.state_dir).encode()).hexdigest()[:16]
        place = Path("/var/tmp") / f"ish-{key}"  # noqa: S108  # made 0700 below, and refused if somebody else's
        note = inside / "README"
        if not note.exists() and place.exists() and place.lstat().st_uid == user.pw_uid:
            shutil.rmtree(place)  # of a state folder that was deleted, and its passwords with it
        inside.mkdir(exist_ok=True)
        note.write_text(
            f"PostgreSQL runs as another user, who may not enter this folder: its data is in {place}\n",
            encoding="utf-8",
        )
    place.mkdir(mode=0o700, exist_ok=True)
    owner = place.lstat().st_uid
    if owner not in {0, user.pw_uid}:
        if place != inside:
            message = f"{place} belongs to another user: remove it, or set ISH_STATE_DIR"
            raise StackError(message)
        return place
    os.chown(place, user.pw_uid, user.pw_gid)
    return place


def _passable(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
