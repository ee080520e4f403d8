"""Webhook targets: where an owner's recorded messages are delivered; each change is in the audit log."""

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from getpass import getuser
from typing import Any

import orjson

from ops.admin.database import connected
from workers.outbox.webhooks.addresses import ForbiddenTarget, Rules, check_url

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
CONVERSATION = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

_SECRET_BYTES = 32

# `excluded.secret` would need the right to read secrets
_PUT = """
insert into targets (owner, name, url, secret, conversation_id) values ($1, $2, $3, $4, $5)
on conflict (owner, name) do update
set url = $3, secret = $4, conversation_id = $5, disabled_at = null
where targets.disabled_at is not null
returning id
"""
_LIST = """
select t.owner, t.name, t.url, t.conversation_id, t.created_at,
  (select count(*) from deliveries d where d.target_id = t.id and d.state = 'pending') as pending
from targets t where t.disabled_at is null and ($1::text is null or t.owner = $1) order by t.owner, t.name
"""
_REMOVE = """
update targets set disabled_at = clock_timestamp() where owner = $1 and name = $2 and disabled_at is null returning id
"""
_AUDIT = "insert into audit_log (actor, action, subject, details) values ($1, $2, $3, $4::jsonb)"


@dataclass(frozen=True, slots=True)
class Target:
    """A target, without its secret."""

    owner: str
    name: str
    url: str
    conversation_id: str | None
    """The only conversation it gets; None for every one of the owner."""
    created_at: datetime
    pending: int
    """Deliveries that wait or are being tried."""


def new_secret() -> str:
    """A target's signing secret: `whsec_` and 256 random bits in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


async def add_target(
    postgres_url: str, owner: str, name: str, url: str, *, conversation_id: str | None = None, rules: Rules
) -> str:
    """Add a target; from now on the owner's messages are delivered to it.

    Args:
        postgres_url: As the role `ish_ops`.
        owner: Whose messages.
        name: As `deliver_to` of a relay names it.
        url: Where to.
        conversation_id: Only this conversation; None for all.
        rules: Where webhooks may go.

    Returns:
        The secret that signs its deliveries, `whsec_…`; it cannot be shown again.

    Raises:
        ValueError: A name breaks its rule, the URL is forbidden, or there is a target of that name.
    """
    if not NAME.fullmatch(name):
        raise ValueError("a target's name is 1 to 63 of a-z, 0-9, _, . and -, and begins with a letter or digit")
    if conversation_id is not None and not CONVERSATION.fullmatch(conversation_id):
        raise ValueError("a conversation's id is 1 to 128 of letters, digits, _, ., : and -")
    try:
        check_url(url, rules)
    except ForbiddenTarget as error:
        raise ValueError(str(error)) from error
    secret = new_secret()
    async with connected(postgres_url) as connection, connection.transaction():
        if await connection.fetchval(_PUT, owner, name, url, secret, conversation_id) is None:
            raise ValueError(f"{owner} has a target {name}: remove it first")
        await _audit(connection, "target_added", owner, name, {"conversation_id": conversation_id})
    return secret


async def list_targets(postgres_url: str, owner: str | None = None) -> list[Target]:
    """Every target in use.

    Args:
        postgres_url: As the role `ish_ops`.
        owner: Only theirs; None for all.
    """
    async with connected(postgres_url) as connection:
        return [Target(**row) for row in await connection.fetch(_LIST, owner)]


async def remove_target(postgres_url: str, owner: str, name: str) -> bool:
    """Stop deliveries to a target; what waits for it is abandoned.

    Args:
        postgres_url: As the role `ish_ops`.
        owner: Whose.
        name: Its name.

    Returns:
        False when there is no such target.
    """
    async with connected(postgres_url) as connection, connection.transaction():
        found = await connection.fetchval(_REMOVE, owner, name) is not None
        if found:
            await _audit(connection, "target_removed", owner, name, {})
    return found


async def _audit(connection: Any, action: str, owner: str, name: str, details: dict[str, Any]) -> None:
    try:
        actor = getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        actor = "unknown"
    await connection.execute(_AUDIT, actor, action, f"target {owner}/{name}", orjson.dumps(details).decode())
