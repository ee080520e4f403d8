"""Celery doing the relay's work, at its best: JSON, no events, no rate limits, a generous prefetch.

`record` stores its result in Redis, `insert` also writes the message's row to PostgreSQL; `answer` only pushes to a reply
list, `insert_and_answer` writes the row first.
"""

import os
from typing import Any

from celery import Celery

from tests.benchmarks.peers import rows

app = Celery("peer", broker=os.environ["PEER_BROKER_URL"], backend=os.environ.get("PEER_RESULTS_URL"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=False,  # the default, and a little faster: what a worker holds is lost with it
    worker_prefetch_multiplier=128,  # 16 and 4 were slower
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    task_store_eager_result=False,
    broker_connection_retry_on_startup=True,
)


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def record(payload: dict[str, Any]) -> dict[str, Any]:
    """The least work: the result is all that is stored."""
    return {"status": "succeeded", "characters": len(payload["message"])}


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def insert(payload: dict[str, Any]) -> dict[str, Any]:
    """Write the message's row, committed, then store the result."""
    rows.insert(payload)
    return {"status": "succeeded", "characters": len(payload["message"])}


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]  # as above
def answer(payload: dict[str, Any], number: int) -> None:
    """Push a reply; nothing is stored."""
    rows.reply(number, len(payload["message"]))


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]  # as above
def insert_and_answer(payload: dict[str, Any], number: int) -> None:
    """Write the message's row, committed, then push a reply."""
    rows.insert(payload)
    rows.reply(number, len(payload["message"]))
