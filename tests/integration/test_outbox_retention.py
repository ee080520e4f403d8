"""Everything that accumulates goes when it has served its time, not before, and in batches that read by an index."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiormq
import asyncpg
import pytest
from prometheus_client import REGISTRY

from contracts.database import SERVER_SETTINGS
from contracts.settings import Settings
from contracts.topology import device_queue
from ops.stack.session import Session
from tests.integration.outbox_stand import Stand, retention, stand
from workers.outbox import housekeeping
from workers.outbox.housekeeping import Housekeeping
from workers.outbox.repair.device_queues import DeviceQueues

OLD, YOUNG = timedelta(days=31), timedelta(days=29)


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        yield one


@pytest.fixture
async def owner(services: Session) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(services.postgres_url("ish_owner"), timeout=10)
    yield connection
    await connection.close()


async def tidy(bench: Stand, *, batch: int = 5000, **days: int) -> None:
    await Housekeeping(bench.database, retention(**days), batch=batch).round()


async def make_week(bench: Stand, monday: date) -> None:
    for parent in ("commands", "attempts"):
        await bench.owner.execute(
            f"create table {parent}_{monday:%Y%m%d} partition of {parent}"
            f" for values from ('{monday}') to ('{monday + timedelta(days=7)}')"
        )


async def command_of(bench: Stand, day: date, state: str) -> UUID:
    id_ = await bench.command(state)
    await bench.owner.execute("update commands set day = $2 where id = $1", id_, day)
    await bench.owner.execute("update command_keys set day = $2 where id = $1", id_, day)
    return id_


async def keys(bench: Stand) -> set[UUID]:
    return {
        row["id"] for row in await bench.owner.fetch("select id from command_keys where publisher = $1", bench.name)
    }


async def test_keys_go_with_the_week_of_their_commands_not_before_and_not_after(bench: Stand) -> None:
    today = datetime.now(UTC).date()
    monday = today - timedelta(days=today.weekday())
    finished, unfinished = monday - timedelta(weeks=30), monday - timedelta(weeks=28)
    newest = today - timedelta(days=31)  # of the last week that is past a retention of as many days as its end is old
    newest_week = newest - timedelta(days=newest.weekday() + 7)
    for week in (finished, unfinished, newest_week):
        await make_week(bench, week)
    gone = [await command_of(bench, finished + timedelta(days=day), "succeeded") for day in range(7)]
    gone.append(await command_of(bench, newest_week + timedelta(days=6), "failed"))
    kept = [await command_of(bench, unfinished, state) for state in ("retrying", "succeeded")]
    kept.append(await bench.command("queued"))

    await tidy(bench, batch=3, commands=(today - newest_week).days - 8)

    assert await keys(bench) == set(kept)
    assert not await bench.owner.fetch("select from commands where id = any ($1)", gone)

    await bench.owner.execute(
        "update commands set state = 'expired', finished_at = now() where id = any ($1)", kept[:1]
    )
    await tidy(bench)

    assert await keys(bench) == set(kept[2:])
    assert not await bench.owner.fetch("select from commands where id = any ($1)", kept[:2])


async def say(bench: Stand, conversation: str, *ages: timedelta) -> None:
    for age in ages:
        await bench.owner.execute(
            "insert into messages values ($1, $2, 0, $1, $3, 'user', 'text', '{}', now(), now() - $4::interval)",
            bench.name,
            uuid4(),
            conversation,
            age,
        )


async def test_old_messages_go_and_conversations_with_their_last_one(bench: Stand) -> None:
    await say(bench, "long", *[OLD] * 5, YOUNG)
    await say(bench, "over", *[OLD] * 4)
    await say(bench, "new", YOUNG)
    for conversation, age in (("long", OLD), ("over", OLD), ("new", YOUNG), ("begun", YOUNG), ("silent", OLD)):
        await bench.owner.execute(
            "insert into conversations values ($1, $2, now() - $3::interval)", bench.name, conversation, age
        )

    await tidy(bench, batch=2)

    lines = await bench.owner.fetch("select conversation_id from messages where owner = $1 order by 1", bench.name)
    assert [line[0] for line in lines] == ["long", "new"]
    left = await bench.owner.fetch("select id from conversations where owner = $1 order by 1", bench.name)
    assert [one[0] for one in left] == ["begun", "long", "new"]


async def test_the_audit_log_goes_by_age(bench: Stand) -> None:
    for age in [*[OLD] * 5, YOUNG]:
        await bench.owner.execute(
            "insert into audit_log (at, actor, action, subject) values (now() - $2::interval, $1, 'a', $2::text)",
            bench.name,
            age,
        )

    await tidy(bench, batch=2)

    left = await bench.owner.fetch("select subject from audit_log where actor = $1", bench.name)
    assert [one[0] for one in left] == ["29 days"]


async def test_api_keys_go_after_they_were_revoked_or_ran_out(bench: Stand) -> None:
    ends = {"valid": (None, None), "ends later": (None, -OLD), "revoked": (YOUNG, None), "ran out": (None, YOUNG),
            "revoked long ago": (OLD, None), "ran out long ago": (None, OLD),
            "revoked long ago, endless otherwise": (OLD, -OLD)}  # fmt: skip
    for label, (revoked, expired) in ends.items():
        await bench.owner.execute(
            "insert into api_keys values ($1, $2, 'x', $3, now() - interval '1 year', now() - $4::interval,"
            " now() - $5::interval)",
            uuid4().hex,
            bench.name,
            label,
            expired,
            revoked,
        )

    await tidy(bench, batch=2)

    left = await bench.owner.fetch("select label from api_keys where owner = $1 order by 1", bench.name)
    assert [one[0] for one in left] == ["ends later", "ran out", "revoked", "valid"]


async def test_a_removed_target_goes_when_no_delivery_names_it_any_more(bench: Stand) -> None:
    made = {}
    for name, removed in {"in use": None, "removed": YOUNG, "gone": OLD, "named": OLD}.items():
        made[name] = await bench.owner.fetchval(
            "insert into targets (owner, name, url, secret, disabled_at)"
            " values ($1, $2, 'https://example.org/', 'whsec_', now() - $3::interval) returning id",
            bench.name,
            name,
            removed,
        )
    for name, ended in {"gone": OLD, "named": YOUNG}.items():
        await bench.owner.execute(
            "insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position, accepted_at, state,"
            " finished_at) values ($1, $2, 'c', $2, $3, 0, now(), 'abandoned', now() - $4::interval)",
            made[name],
            bench.name,
            uuid4(),
            ended,
        )

    await tidy(bench)

    left = await bench.owner.fetch("select name from targets where owner = $1 order by 1", bench.name)
    assert [one[0] for one in left] == ["in use", "named", "removed"]
    await bench.owner.execute("delete from deliveries where owner = $1", bench.name)


async def test_a_phone_goes_when_nobody_has_seen_or_held_it_for_long(bench: Stand) -> None:
    living = await bench.worker(silent_for=timedelta(0))
    holders = {"seen": (YOUNG, None), "gone": (OLD, None), "left": (OLD, uuid4()), "held": (OLD, living)}
    for name, (age, holder) in holders.items():
        serial = f"{bench.name}-{name}"
        await bench.owner.execute(
            "insert into devices (serial, host, transport, state, model, seen_at)"
            " values ($1, 'h', $1, 'offline', 'm', now() - $2::interval)",
            serial,
            age,
        )
        if holder is not None:
            await bench.owner.execute(
                "insert into device_leases values ($1, $2, nextval('token_seq'), now() - $3::interval)",
                serial,
                holder,
                OLD,
            )

    await tidy(bench)

    for table in ("devices", "device_leases"):
        rows = await bench.owner.fetch(f"select serial from {table} where serial like $1 order by 1", f"{bench.name}-%")  # noqa: S608  # one of two
        expected = ["held", "seen"] if table == "devices" else ["held"]
        assert [row[0] for row in rows] == [f"{bench.name}-{one}" for one in expected]
    await bench.owner.execute("delete from device_leases where serial like $1", f"{bench.name}-%")
    await bench.owner.execute("delete from devices where serial like $1", f"{bench.name}-%")


async def test_a_phone_that_went_from_the_record_is_not_remembered_and_takes_its_queue_along(bench: Stand) -> None:
    await bench.owner.execute(
        "insert into devices (serial, host, transport, state, model, seen_at) values ($1, 'h', 't', 'online', 'm', now())",
        bench.name,
    )
    job = DeviceQueues(bench.services.amqp_url("outbox"), bench.database, queue_max_length=1000)
    queue = device_queue(bench.name)
    try:
        await job.round()
        assert await bench.depth(queue) == 0
        await bench.owner.execute("delete from devices where serial = $1", bench.name)
        await job.round()
        await job.round()
    finally:
        await job.close()

    assert queue not in job.ready
    with pytest.raises(aiormq.ChannelNotFoundEntity):
        await bench.depth(queue)


async def test_a_message_waits_for_its_delivery(bench: Stand) -> None:
    for conversation, state, ended in (("pending", "pending", None), ("told", "delivered", YOUNG)):
        await say(bench, conversation, OLD)
        await bench.owner.execute(
            "insert into conversations values ($1, $2, now() - $3::interval)", bench.name, conversation, OLD
        )
        await bench.owner.execute(
            "with t as (insert into targets (owner, name, url, secret) values ($1, $2, 'https://example.org/', 'whsec_')"
            " returning id) insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position,"
            " accepted_at, state, not_before, finished_at) select t.id, $1, $2, m.publisher, m.command_id, 0, m.accepted_at, $3,"
            " now() + interval '1 hour', now() - $4::interval from t, messages m where (m.owner, m.conversation_id) = ($1, $2)",
            bench.name,
            conversation,
            state,
            ended,
        )

    await tidy(bench)

    for table, column in (("messages", "conversation_id"), ("conversations", "id")):
        left = await bench.owner.fetch(f"select {column} from {table} where owner = $1", bench.name)  # noqa: S608  # one of two
        assert [one[0] for one in left] == ["pending"]

    await bench.owner.execute("delete from deliveries where owner = $1", bench.name)
    await tidy(bench)

    assert not await bench.owner.fetch("select from messages where owner = $1", bench.name)


async def test_a_phone_stays_while_a_command_waits_for_it(bench: Stand) -> None:
    for serial, transport in (("by-serial", ""), ("by-address", "10.0.0.7:5555"), ("idle", "10.0.0.8:5555")):
        await bench.owner.execute(
            "insert into devices (serial, host, transport, state, model, seen_at)"
            " values ($1, 'h', $2, 'offline', 'm', now() - $3::interval)",
            f"{bench.name}-{serial}",
            f"{bench.name}-{transport}",
            OLD,
        )
    waiting = [await bench.command(state, kind="android.execute") for state in ("queued", "retrying", "succeeded")]
    for id_, name in zip(waiting, ("by-serial", "10.0.0.7:5555", "idle"), strict=True):
        await bench.owner.execute(
            "update commands set routing_key = 'android.execute.' || $2 where id = $1", id_, f"{bench.name}-{name}"
        )

    await tidy(bench)

    gone = await bench.owner.fetch("delete from devices where serial like $1 returning serial", f"{bench.name}-%")
    assert {row[0] for row in gone} == {f"{bench.name}-by-serial", f"{bench.name}-by-address"}


async def test_a_fault_in_one_kind_leaves_the_others_to_be_tidied(
    bench: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_MESSAGES", "select no_such_function($1, $2, $3, $4, $5)")
    await say(bench, "c", OLD)
    await bench.owner.execute(
        "insert into audit_log (at, actor, action, subject) values (now() - $2::interval, $1, 'a', 's')",
        bench.name,
        OLD,
    )
    names = {"ish_faults_contained_total": {"part": "housekeeping"}, "ish_pruned_total": {"kind": "audit_log"}}
    before = [REGISTRY.get_sample_value(name, labels) or 0 for name, labels in names.items()]

    await tidy(bench)

    after = [REGISTRY.get_sample_value(name, labels) or 0 for name, labels in names.items()]
    assert after[0] == before[0] + 1
    assert after[1] > before[1]
    assert len(await bench.owner.fetch("select from messages where owner = $1", bench.name)) == 1
    assert not await bench.owner.fetch("select from audit_log where actor = $1", bench.name)


PRUNING = {
    "command_keys": "select prune_keys(10)",
    "messages": "select prune_messages('', '', {days}, 500, 10)",
    "conversations": "select prune_conversations('', '', {days}, 500)",
    "audit_log": "select prune_audit_log({days}, 10)",
    "api_keys": "select prune_api_keys({days}, 10)",
    "targets": "select prune_targets({days}, 10)",
}
FILLER = """
insert into command_keys (publisher, id, fingerprint, day)
select 'old-filler', gen_random_uuid(), 'x', current_date - 200 - i % 20 from generate_series(1, 5000) i;
insert into messages select 'old-filler', gen_random_uuid(), 0, 'old-filler', 'room ' || i % 50, 'user', 'text', '{}', now(),
  now() - interval '1 day' * i from generate_series(1, 5000) i;
