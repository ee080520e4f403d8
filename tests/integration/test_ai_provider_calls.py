import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from contracts.errors import CommandError, ErrorCode, Permanent, Transient
from ops.simulators.provider.ledger import Ledger
from ops.simulators.provider.scripts import Script, Scripts
from ops.simulators.provider.server import running
from workers.ai.configuration import Configuration, load
from workers.ai.providers import DIALECTS
from workers.ai.providers.call import Completion, Question, ask
from workers.ai.providers.client import open_client

PROMPT = "why is the sky blue"
KEY = "key-planted-in-the-file"
PATHS = {"openai": "/v1", "zai": "/zai", "perplexity": "/perplexity", "anthropic": ""}


@dataclass(frozen=True, slots=True)
class Stand:
    """A scripted provider and a worker's client, both for real; one provider for each dialect."""

    configuration: Configuration
    client: httpx.AsyncBaseTransport
    scripts: Scripts
    ledger: Ledger
    log: Path
    said: list[str] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    def script(self, *steps: dict[str, Any], **rest: Any) -> None:
        self.scripts.add(Script.model_validate({"steps": list(steps), **rest}))

    async def ask(
        self,
        dialect: str = "openai",
        *,
        prompt: str = PROMPT,
        command_id: UUID | None = None,
        publisher: str = "demo",
        timeout_seconds: float = 60,
        **provider: Any,
    ) -> Completion:
        target = next(target for target in self.configuration.targets if target.provider_name == dialect)
        target = replace(target, provider=target.provider.model_copy(update=provider))
        question = Question(
            messages=[{"role": "user", "content": prompt}],
            options={},
            idempotency_key=f"{publisher}:{command_id or uuid4()}",
            timeout_seconds=timeout_seconds,
        )
        return await ask(self.client, target, question, on_text=self._hear)

    def _hear(self, text: str) -> None:
        self.said.append(text)
        self.began.set()

    async def failure(self, dialect: str = "openai", **call: Any) -> CommandError:
        with pytest.raises(CommandError) as caught:
            await self.ask(dialect, **call)
        return caught.value

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines()]


