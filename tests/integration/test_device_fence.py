"""The fence on the phone itself: what an earlier holder sends is refused there, whatever that holder believes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from typing_extensions import override

from contracts.errors import CommandError, Deferred, ErrorCode, Permanent
from tests.integration.one_phone import OnePhone, one_phone
from workers.android.adb.server import AdbFailure, AdbServer
from workers.android.monitor.devices import Transport
from workers.android.monitor.watch import Watcher
from workers.android.session import FENCE_FILE
from workers.device_pool.leased_phone import Hold
from workers.task_cancellation import end


@dataclass
class Registered:
    """A worker's incarnation, as sure of itself as the test says."""

    incarnation: UUID
    sure_seconds: float = 60.0


@dataclass
class Bench:
    """A phone, a watcher that knows it, and holds of it."""

    phone: OnePhone
    watcher: Watcher

    def hold(self, token: int) -> Hold:
        registered = Registered(uuid4())
        return Hold("SIM1", token, registered.incarnation, registered, self.watcher, asyncio.Lock())

    async def fence_on_phone(self) -> str:
        return (await self.phone.shell(f"cat {FENCE_FILE}")).strip()

    async def tap(self, hold: Hold, x: int) -> None:
        """Tap as a worker that believes in its hold, whatever has become of it."""
        self.phone.fence = str(hold.token)
        await self.phone.run(action="tap", x=x, y=2)

    async def tap_when_opened(self, hold: Hold, x: int, *, patience_seconds: float) -> None:
        async with hold.opened(patience_seconds=patience_seconds):
            await self.tap(hold, x)

    async def until_state(self, state: str) -> None:
        async with asyncio.timeout(60):
            while (facts := self.watcher.facts_of("SIM1")) is None or facts.state != state:
                self.watcher.changed.clear()
                await self.watcher.changed.wait()

    @property
    def taps(self) -> list[int]:
        return [effect["x"] for effect in self.phone.effects("tap")]


@pytest.fixture
async def bench(server: AdbServer, tmp_path: Path) -> AsyncIterator[Bench]:
    watcher = Watcher([server], poll_seconds=0.1)
    async with one_phone(server, tmp_path) as phone, asyncio.TaskGroup() as group:
        task = group.create_task(watcher.run())
        async with asyncio.timeout(60):
            while watcher.transport_of("SIM1") is None:
                watcher.changed.clear()
                await watcher.changed.wait()
        yield Bench(phone, watcher)
        await end([task])


async def test_the_newest_holders_lines_run_and_an_earlier_ones_do_not(bench: Bench) -> None:
    first, second = bench.hold(17), bench.hold(23)
    async with first.opened() as (_, fence):
        assert fence == "17"
        await bench.tap(first, 1)

    async with second.opened() as (_, fence):
        assert fence == "23"
    with pytest.raises(CommandError) as refused:
        await bench.tap(first, 2)
    await bench.tap(second, 3)

    assert refused.value.code is ErrorCode.DEVICE_BUSY
    assert bench.taps == [1, 3]
    assert await bench.fence_on_phone() == "23"


async def test_who_is_frozen_before_it_writes_its_fence_does_not_undo_the_next_ones(bench: Bench) -> None:
    first, second = bench.hold(17), bench.hold(23)
    transport = bench.watcher.transport_of("SIM1")
    assert transport is not None
    reached, thawed = asyncio.Event(), asyncio.Event()

    async with asyncio.TaskGroup() as group:
        server = FrozenOnItsSecondLine(transport.server.host, transport.server.port, reached, thawed)
        slow = Transport(server, transport.serial, transport.id)
        fencing = group.create_task(outcome(first, slow))
        await reached.wait()
        async with second.opened():
            registered(first).sure_seconds = 0.0
            thawed.set()
            await fencing

    assert isinstance(fencing.result(), Deferred)
    assert await bench.fence_on_phone() == "23"


async def test_a_token_of_another_database_is_replaced_whatever_its_number(bench: Bench) -> None:
    async with bench.hold(9_000_000_000).opened():
        pass

    async with bench.hold(1).opened():
        pass

    assert await bench.fence_on_phone() == "1"


