"""The Perplexity app and artifacts the whole way: HTTP, broker, worker, adb server, phone, and back."""

import hashlib
from base64 import b64encode

import pytest

from ops.simulators.phone.apk import write_apk
from ops.simulators.phone.apps.perplexity import SOURCES, answer_to
from tests.acceptance.phone_fleet import phone_fleet
from tests.acceptance.stage import Stage

PATIENCE_SECONDS = 60


@pytest.mark.parametrize("shift_px", [0, 300])
async def test_the_apps_answer_comes_back_wherever_it_is_drawn(stage: Stage, shift_px: int) -> None:
    async with phone_fleet(stage, 1) as phones:
        [serial] = phones.serials
        await phones.change(serial, shift_px=shift_px)
        client = await stage.gateway()
        stage.worker("outbox")
        stage.worker("android", ISH_ADB_SERVERS=stage.services.adb_server)

        question = {"question": "What is a queue? 列 🙂", "device": serial}
        answer = await client.post(
            "/api/perplexity/ask", json=question, params={"wait": PATIENCE_SECONDS}, timeout=2 * PATIENCE_SECONDS
        )

        result = answer.json()["result"]
        assert result["status"] == "succeeded", result
        assert result["output"]["device"] == serial
        assert result["output"]["answer"] == answer_to(question["question"])
        assert result["output"]["sources"][0] == {"title": SOURCES[0].title, "url": SOURCES[0].url}


async def test_what_a_phone_gave_is_kept_and_given_to_a_phone_again(stage: Stage) -> None:
    async with phone_fleet(stage, 1) as phones:
        [serial] = phones.serials
        client = await stage.gateway()
        stage.worker("outbox")
        stage.worker("android", ISH_ADB_SERVERS=stage.services.adb_server)

        async def run(**action: object) -> dict[str, object]:
            answer = await client.post(
                "/api/android/execute",
                json={"device": serial, **action},
                params={"wait": PATIENCE_SECONDS},
                timeout=2 * PATIENCE_SECONDS,
            )
            result = answer.json()["result"]
            assert result["status"] == "succeeded", result
            output: dict[str, object] = result["output"]
            return output

        apk = write_apk("org.example.kept")
        path = "/sdcard/Download/app.apk"
        await run(action="push", path=path, content_base64=b64encode(apk).decode())
        pulled = (await run(action="pull", path=path))["artifact"]
        assert isinstance(pulled, dict)
        stored = await client.get(pulled["href"])
        await run(action="install", artifact=pulled["sha256"])
        packages = (await run(action="list_packages", kind="third_party"))["packages"]

        assert stored.content == apk
        assert pulled["sha256"] == hashlib.sha256(apk).hexdigest()
        assert pulled["size_bytes"] == len(apk)
        assert isinstance(packages, list)
        assert "org.example.kept" in packages
