"""Publishes commands at an even rate and times their replies, as an outside publisher over AMQP; a process of its own.

`python -m tests.benchmarks.ask relay|ai|phones COUNT PER_SECOND [SERIAL ...]`, the address in BENCH_AMQP_URL; prints the
times as JSON. Phones take turns.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice

import orjson
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from contracts.amqp.broker import connect
from contracts.amqp.publisher import Outgoing, Publisher
from contracts.logs import configure_logs
from tests.benchmarks.bodies import relay_body
from tests.benchmarks.commands import REPLIES, ai_command, phone_command, relay_command

_LAST_REPLY_SECONDS = 30.0


async def ask(url: str, commands: Sequence[Outgoing], *, per_second: float) -> list[float]:
    """Publish, and wait for every reply.

    Args:
        url: AMQP URL of the publisher.
        commands: What is sent.
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
        if len(replied) == len(commands):
            complete.set()

    publisher = Publisher(url, name="ish benchmark", timeout_seconds=_LAST_REPLY_SECONDS)
    async with await connect(url, name="ish benchmark replies") as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(REPLIES, ensure=False)
        await queue.consume(receive, no_ack=True)  # type: ignore[arg-type]  # a plain function is called as it is
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
    kind, count, per_second = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if kind == "relay":
        commands = [relay_command(orjson.dumps(relay_body(number, round_name="ask"))) for number in range(count)]
    elif kind == "phones":
        body = orjson.dumps({"action": "shell", "argv": ["getprop", "ro.product.model"]})
        commands = [phone_command(serial, body) for serial in islice(cycle(sys.argv[4:]), count)]
    else:
        commands = [ai_command(orjson.dumps({"prompt": f"question {number}"})) for number in range(count)]
    print(json.dumps(uvloop.run(ask(os.environ["BENCH_AMQP_URL"], commands, per_second=per_second))))


if __name__ == "__main__":
    main()
