"""What comes in at the gateway's socket and is not one plain request after the other; slow, endless and too many clients."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from ops.stack.session import Session
from tests.integration.gateway_process import (
    DEADLINE_SECONDS,
    RELAY,
    GatewayProcess,
    finish,
    free_port,
    gateway_process,
)

HOST = b"Host: gateway\r\n"
JSON_BODY = json.dumps(RELAY).encode()
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def door(services: Session) -> Iterator[GatewayProcess]:
    """A gateway that gives a request's header one second."""
    with gateway_process(services, ISH_GATEWAY_REQUEST_SECONDS="1") as running:
        yield running


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["instance"].removeprefix("urn:ish:request:") == self.headers["x-request-id"]
        return document


@contextmanager
def connected(gateway: GatewayProcess) -> Iterator[socket.socket]:
    url = httpx.URL(gateway.url)
    with socket.create_connection((url.host, url.port), timeout=DEADLINE_SECONDS) as one:
        yield one


def read_all(one: socket.socket) -> bytes:
    """Everything until the gateway closes."""
    received = b""
    while True:
        try:
            part = one.recv(65536)
        except ConnectionResetError:
            return received
        if not part:
            return received
        received += part


def parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first.startswith("HTTP/1.1 "), received[:200]
    headers = dict(line.lower().split(": ", 1) for line in lines)
    length = int(headers.get("content-length", "0"))
    return Answer(int(first.split()[1]), headers, body[:length])


def ask(gateway: GatewayProcess, request: bytes) -> Answer:
    """Send these bytes and read until the gateway closes the connection, which it must."""
    with connected(gateway) as one:
        one.sendall(request)
        return parse(read_all(one))


def get(gateway: GatewayProcess) -> int:
    return httpx.get(f"{gateway.url}/health", trust_env=False, timeout=DEADLINE_SECONDS).status_code


def post(*lines: bytes, body: bytes = b"") -> bytes:
    head = b"POST /api/relay HTTP/1.1\r\n" + HOST + b"X-API-Key: none\r\nContent-Type: application/json\r\n"
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


