"""Leases of phones on record: each phone has one holder, and a dead holder's commands are fenced when it loses them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.database import open_pool
from ops.admin.devices import list_devices, release_device, tag_device, untag_device
from ops.stack.session import Session
from workers.android.monitor.devices import DeviceFacts
from workers.device_pool.leases import read_picture, release, take
from workers.store.devices import Recorder, Seen
from workers.store.heartbeat import Registration

LEASE_SECONDS = 6.0


@dataclass
class Bench:
    """The database as a worker and as its owner."""

    worker: Any
    owner: Any

    async def registered(self, *, silent: timedelta = timedelta(0)) -> UUID:
        """An Android worker's row whose last heartbeat is so old."""
        one = Registration(
            self.worker, pool_name="android", metrics_port=0, lease_seconds=LEASE_SECONDS, heartbeat_seconds=1.5
        )
        await one.register()
        await self.owner.execute(
            "update workers set heartbeat_at = clock_timestamp() - $2::interval where incarnation = $1",
            one.incarnation,
            silent,
        )
        return one.incarnation

    async def take(self, holder: UUID, *serials: str) -> dict[str, int]:
        return await take(self.worker, serials, holder=holder, lease_seconds=LEASE_SECONDS)

    async def running(self, holder: UUID, *, kind: str = "android.execute") -> tuple[UUID, int]:
        """A command that a worker runs: its id and token."""
        id_ = uuid4()
        token: int = await self.owner.fetchval(
            """insert into commands (publisher, id, day, kind, owner, state, attempt, token, holder, routing_key,
              payload, accepted_at, deadline_at, started_at)
            values ('leases', $1, (now() at time zone 'utc')::date, $2, 'o', 'running', 1, nextval('token_seq'), $3, 'k',
              '{}', now(), now() + interval '1 hour', now()) returning token""",
            id_,
            kind,
            holder,
        )
        return id_, token

    async def command(self, id_: UUID) -> Any:
        return await self.owner.fetchrow("select * from commands where publisher = 'leases' and id = $1", id_)


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Bench]:
    worker = await open_pool(services.postgres_url("ish_worker"), size=10, name="test")
    owner = await open_pool(services.postgres_url("ish_owner"), size=2, name="test")
    yield Bench(worker, owner)
    await owner.execute("delete from device_leases")
    await owner.execute("delete from devices where host = 'leases'")
    await owner.execute("delete from commands where publisher = 'leases'")
    await worker.close()
    await owner.close()


def facts(serial: str, **known: Any) -> DeviceFacts:
    usual: dict[str, Any] = {
        "adb_server": "leases",
        "transport_serial": f"{serial}:5555",
        "state": "device",
        "hint": None,
        "model": "Phone",
        "android_version": "14",
        "battery_percent": 80,
        "screen": None,
        "seen_at": datetime.now(UTC),
    }
    return DeviceFacts(serial=serial, **usual | known)


async def test_of_many_that_take_a_phone_at_once_one_gets_it(bench: Bench) -> None:
    holders = [await bench.registered() for _ in range(8)]
    serials = [f"L{number}" for number in range(20)]

    taken = await asyncio.gather(*(bench.take(holder, *serials) for holder in holders))

    assert Counter(serial for one in taken for serial in one) == dict.fromkeys(serials, 1)
    picture = await read_picture(bench.worker, lease_seconds=LEASE_SECONDS)
    assert set(holders) <= set(picture.workers)
    for holder, got in zip(holders, taken, strict=True):
        for serial, token in got.items():
            lease = picture.leases[serial]
            assert (lease.holder, lease.token, lease.alive) == (holder, token, True)


async def test_a_living_holders_phone_stays_its_own(bench: Bench) -> None:
    holder, other = await bench.registered(silent=timedelta(seconds=5)), await bench.registered()
    await bench.take(holder, "L1")

    assert await bench.take(other, "L1") == {}
    assert await bench.take(holder, "L1") == {}


@pytest.mark.parametrize("gone", ["silent", "stopped", "forgotten"])
async def test_a_dead_holders_phone_is_taken_with_a_newer_token(bench: Bench, gone: str) -> None:
    dead, other = await bench.registered(), await bench.registered()
    [old] = (await bench.take(dead, "L1")).values()
    await bench.owner.execute(
        {
            "silent": "update workers set heartbeat_at = clock_timestamp() - interval '7 s' where incarnation = $1",
            "stopped": "update workers set heartbeat_at = '-infinity', stopped_at = now() where incarnation = $1",
            "forgotten": "delete from workers where incarnation = $1",
        }[gone],
        dead,
    )

    [new] = (await bench.take(other, "L1")).values()

    assert new > old
    assert dead not in (await read_picture(bench.worker, lease_seconds=LEASE_SECONDS)).workers


