import pytest

from ops.simulators.phone.files import BIG, BIG_BYTES, FileError, Files, resolved


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/sdcard/./a//b/../c", "/sdcard/a/c"),
        ("/storage/emulated/0/a", "/sdcard/a"),
        ("/storage/emulated/01", "/storage/emulated/01"),
        ("/sdcard/../data/local/tmp/", "/data/local/tmp"),
        ("/../..", "/"),
        ("sdcard/a", "/sdcard/a"),
    ],
)
def test_every_spelling_of_a_path_is_one_place(path: str, place: str) -> None:
    assert resolved(path) == place


def test_a_file_is_written_moved_and_removed(files: Files) -> None:
    files.make_folder("/sdcard/a/b", parents=True)
    files.write("/sdcard/a/b/one", b"1")
    files.write("/sdcard/a/b/one", b"2", append=True)

    assert files.move("/sdcard/a/b/one", "/sdcard/a") == "/sdcard/a/one"
    assert files.read("/storage/emulated/0/a/one").held == b"12"
    assert [entry.name for entry in files.entries("/sdcard/a")] == ["b", "one"]

    files.remove("/sdcard/a", recursive=True)
    assert files.entry("/sdcard/a/one") is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/system/x", "Read-only file system"),
        ("/data/x", "Read-only file system"),
        ("/sdcard/../system/x", "Read-only file system"),
        ("/sdcard/none/x", "No such file or directory"),
        ("/sdcard", "Is a directory"),
        (f"{BIG}/x", "Not a directory"),
    ],
)
def test_a_file_cannot_be_written_where_a_phone_does_not_let_adb(files: Files, path: str, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        files.write(path, b"")


def test_the_large_file_takes_no_memory(files: Files) -> None:
    content = files.read(BIG)

    assert content.held == b""
    assert sum(map(len, content.chunks())) == content.size_bytes == BIG_BYTES


def test_a_folder_is_removed_only_when_asked_for(files: Files) -> None:
    files.make_folder("/sdcard/a")
    files.write("/sdcard/a/b", b"")

    with pytest.raises(FileError, match="Is a directory"):
        files.remove("/sdcard/a")
    with pytest.raises(FileError, match="Directory not empty"):
        files.remove_folder("/sdcard/a")
    with pytest.raises(FileError, match="File exists"):
        files.make_folder("/sdcard/a")


def test_storage_ends(files: Files) -> None:
    for number in range(4):
        files.write(f"/sdcard/{number}", bytes(60 * 1024 * 1024))

    with pytest.raises(FileError, match="No space left on device"):
        files.write("/sdcard/more", bytes(60 * 1024 * 1024))
