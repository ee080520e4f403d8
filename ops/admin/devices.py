"""Phones as operators see and mark them: tags, and leases taken back; each change is in the audit log."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from getpass import getuser
from typing import Any

import orjson

from ops.admin.database import connected

TAG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
MOST_TAGS = 32

_LIST = """
select d.serial, d.host, d.transport, d.state, d.hint, d.model, d.android_version, d.battery_percent, d.screen, d.tags,
  d.queue_depth, d.seen_at, d.updated_at > clock_timestamp() - interval '30 s' as fresh,
  w.pool || '@' || w.host || ':' || w.pid as worker, l.token
from devices d left join device_leases l on l.serial = d.serial left join workers w on w.incarnation = l.holder
where d.seen_at > clock_timestamp() - interval '7 days'
order by d.serial
"""
_TAG = """
update devices set tags = array(select distinct t from unnest(tags || $2::text[]) t order by 1)
where serial = $1 returning tags
"""
_UNTAG = """
update devices set tags = array(select t from unnest(tags) t where t <> all ($2::text[]) order by 1)
where serial = $1 returning tags
"""
_RELEASE = "delete from device_leases where serial = $1 returning token"
_AUDIT = "insert into audit_log (actor, action, subject, details) values ($1, $2, $3, $4::jsonb)"


@dataclass(frozen=True, slots=True)
class Device:
    """A phone on record."""

    serial: str
    host: str
    transport: str
    state: str
    hint: str | None
    model: str | None
    android_version: str | None
    battery_percent: int | None
    screen: str | None
    tags: tuple[str, ...]
    queue_depth: int | None
    seen_at: datetime
    fresh: bool
    """Whether a worker has written it within the last 30 s."""
    worker: str | None
    """Who holds it, or did last."""
    token: int | None
    """Of that lease."""


async def list_devices(postgres_url: str) -> list[Device]:
    """Every phone that was seen within a week, by serial.

    Args:
        postgres_url: As the role `ish_ops`.
    """
    async with connected(postgres_url) as connection:
        rows = await connection.fetch(_LIST)
    return [Device(**{**row, "tags": tuple(row["tags"])}) for row in rows]


async def tag_device(postgres_url: str, serial: str, tags: Sequence[str]) -> list[str]:
    """Add tags to a phone.

    Args:
        postgres_url: As the role `ish_ops`.
        serial: The phone.
        tags: As commands name them.

    Returns:
        All its tags.

    Raises:
        ValueError: There is no such phone, a tag breaks the rule, or they are too many.
    """
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise ValueError(f"a tag is 1 to 63 of a-z, 0-9, _ . and -, and begins with a letter or digit; not {tag!r}")
    return await _change(postgres_url, _TAG, "device_tagged", serial, tags)


async def untag_device(postgres_url: str, serial: str, tags: Sequence[str]) -> list[str]:
    """Take tags from a phone; those that it does not have are no matter.

    Args:
        postgres_url: As the role `ish_ops`.
        serial: The phone.
        tags: As commands name them.

    Returns:
        The tags that are left.

    Raises:
        ValueError: There is no such phone.
    """
    return await _change(postgres_url, _UNTAG, "device_untagged", serial, tags)


async def release_device(postgres_url: str, serial: str) -> bool:
    """Take a phone from the worker that holds it; one with room takes it next, and the phone refuses the old one.

    Args:
        postgres_url: As the role `ish_ops`.
        serial: The phone.

    Returns:
        Whether any worker held it.
    """
    async with connected(postgres_url) as connection, connection.transaction():
        token = await connection.fetchval(_RELEASE, serial)
        if token is not None:
            await _audit(connection, "device_released", serial, {"token": token})
    return token is not None


async def _change(postgres_url: str, statement: str, action: str, serial: str, tags: Sequence[str]) -> list[str]:
    async with connected(postgres_url) as connection, connection.transaction():
        left: list[str] | None = await connection.fetchval(statement, serial, list(tags))
        if left is None:
            raise ValueError(f"no phone is called {serial}")
        if len(left) > MOST_TAGS:
            raise ValueError(f"a phone has at most {MOST_TAGS} tags")
        await _audit(connection, action, serial, {"tags": list(tags)})
    return left


async def _audit(connection: Any, action: str, serial: str, details: dict[str, Any]) -> None:
    try:
        actor = getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        actor = "unknown"
    await connection.execute(_AUDIT, actor, action, f"device {serial}", orjson.dumps(details).decode())
