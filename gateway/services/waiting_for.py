"""Says what a command waits for that is not running: a worker, its turn, a phone that is not ready, a provider, another try.

It is worked out when somebody asks, from the command's row and what workers write of themselves and of phones, so that it
costs no write and is never older than they are.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from contracts.commands import KIND_ANDROID
from contracts.errors import ErrorCode
from contracts.results import State

_READY = "device"
_POOLS = "array['relay', 'ai', 'android']"
_KINDS = "array['relay', 'ai.send', 'android.execute']"

# A phone is named by the routing key; one that nobody has written down for 30 s is seen by nobody.
WAITING = f"""
select c.publisher, c.id, c.kind, c.state, c.error_code, c.retry_at,
  substring(c.routing_key from '^android\\.execute\\.(.+)$') as device,
  d.state as device_state, d.hint, d.queue_depth, d.updated_at > clock_timestamp() - interval '30 s' as device_seen,
  exists (
    select from workers w where w.pool = ({_POOLS})[array_position({_KINDS}, c.kind)]
      and w.stopped_at is null and w.heartbeat_at > clock_timestamp() - $3::interval
  ) as served,
  c.state = 'running' and c.holder is not null and not exists (
    select from workers w where w.incarnation = c.holder and w.heartbeat_at > clock_timestamp() - $3::interval
  ) as abandoned,
  c.kind = '{KIND_ANDROID}' and exists (
    select from devices r where r.state = '{_READY}' and r.updated_at > clock_timestamp() - interval '30 s'
  ) as some_ready
from unnest($1::text[], $2::uuid[]) as asked(publisher, id)
join command_keys k on k.publisher = asked.publisher and k.id = asked.id
join commands c on c.publisher = k.publisher and c.id = k.id and c.day = k.day
left join lateral (
  select * from devices d
  where c.routing_key like 'android.execute.%'
    and substring(c.routing_key from '^android\\.execute\\.(.+)$') in (d.serial, d.transport)
  order by d.updated_at desc limit 1
) d on true
where c.state in ('queued', 'retrying', 'running')
"""  # noqa: S608  # only constants


@unique
class Reason(StrEnum):
    """Why a command does not run now. Additive: never renamed."""

    WORKER = "worker"
    """No worker of its pool is alive."""
    TURN = "turn"
    """Others are before it."""
    TAKEOVER = "takeover"
    """Its worker went away; another one takes it over when that one's lease is over."""
    DEVICE_UNAUTHORIZED = "device_unauthorized"
    DEVICE_OFFLINE = "device_offline"
    DEVICE_BOOTING = "device_booting"
    DEVICE_NOT_READY = "device_not_ready"
    """Another state of the phone; `device_state` has it."""
    DEVICE_BUSY = "device_busy"
    PROVIDER_LIMIT = "provider_limit"
    """A provider's limit, ours or its own."""
    RETRY = "retry"
    """Another try, after the error that `error_code` names."""


class WaitingFor(BaseModel):
    """What a command waits for."""

    reason: Reason
    message: str = Field(description="One sentence for a person, with what to do where that is known.")
    device: str | None = Field(default=None, description="The phone, when it names one.")
    device_state: str | None = Field(default=None, description="As `/api/android/status` has it.")
    queue_depth: int | None = Field(default=None, description="Commands in that phone's queue, this one included.")
    error_code: str | None = Field(default=None, description="What put it off last.")
    until: datetime | None = Field(default=None, description="When it is tried again at the latest.")


_BY_STATE = {
    "unauthorized": Reason.DEVICE_UNAUTHORIZED,
    "authorizing": Reason.DEVICE_UNAUTHORIZED,
    "offline": Reason.DEVICE_OFFLINE,
    "booting": Reason.DEVICE_BOOTING,
}
_BY_ERROR = {
    ErrorCode.DEVICE_UNAUTHORIZED: (Reason.DEVICE_UNAUTHORIZED, "its phone has not allowed the computer yet"),
    ErrorCode.DEVICE_OFFLINE: (Reason.DEVICE_OFFLINE, "its phone is not ready"),
    ErrorCode.DEVICE_NOT_FOUND: (Reason.DEVICE_OFFLINE, "no worker sees its phone"),
    ErrorCode.DEVICE_BUSY: (Reason.DEVICE_BUSY, "every phone that will do is busy, or is just changing hands"),
    ErrorCode.NO_CAPACITY: (Reason.PROVIDER_LIMIT, "a provider's limit is used up for the moment"),
    ErrorCode.PROVIDER_RATE_LIMITED: (Reason.PROVIDER_LIMIT, "a provider asked to be left alone for a while"),
}


