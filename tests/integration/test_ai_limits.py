"""Limits of a provider over several worker processes, as the provider saw them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from redis.asyncio import Redis

from ops.simulators.provider.ledger import Ledger
from ops.simulators.provider.scripts import Script, Scripts
from ops.simulators.provider.server import running
from ops.stack.child import Child, Spec, environment
from ops.stack.session import Session
from tests.forked import Forked
from workers.ai.limits.link import ROOT
from workers.task_cancellation import end


@dataclass(frozen=True, slots=True)
class Stand:
    """A scripted provider, its own record of what came, and workers that are processes."""

    folder: Path
    redis_url: str
    scripts: Scripts
    ledger: Ledger
    port: int
    stack: AsyncExitStack

    def providers(self, *tables: str, policy: str = "priority") -> list[str]:
        """One provider for each table of limits, under names that no other test uses; returns the names."""
        names = [f"p{uuid4().hex[:12]}" for _ in tables]
        text = [
            f'[providers.{name}]\ndialect = "openai"\nbase_url = "http://127.0.0.1:{self.port}/v1"\n{table}\n'
            f"[providers.{name}.models.model-{place}]"
            for place, (name, table) in enumerate(zip(names, tables, strict=True))
        ]
        listed = [f"{name}/model-{place}" for place, name in enumerate(names)]
        text.append(f'[aliases.default]\npolicy = "{policy}"\nmodels = {orjson.dumps(listed).decode()}')
        (self.folder / "providers.toml").write_text("\n".join(text))
        return names

    def script(self, *steps: dict[str, Any], **rest: Any) -> None:
        self.scripts.add(Script.model_validate({"steps": list(steps), **rest}))

    def workers(self, count: int, *, commands: int, places: int = 50, window_seconds: float = 60) -> list[Child]:
        """Start workers that share the commands."""
        each = commands // count
        assert each * count == commands
        shares = [(place * each, (place + 1) * each - 1) for place in range(count)]
        return [self._worker(window_seconds, places, *share) for share in shares]

    def _worker(self, *arguments: float) -> Child:
        words = (str(self.folder / "providers.toml"), *map(str, arguments))
        spec = Spec(
            name="worker",
            argv=(sys.executable, "-m", "tests.integration.ai_fleet_worker", *words),
            environment=environment({"ISH_REDIS_URL": self.redis_url}),
            log_file=self.folder / f"worker-{uuid4()}.log",
            ready=lambda: True,
        )
        worker = Forked(spec)
        worker.spawn()
        self.stack.callback(worker.kill)
        return worker

    def calls(self) -> list[dict[str, Any]]:
        """Each call with when it began, and when and how it ended."""
        calls: dict[int, dict[str, Any]] = {}
        for line in map(orjson.loads, (self.folder / "calls.jsonl").read_bytes().splitlines()):
            if line["event"] == "invoke":
                calls[line["call"]] = {"began": line["at"], "command": line["command_id"], "model": line["model"]}
            else:
                calls[line["call"]] |= {"ended": line["at"], "event": line["event"]}
        return list(calls.values())

    async def until_called(self, count: int) -> None:
        async with asyncio.timeout(60):
            while self.ledger.counts()["calls"] < count:  # noqa: ASYNC110  # a counter
                await asyncio.sleep(0.02)


async def finished(workers: Sequence[Child]) -> None:
    """Wait until they have done all their commands."""
    for worker in workers:
        while worker.running:  # noqa: ASYNC110  # nothing tells of a process's end
            await asyncio.sleep(0.02)
        assert "done " in worker.spec.log_file.read_text(encoding="utf-8"), worker.last_words("a worker ended")


@pytest.fixture
async def stand(services: Session, tmp_path: Path) -> AsyncIterator[Stand]:
    scripts, ledger = Scripts(0), Ledger(tmp_path / "calls.jsonl")
    async with AsyncExitStack() as stack:
        stack.callback(ledger.close)
        port = await stack.enter_async_context(running(port=0, scripts=scripts, ledger=ledger))
        yield Stand(tmp_path, services.redis_url, scripts, ledger, port, stack)


def most_in_any_window(times: Sequence[float], seconds: float) -> int:
    ordered, first, most = sorted(times), 0, 0
    for last, time in enumerate(ordered):
        while ordered[first] <= time - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def by_window(times: Sequence[float], seconds: float) -> list[int]:
    """How many are in each full window from the first on, one after the other."""
    first, last = min(times), max(times)
    return [
        sum(first + number * seconds <= time < first + (number + 1) * seconds for time in times)
        for number in range(int((last - first) // seconds))
    ]


def busy_share(calls: Sequence[dict[str, Any]], places: int) -> float:
    """How much of the places' time was used between the first call and the last."""
    span = max(call["ended"] for call in calls) - min(call["began"] for call in calls)
    return float(sum(call["ended"] - call["began"] for call in calls) / (span * places))


