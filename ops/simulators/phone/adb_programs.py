"""The adb programs that the simulated phone is tested with: the one this product brings, and the distribution's."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.stack import packages
from ops.stack.binaries import adb, default_cache_dir

_PACKAGE = "adb"
_PROGRAM = "usr/lib/android-sdk/platform-tools/adb"


@dataclass(frozen=True, slots=True)
class AdbProgram:
    """One adb."""

    path: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it needs to find its libraries."""


def bundled() -> AdbProgram:
    """The adb in the adbutils package, which the stack runs."""
    return AdbProgram(adb())


def of_distribution(say: Callable[[str], None]) -> AdbProgram:
    """The adb of this machine or of its distribution, years older on Debian 12 and Ubuntu 22.04.

    Args:
        say: Told what is being done when it takes long.

    Raises:
        StackError: It is not installed and cannot be downloaded.
    """
    installed = shutil.which("adb")
    if installed is not None:
        return AdbProgram(installed)
    root = packages.unpacked(default_cache_dir(), _PACKAGE, package=_PACKAGE, relocate=lambda _: None, say=say)
    return AdbProgram(str(root / _PROGRAM), {"LD_LIBRARY_PATH": _libraries(root)})


def _libraries(root: Path) -> str:
    folders = [path for path in packages.library_path(root).split(":") if path]
    return ":".join([*folders, *(f"{folder}/android" for folder in folders)])