async def test_the_commands_of_a_dead_holder_are_fenced_with_it(bench: Bench) -> None:
    dead, other = await bench.registered(silent=timedelta(seconds=7)), await bench.registered()
    await bench.owner.execute(
        "insert into device_leases (serial, holder, token) values ('L1', $1, 1), ('L2', $1, 2)", dead
    )
    lost, token = await bench.running(dead)
    theirs, their_token = await bench.running(other)
    question, question_token = await bench.running(dead, kind="ai.send")

    await bench.take(other, "L1")

    row = await bench.command(lost)
    assert (row["state"], row["holder"]) == ("running", None)
    assert row["token"] > token
    assert (await bench.command(theirs))["token"] == their_token
    assert (await bench.command(question))["token"] == question_token


async def test_only_the_holder_of_the_newest_token_releases(bench: Bench) -> None:
    first, second = await bench.registered(), await bench.registered()
    old = await bench.take(first, "L1")
    await bench.owner.execute("delete from device_leases where serial = 'L1'")
    new = await bench.take(second, "L1")

    await release(bench.worker, old, holder=first)
    await release(bench.worker, {"L1": new["L1"]}, holder=first)
    assert "L1" in (await read_picture(bench.worker, lease_seconds=LEASE_SECONDS)).leases
    await release(bench.worker, new, holder=second)

    assert "L1" not in (await read_picture(bench.worker, lease_seconds=LEASE_SECONDS)).leases


async def test_a_phone_is_written_when_it_changes_and_its_tags_stay(bench: Bench, services: Session) -> None:
    url = services.postgres_url("ish_ops")
    recorder = Recorder(bench.worker)
    await recorder.record([Seen(facts("L1"), 0)])
    assert await tag_device(url, "L1", ["lab", "a", "lab"]) == ["a", "lab"]
    assert await untag_device(url, "L1", ["a", "other"]) == ["lab"]

    await recorder.record([Seen(facts("L1", state="offline", hint="plug it in"), None)])

    [one] = [one for one in await list_devices(url) if one.serial == "L1"]
    assert (one.state, one.hint, one.tags, one.queue_depth, one.fresh) == (
        "offline",
        "plug it in",
        ("lab",),
        None,
        True,
    )


async def test_an_unknown_phone_or_a_bad_tag_is_refused(bench: Bench, services: Session) -> None:
    url = services.postgres_url("ish_ops")
    await Recorder(bench.worker).record([Seen(facts("L1"), 0)])

    with pytest.raises(ValueError, match="no phone is called"):
        await tag_device(url, "NOBODY", ["lab"])
    with pytest.raises(ValueError, match="a tag is"):
        await tag_device(url, "L1", ["Not a tag"])


async def test_an_operator_takes_a_phone_from_its_worker(bench: Bench, services: Session) -> None:
    url = services.postgres_url("ish_ops")
    await bench.take(await bench.registered(), "L1")

    assert await release_device(url, "L1")
    assert not await release_device(url, "L1")

    actions = await bench.owner.fetch("select action from audit_log where subject = 'device L1'")
    assert "device_released" in {row["action"] for row in actions}


async def test_an_address_that_another_phone_has_now_is_not_the_old_ones_any_more(bench: Bench) -> None:
    recorder = Recorder(bench.worker)
    nameless = facts("10.0.0.7:5555", transport_serial="10.0.0.7:5555", model=None, android_version=None)
    await recorder.record([Seen(nameless, None), Seen(facts("L1", transport_serial="10.0.0.8:5555"), 0)])

    await recorder.record([Seen(facts("L2", transport_serial="10.0.0.7:5555"), 0)])
    await recorder.record([Seen(facts("L3", transport_serial="10.0.0.8:5555"), 0)])
    # two that have changed places
    await recorder.record(
        [
            Seen(facts("L2", transport_serial="10.0.0.8:5555"), 0),
            Seen(facts("L3", transport_serial="10.0.0.7:5555"), 0),
        ]
    )

    phones = (await read_picture(bench.worker, lease_seconds=LEASE_SECONDS)).phones
    known = {serial: one.facts.transport_serial for serial, one in phones.items() if one.facts.adb_server == "leases"}
    assert known == {"L1": "", "L2": "10.0.0.8:5555", "L3": "10.0.0.7:5555"}
    assert phones["L1"].facts.state == "offline"
