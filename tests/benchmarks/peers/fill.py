"""Fills a peer's queue: `python -m tests.benchmarks.peers.fill celery|dramatiq TASK COUNT`; not part of any measurement."""

import sys

from tests.benchmarks.bodies import relay_body


def main() -> None:
    """Queue as many messages as asked for."""
    framework, task, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    payloads = (relay_body(number, round_name=task) for number in range(count))
    if framework == "celery":
        from tests.benchmarks.peers import celery_app  # noqa: PLC0415  # only one framework in a process

        with celery_app.app.producer_pool.acquire() as producer:
            for payload in payloads:
                getattr(celery_app, task).apply_async((payload,), producer=producer)
    else:
        from tests.benchmarks.peers import dramatiq_app  # noqa: PLC0415  # only one framework in a process

        for payload in payloads:
            getattr(dramatiq_app, task).send(payload)


if __name__ == "__main__":
    main()
