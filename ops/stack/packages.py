"""Services from the distribution's own packages, unpacked into a private folder: no root, nothing installed."""

import fcntl
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.stack.errors import StackError

_COMPLETE = ".complete"
_WANTED = re.compile(
    r"^(erlang-|android-lib|redis-tools|postgresql-client-\d|lib(?!llvm|z3|perl|gdbm|proc|popt|c-l10n)(?!.*-perl$))"
)
"""Of a package's dependencies: programs and libraries that are run. Left out is what serves just-in-time compilation,
Perl wrappers, log rotation and creating users."""
_APT_OPTIONS = (
    "-qq",
    "-oDebug::NoLocking=1",
    "-oAPT::Sandbox::User=",
    "-oAPT::Update::Post-Invoke::=",
    "-oAPT::Update::Post-Invoke-Success::=",
    "-oAcquire::Languages=none",
    "-oAcquire::Retries=2",
    "-oAcquire::http::Timeout=30",
)


def unpacked(
    cache_dir: Path, name: str, *, package: str, relocate: Callable[[Path], None], say: Callable[[str], None]
) -> Path:
    """The root of a private tree with a package and every library it lacks here; downloaded at the first call.

    Args:
        cache_dir: Shared by all stacks and clones of this user.
        name: The service, also the folder's name.
        package: Debian's or Ubuntu's name of it.
        relocate: Called with the tree's final place, to rewrite paths inside it.
        say: Told what is being done when it takes long.

    Raises:
        StackError: This machine has no apt, or the package cannot be had.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise StackError("this machine has no apt to download it with")
    place = cache_dir / _distribution() / name
    root = place / "root"
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(place / "lock", say=say):
            if not (place / _COMPLETE).exists():
                say(f"downloading {name} (once for this machine)")
                _fill(place, root, package)
                relocate(root)
                (place / _COMPLETE).touch()
    except OSError as error:
        message = f"cannot write to {place}: {error.strerror}; set ISH_CACHE_DIR"
        raise StackError(message) from error
    return root


def forget(cache_dir: Path, name: str) -> None:
    """Have the next call of `unpacked` download again: what is there does not run here.

    Args:
        cache_dir: As in `unpacked`.
        name: As in `unpacked`.
    """
    (cache_dir / _distribution() / name / _COMPLETE).unlink(missing_ok=True)


def library_path(root: Path) -> str:
    """Where a private tree keeps shared libraries, as `LD_LIBRARY_PATH`.

    Args:
        root: The tree.
    """
    triplet_folders = sorted(path for parent in ("lib", "usr/lib") for path in (root / parent).glob("*-linux-gnu*"))
    return ":".join(str(path) for path in triplet_folders)


def _fill(place: Path, root: Path, package: str) -> None:
    work = place / "apt"
    for leftover in (root, work):
        shutil.rmtree(leftover, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "archives"):
        (work / folder).mkdir(parents=True)
    options = (*_APT_OPTIONS, f"-oDir::State::lists={work}/lists", f"-oDir::Cache={work}/cache")
    # a source that cannot be reached must not stop the others: what is missing in the end shows below
    _run("apt-get", *options, "update", check=False)
    asked = _concrete(package, options)
    install = ("install", "--yes", "--no-install-recommends", "--reinstall", "--print-uris", asked)
    wanted = [name for name in _names(_run("apt-get", *options, *install)) if name == asked or _WANTED.match(name)]
    _run("apt-get", *options, "download", *wanted, folder=work / "archives")
    for archive in sorted((work / "archives").glob("*.deb")):
        _run("dpkg", "-x", str(archive), str(root))
    shutil.rmtree(work)


def _concrete(package: str, options: tuple[str, ...]) -> str:
    """`postgresql` is an empty package that depends on `postgresql-15`, or another number in another release."""
    depends = _run("apt-cache", *options, "depends", package, check=False)
    numbered = re.search(rf"Depends: ({re.escape(package)}-\d+)$", depends, re.MULTILINE)
    return numbered[1] if numbered else package


def _names(uris: str) -> Iterator[str]:
    """Package names from lines like `'http://…' redis-tools_5%3a7.0.15_amd64.deb 991888 SHA256:…`."""
    for line in uris.splitlines():
        words = line.split()
        if len(words) > 1 and words[1].endswith(".deb"):
            yield words[1].split("_", 1)[0]


def _run(*argv: str, check: bool = True, folder: Path | None = None) -> str:
    finished = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder)
    if check and finished.returncode:
        said = (finished.stderr.strip() or finished.stdout.strip() or "no message").splitlines()[-1]
        message = f"{argv[0]}: {said}"
        raise StackError(message)
    return finished.stdout


def _distribution() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    words = (release.get("ID", "linux"), release.get("VERSION_ID", "rolling"), platform.machine())
    return "-".join(words)


@contextmanager
def _locked(path: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another download of {path.parent.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
