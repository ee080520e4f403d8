"""`ish artifacts` against a real gateway: upload, a connection that is cut on the way, list and get."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.gateway_process import GatewayProcess, free_port

MIB = 1024 * 1024


async def ish(url: str, key: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "ops", "artifacts", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ISH_GATEWAY_URL": url,
            "ISH_API_KEY": key,
            "ISH_STATE_DIR": str(folder / "state"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@asynccontextmanager
async def cutting_proxy(gateway: GatewayProcess, *, after_bytes: int) -> AsyncIterator[str]:
    """A way to the gateway that breaks the first connection which has carried so much; yields its address."""
    host, port = gateway.url.removeprefix("http://").split(":")
    cut = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cut
        up_reader, up_writer = await asyncio.open_connection(host, int(port))

        async def back() -> None:
            while data := await up_reader.read(65536):
                writer.write(data)
                await writer.drain()

        carried = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                answers = tasks.create_task(back())
                while data := await reader.read(65536):
                    carried += len(data)
                    if carried > after_bytes and not cut:
                        cut = True
                        break
                    up_writer.write(data)
                    await up_writer.drain()
                answers.cancel()
        except* OSError:
            pass
        finally:
            up_writer.transport.abort()
            writer.transport.abort()

    place = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", place)
    async with server:
        yield f"http://127.0.0.1:{place}"
        assert cut


async def test_a_file_is_uploaded_though_the_connection_breaks_and_is_listed_and_got_again(
    gateway: GatewayProcess, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "an app.apk"
    file.write_bytes(os.urandom(6 * MIB))
    name = hashlib.sha256(file.read_bytes()).hexdigest()

    async with cutting_proxy(gateway, after_bytes=4 * MIB) as url:
        uploaded = await ish(url, key, tmp_path, "upload", str(file), "--json")
    listed = await ish(gateway.url, key, tmp_path, "list")
    got = await ish(gateway.url, key, tmp_path, "get", name, str(tmp_path / "copy"))

    assert uploaded.returncode == 0, uploaded.stderr
    artifact = json.loads(uploaded.stdout)
    assert (artifact["id"], artifact["file_name"]) == (name, "an app.apk")
    assert artifact["media_type"] == "application/vnd.android.package-archive"
    assert name in listed.stdout
    assert "an app.apk" in listed.stdout
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()


async def test_what_cannot_be_done_is_one_line(gateway: GatewayProcess, key: str, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    away = f"http://127.0.0.1:{free_port()}"

    answers = [
        await ish(away, key, tmp_path, "upload", str(file)),
        await ish(gateway.url, key, tmp_path, "get", "0" * 64, str(tmp_path / "b")),
        await ish(gateway.url, key, tmp_path, "upload", str(file), "--resume", "/api/artifacts/uploads/nothing"),
    ]

    assert [answer.returncode for answer in answers] == [1, 1, 1]
    assert all(answer.stderr.startswith("ish: ") and answer.stderr.count("\n") == 1 for answer in answers), answers
