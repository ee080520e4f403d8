"""A door with TLS and a certificate of the test's choice: it refuses nobody, and may lead to a server without TLS."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

from typing_extensions import override

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""What a client of PostgreSQL sends before its handshake; `S` is the answer of a server that offers TLS."""
_SECONDS = 30.0


class _Doors(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


@contextmanager
def door(context: ssl.SSLContext, *, leads_to: int | None = None) -> Iterator[int]:
    """Have one on loopback, for any of the services; yields its port.

    Args:
        context: With its certificate.
        leads_to: Port of 127.0.0.1 that gets what clients say; None lets them say nothing.
    """

    class Handler(BaseRequestHandler):
        @override
        def handle(self) -> None:
            with suppress(OSError):
                self.request.settimeout(_SECONDS)
                if self.request.recv(len(_SSL_REQUEST), socket.MSG_PEEK) == _SSL_REQUEST:
                    self.request.recv(len(_SSL_REQUEST))
                    self.request.sendall(b"S")
                with context.wrap_socket(self.request, server_side=True) as inside:
                    if leads_to is not None:
                        _join(inside, leads_to)

    with _serving(Handler) as port:
        yield port


@contextmanager
def without_tls(answer: bytes) -> Iterator[int]:
    """Have a port of a server that speaks no TLS; yields it.

    Args:
        answer: What it says to whatever it hears.
    """

    class Handler(BaseRequestHandler):
        @override
        def handle(self) -> None:
            with suppress(OSError):
                self.request.settimeout(_SECONDS)
                self.request.recv(65536)
                self.request.sendall(answer)
                self.request.recv(65536)

    with _serving(Handler) as port:
        yield port


@contextmanager
def _serving(handler: type[BaseRequestHandler]) -> Iterator[int]:
    with _Doors(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _join(inside: ssl.SSLSocket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as beyond:
        back = threading.Thread(target=_pass_on, args=(beyond, inside), daemon=True)
        back.start()
        _pass_on(inside, beyond)
        back.join(_SECONDS)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
