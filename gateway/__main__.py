"""Runs one gateway: settings, socket, signals, and a clean end.

SIGTERM or Ctrl-C: no new connections, requests in progress are answered (those that wait for a result get what is known
now), accepted commands are recorded, connections are closed.
"""

import asyncio
import gc
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
import uvloop
from typing_extensions import override
from yarl import URL

from contracts.database_sessions import UnsuitablePooler
from contracts.logs import configure_logs, get_logger
from contracts.restarting import PartGone
from contracts.service_checks import check_services
from contracts.service_errors import ServiceTrouble
from contracts.settings import Settings, settings, stop
from gateway import PUBLISHER
from gateway.app import build, rendered
from gateway.container import Parts, running
from gateway.http.connections import Bounds, Connections, descriptors
from gateway.http.protocol import BoundedProtocol

_BACKLOG = 1024
_GARBAGE_THRESHOLDS = (50_000, 20, 50)
"""Objects made between collections: with Python's own 700 they cost a sixth of a request, and half of the slowest."""


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which would end the process before it has closed anything."""

    @override
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def main() -> None:
    """Run a gateway until it is told to stop; exits 3 when a part of it is gone for good."""
    chosen = settings()
    chosen.require("amqp_url", "postgres_url")
    configure_logs(level=chosen.log_level, format=chosen.log_format, process="gateway")
    if URL(chosen.amqp_url).user != PUBLISHER:
        stop(f"ISH_AMQP_URL must be RabbitMQ's user {PUBLISHER!r}: workers believe what it says of owners")
    listener = _listen(chosen.gateway_host, chosen.gateway_port)
    gc.freeze()  # what is imported stays; no collection looks at it again
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    gone = False
    with listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(chosen, listener))
        except* PartGone as group:
            get_logger().error("part_gone", error=str(group.exceptions[0]))
            gone = True
    if gone:  # not from within `except*`, which would wrap it
        raise SystemExit(3)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        stop(f"cannot listen on {host}:{port}: {error.strerror}; set ISH_GATEWAY_HOST or ISH_GATEWAY_PORT", code=1)
    return listener


async def _serve(chosen: Settings, listener: socket.socket) -> None:
    try:
        await check_services(chosen)
    except (ServiceTrouble, UnsuitablePooler) as error:
        stop(str(error), code=1)
    parts = Parts.of(chosen)
    connections = Connections(_bounds(chosen))
    protocol: Any = partial(BoundedProtocol, connections=connections, render=rendered)
    server = _Server(
        uvicorn.Config(
            build(parts),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=max(1, round(chosen.stop_grace_seconds)),
        )
    )

    def stop_serving() -> None:
        server.should_exit = True
        parts.waiting.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_serving)
    log = get_logger()
    async with running(parts):
        log.info("process_started", host=chosen.gateway_host, port=listener.getsockname()[1])
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(connections.run())
            await server.serve(sockets=[listener])
            sweeping.cancel()
    log.info("process_stopped")


def _bounds(chosen: Settings) -> Bounds:
    connections = min(chosen.gateway_connections, descriptors())
    return Bounds(
        connections=connections,
        connections_per_address=min(chosen.gateway_connections_per_address, connections),
        head_seconds=chosen.gateway_request_seconds,
        body_seconds=2 * chosen.gateway_request_seconds,
    )


if __name__ == "__main__":
    main()
