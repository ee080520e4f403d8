"""Finds the programs of the services: on this machine in a good version, else from the distribution's packages."""

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts.settings import child_environment
from ops.stack import packages
from ops.stack.errors import StackError

MINIMUM = {"RabbitMQ": (3, 10), "PostgreSQL": (14,), "Redis": (6, 2)}
"""RabbitMQ before 3.10 has no time to live on quorum queues; see the settings table in the README."""

_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/sbin:/opt/homebrew/bin"
_SAY_NOTHING: Callable[[str], None] = lambda _: None  # noqa: E731  # a named no-op reads better as a default


@dataclass(frozen=True, slots=True)
class Programs:
    """A service's programs: where they are and what they need to run."""

    folder: Path
    version: tuple[int, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to whatever runs them: `PATH` and `LD_LIBRARY_PATH` of a private tree."""
    private: bool = False
    """Downloaded by us, not the machine's own."""

    def path(self, name: str) -> str:
        """One program.

        Args:
            name: Such as `initdb`.
        """
        return str(self.folder / name)


@dataclass(frozen=True, slots=True)
class Finder:
    """Looks for programs, and downloads what the machine does not have."""

    cache_dir: Path
    say: Callable[[str], None] = _SAY_NOTHING
    use_machine: bool = True
    """False downloads even what the machine has; for trying the download itself."""

    def rabbitmq(self) -> Programs:
        """RabbitMQ's own scripts (`/usr/sbin/rabbitmq*` change the user, these do not) and an Erlang to run them."""
        return self._find("RabbitMQ", _rabbitmq_on_machine, self._rabbitmq_from_packages)

    def postgres(self, *, major: int | None = None) -> Programs:
        """PostgreSQL's server programs, the newest found.

        Args:
            major: The only major version that will do, because data of it exists.
        """

        def on_machine() -> Iterable[Programs]:
            return [found for found in _postgres_on_machine() if major in {None, found.version[0]}]

        return self._find("PostgreSQL", on_machine, self._postgres_from_packages)

    def redis(self) -> Programs:
        """A Redis server, or Valkey, which speaks the same protocol."""
        return self._find("Redis", _redis_on_machine, self._redis_from_packages)

    def openmp(self) -> Mapping[str, str]:
        """What the local model's process needs in its environment to find the OpenMP library.

        Raises:
            StackError: It is not on this machine and cannot be downloaded.
        """
        try:
            ctypes.CDLL("libgomp.so.1")
        except OSError:
            root = packages.unpacked(
                self.cache_dir, "libgomp1", package="libgomp1", relocate=lambda _: None, say=self.say
            )
            return {"LD_LIBRARY_PATH": packages.library_path(root)}
        return {}

    def _find(
        self, name: str, on_machine: Callable[[], Iterable[Programs]], from_packages: Callable[[], Programs]
    ) -> Programs:
        refused = []
        for found in on_machine() if self.use_machine else ():
            if found.version >= MINIMUM[name]:
                return found
            refused.append(f"{name} {_dotted(found.version)} in {found.folder} is too old")
        for sentence in refused:
            self.say(sentence)
        needed = f"{name} {_dotted(MINIMUM[name])} or newer is needed"
        try:
            found = from_packages()
        except StackError as error:
            reasons = "; ".join([needed, *refused, f"downloading it failed: {error}"])
            message = (
                f"{reasons}. Install rabbitmq-server, postgresql and redis-server, "
                "or use `docker compose up`, or give addresses in ISH_AMQP_URL, ISH_POSTGRES_URL and ISH_REDIS_URL"
            )
            raise StackError(message) from error
        if found.version < MINIMUM[name]:
            message = (
                f"{needed}, but this distribution has {_dotted(found.version)}: "
                "use `docker compose up`, or give addresses in ISH_AMQP_URL, ISH_POSTGRES_URL and ISH_REDIS_URL"
            )
            raise StackError(message)
        return found

    def _rabbitmq_from_packages(self) -> Programs:
        root = packages.unpacked(
            self.cache_dir, "rabbitmq", package="rabbitmq-server", relocate=_relocate_erlang, say=self.say
        )
        erlang = root / "usr/lib/erlang"
        folders = [erlang / "bin", *erlang.glob("erts-*/bin")]
        inherited = child_environment({}).get("PATH", os.defpath)
        environment = {
            "PATH": ":".join([*map(str, folders), inherited]),
            "LD_LIBRARY_PATH": packages.library_path(root),
        }
        for scripts in root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"):
            return Programs(scripts, _version(scripts.parent.name), environment, private=True)
        raise StackError("rabbitmq-server's package holds no server")

    def _postgres_from_packages(self) -> Programs:
        return self._packaged("postgresql", "usr/lib/postgresql/*/bin", "postgres")

    def _redis_from_packages(self) -> Programs:
        return self._packaged("redis", "usr/bin", "redis-server")

    def _packaged(self, name: str, pattern: str, program: str) -> Programs:
        package = {"redis": "redis-server"}.get(name, name)
        for attempt in ("first", "again"):
            root = packages.unpacked(self.cache_dir, name, package=package, relocate=lambda _: None, say=self.say)
            environment = {"LD_LIBRARY_PATH": packages.library_path(root)}
            for folder in root.glob(pattern):
                version = _asked_version(folder / program, environment)
                if version:
                    return Programs(folder, version, environment, private=True)
            if attempt == "first":  # another release of the machine, or a tree that was tampered with
                packages.forget(self.cache_dir, name)
        message = f"{program} from {package} does not run on this machine"
        raise StackError(message)


def default_cache_dir() -> Path:
    """Where downloads are kept: root's home is closed to the user that PostgreSQL then runs as, so not there."""
    if os.geteuid() == 0:
        return Path("/var/cache/ish-chat")
    environment = child_environment({})
    chosen = environment.get("XDG_CACHE_HOME")
    return (Path(chosen) if chosen else Path.home() / ".cache") / "ish-chat"


def adb() -> str:
    """The adb program: the one in the adbutils package, whose behaviour is known, else the machine's own.

    Raises:
        StackError: Neither is there.
    """
    package = importlib.util.find_spec("adbutils")
    bundled = Path(package.origin).parent / "binaries" / "adb" if package and package.origin else None
    found = str(bundled) if bundled and os.access(bundled, os.X_OK) else shutil.which("adb")
    if found is None:
        raise StackError("adb is neither in the adbutils package nor on PATH: install the package adb")
    return found


def _which(name: str) -> Path | None:
    path = child_environment({}).get("PATH", os.defpath)
    found = shutil.which(name, path=f"{path}:{_SYSTEM_FOLDERS}")
    return Path(found) if found else None


def _rabbitmq_on_machine() -> Iterable[Programs]:
    if _which("erl") is None:
        return
    folders = list(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    script = _which("rabbitmq-server")
    if script:
        folders.append(script.resolve().parent)
    for folder in sorted(folders, key=lambda path: _version(path.parent.name), reverse=True):
        if _version(folder.parent.name) and (folder / "rabbitmq-server").exists():
            yield Programs(folder, _version(folder.parent.name))


def _postgres_on_machine() -> list[Programs]:
    folders = {*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")}
    for program in (_which("postgres"), _which("initdb")):
        if program:
            folders.add(program.resolve().parent)
    found = []
    for folder in folders:
        version = _asked_version(folder / "postgres") if (folder / "initdb").exists() else ()
        if version:
            found.append(Programs(folder, version))
    return sorted(found, key=lambda programs: programs.version, reverse=True)


def _redis_on_machine() -> Iterable[Programs]:
    for name in ("redis-server", "valkey-server"):
        program = _which(name)
        version = _asked_version(program) if program else ()
        if program and version:
            yield Programs(program.parent, version)


def _asked_version(program: Path, environment: Mapping[str, str] | None = None) -> tuple[int, ...]:
    """What `--version` says; empty when the program does not run here."""
    try:
        answer = subprocess.run(
            [str(program), "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env=child_environment(environment or {}),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return _version(answer.stdout) if answer.returncode == 0 else ()


def _version(text: str) -> tuple[int, ...]:
    """The first dotted number in a text, as in `postgres (PostgreSQL) 15.18` or `rabbitmq_server-3.10.8`."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _relocate_erlang(root: Path) -> None:
    """Debian's scripts carry their installed folder and ignore `ERL_ROOTDIR`."""
    erlang = root / "usr/lib/erlang"
    for script in (
        erlang / "bin/erl",
        erlang / "bin/start",
        *erlang.glob("erts-*/bin/erl"),
        *erlang.glob("erts-*/bin/start"),
    ):
        if script.is_file():
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace("ROOTDIR=/usr/lib/erlang", f"ROOTDIR={erlang}"), encoding="utf-8")
