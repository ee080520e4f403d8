"""API keys: who a request comes from, checked against PostgreSQL at most every few seconds per key.

A key is `ish_<id>_<secret>`; only the SHA-256 of the whole is stored. A cached key older than `key_cache_seconds` is
checked again before it counts, which bounds how long a revoked one lives; only while PostgreSQL is away are known keys
honoured beyond that. An unknown key is never remembered.
"""

import asyncio
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.http.problems import Problem, ProblemType
from gateway.services.database import Database, DatabaseAway

KEY = re.compile(r"ish_([a-z0-9]{12})_[A-Za-z0-9_-]{43}")
_MAX_CACHED = 10_000
_CHECK_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_NO_HASH = bytes(32)

_FIND = """
select owner, secret_hash, expires_at from api_keys where id = $1 and revoked_at is null
"""


@dataclass(frozen=True, slots=True)
class _Known:
    owner: str
    secret_hash: bytes
    expires_at: datetime | None
    checked_at: float
    """Monotonic seconds, taken before the query was sent."""


class KeyRing:
    """Known keys, and the way to know more.

    Args:
        database: Where keys are stored.
        cache_seconds: Age at which a cached key is checked again.
        grace_seconds: Age to which a cached key is honoured while PostgreSQL is away.
    """

    def __init__(self, database: Database, *, cache_seconds: float, grace_seconds: float) -> None:
        self._database = database
        self._cache_seconds = cache_seconds
        self._grace_seconds = grace_seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._checks: dict[str, asyncio.Lock] = {}
        self._away_until = 0.0

    async def owner_of(self, headers: dict[bytes, bytes]) -> str:
        """The owner of the key that a request carries.

        Args:
            headers: The request's, names in lower case.

        Raises:
            Problem: It carries none, or one that is not valid; or PostgreSQL is away and the key is not known here.
        """
        key = _presented(headers)
        match = KEY.fullmatch(key)
        if match is None:
            raise _refused()
        known = self._known.get(match[1])
        if known is None or time.monotonic() - known.checked_at > self._cache_seconds:
            known = await self._check(match[1])
        # an unknown id costs the same comparison as a wrong secret
        expected = known.secret_hash if known else _NO_HASH
        same = hmac.compare_digest(hashlib.sha256(key.encode()).digest(), expected)
        if known is None or not same or (known.expires_at and known.expires_at <= datetime.now(UTC)):
            raise _refused()
        return known.owner

    async def _check(self, identity: str) -> _Known | None:
        """Ask PostgreSQL, once for all requests that wait for the same key."""
        lock = self._checks.setdefault(identity, asyncio.Lock())
        try:
            async with lock:
                known = self._known.get(identity)
                if known is not None and time.monotonic() - known.checked_at <= self._cache_seconds:
                    return known
                return await self._ask(identity, known)
        finally:
            if not lock.locked():
                self._checks.pop(identity, None)

    async def _ask(self, identity: str, known: _Known | None) -> _Known | None:
        now = time.monotonic()
        if now < self._away_until:
            return self._unchecked(known, now)
        try:
            row = await self._database.fetchrow(_FIND, identity, timeout_seconds=_CHECK_SECONDS)
        except DatabaseAway:
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            return self._unchecked(known, now)
        if row is None:
            self._known.pop(identity, None)
            return None
        fresh = _Known(row["owner"], row["secret_hash"], row["expires_at"], now)
        self._known[identity] = fresh
        self._known.move_to_end(identity)
        if len(self._known) > _MAX_CACHED:
            self._known.popitem(last=False)
        return fresh

    def _unchecked(self, known: _Known | None, now: float) -> _Known:
        """What counts while PostgreSQL is away: a key that was valid not too long ago."""
        if known is None or now - known.checked_at > self._grace_seconds:
            raise Problem(
                ProblemType.STORAGE_AWAY, "This API key cannot be checked while the database does not answer."
            )
        return known


def _presented(headers: dict[bytes, bytes]) -> str:
    key = headers.get(b"x-api-key")
    if key is None:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise Problem(
                ProblemType.MISSING_KEY,
                "Send the key as X-API-Key, or as Authorization: Bearer.",
                errors=[{"field": "X-API-Key", "rule": "is required"}],
            )
    return key.decode("latin-1").strip()


def _refused() -> Problem:
    return Problem(
        ProblemType.BAD_KEY,
        "It is unknown, revoked or expired.",
        headers={"WWW-Authenticate": 'Bearer realm="ish"'},
    )
