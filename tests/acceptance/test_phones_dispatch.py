"""Who gets a command for any phone, for a tag or by a name; and what a phone that cannot run it now does with it."""

import time
from functools import partial
from typing import Any

import pytest

from ops.admin.devices import tag_device, untag_device
from tests.acceptance.outsider import Outsider
from tests.acceptance.phone_fleet import PhoneFleet, all_consumed, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

TYPE = "android.execute.v1"


async def two_workers(stage: Stage, fleet: PhoneFleet) -> None:
    stage.worker("outbox")
    for name in ("first", "second"):
        stage.worker("android", name)
    await until("all phones are consumed", lambda: all_consumed(stage, fleet.serials))


def tap(demo: Outsider, number: int, **body: Any) -> Any:
    return demo.command(TYPE, {"action": "tap", "x": number, "y": 7, **body})


async def test_commands_for_any_phone_go_to_idle_ones(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, 4) as fleet:
        await two_workers(stage, fleet)
        busy, *others = fleet.serials
        await fleet.change(busy, slow_seconds={"getprop": 3600})
        body = {"action": "getprop", "timeout_seconds": 300, "device": busy}
        await demo.publish(demo.command(TYPE, body), key=f"android.execute.{busy}")

        async def is_known_to_be_busy() -> bool:
            [row] = await stage.records.rows(
                "select queue_depth = 1 and clock_timestamp() - updated_at > interval '2 s' as so"
                " from devices where serial = $1",
                busy,
            )
            return bool(row["so"])

        await until("both workers know that it is busy", is_known_to_be_busy)
        ids = await demo.publish_all([tap(demo, number) for number in range(30)])
        await until("all are answered", lambda: demo.answered(ids))

        assert {demo.reply(id_)["status"] for id_ in ids} == {"succeeded"}
        assert fleet.taps(busy) == []
        assert sorted(number for serial in others for number in fleet.taps(serial)) == list(range(30))


async def test_a_tag_sends_commands_to_the_phones_that_have_it(stage: Stage, demo: Outsider) -> None:
    url = stage.services.postgres_url("ish_ops")
    async with phone_fleet(stage, 4) as fleet:
        await two_workers(stage, fleet)
        tagged = fleet.serials[2]
        await tag_device(url, tagged, ["lab-7", "slow"])

        ids = await demo.publish_all([tap(demo, number, tag="lab-7") for number in range(10)])
        await until("all are answered", lambda: demo.answered(ids))
        await untag_device(url, tagged, ["lab-7"])

        async def is_unknown() -> bool:
            id_ = await demo.publish(tap(demo, 99, tag="lab-7"))
            await until("it is answered", lambda: demo.answered([id_]))
            return bool(demo.reply(id_)["status"] == "failed")

        await until("nobody has the tag", is_unknown)
        assert {demo.reply(id_)["output"]["device"] for id_ in ids} == {tagged}


async def test_a_phone_is_found_by_any_of_its_names(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, 2) as fleet:
        await two_workers(stage, fleet)
        serial, address = next(iter(fleet.addresses.items()))

        by_key = await demo.publish(tap(demo, 1, device=address), key=f"android.execute.{address}")
        by_serial = await demo.publish(tap(demo, 2, device=serial))
        by_address = await demo.publish(tap(demo, 3, device=address))
        nobody = await demo.publish(tap(demo, 4, device="NOBODY"))
        nobodys_key = await demo.publish(tap(demo, 5, device="NOBODY"), key="android.execute.NOBODY")
        everybody = [by_key, by_serial, by_address, nobody, nobodys_key]
        await until("all are answered", lambda: demo.answered(everybody))

        assert {demo.reply(id_)["output"]["device"] for id_ in everybody[:3]} == {serial}
        assert sorted(fleet.taps(serial)) == [1, 2, 3]
        assert {demo.reply(id_)["error"]["code"] for id_ in everybody[3:]} == {"device_not_found"}


