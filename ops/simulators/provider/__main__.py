"""Runs the scripted provider: `python -m ops.simulators.provider --port 8090 --log calls.jsonl`."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from contracts.settings import stop
from ops.simulators.provider.ledger import Ledger
from ops.simulators.provider.scripts import Scripts
from ops.simulators.provider.server import HOST, running


async def serve(*, port: int, log: Path | None, latency_seconds: float, seconds_per_token: float) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        port: On 127.0.0.1; 0 takes a free one, printed.
        log: The ledger's file, appended to.
        latency_seconds: Before each answer that no script decides.
        seconds_per_token: After each word of a stream that no script decides.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    ledger = Ledger(log)
    try:
        async with running(port=port, scripts=Scripts(latency_seconds, seconds_per_token), ledger=ledger) as bound_port:
            sys.stdout.write(f"scripted provider at http://{HOST}:{bound_port}/v1\n")
            sys.stdout.flush()
            await stopped.wait()
    except OSError as error:
        stop(f"the scripted provider cannot listen on {HOST}:{port}: {error.strerror}", code=1)
    finally:
        ledger.close()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m ops.simulators.provider", description="Serve scripted answers.")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--log", type=Path, default=None, help="append one JSON line before and after each answer")
    parser.add_argument("--latency-seconds", type=float, default=0.0, help="before each answer without a script")
    parser.add_argument("--seconds-per-token", type=float, default=0.0, help="after each word of a stream")
    arguments = parser.parse_args()
    uvloop.run(
        serve(
            port=arguments.port,
            log=arguments.log,
            latency_seconds=arguments.latency_seconds,
            seconds_per_token=arguments.seconds_per_token,
        )
    )


if __name__ == "__main__":
    main()
