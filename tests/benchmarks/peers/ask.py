"""Queues a peer's tasks at an even rate and times their replies.

`python -m tests.benchmarks.peers.ask FRAMEWORK TASK COUNT PER_SECOND`. The peer at its best: no result is stored, the task
pushes its answer to one Redis list, and one thread waits on that list.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import redis

from tests.benchmarks.bodies import relay_body
from tests.benchmarks.peers import rows

_LAST_REPLY_SECONDS = 30


def ask(send: Callable[[dict[str, Any], int], Any], *, count: int, per_second: float) -> list[float]:
    """Queue tasks, and wait for every reply.

    Args:
        send: Queues one task.
        count: How many.
        per_second: Open loop: the schedule does not wait for replies, and each is timed from when it was due.

    Returns:
        Seconds from due to reply, in the order of queueing.
    """
    payloads = [relay_body(number, round_name="ask") for number in range(count)]
    replied: dict[int, float] = {}
    reader = threading.Thread(target=_read, args=(replied, count))
    reader.start()
    started = time.perf_counter() + 1
    for number, payload in enumerate(payloads):
        time.sleep(max(0.0, started + number / per_second - time.perf_counter()))
        send(payload, number)
    reader.join()
    if len(replied) != count:
        sys.exit(f"{count} queued, {len(replied)} replies")
    return [replied[number] - (started + number / per_second) for number in range(count)]


def _read(replied: dict[int, float], count: int) -> None:
    with redis.Redis.from_url(os.environ["PEER_RESULTS_URL"]) as client:
        while len(replied) < count:
            item = cast("tuple[bytes, bytes] | None", client.blpop([rows.REPLIES], timeout=_LAST_REPLY_SECONDS))
            if item is None:
                return
            replied[int(item[1].split(b":")[0])] = time.perf_counter()


def main() -> None:
    """Ask one framework's worker."""
    framework, task, count, per_second = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    if framework == "celery":
        from tests.benchmarks.peers import celery_app  # noqa: PLC0415  # only one framework in a process

        with celery_app.app.producer_pool.acquire() as producer:
            send = lambda payload, number: getattr(celery_app, task).apply_async((payload, number), producer=producer)  # noqa: E731  # one of two
            times = ask(send, count=count, per_second=per_second)
    else:
        from tests.benchmarks.peers import dramatiq_app  # noqa: PLC0415  # only one framework in a process

        times = ask(getattr(dramatiq_app, task).send, count=count, per_second=per_second)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