async def _three_at_once(stand: Stand, *, commands: int) -> float:
    stand.providers("max_in_flight = 3")
    stand.script(latency_seconds=0.5)

    await finished(stand.workers(10, commands=commands))

    calls = stand.calls()
    assert len(calls) == commands
    assert stand.ledger.counts()["peak_in_flight"] == 3
    return busy_share(calls, 3)


async def test_ten_workers_keep_within_three_calls_at_once_and_leave_none_of_them_idle(stand: Stand) -> None:
    share = await _three_at_once(stand, commands=60)

    assert share > 0.6  # places that nobody is told about are found by asking again, twice a second: half of this


@pytest.mark.full
async def test_ten_workers_use_95_percent_of_three_calls_at_once(stand: Stand) -> None:
    assert await _three_at_once(stand, commands=240) >= 0.95


async def test_killed_workers_leak_no_place(stand: Stand) -> None:
    stand.providers("max_in_flight = 3")
    stand.script({"fault": "stall_before_headers", "times": 3})
    doomed = stand.workers(1, commands=6)
    await stand.until_called(3)
    others = stand.workers(2, commands=20)

    doomed[0].kill()
    await finished(others)

    calls = stand.calls()
    assert stand.ledger.counts()["peak_in_flight"] == 3
    assert sum(call["event"] == "ok" for call in calls) == 20
    # and with nobody else there all three places are free
    stand.script(latency_seconds=0.5)
    await finished(stand.workers(1, commands=12))
    assert busy_share(stand.calls()[-12:], 3) > 0.6


@asynccontextmanager
async def grants_of(stand: Stand, provider: str) -> AsyncIterator[dict[bytes, float]]:
    """Each granted request and its time in seconds by the clock of Redis, complete when the block has ended.

    The clock of whoever grants: between a grant and its arrival a busy machine may stop either side for seconds.
    """
    granted: dict[bytes, float] = {}
    key = f"{ROOT}:provider:{provider}:requests"
    async with Redis.from_url(stand.redis_url) as redis:

        async def read() -> None:
            listed: Any = await redis.zrange(key, 0, -1, withscores=True)  # its type says nothing
            granted.update({passed: at / 1000 for passed, at in listed})

        async def follow() -> None:
            while True:
                await read()  # a grant stays there for a window at least
                await asyncio.sleep(0.1)

        following = asyncio.create_task(follow())
        try:
            yield granted
        finally:
            await end([following])
        await read()


async def _requests(stand: Stand, *, limit: int, commands: int, window_seconds: float) -> list[float]:
    """Returns when each was granted."""
    [provider] = stand.providers(f"requests_per_minute = {limit}")

    async with grants_of(stand, provider) as granted:
        await finished(stand.workers(4, commands=commands, window_seconds=window_seconds))

    assert len(stand.calls()) == len(granted) == commands
    times = list(granted.values())
    assert most_in_any_window(times, window_seconds) <= limit
    return times