@pytest.mark.parametrize(
    ("request_bytes", "status", "slug"),
    [
        pytest.param(b"GET /health HTTP/1.1\r\n\r\n", 400, "bad-http", id="no host"),
        pytest.param(b"GET /health HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400, "bad-http", id="two hosts"),
        pytest.param(b"GET /health HTTP/1.0\r\n" + HOST * 2 + b"\r\n", 400, "bad-http", id="two hosts in 1.0"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: \r\n\r\n", 400, "bad-http", id="empty host"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "bad-http", id="list of hosts"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad-http", id="host with a path"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: me@a\r\n\r\n", 400, "bad-http", id="host with a user"),
        pytest.param(b"GET /health\r\n\r\n", 505, "version-not-supported", id="0.9"),
        pytest.param(b"GET /health HTTP/0.9\r\n" + HOST + b"\r\n", 505, "version-not-supported", id="says 0.9"),
        pytest.param(b"GET /health HTTP/1.2\r\n" + HOST + b"\r\n", 505, "version-not-supported", id="1.2"),
        pytest.param(b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n", 505, "version-not-supported", id="2.0"),
        pytest.param(b"GET /health HTTP/3.0\r\n" + HOST + b"\r\n", 505, "version-not-supported", id="3.0"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version-not-supported", id="2.0 preface"),
        pytest.param(b"GET /health HTTP/1.10\r\n" + HOST + b"\r\n", 400, "bad-http", id="1.10"),
        pytest.param(b"GET /health FTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-http", id="another protocol"),
        pytest.param(b"GET /health HTTP/1.1\n" + HOST + b"\r\n", 400, "bad-http", id="bare LF"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, "bad-http", id="bare LF in a field"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "bad-http", id="bare CR"),
        pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400, "bad-http", id="NUL"),
        pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X\0: a\r\n\r\n", 400, "bad-http", id="NUL in a name"),
        pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400, "bad-http", id="folded"),
        pytest.param(b"GET /health HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n", 400, "bad-http", id="space before field"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n", 400, "bad-http", id="space before colon"),
        pytest.param(b"GET /health HTTP/1.1\r\n" + HOST + b"X\r\n\r\n", 400, "bad-http", id="no colon"),
        pytest.param(b"GET health HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-http", id="no slash"),
        pytest.param(b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-http", id="asterisk"),
        pytest.param(b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-http", id="target not ASCII"),
        pytest.param(b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-http", id="NUL in the target"),
        pytest.param(b"GET http://other/health HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-http", id="target elsewhere"),
        pytest.param(b"GET ftp://gateway/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-http", id="target of ftp"),
        pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", 414, "target-too-long", id="long target"),
        pytest.param(b"FOO /health HTTP/1.1\r\n" + HOST + b"\r\n", 501, "not-implemented", id="odd method"),
        pytest.param(b"get /health HTTP/1.1\r\n" + HOST + b"\r\n", 501, "not-implemented", id="method in lower case"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01", 501, "not-implemented", id="TLS"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", 501, "not-implemented", id="CONNECT"),
        pytest.param(
            b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 200 + b"\r\n", 431, "header-too-large", id="many fields"
        ),
        pytest.param(
            b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
            431,
            "header-too-large",
            id="long",
        ),
        pytest.param(
            post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"0\r\n\r\n"),
            400,
            "bad-http",
            id="TE and CL",
        ),
        pytest.param(
            post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
            400,
            "bad-http",
            id="CL and TE",
        ),
        pytest.param(post(b"Content-Length: 3", b"Content-Length: 3"), 400, "bad-http", id="two lengths"),
        pytest.param(post(b"Content-Length: 3, 3"), 400, "bad-http", id="list of lengths"),
        pytest.param(post(b"Content-Length: -3"), 400, "bad-http", id="negative length"),
        pytest.param(post(b"Content-Length: +3"), 400, "bad-http", id="signed length"),
        pytest.param(post(b"Content-Length: 99999999999999999999999"), 400, "bad-http", id="endless length"),
        pytest.param(post(b"Transfer-Encoding: gzip, chunked"), 501, "not-implemented", id="gzip, chunked"),
        pytest.param(post(b"Transfer-Encoding: identity"), 501, "not-implemented", id="identity"),
        pytest.param(
            post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 501, "not-implemented", id="TE twice"
        ),
        pytest.param(
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-http", id="TE in HTTP/1.0"
        ),
        pytest.param(post(b"Expect: gold"), 417, "expectation-failed", id="expectation"),
    ],
)
def test_what_is_no_plain_request_is_refused_and_the_connection_closed(
    door: GatewayProcess, request_bytes: bytes, status: int, slug: str
) -> None:
    answer = ask(door, request_bytes)

    assert answer.status == status, answer
    assert answer.problem["type"] == f"urn:ish:problem:{slug}"
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
    assert get(door) == 200


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(b"3\nabc\r\n0\r\n\r\n", id="bare LF"),
        pytest.param(b"3\r\nabcd\r\n0\r\n\r\n", id="longer than it says"),
        pytest.param(b"0x3\r\nabc\r\n0\r\n\r\n", id="odd size"),
        pytest.param(b"ffffffffffffffffffff\r\n", id="endless size"),
        pytest.param(b"3;a=" + b"x" * 500_000 + b"\r\nabc\r\n0\r\n\r\n", id="long extension"),
        pytest.param(b"".join(b"1;%b\r\n{\r\n" % (b"x" * 50) for _ in range(5000)), id="extensions everywhere"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", id="trailers"),
    ],
)
async def test_chunks_that_cannot_be_followed_are_refused(door: GatewayProcess, key: str, chunks: bytes) -> None:
    head = post(b"Transfer-Encoding: chunked").replace(b"none", key.encode())
    with connected(door) as one:
        one.sendall(head)
        for at in range(0, len(chunks), 4096):
            try:
                one.sendall(chunks[at : at + 4096])
            except OSError:
                break
        answer = parse(read_all(one))

    assert answer.status in {400, 413}, answer
    assert answer.problem


async def test_trailer_is_no_header(door: GatewayProcess, key: str) -> None:
    request = post(b"Transfer-Encoding: chunked", b"Connection: close").replace(b"X-API-Key: none\r\n", b"")
    body = b"%x\r\n%b\r\n0\r\nX-API-Key: %b\r\n\r\n" % (len(JSON_BODY), JSON_BODY, key.encode())

    answer = ask(door, request + body)

    assert answer.problem["type"] == "urn:ish:problem:missing-api-key"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "nonsense"])
@pytest.mark.parametrize("path", ["/api/relay", "/api/send", "/v1/chat/completions", "/api/perplexity/ask"])
async def test_encoded_body_is_415(client: httpx.AsyncClient, path: str, encoding: str) -> None:
    answer = await client.post(path, content=b"\x1f\x8b", headers={"Content-Encoding": encoding})

    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "identity"


async def test_identity_is_no_encoding(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/relay", json=RELAY, headers={"Content-Encoding": "identity"})

    assert answer.status_code == 202


@pytest.mark.parametrize("size", [10 * MIB, 100 * MIB])
def test_one_endless_header_is_431_and_others_are_answered(door: GatewayProcess, size: int) -> None:
    with connected(door) as one:
        one.sendall(b"GET /health HTTP/1.1\r\n" + HOST + b"X: ")
        piece = b"x" * MIB
        try:
            for _ in range(size // MIB):
                one.sendall(piece)
                assert get(door) == 200
        except OSError:
            assert size > 16 * MIB, "what a client sends after it was refused is read for a while"
            return
        assert parse(read_all(one)).problem["type"] == "urn:ish:problem:header-too-large"


def test_endless_empty_lines_are_431(door: GatewayProcess) -> None:
    assert ask(door, b"\r\n" * 40_000).status == 431


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param(b"GET /health HTTP/1.1\r\n" + HOST, b"X: y\r\n", id="header"),
        pytest.param(post(b"Content-Length: 100000"), b"x", id="body"),
        pytest.param(post(b"Transfer-Encoding: chunked"), b"1\r\nx\r\n", id="chunks"),
        pytest.param(post(b"Transfer-Encoding: chunked", body=b"1;"), b"x", id="chunk extension"),
        pytest.param(post(b"Transfer-Encoding: chunked", body=b"0\r\n"), b"X: y\r\n", id="trailers"),
    ],
)
async def test_trickled_request_is_408(door: GatewayProcess, key: str, first: bytes, rest: bytes) -> None:
    with connected(door) as one:
        one.sendall(first.replace(b"none", key.encode()))
        one.settimeout(0.05)
        deadline = time.monotonic() + DEADLINE_SECONDS
        received = b""
        while not received and time.monotonic() < deadline:
            one.sendall(rest)
            try:
                received = one.recv(65536)
            except TimeoutError:
                continue

    answer = parse(received)
    assert answer.status == 408, answer
    assert answer.problem["type"] == "urn:ish:problem:request-timeout"


def test_connection_that_says_nothing_is_closed_without_a_word(door: GatewayProcess) -> None:
    with connected(door) as one:
        assert read_all(one) == b""


def test_others_are_answered_while_500_slow_sockets_stay(door: GatewayProcess) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(door)) for _ in range(500)]
        for number, one in enumerate(slow):
            one.sendall(b"GET / HTTP/1.1\r\n" if number % 2 else post(b"Content-Length: 9999", body=b"{"))

        assert {get(door) for _ in range(20)} == {200}
        assert "ready" in httpx.get(f"{door.url}/ready", trust_env=False, timeout=DEADLINE_SECONDS).text
        answered = [one for one in slow if b" 408 " in read_all(one)[:20]]

    assert len(answered) >= 250, "those with half a header; the others were told that their key is wrong"
    assert door.log.read_text().count("publishing_channel_opened") == 1


