"""A phone that hangs costs its own commands their time limit, and other phones nothing."""

from tests.acceptance.outsider import Outsider
from tests.acceptance.phone_fleet import all_consumed, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

HUNG = ("hang_open", "hang", "drip", "black_hole")
LIMIT_SECONDS = 2.0
BUSY = 40
"""Commands for the other phones meanwhile."""


async def test_hung_phones_time_out_and_the_others_go_on(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, len(HUNG) + 3) as fleet:
        hung, others = fleet.serials[: len(HUNG)], fleet.serials[len(HUNG) :]
        stage.worker("outbox")
        stage.worker("android")
        await until("all phones are consumed", lambda: all_consumed(stage, fleet.serials))
        for serial, answer in zip(hung, HUNG, strict=True):
            await fleet.change(serial, answer=answer)

        # the first may be sent to its phone; when the last one's turn comes, the phone may be known to answer nothing
        doomed = [
            await publish(demo, serial, "getprop", timeout_seconds=LIMIT_SECONDS) for _ in range(3) for serial in hung
        ]
        late = [await publish(demo, serial, "getprop", timeout_seconds=300) for serial in hung]
        ids = [
            await publish(demo, serial, "getprop", timeout_seconds=LIMIT_SECONDS)
            for _ in range(BUSY)
            for serial in others
        ]
        await until("the other phones answer", lambda: demo.answered(ids))
        await until("the time of those for hung phones is over", lambda: demo.answered(doomed))

        assert {demo.reply(id_)["status"] for id_ in ids} == {"succeeded"}
        assert {(demo.reply(id_)["status"], demo.reply(id_)["error"]["code"]) for id_ in doomed} == {
            ("failed", "timeout")
        }
        assert not any(demo.answered([id_]) for id_ in late)
        attempts = await stage.records.rows(
            "select duration_seconds from attempts where publisher = $1 and id = any ($2::text[]::uuid[])",
            demo.name,
            doomed,
        )
        assert len(attempts) == len(doomed)
        for attempt in attempts:
            assert 0.9 * LIMIT_SECONDS <= attempt["duration_seconds"] < 5 * LIMIT_SECONDS


async def publish(demo: Outsider, serial: str, action: str, **parameters: float) -> str:
    body = {"action": action, "device": serial, **parameters}
    return await demo.publish(demo.command("android.execute.v1", body), key=f"android.execute.{serial}")


async def test_what_may_have_happened_on_a_hung_phone_is_never_repeated(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, 1) as fleet:
        [serial] = fleet.serials
        stage.worker("outbox")
        stage.worker("android")
        await until("the phone is consumed", lambda: all_consumed(stage, fleet.serials))
        await fleet.change(serial, answer="lost")

        first = await publish(demo, serial, "tap", x=0, y=7, timeout_seconds=8)
        await until("it is answered", lambda: demo.answered([first]))
        await fleet.change(serial, answer="normal")
        rest = [await publish(demo, serial, "tap", x=number, y=7) for number in (1, 2)]
        await until("the rest are answered", lambda: demo.answered(rest))

        assert demo.reply(first)["status"] == "indeterminate"
        assert [demo.reply(id_)["status"] for id_ in rest] == ["succeeded", "succeeded"]
        assert fleet.taps(serial) == [0, 1, 2]
