"""What the peers' tasks do besides their framework's own work: one row in PostgreSQL, or one reply in a Redis list."""

import os
import threading
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

import psycopg
import redis
from psycopg.types.json import Jsonb

TABLE = """
create table if not exists peer_messages (
    id uuid primary key, sender text not null, text text not null, metadata jsonb not null, sent_at timestamptz not null,
    recorded_at timestamptz not null default clock_timestamp()
)
"""
REPLIES = "peer-replies"
_INSERT = (
    "insert into peer_messages (id, sender, text, metadata, sent_at) values (%s, %s, %s, %s, %s) on conflict do nothing"
)
_SPACE = UUID("6f0d5b5e-6f3c-4f2a-9d0c-2f6a3c1b7e11")
_local = threading.local()


def insert(payload: dict[str, Any]) -> None:
    """Insert the message's row and commit it; a task that runs twice inserts once.

    Args:
        payload: The relay's body, with its number in the metadata.
    """
    connection: psycopg.Connection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = psycopg.connect(os.environ["PEER_POSTGRES_URL"], autocommit=True)
    metadata = payload["metadata"]
    values = (
        uuid5(_SPACE, f"{metadata['round']}/{metadata['number']}"),
        payload["sender"],
        payload["message"],
        Jsonb(metadata),
        payload["timestamp"],
    )
    connection.execute(_INSERT, values)


def reply(number: int, characters: int) -> None:
    """Push one reply for the client that waits on the list.

    Args:
        number: The message's.
        characters: Its answer.
    """
    _redis().rpush(REPLIES, f"{number}:{characters}")


@lru_cache(maxsize=1)
def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["PEER_RESULTS_URL"])
