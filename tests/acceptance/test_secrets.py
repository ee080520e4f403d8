"""A typed secret is on the phone, and nowhere that is kept: no row, dead letter, result or log has it."""

from secrets import token_hex

import asyncpg

from tests.acceptance.outsider import Outsider
from tests.acceptance.phone_fleet import all_consumed, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

TABLES = ("commands", "attempts", "outbox", "dead_letters", "messages", "artifacts", "audit_log")


async def found_in(stage: Stage, secret: str) -> list[str]:
    """Tables and logs that have a text."""
    connection = await asyncpg.connect(stage.services.postgres_url("ish_owner"))
    try:
        tables = [
            table
            for table in TABLES
            if await connection.fetchval(
                f"select exists (select from {table} t where t::text like $1 or t::text like $2)",  # noqa: S608  # ours
                f"%{secret}%",
                f"%{secret.encode().hex()}%",
            )
        ]
    finally:
        await connection.close()
    ours = [log for log in stage.folder.glob("*.log") if not log.name.startswith("phones")]
    return [*tables, *(log.name for log in ours if secret in log.read_text(encoding="utf-8"))]


async def test_a_secret_is_typed_and_kept_nowhere(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, 1) as phones:
        [serial] = phones.serials
        client = await stage.gateway()
        stage.worker("outbox")
        stage.worker("android")
        await until("the phone is consumed", lambda: all_consumed(stage, [serial]))
        secret = f"s{token_hex(8)}"
        typed = {"action": "text", "text": secret, "secret": True, "device": serial}

        first = await client.post("/api/android/execute", json=typed, params={"wait": 30}, timeout=60)
        await phones.change(serial, injects_input=False)
        refused = await client.post("/api/android/execute", json=typed, params={"wait": 30}, timeout=60)
        published = await demo.publish(
            demo.command("android.execute.v1", {**typed, "nonsense": 1}), key=f"android.execute.{serial}"
        )
        await until("it is answered", lambda: demo.answered([published]))

        assert first.json()["status"] == "succeeded", first.text
        assert refused.json()["status"] == "failed"
        assert secret not in first.text + refused.text
        assert demo.reply(published)["status"] == "failed"
        [effect] = phones.effects(serial, actions=["text"])
        assert secret in str(effect["argv"])
        assert await found_in(stage, secret) == []


async def test_a_command_that_has_lost_its_secret_types_nothing(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, 1) as phones:
        [serial] = phones.serials
        stage.worker("outbox")
        stage.worker("android")
        await until("the phone is consumed", lambda: all_consumed(stage, [serial]))

        body = {"action": "text", "text": None, "secret": True, "device": serial}
        id_ = await demo.publish(demo.command("android.execute.v1", body), key=f"android.execute.{serial}")
        await until("it is answered", lambda: demo.answered([id_]))

        assert demo.reply(id_)["error"]["code"] == "secret_gone"
        assert phones.effects(serial, actions=["text"]) == []
