"""Routes that read what commands have left behind: conversations and the state of devices."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from gateway.container import Parts
from gateway.dependencies import Owner, PartsOf
from gateway.http.cursors import decode_cursor, encode_cursor
from gateway.http.problems import storage_away
from gateway.services.database import DatabaseAway
from gateway.services.views import encode, stored

router = APIRouter()

_READ_SECONDS = 2.0
_MAX_PAGE = 200
_OLDEST = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0), -1)
MESSAGES = """
select command_id, position, sender, text, metadata::text as metadata, sent_at, accepted_at from messages
where owner = $1 and conversation_id = $2 and (accepted_at, command_id, position) > ($3, $4, $5)
order by accepted_at, command_id, position
limit $6
"""

# A phone's holder writes its row again within 10 seconds; an older one says nothing any more.
_DEVICES = """
select d.serial, d.host, d.transport, d.state, d.hint, d.model, d.android_version, d.battery_percent, d.screen, d.tags,
  d.queue_depth, d.seen_at, x.worker, l.taken_at,
  d.state = 'device' and d.updated_at > clock_timestamp() - interval '30 s' as connected
from devices d
left join device_leases l on l.serial = d.serial
left join lateral (
  select w.pool || '@' || w.host || ':' || w.pid as worker from workers w
  where w.incarnation = l.holder and w.heartbeat_at > clock_timestamp() - $1::interval offset 0
) x on true
where d.seen_at > clock_timestamp() - interval '7 days'
order by d.serial
"""


class MessageView(BaseModel):
    """One line of a conversation."""

    command_id: UUID = Field(description="The command that recorded it.")
    sender: str
    message: str
    metadata: dict[str, Any]
    timestamp: datetime = Field(description="When it was written, as its sender said.")
    accepted_at: datetime


class MessagePage(BaseModel):
    """Some lines, in the order in which they were accepted."""

    items: list[MessageView]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class LeaseView(BaseModel):
    """Which worker uses a phone."""

    worker: str
    since: datetime


class DeviceView(BaseModel):
    """One phone, as its worker saw it last."""

    serial: str
    connected: bool
    state: str = Field(
        description="adb's word for it (`device` is ready), or `booting`, `unresponsive`, `unsupported`, `ambiguous`."
    )
    hint: str | None = Field(description="What to do about a state that needs a person.")
    model: str | None
    android_version: str | None
    battery: int | None = Field(description="Percent.")
    screen: str | None = Field(description="Size in pixels and whether it is on: `1080x2400 on`.")
    tags: list[str]
    host: str = Field(description="Its adb server.")
    address: str | None = Field(description="What that server calls it; null when it calls another phone so by now.")
    lease: LeaseView | None = Field(description="Null while no worker holds it.")
    queue_depth: int | None = Field(description="Commands that wait for it or run on it; null while nobody takes them.")
    seen_at: datetime


class DevicesView(BaseModel):
    """All phones; the members beside `devices` are those of the first connected one."""

    connected: bool
    battery: int | None
    model: str | None
    devices: list[DeviceView]
    timestamp: datetime


async def _rows(parts: Parts, query: str, *arguments: Any, seconds: float = _READ_SECONDS) -> list[Any]:
    try:
        return await parts.database.fetch(query, *arguments, timeout_seconds=seconds)
    except DatabaseAway:
        raise storage_away() from None


@router.get(
    "/api/conversations/{conversation_id}/messages", tags=["conversations"], responses={200: {"model": MessagePage}}
)
async def read_messages(
    parts: PartsOf,
    owner: Owner,
    conversation_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")],
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Your conversation, oldest line first; one that nothing was recorded in is empty."""
    after = decode_cursor(cursor) if cursor is not None else _OLDEST
    rows = await _rows(parts, MESSAGES, owner, conversation_id, *after, limit + 1)
    shown = rows[:limit]
    items = [
        {
            "command_id": str(row["command_id"]),
            "sender": row["sender"],
            "message": row["text"],
            "metadata": stored(row["metadata"]),
            "timestamp": row["sent_at"],
            "accepted_at": row["accepted_at"],
        }
        for row in shown
    ]
    last = shown[-1] if len(rows) > limit else None
    next_cursor = encode_cursor(last["accepted_at"], last["command_id"], last["position"]) if last else None
    return _json({"items": items, "next_cursor": next_cursor})


@router.get("/api/android/status", tags=["android"], responses={200: {"model": DevicesView}})
async def read_devices(parts: PartsOf, owner: Owner) -> Response:
    """The phones that workers see."""
    del owner  # phones belong to the installation; a key is all it takes to see them
    rows = await _rows(parts, _DEVICES, timedelta(seconds=parts.settings.lease_seconds))
    devices = [
        {
            "serial": row["serial"],
            "connected": row["connected"],
            "state": row["state"],
            "hint": row["hint"],
            "model": row["model"],
            "android_version": row["android_version"],
            "battery": row["battery_percent"],
            "screen": row["screen"],
            "tags": row["tags"],
            "host": row["host"],
            "address": row["transport"] or None,
            "lease": {"worker": row["worker"], "since": row["taken_at"]} if row["worker"] else None,
            "queue_depth": row["queue_depth"],
            "seen_at": row["seen_at"],
        }
        for row in rows
    ]
    first: dict[str, Any] = next((one for one in devices if one["connected"]), {})
    return _json(
        {
            "connected": bool(first),
            "battery": first.get("battery"),
            "model": first.get("model"),
            "devices": devices,
            "timestamp": datetime.now(UTC),
        }
    )


def _json(document: dict[str, Any]) -> Response:
    return Response(encode(document), media_type="application/json")
