"""Claims and commits on a real PostgreSQL: who runs a command, and whose result counts."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from contracts.database import open_pool
from contracts.errors import CommandError, Deferred, ErrorCode, Transient
from contracts.results import State
from ops.stack.session import Session
from workers.consume import execution
from workers.handler import Artifact, FollowUp, Message, Outcome
from workers.stages import Admitted, Claimed, Finished, Key
from workers.store import commits
from workers.store.claims import NotClaimed, Verdict, claim, mark_alone
from workers.store.commits import OutboxKey
from workers.store.heartbeat import Registration
from workers.store.relay_commits import finish_at_once

Make = Callable[..., Admitted]
LEASE = 6.0


@pytest.fixture(scope="module")
async def database(services: Session) -> AsyncIterator[Any]:
    pool = await open_pool(services.postgres_url("ish_worker"), size=20, name="test claims")
    yield pool
    await pool.close()


@pytest.fixture
def command(make_admitted: Make) -> Make:
    return make_admitted


async def worker(database: Any, *, silent_seconds: float = 0) -> UUID:
    incarnation = uuid4()
    await database.execute(
        "insert into workers (incarnation, pool, host, pid, version, metrics_port, heartbeat_at)"
        " values ($1, 'ai', 'test', 1, 'test', 1, clock_timestamp() - $2::interval)",
        incarnation,
        timedelta(seconds=silent_seconds),
    )
    return incarnation


async def claimed_by(
    database: Any, holder: UUID, batch: Sequence[Admitted], *, in_flight: Sequence[int] = ()
) -> tuple[list[Claimed], list[NotClaimed]]:
    async with database.acquire() as connection:
        return await claim(connection, batch, holder=holder, lease_seconds=LEASE, in_flight=in_flight)


def success(claimed: Claimed, outcome: Outcome | None = None) -> Finished:
    return execution.finish(
        claimed, outcome or Outcome({"text": "hi"}), worker="w", started_at=datetime.now(UTC), seconds=0.1
    )


def failure(claimed: Claimed, error: CommandError) -> Finished:
    return execution.fail(claimed, error, worker="w", max_attempts=6, started_at=datetime.now(UTC), seconds=0.1)


async def committed(database: Any, *finished: Finished) -> set[int]:
    async with database.acquire() as connection, connection.transaction():
        return await commits.commit(connection, finished, worker="w", queue="ish.ai")


def first_run(one: Admitted, outcome: Outcome | None = None) -> Finished:
    now = datetime.now(UTC)
    return success(Claimed(one, day=now.date(), token=0, attempt=1, crashes=0, started_at=now), outcome)


async def at_once(
    database: Any, holder: UUID, *ready: Finished, sent: Sequence[OutboxKey] = ()
) -> dict[Key, tuple[date, int]]:
    now = datetime.now(UTC)
    async with database.acquire() as connection, connection.transaction():
        return await finish_at_once(connection, ready, sent=sent, holder=holder, started_at=now, finished_at=now)


async def row(database: Any, one: Admitted) -> Any:
    return await database.fetchrow("select * from commands where publisher = $1 and id = $2", *one.key)


async def test_a_new_command_is_claimed_once_however_many_ask(database: Any, command: Make) -> None:
    holders = [await worker(database) for _ in range(8)]
    batch = [command() for _ in range(50)]

    answers = await asyncio.gather(
        *(claimed_by(database, holder, random.sample(batch, len(batch))) for holder in holders)
    )

    winners = [one.admitted.key for claimed, _ in answers for one in claimed]
    assert sorted(winners) == sorted(one.key for one in batch)
    assert {other.verdict for _, left in answers for other in left} == {Verdict.HELD}


async def test_batches_with_the_same_keys_in_any_order_do_not_deadlock(database: Any, command: Make) -> None:
    dead = await worker(database, silent_seconds=60)
    batch = [command() for _ in range(60)]
    await claimed_by(database, dead, batch)
    holders = [await worker(database) for _ in range(10)]

    answers = await asyncio.gather(
        *(claimed_by(database, holder, random.sample(batch, len(batch))) for holder in holders)
    )

    assert sum(len(claimed) for claimed, _ in answers) == 60


async def test_a_living_worker_is_not_robbed(database: Any, command: Make) -> None:
    holder, other = await worker(database), await worker(database)
    one = command()
    await claimed_by(database, holder, [one])

    claimed, [left] = await claimed_by(database, other, [one])

    assert claimed == []
    assert left.verdict is Verdict.HELD
    assert (await row(database, one))["attempt"] == 1


async def test_a_silent_workers_command_is_taken_over_and_its_late_result_is_refused(
    database: Any, command: Make
) -> None:
    holder, other = await worker(database, silent_seconds=LEASE + 1), await worker(database)
    one = command()
    [first], _ = await claimed_by(database, holder, [one])

    [second], _ = await claimed_by(database, other, [one])

    assert (second.attempt, second.crashes, second.interrupted) == (2, 1, False)
    assert await committed(database, success(first, Outcome({"text": "late"}))) == set()
    assert await committed(database, success(second, Outcome({"text": "good"}))) == {second.token}
    stored = await row(database, one)
    assert stored["state"] == "succeeded"
    assert '"good"' in stored["result"]
    assert await database.fetchval("select count(*) from outbox where id = $1", one.envelope.id) == 1


async def test_what_must_not_be_repeated_is_taken_over_as_interrupted(database: Any, command: Make) -> None:
    dead, other = await worker(database, silent_seconds=LEASE + 1), await worker(database)
    one = command(repeatable=False)
    await claimed_by(database, dead, [one])

    [taken], _ = await claimed_by(database, other, [one])
    finished = await execution.run(taken, never_called, worker="w", max_attempts=8)

    assert taken.interrupted
    assert finished.state is State.INDETERMINATE


async def test_a_command_that_is_to_be_cancelled_is_taken_over_to_end_and_not_to_run(
    database: Any, command: Make
) -> None:
    one = command()
    dead, living = await worker(database, silent_seconds=60), await worker(database)
    await claimed_by(database, dead, [one])
    await database.execute("update commands set cancel_requested_at = now() where id = $1", one.envelope.id)

    [claimed], _ = await claimed_by(database, living, [one])
    finished = await execution.run(claimed, never_called, worker="w", max_attempts=6)

    assert claimed.cancellation.requested
    assert finished.state is State.CANCELLED
    assert not finished.dead_letter


async def test_an_error_that_passes_is_not_waited_for_once_it_is_to_be_cancelled(database: Any, command: Make) -> None:
    [claimed], _ = await claimed_by(database, await worker(database), [command()])
    claimed.cancellation.request()

    finished = failure(claimed, Transient(ErrorCode.PROVIDER_UNAVAILABLE, "away"))

    assert (finished.state, finished.error and finished.error.details["last_error"]) == (
        State.CANCELLED,
        "provider_unavailable",
    )


async def never_called(_: Any) -> Outcome:
    raise AssertionError("this command must not run")


async def test_a_worker_takes_again_what_it_forgot_but_not_what_it_runs(database: Any, command: Make) -> None:
    holder = await worker(database)
    forgotten, running = command(), command()
    claims, _ = await claimed_by(database, holder, [forgotten, running])
    tokens = {one.admitted.key: one.token for one in claims}

    [again], [left] = await claimed_by(database, holder, [forgotten, running], in_flight=[tokens[running.key]])

    assert again.admitted is forgotten
    assert left.verdict is Verdict.HELD


async def test_another_body_under_a_used_id_is_seen(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    await claimed_by(database, holder, [one])

    _, [left] = await claimed_by(database, holder, [command(id_=one.envelope.id, body=b'{"prompt":"other"}')])

    assert left.verdict is Verdict.ID_REUSED


async def test_an_id_is_its_publishers_own(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()

    first, _ = await claimed_by(database, holder, [one])
    second, _ = await claimed_by(database, holder, [command(publisher="other", id_=one.envelope.id)])

    assert len(first) == len(second) == 1


async def test_an_id_that_the_gateway_has_only_reserved_is_claimed(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    await database.execute(
        "insert into command_keys (publisher, id, fingerprint) values ($1, $2, $3)", *one.key, one.fingerprint
    )

    claimed, left = await claimed_by(database, holder, [one])

    assert [each.attempt for each in claimed] == [1]
    assert left == []


async def test_a_reserved_id_with_another_body_is_not_waited_for(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    await database.execute(
        "insert into command_keys (publisher, id, fingerprint) values ($1, $2, $3)", *one.key, b"another"
    )

    _, [left] = await claimed_by(database, holder, [one])

    assert left.verdict is Verdict.ID_REUSED


async def test_a_finished_command_answers_with_its_stored_bytes(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    [claimed], _ = await claimed_by(database, holder, [one])
    finished = success(claimed)
    await committed(database, finished)

    _, [left] = await claimed_by(database, holder, [one])

    assert (left.verdict, left.state) == (Verdict.TERMINAL, "succeeded")
    assert left.result is not None
    assert left.result.encode() == finished.result


async def test_a_command_that_waits_is_not_run_early(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    [claimed], _ = await claimed_by(database, holder, [one])
    error = Transient(ErrorCode.PROVIDER_RATE_LIMITED, "slow down", retry_after_seconds=20)
    await committed(database, failure(claimed, error))

    _, [left] = await claimed_by(database, holder, [one])

    assert left.verdict is Verdict.EARLY
    assert left.retry_at is not None
    assert 18 < (left.retry_at - datetime.now(UTC)).total_seconds() < 21
    assert await database.fetchval("select count(*) from outbox where id = $1", one.envelope.id) == 0


async def test_one_transaction_writes_everything_that_a_run_led_to(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    [claimed], _ = await claimed_by(database, holder, [one])
    outcome = Outcome(
        {"text": "hi"},
        messages=(Message("c1", "bot", "hi", datetime.now(UTC), {"a": 1}),),
        artifacts=(Artifact("ab" * 32, "image/png", b"png"), Artifact("ab" * 32, "image/png", b"png")),
    )

    await committed(database, success(claimed, outcome))

    id_ = one.envelope.id
    assert await database.fetchval("select count(*) from messages where command_id = $1", id_) == 1
    assert await database.fetchval("select count(*) from artifact_owners where command_id = $1", id_) == 1
    assert await database.fetchval("select count(*) from attempts where id = $1", id_) == 1
    assert await database.fetchval("select count(*) from outbox where id = $1", id_) == 1


async def test_finished_at_once_is_one_row_for_new_and_recorded_commands(database: Any, command: Make) -> None:
    holder = await worker(database)
    new, recorded, ended = command(), command(), command()
    await database.execute(
        "insert into command_keys (publisher, id, fingerprint) values ($1, $2, $3)", *recorded.key, recorded.fingerprint
    )
    await database.execute(
        "insert into commands (publisher, id, day, kind, owner, state, routing_key, payload, accepted_at, deadline_at)"
        " select publisher, id, day, 'ai.send', 'demo', 'queued', 'ai.send', '{}', now(), now() + interval '1 hour'"
        " from command_keys where publisher = $1 and id = $2",
        *recorded.key,
    )
    [claimed], _ = await claimed_by(database, holder, [ended])
    await committed(database, success(claimed))
    line = Message("at-once", "user", "hi", datetime.now(UTC))
    ready = [first_run(one, Outcome({}, messages=(line,))) for one in (new, recorded, ended)]

    done = await at_once(database, holder, *ready)

    assert set(done) == {new.key, recorded.key}
    for one in (new, recorded):
        stored = await row(database, one)
        assert (stored["state"], stored["attempt"], stored["token"]) == ("succeeded", 1, done[one.key][1])
        assert await database.fetchval("select count(*) from messages where command_id = $1", one.envelope.id) == 1
        assert await database.fetchval("select body from outbox where id = $1", one.envelope.id) == stored["result"]
    assert await database.fetchval("select count(*) from messages where command_id = $1", ended.envelope.id) == 0


async def test_what_follows_a_command_finished_at_once_is_in_the_outbox_with_it(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    ready = first_run(one, Outcome({}, follow_ups=(FollowUp("ai.send", {"prompt": "and?"}),)))

    done = await at_once(database, holder, ready)

    [(_, token)] = done.values()
    rows = await database.fetch("select part, id, kind, status, body from outbox where token = $1 order by part", token)
    [(child, body)] = ready.follow_ups
    assert [(each["part"], each["id"], each["kind"], each["status"]) for each in rows] == [
        (0, one.envelope.id, "ai.send", "succeeded"),
        (1, child.id, "ai.send", None),
    ]
    assert rows[1]["body"].encode() == body


async def test_confirmed_outbox_rows_leave_with_the_next_batch(database: Any, command: Make) -> None:
    holder = await worker(database)
    first = await at_once(database, holder, first_run(command()))
    [(_, token)] = first.values()

    await at_once(database, holder, first_run(command()), sent=[OutboxKey(token, 0)])

    assert await database.fetchval("select count(*) from outbox where token = $1", token) == 0


async def test_only_targets_that_match_get_a_delivery(database: Any, services: Session, command: Make) -> None:
    async with asyncio.timeout(10):
        owner = await asyncpg.connect(services.postgres_url("ish_owner"))
    await owner.execute(
        "insert into targets (owner, name, url, secret, conversation_id, disabled_at) values"
        " ('demo', 'all', 'https://a.example', 's', null, null), ('demo', 'one', 'https://b.example', 's', 'c-one', null),"
        " ('demo', 'off', 'https://c.example', 's', null, now()), ('other', 'all', 'https://d.example', 's', null, null)"
    )
    holder, now = await worker(database), datetime.now(UTC)
    lines = [
        Message("c-one", "user", "hi", now),
        Message("c-two", "user", "hi", now),
        Message("c-one", "user", "hi", now, {}, ("one",)),
    ]
    batch = [command() for _ in lines]

    await at_once(
        database,
        holder,
        *(first_run(one, Outcome({}, messages=(line,))) for one, line in zip(batch, lines, strict=True)),
    )

    found = [
        {
            each["name"]
            for each in await database.fetch(
                "select t.name from deliveries d join targets t on t.id = d.target_id where d.command_id = $1",
                one.envelope.id,
            )
        }
        for one in batch
    ]
    assert found == [{"all", "one"}, {"all"}, {"one"}]
    await owner.execute("update targets set disabled_at = now() where owner in ('demo', 'other')")
    await owner.close()


async def test_runs_alone_are_counted_before_they_start(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    [claimed], _ = await claimed_by(database, holder, [one])

    async with database.acquire() as connection:
        counts = [await mark_alone(connection, claimed) for _ in range(3)]

    assert counts == [1, 2, 3]


async def test_a_run_that_ends_in_a_wait_clears_its_command_of_the_crashes_before(database: Any, command: Make) -> None:
    dead, holder, one = await worker(database, silent_seconds=LEASE + 1), await worker(database), command()
    await claimed_by(database, dead, [one])
    [claimed], _ = await claimed_by(database, holder, [one])
    async with database.acquire() as connection:
        await mark_alone(connection, claimed)
    before = await row(database, one)

    await committed(database, failure(claimed, Deferred(ErrorCode.NO_CAPACITY, "no room", retry_after_seconds=0)))

    after = await row(database, one)
    assert (before["crashes"], before["alone"]) == (1, 1)
    assert (after["state"], after["crashes"], after["alone"]) == ("retrying", 0, 0)


async def test_a_command_that_was_only_put_off_until_its_deadline_tells_for_what(database: Any, command: Make) -> None:
    holder, one = await worker(database), command()
    [claimed], _ = await claimed_by(database, holder, [one])
    await committed(database, failure(claimed, Deferred(ErrorCode.NO_CAPACITY, "no room", retry_after_seconds=0)))
    [again], _ = await claimed_by(database, holder, [one])
    again.admitted.envelope = replace(again.admitted.envelope, deadline_at=datetime.now(UTC))

    finished = await execution.run(again, never_called, worker="w", max_attempts=6)

    assert finished.error is not None
    assert (finished.error.code, finished.error.details) == (
        ErrorCode.DEADLINE_PASSED,
        {"last_error": "no_capacity"},
    )


async def test_a_command_whose_last_run_takes_too_long_does_not_blame_what_put_it_off_before(
    database: Any, command: Make
) -> None:
    holder, one = await worker(database), command()
    [claimed], _ = await claimed_by(database, holder, [one])
    await committed(database, failure(claimed, Deferred(ErrorCode.NO_CAPACITY, "no room", retry_after_seconds=0)))
    [again], _ = await claimed_by(database, holder, [one])
    again.admitted.envelope = replace(
        again.admitted.envelope, deadline_at=datetime.now(UTC) + timedelta(milliseconds=200)
    )

    async def hang(_: Any) -> Outcome:
        await asyncio.sleep(60)
        return Outcome({})

    finished = await execution.run(again, hang, worker="w", max_attempts=6)

    assert finished.error is not None
    assert (finished.error.code, finished.error.details) == (ErrorCode.DEADLINE_PASSED, {})


async def test_a_command_that_is_taken_over_keeps_the_times_it_was_recorded_with(database: Any, command: Make) -> None:
    dead, holder = await worker(database, silent_seconds=60), await worker(database)
    first = command()
    await claimed_by(database, dead, [first])
    # its publisher gave no time: a later delivery is taken for a later command
    later = command(publisher=first.envelope.publisher, id_=first.envelope.id)
    later.envelope = replace(
        later.envelope,
        accepted_at=first.envelope.accepted_at + timedelta(minutes=5),
        deadline_at=first.envelope.deadline_at + timedelta(minutes=5),
    )

    [taken], _ = await claimed_by(database, holder, [later])

    assert taken.taken_over
    envelope = taken.admitted.envelope
    assert (envelope.accepted_at, envelope.deadline_at) == (first.envelope.accepted_at, first.envelope.deadline_at)
    assert taken.command().accepted_at <= taken.started_at


async def started_over(registration: Registration) -> None:
    """Let heartbeats be missed, and the worker find out."""
    old = registration.incarnation
    await registration._pool.execute(  # noqa: SLF001  # the test's own pool
        "update workers set heartbeat_at = clock_timestamp() - interval '1 hour' where incarnation = $1", old
    )
    beating = asyncio.ensure_future(registration.beat(lambda: ()))
    async with asyncio.timeout(30):
        while registration.incarnation == old:  # noqa: ASYNC110  # it is told nobody
            await asyncio.sleep(0.02)
    beating.cancel()


async def registered(database: Any) -> Registration:
    registration = Registration(database, pool_name="android", metrics_port=1, lease_seconds=5, heartbeat_seconds=0.02)
    await registration.register()
    return registration


async def test_a_tap_whose_claim_was_not_answered_is_not_taken_for_interrupted(database: Any, command: Make) -> None:
    registration = await registered(database)
    tap = command(repeatable=False)
    await claimed_by(database, registration.incarnation, [tap])  # and nobody hears of it

    await started_over(registration)

    [again], _ = await claimed_by(database, registration.incarnation, [tap])
    assert (again.interrupted, again.taken_over, again.crashes, again.attempt) == (False, False, 0, 1)


async def test_a_claim_that_was_answered_after_its_worker_registered_anew_is_its_own(
    database: Any, command: Make
) -> None:
    registration = await registered(database)
    old = registration.incarnation
    await started_over(registration)
    tap = command(repeatable=False)
    await claimed_by(database, old, [tap])  # sent before, done after

    async with database.acquire() as connection:
        [again], _ = await claim(
            connection,
            [tap],
            holder=registration.incarnation,
            former=registration.former,
            lease_seconds=LEASE,
            in_flight=[],
        )

    assert not registration.is_still(old)
    assert (again.interrupted, again.taken_over, again.crashes) == (False, False, 0)


async def test_registering_again_after_a_lost_answer_is_no_error(database: Any) -> None:
    registration = await registered(database)

    await registration.register()