async def test_a_phone_that_is_away_keeps_its_commands_in_order_until_they_are_over(stage: Stage) -> None:
    async with phone_fleet(stage, 2) as fleet:
        serial, other = fleet.serials
        client = await stage.gateway()
        await two_workers(stage, fleet)
        await fleet.change(serial, present=False)

        async def post(number: int, **headers: str) -> str:
            body = {"action": "tap", "x": number, "y": 7, "device": serial}
            answer = await client.post("/api/android/execute", json=body, headers=headers)
            assert answer.status_code == 202, answer.text
            return str(answer.headers["location"])

        async def is_(place: str, state: str) -> bool:
            return bool((await client.get(place)).json()["status"] == state)

        places = [await post(0), await post(1), await post(2), await post(3)]
        await until("the first waits", lambda: is_(places[0], "retrying"))
        # the one in hand is called off, and so is one behind it
        assert (await client.delete(places[0])).is_success
        assert (await client.delete(places[2])).is_success
        await until("the second waits", lambda: is_(places[1], "retrying"))
        body = {"action": "tap", "x": 9, "y": 7, "device": other}
        assert (await client.post("/api/android/execute", json=body, params={"wait": 60})).status_code == 200
        await fleet.change(serial, present=True)
        for place in (places[1], places[3]):
            await until("they are run", partial(is_, place, "succeeded"))

        assert [await is_(place, "cancelled") for place in places] == [True, False, True, False]
        assert fleet.taps(serial) == [1, 3]
        done = (await client.get(places[1])).json()
        # waiting for the phone costs no attempt
        assert done["result"]["attempts"] == 1


async def test_a_command_for_an_absent_phone_expires_at_its_deadline_and_frees_the_next(
    stage: Stage, demo: Outsider
) -> None:
    async with phone_fleet(stage, 1) as fleet:
        [serial] = fleet.serials
        await two_workers(stage, fleet)
        await fleet.change(serial, present=False)
        first = tap(demo, 1, device=serial)
        first.headers["x-deadline-ms"] = int(1000 * (time.time() + 3))
        ids = [await demo.publish(one, key=f"android.execute.{serial}") for one in (first, tap(demo, 2, device=serial))]
        await until("the first expires", lambda: demo.answered(ids[:1]))
        await fleet.change(serial, present=True)
        await until("the second is run", lambda: demo.answered(ids))

        assert demo.reply(ids[0])["status"] == "expired"
        assert demo.reply(ids[1])["status"] == "succeeded"
        assert fleet.taps(serial) == [2]


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_phone_is_used_by_another_worker_when_its_own_is_gone(stage: Stage, demo: Outsider, how: str) -> None:
    async with phone_fleet(stage, 2) as fleet:
        stage.worker("outbox")
        first = stage.worker("android", "first")
        await until("all phones are consumed", lambda: all_consumed(stage, fleet.serials))
        first.kill() if how == "killed" else await stage.stopped(first)

        ids = [
            await demo.publish(tap(demo, number, device=serial), key=f"android.execute.{serial}")
            for serial in fleet.serials
            for number in range(5)
        ]
        stage.worker("android", "second")
        await until("all are answered", lambda: demo.answered(ids))

        assert all(fleet.taps(serial) == list(range(5)) for serial in fleet.serials)


async def test_a_command_that_fails_for_the_time_being_keeps_its_phones_next_one_waiting(
    stage: Stage, demo: Outsider
) -> None:
    async with phone_fleet(stage, 1) as fleet:
        [serial] = fleet.serials
        await two_workers(stage, fleet)
        await fleet.change(serial, answer="lost")

        reading = demo.command(TYPE, {"action": "getprop", "device": serial})
        ids = [
            await demo.publish(one, key=f"android.execute.{serial}") for one in (reading, tap(demo, 1, device=serial))
        ]

        async def is_retried() -> bool:
            return bool(await stage.records.attempts(demo.name, ids[0]))

        await until("the first has failed", is_retried)
        assert fleet.taps(serial) == []
        await fleet.change(serial, answer="normal")
        await until("both are answered", lambda: demo.answered(ids))

        assert [demo.reply(id_)["status"] for id_ in ids] == ["succeeded", "succeeded"]
        outcomes = [one["error_code"] for one in await stage.records.attempts(demo.name, ids[0])]
        assert set(outcomes[:-1]) == {"device_offline"}
        assert outcomes[-1] is None
        assert fleet.taps(serial) == [1]


async def test_a_command_for_any_phone_that_fails_for_the_time_being_goes_to_another(
    stage: Stage, demo: Outsider
) -> None:
    async with phone_fleet(stage, 2) as fleet:
        bad, good = fleet.serials
        await two_workers(stage, fleet)
        await fleet.change(bad, answer="lost")

        ids = await demo.publish_all([demo.command(TYPE, {"action": "getprop"}) for _ in range(6)])
        await until("all are answered", lambda: demo.answered(ids))

        assert {demo.reply(id_)["output"]["device"] for id_ in ids} == {good}
