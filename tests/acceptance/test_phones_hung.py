"""A phone that hangs costs its own commands their time limit, and other phones nothing."""

import pytest

from tests.acceptance.outsider import Outsider
from tests.acceptance.phone_fleet import all_consumed, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

HUNG = ("hang_open", "hang", "drip", "black_hole")
LIMIT_SECONDS = 2.0
BUSY = 40
"""Commands for the other phones meanwhile."""


@pytest.mark.full
@pytest.mark.parametrize("answer", HUNG)
async def test_a_hung_phone_times_out(stage: Stage, demo: Outsider, answer: str) -> None:
    async with phone_fleet(stage, 1) as fleet:
        [serial] = fleet.serials
        stage.worker("outbox")
        stage.worker("android")
        await until("the phone is consumed", lambda: all_consumed(stage, fleet.serials))
        await fleet.change(serial, answer=answer, drip_seconds=0.5)

        id_ = await publish(demo, serial, LIMIT_SECONDS)
        await until("its time is over", lambda: demo.answered([id_]))

        result = demo.reply(id_)
        assert (result["status"], result["error"]["code"]) == ("failed", "timeout")
        [attempt] = await stage.records.rows(
            "select duration_seconds from attempts where publisher = $1 and id = $2::text::uuid", demo.name, id_
        )
        assert LIMIT_SECONDS <= attempt["duration_seconds"] < 5 * LIMIT_SECONDS


@pytest.mark.parametrize("answer", HUNG)
async def test_other_phones_go_on_while_one_hangs(stage: Stage, demo: Outsider, answer: str) -> None:
    async with phone_fleet(stage, 4) as fleet:
        hung, *others = fleet.serials
        stage.worker("outbox")
        stage.worker("android")
        await until("all phones are consumed", lambda: all_consumed(stage, fleet.serials))
        await fleet.change(hung, answer=answer, drip_seconds=0.5)

        late = await publish(demo, hung, 60)
        ids = [await publish(demo, serial, LIMIT_SECONDS) for _ in range(BUSY) for serial in others]
        await until("the other phones answer", lambda: demo.answered(ids), seconds=45)

        assert {demo.reply(id_)["status"] for id_ in ids} == {"succeeded"}
        assert not demo.answered([late])


async def publish(demo: Outsider, serial: str, timeout_seconds: float) -> str:
    body = {"action": "getprop", "device": serial, "timeout_seconds": timeout_seconds}
    return await demo.publish(demo.command("android.execute.v1", body), key=f"android.execute.{serial}")


async def test_what_may_have_happened_on_a_hung_phone_is_never_repeated(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, 1) as fleet:
        [serial] = fleet.serials
        stage.worker("outbox")
        stage.worker("android")
        await until("the phone is consumed", lambda: all_consumed(stage, fleet.serials))
        await fleet.change(serial, answer="lost")

        taps = [{"action": "tap", "x": number, "y": 7, "timeout_seconds": LIMIT_SECONDS} for number in range(3)]
        first = await demo.publish(demo.command("android.execute.v1", taps[0]))
        await until("it is answered", lambda: demo.answered([first]))
        await fleet.change(serial, answer="normal")
        rest = await demo.publish_all([demo.command("android.execute.v1", tap) for tap in taps[1:]])
        await until("the rest are answered", lambda: demo.answered(rest))

        assert demo.reply(first)["status"] == "indeterminate"
        assert [demo.reply(id_)["status"] for id_ in rest] == ["succeeded", "succeeded"]
        assert fleet.taps(serial) == [0, 1, 2]