async def test_a_phone_that_cannot_keep_files_is_used_without_a_fence(bench: Bench) -> None:
    bench.phone.device.control.change(writes_files=False)
    hold = bench.hold(17)

    async with hold.opened() as (_, fence):
        assert fence is None

    assert hold.fence_unsupported


async def test_a_fence_that_went_missing_is_written_again(bench: Bench) -> None:
    hold = bench.hold(17)
    async with hold.opened():
        pass
    await bench.phone.shell(f"rm {FENCE_FILE}")
    with pytest.raises(CommandError):
        await bench.tap(hold, 1)

    hold.refused()
    async with hold.opened():
        await bench.tap(hold, 2)

    assert bench.taps == [2]


async def test_an_unsure_holder_sends_nothing_not_even_in_the_middle_of_a_command(bench: Bench) -> None:
    hold = bench.hold(17)
    async with hold.opened() as (transport, fence):
        bench.phone.transport, bench.phone.fence = transport, fence
        await bench.phone.run(action="tap", x=1, y=2)
        registered(hold).sure_seconds = 0.0

        failure = await bench.phone.failure(action="tap", x=2, y=2)

    assert failure.code is ErrorCode.DEVICE_BUSY
    assert bench.taps == [1]
    with pytest.raises(Deferred):
        async with hold.opened():
            pass


async def test_a_phone_that_is_known_to_answer_nothing_is_waited_for_as_long_as_the_command_may_take(
    bench: Bench,
) -> None:
    hold = bench.hold(17)
    async with hold.opened():
        pass
    bench.phone.device.control.change(answer="black_hole")
    await bench.until_state("unresponsive")

    with pytest.raises(Permanent) as failure:
        async with hold.opened(patience_seconds=0.5):
            pytest.fail("it was opened")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(bench.tap_when_opened(hold, 1, patience_seconds=60))
        bench.phone.device.control.change(answer="normal")
        await waiting

    assert failure.value.code is ErrorCode.TIMEOUT
    assert "nothing was sent" in failure.value.message
    assert bench.taps == [1]


async def test_a_phone_that_answers_nothing_is_not_waited_for_without_patience(bench: Bench) -> None:
    bench.phone.device.control.change(answer="black_hole")
    await bench.until_state("unresponsive")

    with pytest.raises(Deferred) as failure:
        async with bench.hold(17).opened():
            pytest.fail("it was opened")

    assert failure.value.details["state"] == "unresponsive"


async def test_a_fence_that_the_phone_never_confirms_takes_no_longer_than_the_command_may(bench: Bench) -> None:
    bench.phone.device.control.change(answer="hang")

    with pytest.raises(Permanent) as failure:
        async with bench.hold(17).opened(patience_seconds=0.5):
            pytest.fail("it was opened")

    assert failure.value.code is ErrorCode.TIMEOUT


def registered(hold: Hold) -> Registered:
    assert isinstance(hold.registration, Registered)
    return hold.registration


async def outcome(hold: Hold, transport: Transport) -> Deferred | None:
    try:
        await hold.fence(transport)
    except Deferred as error:
        return error
    return None


@dataclass(frozen=True)
class FrozenOnItsSecondLine(AdbServer):
    """Sends its first line, and the second when it is thawed."""

    reached: asyncio.Event
    thawed: asyncio.Event
    lines: list[str] = field(default_factory=list)

    @asynccontextmanager
    @override
    async def service(
        self, serial: str, name: str, *, timeout_seconds: float
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        self.lines.append(name)
        if len(self.lines) == 2:
            self.reached.set()
            await self.thawed.wait()
        async with super().service(serial, name, timeout_seconds=timeout_seconds) as streams:
            yield streams


async def test_a_phone_that_does_not_answer_is_waited_for(bench: Bench) -> None:
    bench.phone.device.control.change(answer="hang")
    try:
        with pytest.raises(Deferred) as put_off:
            async with bench.hold(17).opened():
                pass
    finally:
        bench.phone.device.control.change(answer="normal")

    assert put_off.value.code in (ErrorCode.TIMEOUT, ErrorCode.DEVICE_OFFLINE)
    assert isinstance(put_off.value.__cause__, AdbFailure | None)
