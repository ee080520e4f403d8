"""Dramatiq doing the relay's work, at its best: Redis broker, default middleware, results in Redis.

`record` stores its result in Redis, `insert` also writes the message's row to PostgreSQL; `answer` only pushes to a reply
list, `insert_and_answer` writes the row first.
"""

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.benchmarks.peers import rows

broker = RedisBroker(url=os.environ["PEER_BROKER_URL"])  # type: ignore[no-untyped-call]  # Dramatiq has no types here
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["PEER_RESULTS_URL"])))  # type: ignore[no-untyped-call]  # as above
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def record(payload: dict[str, Any]) -> dict[str, Any]:
    """The least work: the result is all that is stored."""
    return {"status": "succeeded", "characters": len(payload["message"])}


@dramatiq.actor(store_results=True)
def insert(payload: dict[str, Any]) -> dict[str, Any]:
    """Write the message's row, committed, then store the result."""
    rows.insert(payload)
    return {"status": "succeeded", "characters": len(payload["message"])}


@dramatiq.actor
def answer(payload: dict[str, Any], number: int) -> None:
    """Push a reply; nothing is stored."""
    rows.reply(number, len(payload["message"]))


@dramatiq.actor
def insert_and_answer(payload: dict[str, Any], number: int) -> None:
    """Write the message's row, committed, then push a reply."""
    rows.insert(payload)
    rows.reply(number, len(payload["message"]))
