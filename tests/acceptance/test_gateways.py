from uuid import uuid4

from tests.acceptance.load import RELAY
from tests.acceptance.stage import Stage


async def test_a_command_accepted_by_one_gateway_is_visible_and_waitable_at_the_other_at_once(stage: Stage) -> None:
    first, second = await stage.gateway("first"), await stage.gateway("second")

    accepted = await first.post("/api/relay", json=RELAY)
    seen = await second.get(accepted.headers["location"])
    stage.worker("relay")
    finished = await second.get(accepted.headers["location"], params={"wait": 30})

    assert accepted.status_code == 202
    assert (seen.status_code, seen.json()["status"]) == (200, "queued")
    assert finished.json()["status"] == "succeeded"
    assert finished.json()["result"]["output"]["recorded"] is True


async def test_the_same_key_at_two_gateways_is_one_command(stage: Stage) -> None:
    first, second = await stage.gateway("first"), await stage.gateway("second")
    headers = {"Idempotency-Key": str(uuid4())}

    one = await first.post("/api/relay", json=RELAY, headers=headers)
    two = await second.post("/api/relay", json=RELAY, headers=headers)
    stage.worker("relay")
    done = await second.get(one.headers["location"], params={"wait": 30})

    assert one.json()["id"] == two.json()["id"] == done.json()["id"]
    assert len(await stage.records.commands("gateway")) >= 1
    lines = await stage.records.rows("select 1 from messages where command_id = $1::text::uuid", one.json()["id"])
    assert len(lines) == 1