insert into conversations select 'old-filler', 'room ' || i, now() - interval '1 day' * i from generate_series(1, 2000) i;
insert into audit_log (at, actor, action, subject) select now() - interval '1 hour' * i, 'old-filler', 'a', 's'
  from generate_series(1, 5000) i;
insert into api_keys select 'old-filler-' || i, 'old-filler', 'x', '', now(), now() - interval '1 hour' * i
  from generate_series(1, 3000) i;
insert into targets (owner, name, url, secret, disabled_at)
select 'old-filler', i::text, 'u', 's', now() - interval '1 hour' * i from generate_series(1, 3000) i;
analyze command_keys, messages, conversations, audit_log, api_keys, targets;
"""
REST = """
delete from command_keys where publisher = 'old-filler';
delete from messages where owner = 'old-filler';
delete from conversations where owner = 'old-filler';
delete from audit_log where actor = 'old-filler';
delete from api_keys where owner = 'old-filler';
delete from targets where owner = 'old-filler';
"""


async def test_pruning_reads_no_table_from_end_to_end(services: Session, owner: Any) -> None:
    await owner.execute(FILLER)
    outbox = await asyncpg.connect(services.postgres_url("ish_outbox"), timeout=10, server_settings=SERVER_SETTINGS)
    try:
        for table, statement in PRUNING.items():
            async with outbox.transaction():
                await outbox.execute(statement.format(days=90))
                whole, read = await outbox.fetchrow(
                    "select sum(seq_scan), sum(seq_tup_read) + sum(idx_tup_fetch) from pg_stat_xact_user_tables"
                    " where relname = any ($1)",
                    list(PRUNING),
                )
            assert whole == 0, table
            assert read < 4000, table
    finally:
        await outbox.close()
        await owner.execute(REST)


@pytest.mark.parametrize("days", ["0", "-1", "null"])
@pytest.mark.parametrize("table", [table for table, statement in PRUNING.items() if "{days}" in statement])
async def test_no_retention_reaches_what_is_younger_than_a_day(bench: Stand, table: str, days: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="retention_days must be at least 1"):
        await bench.database.execute(PRUNING[table].format(days=days))


@pytest.mark.parametrize(
    "name",
    ["retention_days", "artifact_retention_days", "message_retention_days", "audit_retention_days", "key_retention_days",
     "target_retention_days", "device_retention_days"],
)  # fmt: skip
@pytest.mark.parametrize("days", [0, -1, 10**9])
def test_a_retention_that_is_none_or_beyond_dates_is_refused(name: str, days: int) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.model_validate({name: days})
