"""API keys: made, listed and revoked, each change in the audit log. A key is shown once; only its hash is stored."""

import hashlib
import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from getpass import getuser
from typing import Any

from contracts.settings import refuse_printed_secret
from contracts.topology import RESERVED_NAMES
from ops.admin.database import connected

OWNER = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ID_CHARACTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 12
_SECRET_BYTES = 32

_INSERT = "insert into api_keys (id, owner, secret_hash, label, expires_at) values ($1, $2, $3, $4, $5)"
_LIST = """
select id, owner, label, created_at, expires_at, revoked_at from api_keys
where $1::text is null or owner = $1 order by created_at, id
"""
_REVOKE = """
update api_keys set revoked_at = clock_timestamp() where id = $1 and revoked_at is null returning owner
"""
_AUDIT = (
    "insert into audit_log (actor, action, subject, details) values ($1, $2, $3, jsonb_build_object('owner', $4::text))"
)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key: everything but its secret."""

    id: str
    owner: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


async def create_key(postgres_url: str, owner: str, label: str = "", *, expires_at: datetime | None = None) -> str:
    """Make a key.

    Args:
        postgres_url: As the role `ish_ops`.
        owner: Whose commands it sees; an outside publisher of the same name shares them.
        label: For people.
        expires_at: When it stops to be valid, aware; None for never.

    Returns:
        The key. It cannot be shown again.

    Raises:
        ValueError: The owner's name breaks its rule, or the label is one of the refused secrets.
    """
    if not OWNER.fullmatch(owner) or owner in RESERVED_NAMES:
        raise ValueError(
            f"an owner is 1 to 63 of a-z, 0-9, _ and -, begins with a letter, and is none of {', '.join(sorted(RESERVED_NAMES))}"
        )
    refuse_printed_secret(label)
    identity = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
    key = f"ish_{identity}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    async with connected(postgres_url) as connection, connection.transaction():
        await connection.execute(_INSERT, identity, owner, hashlib.sha256(key.encode()).digest(), label, expires_at)
        await _audit(connection, "key_created", identity, owner)
    return key


async def list_keys(postgres_url: str, owner: str | None = None) -> list[KeyRecord]:
    """Every key, oldest first, also revoked and expired ones.

    Args:
        postgres_url: As the role `ish_ops`.
        owner: Only theirs; None for all.
    """
    async with connected(postgres_url) as connection:
        return [KeyRecord(**row) for row in await connection.fetch(_LIST, owner)]


async def revoke_key(postgres_url: str, key_id: str) -> bool:
    """End a key's validity; gateways notice within five seconds.

    Args:
        postgres_url: As the role `ish_ops`.
        key_id: The 12 characters between the underscores of `ish_<id>_…`.

    Returns:
        False when there is no such key, or it was revoked before.
    """
    async with connected(postgres_url) as connection, connection.transaction():
        owner = await connection.fetchval(_REVOKE, key_id)
        if owner is not None:
            await _audit(connection, "key_revoked", key_id, owner)
    return owner is not None


async def _audit(connection: Any, action: str, key_id: str, owner: str) -> None:
    await connection.execute(_AUDIT, _actor(), action, f"api_key {key_id}", owner)


def _actor() -> str:
    """The operating system's name of whoever runs this; a container may have none."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "unknown"
