"""Seals what is kept in Redis, so that only what a process of the same role has written there is believed.

Redis may be shared, and whoever can write to it could otherwise plant an answer. A seal is an HMAC over the key's name, the
time until which it holds and the content: a value under another name, or too old, is none. The sealing key is derived from
this role's database password, which every process of the role has and Redis never sees, so there is nothing to set up.
"""

import hashlib
import hmac
import time
from functools import lru_cache
from urllib.parse import unquote, urlsplit

_MAC_BYTES = 32
_TIME_BYTES = 8
_HEAD = _MAC_BYTES + _TIME_BYTES


class Seal:
    """Seals and opens values.

    Args:
        key: 256 bits that only the writers have.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, url: str) -> "Seal":
        """The seal of everybody who connects with this address's user and password.

        Args:
            url: Of PostgreSQL, as this process's role; one without a password seals with what it has.
        """
        parts = urlsplit(url)
        return cls(_derived(unquote(parts.username or ""), unquote(parts.password or "")))

    def close(self, name: str, content: bytes, *, keep_seconds: float) -> bytes:
        """Seal a value.

        Args:
            name: The key that it is kept under.
            content: What is kept.
            keep_seconds: How long it is believed.
        """
        until = int((time.time() + keep_seconds) * 1000).to_bytes(_TIME_BYTES, "big")
        return self._mac(name, until, content) + until + content

    def open(self, name: str, sealed: bytes) -> bytes | None:
        """What was sealed under this name; None when it was not, by us, or no longer holds.

        Args:
            name: The key that it was found under.
            sealed: What was found.
        """
        mac, until, content = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:_HEAD], sealed[_HEAD:]
        if len(until) < _TIME_BYTES or not hmac.compare_digest(mac, self._mac(name, until, content)):
            return None
        return content if int.from_bytes(until, "big") > time.time() * 1000 else None

    def _mac(self, name: str, until: bytes, content: bytes) -> bytes:
        encoded = name.encode()
        return hmac.digest(self._key, len(encoded).to_bytes(4, "big") + encoded + until + content, "sha256")


@lru_cache(maxsize=16)
def _derived(user: str, password: str) -> bytes:
    """Slow on purpose: who reads Redis must not find a weak password by trying."""
    return hashlib.scrypt(password.encode(), salt=b"ish cache 1 " + user.encode(), n=2**14, r=8, p=1, dklen=32)