def test_pipelined_requests_are_answered_in_order_and_a_bad_one_ends_them(door: GatewayProcess) -> None:
    good = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"

    with connected(door) as one:
        one.sendall(good + good + b"nonsense\r\n\r\n" + good)
        received = read_all(one)

    assert received.count(b"HTTP/1.1 200") == 2
    assert received.count(b"HTTP/1.1 ") == 2


def test_absolute_target_of_this_host_is_answered(door: GatewayProcess) -> None:
    answer = ask(door, b"GET http://Gateway/health?x HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")

    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_upgrade_is_ignored_and_the_next_request_answered(door: GatewayProcess, protocol: bytes) -> None:
    first = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"

    with connected(door) as one:
        one.sendall(first + last)
        received = read_all(one)

    assert received.count(b"HTTP/1.1 200") == 1
    assert received.count(b"HTTP/1.1 404") == 1
    assert "Unsupported upgrade" not in door.log.read_text()


def test_http_1_0_needs_no_host(door: GatewayProcess) -> None:
    assert ask(door, b"GET /health HTTP/1.0\r\n\r\n").status == 200


async def test_waits_and_events_outlast_every_deadline_of_requests(
    services: Session, door: GatewayProcess, key: str
) -> None:
    async with door.client(key) as client:
        followed = (await client.post("/api/relay", json=RELAY)).json()["id"]
        async with client.stream("GET", f"/api/commands/{followed}/events") as events:
            waited = await client.post("/api/relay?wait=3", json=RELAY)
            await finish(services, followed, reply=True)
            text = "".join([piece async for piece in events.aiter_text()])

        assert waited.status_code == 202
        assert "event: result" in text
        assert (await client.get("/health")).status_code == 200, "the connections are still good"


@pytest.fixture
def small(services: Session) -> Iterator[GatewayProcess]:
    """A gateway with room for a few."""
    with gateway_process(services, ISH_GATEWAY_CONNECTIONS="32", ISH_GATEWAY_CONNECTIONS_PER_ADDRESS="16") as running:
        yield running


def test_connections_over_the_bound_are_told_so_and_idle_ones_give_way(small: GatewayProcess) -> None:
    with ExitStack() as stack:
        fresh = [stack.enter_context(connected(small)) for _ in range(24)]
        refused = parse(read_all(fresh[-1]))
        for one in fresh[:8]:
            one.sendall(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
            assert one.recv(65536).startswith(b"HTTP/1.1 200")

        assert refused.problem["type"] == "urn:ish:problem:too-many-connections"
        assert refused.headers["retry-after"]
        assert get(small) == 200, "an idle connection has given way"


def test_port_is_free_again_when_a_stopped_gateway_had_slow_clients(services: Session) -> None:
    with gateway_process(services) as running, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connected(running)).sendall(b"GET / HTTP/1.1\r\n")
        assert get(running) == 200

        assert running.stop() == 0
    assert free_port()