def configured(tmp_path: Path, *, port: int) -> Configuration:
    (tmp_path / "key").write_text(KEY)
    path = tmp_path / "providers.toml"
    path.write_text(
        "\n".join(
            f"""
            [providers.{dialect}]
            dialect = "{dialect}"
            base_url = "http://127.0.0.1:{port}{base_path}"
            api_key_file = "key"
            [providers.{dialect}.models.plain]
            """
            for dialect, base_path in PATHS.items()
        )
    )
    return load(path, secret_from_environment=lambda _: None)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    scripts, log = Scripts(), tmp_path / "calls.jsonl"
    ledger = Ledger(log)
    try:
        async with running(port=0, scripts=scripts, ledger=ledger) as port, open_client() as client:
            yield Stand(configured(tmp_path, port=port), client, scripts, ledger, log)
    finally:
        ledger.close()


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that gives every request the same bytes, and what it was asked."""
    asked: list[bytes] = []

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        asked.append(head + await reader.readexactly(length))
        writer.write(answer)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


async def moments() -> AsyncIterator[None]:
    """Times to look again whether something has come about."""
    while True:
        yield
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_carries_text_usage_and_times(stand: Stand, dialect: str, *, stream: bool) -> None:
    completion = await stand.ask(dialect, prompt="hello", stream=stream)

    assert completion.text == "[2cf24dba5fb0] hello"
    assert completion.finish_reason == "stop"
    assert (completion.tokens_in, completion.tokens_out) == (1, 2)
    assert completion.seconds > 0
    assert (completion.first_token_seconds is not None) is stream
    assert stand.said == (["[2cf24dba5fb0]", " hello"] if stream else [completion.text])


async def test_text_is_handed_on_while_the_answer_is_made(stand: Stand) -> None:
    stand.script({"ok": True, "tokens": 3, "seconds_per_token": 0.4})

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        call = group.create_task(stand.ask())
        await stand.began.wait()
        assert not call.done()

    completion = call.result()
    assert "".join(stand.said) == completion.text == "token-1 token-2 token-3"
    assert completion.first_token_seconds is not None
    assert completion.first_token_seconds < completion.seconds


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_perplexity_brings_its_citations_and_sources(stand: Stand, *, stream: bool) -> None:
    completion = await stand.ask("perplexity", stream=stream)

    assert completion.citations == ("https://example.com/scripted", "https://example.com/second")
    assert completion.sources == (
        {"url": "https://example.com/scripted", "title": "Scripted", "date": "2026-05-01"},
        {"url": "https://example.com/second", "title": "Second"},
    )


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_server_that_streams_nothing_may_answer_in_one_piece(stand: Stand, dialect: str) -> None:
    stand.script({"ok": True, "text": "all at once", "whole": True})

    completion = await stand.ask(dialect)

    assert (completion.text, completion.first_token_seconds) == ("all at once", None)
    assert stand.said == ["all at once"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_cut_by_max_tokens_says_so(stand: Stand, dialect: str, *, stream: bool) -> None:
    stand.script({"ok": True, "text": "half", "finish_reason": "length"})

    assert (await stand.ask(dialect, stream=stream)).finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_nul_in_an_answer_is_replaced_since_it_could_not_be_recorded(stand: Stand, *, stream: bool) -> None:
    stand.script({"ok": True, "text": "a\x00b"})

    assert (await stand.ask(stream=stream)).text == "a\ufffdb"
    assert stand.said == ["a\ufffdb"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_connection_is_used_again_after_a_stream(stand: Stand, tmp_path: Path, dialect: str) -> None:
    connections = 0

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", upstream)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, upstream_writer))
            group.create_task(pump(upstream_reader, writer))

    upstream = int(stand.configuration.targets[0].provider.base_url.rpartition(":")[2].partition("/")[0])
    async with open_client() as client, await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        through = configured(tmp_path, port=server.sockets[0].getsockname()[1])
        stand_through = replace(stand, configuration=through, client=client)
        for _ in range(5):
            await stand_through.ask(dialect)
        await client.aclose()

    assert connections == 1


@pytest.mark.parametrize(("asked", "expected"), [(20, 20.0), ("Fri, 01 May 2020 12:00:00 GMT", 0.0), (None, None)])
async def test_a_rate_limited_call_asks_for_the_wait_that_the_provider_named(
    stand: Stand, asked: float | str | None, expected: float | None
) -> None:
    stand.script({"status": 429, "retry_after": asked})

    error = await stand.failure()

    assert isinstance(error, Transient)
    assert error.code == ErrorCode.PROVIDER_RATE_LIMITED
    assert error.retry_after_seconds == expected
    assert error.details.get("cooldown_seconds") == expected


async def test_a_server_that_is_not_there_is_worth_another_try(stand: Stand, tmp_path: Path) -> None:
    dead = configured(tmp_path, port=1)

    error = await replace(stand, configuration=dead).failure()

    assert isinstance(error, Transient)
    assert (error.code, error.message) == (ErrorCode.PROVIDER_UNAVAILABLE, "provider openai cannot be reached")
    assert error.details == {"provider": "openai", "model": "plain", "scope": "provider", "begun": False}


async def test_a_server_that_does_not_take_the_connection_cannot_be_reached(stand: Stand, tmp_path: Path) -> None:
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # more than the queue holds: the kernel now ignores who else knocks
            caller = waiting.enter_context(socket.socket())
            caller.settimeout(0)
            caller.connect_ex(full.getsockname())
        deaf = configured(tmp_path, port=full.getsockname()[1])

        error = await replace(stand, configuration=deaf).failure(connect_timeout_seconds=0.3)

    assert isinstance(error, Transient)
    assert error.message == "provider openai cannot be reached"


HUGE = b"x" * 5 * 1024 * 1024
GZIP = b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (b"no HTTP at all\r\n\r\n", Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (b"HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\ncut", Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 5242880\r\n\r\n" + HUGE, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", Permanent, ErrorCode.PROVIDER_REJECTED),
        (b"HTTP/1.1 200 OK\r\n" + GZIP + b"Content-Length: 3\r\n\r\nabc", Transient, ErrorCode.PROVIDER_INCOMPLETE),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b"[" * 100_000,
            Transient,
            ErrorCode.PROVIDER_MALFORMED,
        ),
        (
            b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"code": 401, "msg": "no", "success": false}',
            Permanent,
            ErrorCode.PROVIDER_AUTHENTICATION,
        ),
        (STREAM + b'event: error\ndata: {"message": "odd"}\n\n', Transient, ErrorCode.PROVIDER_MALFORMED),
        (STREAM + b'data: {"error": {"code": 401}}', Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (STREAM + b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', Transient, ErrorCode.PROVIDER_MALFORMED),
        (STREAM + b"data: [DONE]\n\n", Transient, ErrorCode.PROVIDER_INCOMPLETE),
        (STREAM + b"data: not JSON\n\n", Transient, ErrorCode.PROVIDER_MALFORMED),
        (
            STREAM + b'data: {"choices": [{"delta": {"refusal": "I cannot"}, "finish_reason": "stop"}]}\n\n',
            Permanent,
            ErrorCode.CONTENT_REFUSED,
        ),
        (
            STREAM + b'data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}\n\n',
            Transient,
            ErrorCode.PROVIDER_INCOMPLETE,
        ),
    ],
    ids=[
        "no http",
        "cut 401",
        "huge 502",
        "redirect",
        "broken gzip",
        "deep json",
        "bare code",
        "error event",
        "error event without a blank line",
        "text that is none",
        "nothing but done",
        "no json",
        "refusal beside the text",
        "tool call",
    ],
)
async def test_an_odd_server_is_judged_by_the_most_that_can_be_known(
    stand: Stand, tmp_path: Path, answer: bytes, kind: type[CommandError], code: ErrorCode
) -> None:
    async with raw_server(answer) as (port, _):
        error = await replace(stand, configuration=configured(tmp_path, port=port)).failure()

    assert (type(error), error.code) == (kind, code)


async def test_reasoning_is_a_sign_of_life_and_no_part_of_the_text(stand: Stand) -> None:
    stand.script({"ok": True, "text": "because", "seconds_per_token": 0.5})

    completion = await stand.ask("zai", first_token_timeout_seconds=30)

    assert completion.text == "because"
    assert completion.first_token_seconds is not None
    assert completion.first_token_seconds < completion.seconds
    assert stand.said == ["because"]


async def test_a_question_s_own_limit_ends_the_call_and_blames_nobody(stand: Stand) -> None:
    stand.script({"fault": "stall_mid_body"})

    error = await stand.failure(timeout_seconds=0.3)

    assert (type(error), error.code) == (Transient, ErrorCode.PROVIDER_TIMEOUT)
    assert error.details["scope"] == "request"


async def test_a_question_s_own_limit_after_a_telling_silence_blames_the_model(stand: Stand) -> None:
    stand.script({"fault": "stall_before_headers"})

    error = await stand.failure(timeout_seconds=0.3, idle_timeout_seconds=0.2)

    assert error.details["scope"] == "model"


async def test_a_slow_but_steady_stream_outlives_the_idle_limit(stand: Stand) -> None:
    stand.script({"ok": True, "tokens": 8, "seconds_per_token": 0.3})

    completion = await stand.ask(idle_timeout_seconds=1.5)

    assert completion.seconds > 1.5
    assert completion.tokens_out == 8


@pytest.mark.parametrize(
    ("dialect", "header"),
    [
        ("openai", f"authorization: bearer {KEY}"),
        ("zai", f"authorization: bearer {KEY}"),
        ("perplexity", f"authorization: bearer {KEY}"),
        ("anthropic", f"x-api-key: {KEY}"),
    ],
)
async def test_the_key_and_the_same_idempotency_key_go_with_each_call(
    stand: Stand, tmp_path: Path, dialect: str, header: str
) -> None:
    command_id = uuid4()
    async with raw_server(b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") as (port, asked):
        there = replace(stand, configuration=configured(tmp_path, port=port))
        for _ in range(2):
            await there.failure(dialect, command_id=command_id)

    for request in asked:
        lines = request.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
        assert header in lines
        assert f"idempotency-key: demo:{command_id}" in lines
        assert "user-agent: ish-chat" in lines
    assert len(asked) == 2


async def test_a_call_that_is_cancelled_closes_its_connection(stand: Stand) -> None:
    stand.script({"ok": True, "tokens": 1000, "seconds_per_token": 0.05})

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        call = group.create_task(stand.ask())
        await stand.began.wait()
        call.cancel()
    async with asyncio.timeout(60):
        async for _ in moments():
            if not stand.ledger.counts()["in_flight"]:
                break

    assert stand.ledger.counts()["info"] == 1


async def test_the_ledger_has_every_call_before_and_after_its_answer(stand: Stand) -> None:
    stand.script({"status": 503}, {"fault": "stall_before_headers"})

    await stand.failure()
    await stand.failure(first_token_timeout_seconds=0.3)
    await stand.ask()

    events = [(line["event"], line["call"], line.get("step")) for line in stand.lines()]
    assert events[:3] == [("invoke", 1, None), ("fail", 1, "status 503"), ("invoke", 2, None)]
    assert {("info", 2, "fault stall_before_headers"), ("invoke", 3, None), ("ok", 3, "ok")} == set(events[3:])


async def test_the_ledger_counts_calls_and_their_peaks_by_model_and_path(stand: Stand) -> None:
    stand.script(latency_seconds=0.3)

    async with asyncio.TaskGroup() as group:
        for dialect in ("openai", "openai", "anthropic"):
            group.create_task(stand.ask(dialect))

    counts = stand.ledger.counts()
    assert counts["by_path"] == {"/v1/chat/completions": 2, "/v1/messages": 1}
    assert counts["peak_in_flight"] == 3
    assert counts["peak_in_flight_by_model"] == {"plain": 3}
    assert counts["peak_in_flight_by_path"] == {"/v1/chat/completions": 2, "/v1/messages": 1}


async def test_a_script_may_give_each_command_its_own_steps(stand: Stand) -> None:
    first, second = uuid4(), uuid4()
    stand.script({"status": 500}, per_command=True, match={"model": "pl*", "path": "/v1/*"})

    await stand.failure(command_id=first)
    await stand.failure(command_id=second)

    assert (await stand.ask(command_id=first)).text
    assert (await stand.ask(command_id=second)).text
    assert stand.ledger.calls_of(str(first)) == 2


async def test_a_named_script_is_replaced_by_its_successor(stand: Stand) -> None:
    stand.script({"ok": True, "text": "old"}, name="mood", repeat=True)
    before = (await stand.ask()).text
    stand.script({"ok": True, "text": "new"}, name="mood", repeat=True)

    assert [before, (await stand.ask()).text] == ["old", "new"]
    stand.scripts.clear("mood")
    assert (await stand.ask(prompt="hello")).text == "[2cf24dba5fb0] hello"
