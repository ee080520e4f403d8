"""Programs on the machine, and those from packages, with fake programs in a folder of the test."""

import os
import shutil
from pathlib import Path

import pytest

from ops.stack import packages
from ops.stack.binaries import Finder
from ops.stack.errors import StackError

FAKE_APT = """#!/bin/sh
echo "$*" >> "{log}"
case " $* " in
*print-uris*) cat <<END
'http://mirror/a' postgresql-15_15.18-0_amd64.deb 1 SHA256:0
'http://mirror/b' postgresql-client-15_15.18-0_amd64.deb 1 SHA256:0
'http://mirror/c' postgresql-client-common_248_all.deb 1 SHA256:0
'http://mirror/d' libpq5_15.18-0_amd64.deb 1 SHA256:0
'http://mirror/e' libllvm14_14.0_amd64.deb 1 SHA256:0
'http://mirror/f' libjson-perl_4.1_all.deb 1 SHA256:0
'http://mirror/g' perl_5.36_amd64.deb 1 SHA256:0
END
;;
*" download "*) for word in $*; do case $word in download) ;; [a-z]*) : > "$word.deb";; esac; done;;
*" depends "*) echo "  Depends: postgresql-15";;
esac
"""
FAKE_DPKG = '#!/bin/sh\nmkdir -p "$3/unpacked" && : > "$3/unpacked/$(basename "$2")"\n'


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def apt_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "apt.log"
    for name in ("apt-get", "apt-cache"):
        program(tmp_path / "bin", name, FAKE_APT.replace("{log}", str(log)))
    program(tmp_path / "bin", "dpkg", FAKE_DPKG)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return log


def test_an_old_server_is_refused_by_name_and_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "redis-server", '#!/bin/sh\necho "Redis server v=6.0.16 sha=0"\n')
    program(tmp_path / "bin", "valkey-server", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    with pytest.raises(StackError) as raised:
        Finder(tmp_path / "cache").redis()

    assert "Redis 6.2 or newer is needed" in str(raised.value)
    assert "Redis 6.0.16" in str(raised.value)
    assert "docker compose up" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_on_the_machine_that_is_new_enough_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "redis-server", '#!/bin/sh\necho "Redis server v=7.0.15 sha=0"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    found = Finder(tmp_path / "cache").redis()

    assert (found.folder, found.version, found.private) == (tmp_path / "bin", (7, 0, 15), False)


def test_only_programs_and_libraries_are_downloaded_and_only_once(tmp_path: Path, apt_log: Path) -> None:
    relocated: list[Path] = []

    roots = {
        packages.unpacked(
            tmp_path / "cache", "postgresql", package="postgresql", relocate=relocated.append, say=lambda _: None
        )
        for _ in range(2)
    }

    assert sorted(path.name for path in (relocated[0] / "unpacked").iterdir()) == [
        "libpq5.deb",
        "postgresql-15.deb",
        "postgresql-client-15.deb",
    ]
    assert roots == set(relocated)
    assert len(relocated) == 1
    assert apt_log.read_text().count(" update") == 1


def test_an_interrupted_download_is_made_again(tmp_path: Path, apt_log: Path) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packages.unpacked(
            tmp_path / "cache", "postgresql", package="postgresql", relocate=interrupted, say=lambda _: None
        )

    packages.unpacked(
        tmp_path / "cache", "postgresql", package="postgresql", relocate=lambda _: None, say=lambda _: None
    )

    assert apt_log.read_text().count(" update") == 2


def test_a_machine_without_apt_gets_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("apt-get") is None

    with pytest.raises(StackError, match="no apt"):
        packages.unpacked(tmp_path, "redis", package="redis-server", relocate=lambda _: None, say=lambda _: None)
