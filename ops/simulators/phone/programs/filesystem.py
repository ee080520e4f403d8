"""Programs that read and change files: cat, ls, rm, mv, mkdir and their like."""

import hashlib
import time
from collections.abc import Mapping

from ops.simulators.phone.files import FileError
from ops.simulators.phone.programs.call import Call, Program

_SHOWN_BYTES = 200


async def _cat(call: Call) -> int:
    if not call.arguments:
        while piece := await call.stdin.read():
            call.out.write(piece)
            await call.out.drain()
        return 0
    exit_code = 0
    for path in call.arguments:
        try:
            content = call.device.files.read(path)
        except FileError as error:
            exit_code = call.fail(f"cat: {path}: {error}", 1)
            continue
        for piece in content.chunks():
            call.out.write(piece)
            await call.out.drain()
    return exit_code


async def _ls(call: Call) -> int:
    flags = {letter for word in call.arguments if word.startswith("-") for letter in word[1:]}
    paths = [word for word in call.arguments if not word.startswith("-")] or ["/"]
    exit_code = 0
    for path in paths:
        entry = call.device.files.entry(path)
        if entry is None:
            exit_code = call.fail(f"ls: {path}: No such file or directory", 1)
            continue
        listed = call.device.files.entries(path) if entry.is_folder and "d" not in flags else [entry]
        for each in listed:
            name = path if each is entry else each.name
            if "l" in flags:
                kind = "drwxrwx--x 2" if each.is_folder else "-rw-rw---- 1"
                changed = time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.changed_at))
                name = f"{kind} shell shell {each.size_bytes:>8} {changed} {name}"
            call.say(name)
    return exit_code


async def _stat(call: Call) -> int:
    match call.arguments:
        case ["-c", "%s", path]:
            entry = call.device.files.entry(path)
            if entry is None:
                return call.fail(f"stat: '{path}': No such file or directory", 1)
            return call.say(str(entry.size_bytes))
        case _:
            return call.fail("stat: the simulated phone knows `stat -c %s PATH`", 1)


async def _sha256sum(call: Call) -> int:
    exit_code = 0
    for path in call.arguments:
        digest = hashlib.sha256()
        try:
            for piece in call.device.files.read(path).chunks():
                digest.update(piece)
        except FileError as error:
            exit_code = call.fail(f"sha256sum: {path}: {error}", 1)
        else:
            call.say(f"{digest.hexdigest()}  {path}")
    return exit_code


async def _mkdir(call: Call) -> int:
    parents = "-p" in call.arguments
    exit_code = 0
    for path in (word for word in call.arguments if not word.startswith("-")):
        try:
            if call.device.files.make_folder(path, parents=parents):
                call.effect("make_folder", path=path)
        except FileError as error:
            exit_code = call.fail(f"mkdir: '{path}': {error}", 1)
    return exit_code


async def _rm(call: Call) -> int:
    flags = {letter for word in call.arguments if word.startswith("-") for letter in word[1:]}
    exit_code = 0
    for path in (word for word in call.arguments if not word.startswith("-")):
        if "f" in flags and call.device.files.entry(path) is None:
            continue
        try:
            call.device.files.remove(path, recursive="r" in flags)
            call.effect("remove_file", path=path)
        except FileError as error:
            exit_code = call.fail(f"rm: {path}: {error}", 1)
    return exit_code


async def _rmdir(call: Call) -> int:
    exit_code = 0
    for path in call.arguments:
        try:
            call.device.files.remove_folder(path)
            call.effect("remove_file", path=path)
        except FileError as error:
            exit_code = call.fail(f"rmdir: '{path}': {error}", 1)
    return exit_code


async def _mv(call: Call) -> int:
    paths = [word for word in call.arguments if word not in ("-f", "-T")]
    if len(paths) != 2:  # noqa: PLR2004  # from and to
        return call.fail("mv: the simulated phone knows `mv [-f] FROM TO`", 1)
    try:
        moved = call.device.files.move(paths[0], paths[1])
    except FileError as error:
        return call.fail(f"mv: bad '{paths[0]}': {error}", 1)
    call.effect("move_file", path=paths[0], to=moved)
    return 0


async def _cp(call: Call) -> int:
    if len(call.arguments) != 2:  # noqa: PLR2004  # from and to
        return call.fail("cp: the simulated phone knows `cp FROM TO`", 1)
    source, target = call.arguments
    try:
        content = b"".join(call.device.files.read(source).chunks())
        write_file(call, target, content)
    except FileError as error:
        return call.fail(f"cp: {source}: {error}", 1)
    return 0


async def _touch(call: Call) -> int:
    exit_code = 0
    for path in call.arguments:
        try:
            write_file(call, path, b"", append=True)
        except FileError as error:
            exit_code = call.fail(f"touch: '{path}': {error}", 1)
    return exit_code


async def _df(call: Call) -> int:
    return call.say(
        "Filesystem     1K-blocks    Used Available Use% Mounted on\n"
        "/dev/block/dm-5 11534336 4194304   7340032  37% /data\n"
        "/dev/fuse       11534336 4194304   7340032  37% /storage/emulated"
    )


def write_file(call: Call, path: str, content: bytes, *, append: bool = False) -> None:
    """Write a file and log it; short text stands in the log as it is.

    Raises:
        FileError: It cannot be written there.
    """
    files = call.device.files
    if files.check_writable(path) == "/dev/null":
        return
    files.write(path, content, append=append)
    facts: dict[str, object] = {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if len(content) <= _SHOWN_BYTES:
        facts["text"] = content.decode(errors="replace")
    call.effect("write_file", **facts)


PROGRAMS: Mapping[str, Program] = {
    "cat": _cat,
    "cp": _cp,
    "df": _df,
    "ls": _ls,
    "mkdir": _mkdir,
    "mv": _mv,
    "rm": _rm,
    "rmdir": _rmdir,
    "sha256sum": _sha256sum,
    "stat": _stat,
    "touch": _touch,
}
