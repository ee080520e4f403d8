"""Publishes relays at an even rate and times their replies, as an outside publisher over AMQP; a process of its own.

`python -m tests.benchmarks.ask COUNT PER_SECOND`, the address in BENCH_AMQP_URL; prints the times as JSON.
"""

import asyncio
import json
import os
import sys
import time

import orjson
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from contracts.broker import connect
from contracts.logs import configure_logs
from contracts.publisher import Publisher
from tests.benchmarks.bodies import relay_body
from tests.benchmarks.commands import REPLIES, relay_command

_LAST_REPLY_SECONDS = 30.0


async def ask(url: str, *, count: int, per_second: float) -> list[float]:
    """Publish, and wait for every reply.

    Args:
        url: AMQP URL of the publisher.
        count: How many.
        per_second: Open loop: the schedule does not wait for replies, and each is timed from when it was due.

    Returns:
        Seconds from due to reply, in the order of publishing.
    """
    due: dict[str, float] = {}
    replied: dict[str, float] = {}
    complete = asyncio.Event()

    def receive(message: AbstractIncomingMessage) -> None:
        identity = message.message_id or ""
        if identity not in due or identity in replied:
            sys.exit(f"a reply that was not asked for, or a second one: {identity}")
        if orjson.loads(message.body)["status"] != "succeeded":
            sys.exit(f"not succeeded: {message.body.decode()}")
        replied[identity] = time.perf_counter()
        if len(replied) == count:
            complete.set()

    publisher = Publisher(url, name="ish benchmark", timeout_seconds=_LAST_REPLY_SECONDS)
    async with await connect(url, name="ish benchmark replies") as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(REPLIES, ensure=False)
        await queue.consume(receive, no_ack=True)  # type: ignore[arg-type]  # a plain function is called as it is
        commands = [relay_command(orjson.dumps(relay_body(number, round_name="ask"))) for number in range(count)]
        async with asyncio.TaskGroup() as group:
            kept_open = group.create_task(publisher.run())
            confirms = []
            started = time.perf_counter() + 1
            for number, command in enumerate(commands):
                moment = started + number / per_second
                await asyncio.sleep(max(0.0, moment - time.perf_counter()))
                due[command.properties.message_id] = moment
                confirms.append(await publisher.send(command))
            await asyncio.gather(*confirms)
            async with asyncio.timeout(_LAST_REPLY_SECONDS):
                await complete.wait()
            kept_open.cancel()
    return [replied[identity] - moment for identity, moment in due.items()]


def main() -> None:
    """Ask, and print the times."""
    configure_logs(level="WARNING", format="text", process="ask")
    count, per_second = int(sys.argv[1]), float(sys.argv[2])
    print(json.dumps(uvloop.run(ask(os.environ["BENCH_AMQP_URL"], count=count, per_second=per_second))))


if __name__ == "__main__":
    main()
