"""A worker process as far as routing, limits and calls go: it has no queue, and waits by itself as long as the broker would.

Its arguments are `PROVIDERS_FILE WINDOW_SECONDS PLACES FIRST LAST`: it asks the commands FIRST to LAST, PLACES at a time,
prints `done N` after the last. `ISH_REDIS_URL` says where the fleet's state is.
"""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from contracts.errors import CommandError
from contracts.topology import RETRY_LEVELS, retry_level
from workers.ai.configuration import load
from workers.ai.limits import Failed, Served, Wait, open_fleet
from workers.ai.providers.call import Question, ask
from workers.ai.providers.client import open_client
from workers.ai.routing.router import Router

LOCAL_WAIT_SECONDS = 2.0
AFTER_FAILURE_SECONDS = 1.0


async def wait_as_in_the_broker(seconds: float) -> None:
    """Short waits are exact; longer ones go through wait queues, the shortest of which takes five seconds."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + seconds
    while (left := ends_at - clock()) > 0:  # noqa: ASYNC110  # as the broker does: nothing wakes a command before its time
        await asyncio.sleep(left if left <= LOCAL_WAIT_SECONDS else RETRY_LEVELS[retry_level(left)])


async def run(redis_url: str, providers_file: str, window_seconds: float, places: int, commands: range) -> None:
    configuration = load(Path(providers_file), secret_from_environment=lambda _: None)
    router, prefetched = Router(), asyncio.Semaphore(places)
    async with open_client() as client, open_fleet(redis_url, window_seconds=window_seconds) as fleet:

        async def attempt(command_id: str) -> float | None:
            """Returns the seconds to wait; None when the command is done."""
            route = router.route(configuration, model=None, provider=None, tokens_in=10, tokens_out=10)
            targets = [candidate.target for candidate in route.candidates]
            entered = await fleet.enter(targets, tokens=20, command_id=command_id, batch=False)
            if isinstance(entered, Wait):
                return entered.seconds
            question = Question(
                messages=[{"role": "user", "content": "why is the sky blue"}],
                options={},
                idempotency_key=f"test:{command_id}",
                timeout_seconds=60,
            )
            call = router.begin(entered.target)
            try:
                completion = await ask(client, entered.target, question, on_text=lambda _: call.piece())
            except CommandError as error:
                call.end(None, ok=False)
                await entered.leave(Failed(error))
                return AFTER_FAILURE_SECONDS
            call.end(completion.tokens_out, ok=True)
            await entered.leave(Served(20, completion.seconds))
            return None

        async def finish(command_id: str) -> None:
            while True:
                async with prefetched:
                    wait = await attempt(command_id)
                if wait is None:
                    return
                await wait_as_in_the_broker(wait)

        async with asyncio.TaskGroup() as group:
            for number in commands:
                group.create_task(finish(f"c{number}"))
    sys.stdout.write(f"done {len(commands)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _, providers_file, window_seconds, places, first, last = sys.argv
    commands = range(int(first), int(last) + 1)
    uvloop.run(run(os.environ["ISH_REDIS_URL"], providers_file, float(window_seconds), int(places), commands))