async def test_requests_of_four_workers_exceed_the_limit_in_no_window(stand: Stand) -> None:
    await _requests(stand, limit=50, commands=208, window_seconds=8)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_100_requests_a_minute_of_four_workers_fill_every_minute_and_exceed_none(stand: Stand) -> None:
    times = await _requests(stand, limit=100, commands=544, window_seconds=60)

    arrived = [call["began"] for call in stand.calls()]
    for counted in (times, arrived):  # by whoever grants, and as the provider counts
        assert most_in_any_window(counted, 60) <= 100
        windows = by_window(counted, 60)
        assert len(windows) >= 5
        assert min(windows[:5]) >= 98


async def test_two_limits_hold_at_once(stand: Stand) -> None:
    [provider] = stand.providers("requests_per_minute = 10\nmax_in_flight = 2")
    stand.script(latency_seconds=0.1)

    async with grants_of(stand, provider) as granted:
        await finished(stand.workers(3, commands=30, window_seconds=5))

    assert len(granted) == 30
    assert most_in_any_window(list(granted.values()), 5) <= 10
    assert stand.ledger.counts()["peak_in_flight"] <= 2


async def test_a_dead_primary_is_asked_once_in_each_pause_by_all_workers_together(stand: Stand) -> None:
    stand.providers("", "")
    stand.script({"status": 503}, match={"model": "model-0"}, repeat=True)
    stand.script(latency_seconds=0.05, match={"model": "model-1"})

    await finished(stand.workers(4, commands=400, places=2))

    calls = stand.calls()
    primary = [call["began"] for call in calls if call["model"] == "model-0"]
    assert sum(call["model"] == "model-1" for call in calls) == 400
    # two failures each let another call out, and the third opened it, when eight were under way; then one probe after
    # 2, 4, 8 … seconds
    opened = primary[2]
    probes = [time for time in primary if time > opened + 1.5]
    assert len(primary) - len(probes) <= 2 + 8
    span = max(call["began"] for call in calls) - opened
    assert len(probes) <= len([pause for pause in (2, 6, 14, 30, 62) if pause <= span])


async def test_an_outage_of_every_provider_parks_all_commands_and_drains_them_with_a_slow_start(stand: Stand) -> None:
    stand.providers("", "")
    stand.script({"status": 503}, repeat=True, name="outage")
    workers = stand.workers(4, commands=120, places=5)
    await stand.until_called(6)
    await asyncio.sleep(5)  # the length of the outage
    during = stand.ledger.counts()["calls"]

    stand.script(latency_seconds=0.3, name="outage")
    await finished(workers)

    calls = stand.calls()
    assert sum(call["event"] == "ok" for call in calls) == 120
    # the third failure opened each breaker, when up to twenty calls were under way; then each was probed twice
    assert during <= 2 * 20 + 4
    recovered_at = min(call["began"] for call in calls if call["event"] == "ok")
    first_second = [call for call in calls if recovered_at <= call["began"] < recovered_at + 0.3]
    assert len(first_second) <= 2 * 3


async def test_redis_that_lost_its_memory_is_told_what_is_held(stand: Stand) -> None:
    stand.providers("max_in_flight = 3")
    stand.script(latency_seconds=8)
    first = stand.workers(1, commands=3)
    await stand.until_called(3)

    async with Redis.from_url(stand.redis_url) as redis:
        await redis.flushall()
        async with asyncio.timeout(60):
            while not await redis.keys("*leases"):  # noqa: ASYNC110  # the condition is in Redis
                await asyncio.sleep(0.05)
    await finished([*first, *stand.workers(1, commands=3)])

    assert stand.ledger.counts()["peak_in_flight"] == 3


async def test_without_redis_each_worker_keeps_within_the_limits_and_all_commands_finish(
    stand: Stand, services: Session
) -> None:
    stand.providers("max_in_flight = 3")
    stand.script(latency_seconds=0.2)
    workers = stand.workers(2, commands=80)
    await stand.until_called(10)

    services.redis.stop()
    try:
        already = stand.ledger.counts()["calls"]
        await stand.until_called(already + 40)
    finally:
        services.redis.start()
    await finished(workers)

    calls = stand.calls()
    assert sum(call["event"] == "ok" for call in calls) == 80
    assert stand.ledger.counts()["peak_in_flight"] <= 2 * 3
