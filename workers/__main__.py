"""Starts one worker: `python -m workers relay|ai|android|outbox`; any number of each, on any machine."""

import asyncio
import signal
import sys
from contextlib import suppress

import uvloop

from contracts.database_sessions import UnsuitablePooler
from contracts.logs import configure_logs, get_logger
from contracts.restarting import PartGone
from contracts.service_checks import check_services
from contracts.service_errors import ServiceTrouble
from contracts.settings import Settings, settings, stop
from workers.pools.serve import POOLS, NothingToConsume, serve


def main() -> None:
    """Run one worker until SIGTERM or SIGINT; exits 3 when its consumer, or another part of it, is gone for good."""
    names = [*POOLS, "outbox"]
    if len(sys.argv) != 2 or sys.argv[1] not in names:  # noqa: PLR2004  # the program and its pool
        stop(f"usage: python -m workers {'|'.join(names)}")
    name, configuration = sys.argv[1], settings()
    configuration.require("amqp_url", "postgres_url")
    configure_logs(level=configuration.log_level, format=configuration.log_format, process=name)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(name, configuration))


async def _run(name: str, configuration: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await check_services(configuration)
    except (ServiceTrouble, UnsuitablePooler) as error:
        stop(str(error), code=1)
    gone = False
    try:
        if name == "outbox":
            from workers.pools.outbox import run  # noqa: PLC0415  # each pool loads its own world only

            await run(configuration, stopping)
        else:
            await serve(POOLS[name], configuration, stopping)
    except* NothingToConsume as group:
        get_logger().error("consumer_gone", error=str(group.exceptions[0]))
        gone = True
    except* PartGone as group:
        get_logger().error("part_gone", error=str(group.exceptions[0]))
        gone = True
    if gone:  # not from within `except*`, which would wrap it
        raise SystemExit(3)
    get_logger().info("process_stopped")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
