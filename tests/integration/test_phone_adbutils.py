import asyncio
from pathlib import Path

import adbutils

from ops.simulators.phone.device import Device
from ops.simulators.phone.lab import connected_phones
from workers.android.adb.server import AdbServer

PATIENCE_SECONDS = 60


def use_as_a_stranger_would(client: adbutils.AdbDevice, device: Device, folder: Path) -> None:
    """Everything here is what an independent library sends to real phones and reads from their answers."""
    assert client.window_size() == (720, 1280)
    assert client.is_screen_on()
    assert client.battery().level == 87

    client.click(160, 320)
    client.send_keys("hello")
    assert client.app_current().activity == "com.ish.notes.Notes"
    assert device.screen.typed["com.ish.notes"] == "hello"
    assert 'text="hello"' in client.dump_hierarchy()
    assert client.screenshot(error_ok=False).size == (720, 1280)

    client.app_start("ai.perplexity.app.android")
    assert client.app_current().package == "ai.perplexity.app.android"
    assert client.app_info("ai.perplexity.app.android").version_name == "2.42.1"
    client.app_stop("ai.perplexity.app.android")
    assert client.app_current().package == "com.ish.launcher"

    (folder / "there").write_bytes(b"x" * 200_000)
    assert client.sync.push(folder / "there", "/sdcard/there") == 200_000
    assert client.sync.stat("/sdcard/there").size == 200_000
    assert client.sync.read_bytes("/sdcard/there") == b"x" * 200_000
    assert not client.sync.exists("/sdcard/none")
    assert "there" in [each.path for each in client.sync.list("/sdcard")]

    assert client.shell2("foo", v2=True).returncode == 127
    assert client.shell(["echo", "a; input keyevent 3"]) == "a; input keyevent 3"


async def test_an_independent_library_drives_it_as_a_real_phone(server: AdbServer, tmp_path: Path) -> None:
    async with connected_phones([server], ["SIM1"]) as [phone]:
        client = adbutils.AdbClient(server.host, server.port, socket_timeout=PATIENCE_SECONDS)

        await asyncio.to_thread(use_as_a_stranger_would, client.device(serial=phone.address), phone.device, tmp_path)