async def read_waiting(
    connection: Any, publishers: Sequence[str], ids: Sequence[UUID], *, lease_seconds: float
) -> dict[tuple[str, UUID], dict[str, Any]]:
    """What open commands wait for, by publisher and id; those that run are left out.

    Args:
        connection: To PostgreSQL.
        publishers: Of each command.
        ids: Of each command.
        lease_seconds: Age of a heartbeat at which its worker is gone.
    """
    rows = await connection.fetch(WAITING, publishers, ids, timedelta(seconds=lease_seconds))
    found = {(row["publisher"], row["id"]): waiting_for(row) for row in rows}
    return {key: one for key, one in found.items() if one is not None}


def waiting_for(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an open command waits for; None when it runs.

    Args:
        row: Of `WAITING`.
    """
    if row["state"] == State.RUNNING:
        return _of_running(row)
    more = {
        name: row[column]
        for name, column in (("error_code", "error_code"), ("until", "retry_at"))
        if row[column] is not None
    }
    if not row["served"]:
        pool = {"ai.send": "ai", "android.execute": "android"}.get(row["kind"], row["kind"])
        return _document(Reason.WORKER, f"no {pool} worker is running", **more)
    if row["device"] is not None and not _is_ready(row):
        return _of_phone(row, **more)
    if row["state"] == State.RETRYING:
        reason, sentence = _BY_ERROR.get(row["error_code"], (Reason.RETRY, f"another try, after {row['error_code']}"))
        return _document(reason, sentence, **_phone(row), **more)
    return _turn(row)


def _of_running(row: Mapping[str, Any]) -> dict[str, Any] | None:
    if row["abandoned"]:
        return _document(Reason.TAKEOVER, "its worker went away; another one takes it over")
    return None if row["device_state"] in {None, _READY} else _of_phone(row)


def _turn(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["kind"] != KIND_ANDROID:
        return _document(Reason.TURN, "a worker takes it when its turn comes")
    if row["device"] is None and not row["some_ready"]:
        return _document(Reason.DEVICE_NOT_READY, "no phone is ready; `/api/android/status` says why of each")
    if row["device"] is None:
        return _document(Reason.TURN, "the next phone that is idle takes it")
    depth = row["queue_depth"]
    sentence = f"its turn: {depth or 0} commands are in this phone's queue"
    return _document(Reason.TURN, sentence, **_phone(row), **({} if depth is None else {"queue_depth": depth}))


def _of_phone(row: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Of a phone that is not ready."""
    state, name = row["device_state"], row["device"]
    if state is None:
        return _document(Reason.DEVICE_OFFLINE, f"no worker has seen {name}", **_phone(row), **more)
    if not row["device_seen"]:
        return _document(Reason.DEVICE_OFFLINE, f"no worker sees {name} now", **_phone(row), **more)
    reason = _BY_STATE.get(state, Reason.DEVICE_NOT_READY)
    sentence = f"{name} is {state}" + (f": {row['hint']}" if row["hint"] else "")
    return _document(reason, sentence, **_phone(row), **more)


def _is_ready(row: Mapping[str, Any]) -> bool:
    return row["device_state"] == _READY and bool(row["device_seen"])


def _phone(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["device"] is None:
        return {}
    state = row["device_state"] if row["device_seen"] else None
    return {"device": row["device"], **({} if state is None else {"device_state": state})}


def _document(reason: Reason, message: str, **more: Any) -> dict[str, Any]:
    return {"reason": reason.value, "message": message, **more}
