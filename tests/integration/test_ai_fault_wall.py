"""Every fault, from every vendor, in an answer in one piece and in a stream: each ends as the table says."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from contracts.errors import CommandError, ErrorCode, Permanent, Transient
from ops.simulators.provider.scripts import HARMLESS, Fault
from workers.ai.configuration import Model, Provider, Target
from workers.ai.providers import DIALECTS
from workers.ai.providers.call import Completion, Question, ask
from workers.ai.providers.client import open_client

PATHS = {"openai": "/v1", "zai": "/zai/api/paas/v4", "perplexity": "/perplexity", "anthropic": "/anthropic"}
TOKENS, STRIKES_AFTER = 60, 40
TEXT = " ".join(f"token-{number}" for number in range(1, TOKENS + 1))
STRUCK_TEXT = " ".join(f"token-{number}" for number in range(1, STRIKES_AFTER + 1))
HASTY_SECONDS = 0.4
PATIENT_SECONDS = 60.0


@dataclass(frozen=True)
class Ends:
    """How a call is to end."""

    kind: type[CommandError]
    code: ErrorCode
    scope: str
    begun: bool = False
    """In a stream, text had been delivered before."""
    more: dict[str, Any] = field(default_factory=dict)
    """Of the details."""


REACH = Ends(Transient, ErrorCode.PROVIDER_UNAVAILABLE, "provider")
LATE = Ends(Transient, ErrorCode.PROVIDER_TIMEOUT, "model")
CUT = Ends(Transient, ErrorCode.PROVIDER_INCOMPLETE, "model")
CUT_LATER = Ends(Transient, ErrorCode.PROVIDER_INCOMPLETE, "model", begun=True)
MALFORMED = Ends(Transient, ErrorCode.PROVIDER_MALFORMED, "model")
DEAD = Ends(Permanent, ErrorCode.PROVIDER_AUTHENTICATION, "key", more={"dead": True})
ENDLESS = Ends(Permanent, ErrorCode.PROVIDER_MALFORMED, "model")

FAULTS: dict[Fault, Ends | tuple[Ends, Ends]] = {
    Fault.STALL_BEFORE_HEADERS: LATE,
    Fault.STALL_AFTER_HEADERS: LATE,
    Fault.PINGS_ONLY: LATE,
    Fault.STALL_MID_BODY: (LATE, Ends(Transient, ErrorCode.PROVIDER_TIMEOUT, "model", begun=True)),
    Fault.TRICKLE: LATE,
    Fault.RESET_BEFORE_HEADERS: REACH,
    Fault.RESET_MID_HEADERS: REACH,
    Fault.RESET_AFTER_HEADERS: CUT,
    Fault.RESET_MID_BODY: (CUT, CUT_LATER),
    Fault.CLOSE_MID_BODY: (CUT, CUT_LATER),
    Fault.ENDS_EARLY: (MALFORMED, CUT_LATER),
    Fault.NO_FINISH_REASON: (CUT, CUT_LATER),
    Fault.HUGE_BODY: (ENDLESS, Ends(Permanent, ErrorCode.PROVIDER_MALFORMED, "model", begun=True)),
    Fault.HUGE_EVENT: ENDLESS,
    Fault.EMPTY_BODY: (MALFORMED, CUT),
    Fault.MALFORMED_JSON: (MALFORMED, Ends(Transient, ErrorCode.PROVIDER_MALFORMED, "model", begun=True)),
    Fault.WRONG_CONTENT_TYPE: Ends(Transient, ErrorCode.PROVIDER_MALFORMED, "provider"),
    Fault.EMPTY_CHOICES: (MALFORMED, CUT),
    Fault.NULL_CONTENT: MALFORMED,
    Fault.ERROR_IN_200: REACH,
    Fault.ERROR_MID_BODY: (REACH, Ends(Transient, ErrorCode.PROVIDER_UNAVAILABLE, "provider", begun=True)),
    Fault.DEAD_KEY: DEAD,
    Fault.INSUFFICIENT_QUOTA: DEAD,
    Fault.UNKNOWN_MODEL: Ends(Permanent, ErrorCode.MODEL_NOT_FOUND, "model"),
    Fault.CONTEXT_TOO_LONG: Ends(Permanent, ErrorCode.CONTEXT_TOO_LONG, "request"),
    Fault.CONTENT_REFUSED: (
        Ends(Permanent, ErrorCode.CONTENT_REFUSED, "request"),
        Ends(Permanent, ErrorCode.CONTENT_REFUSED, "request", begun=True),
    ),
}
"""A pair where an answer in one piece ends otherwise than a stream."""

LOSES_WHAT_IS_UNREAD = {Fault.RESET_MID_BODY, Fault.CLOSE_MID_BODY}
"""A lost connection takes with it what had arrived and was not read yet: how much that is, is chance."""

STATUSES: list[tuple[str, dict[str, Any], Ends]] = [
    (
        "429 with Retry-After",
        {"status": 429, "retry_after": 7},
        Ends(Transient, ErrorCode.PROVIDER_RATE_LIMITED, "key", more={"cooldown_seconds": 7.0}),
    ),
    ("429 without", {"status": 429}, Ends(Transient, ErrorCode.PROVIDER_RATE_LIMITED, "key")),
    ("500", {"status": 500}, REACH),
    ("502", {"status": 502}, REACH),
    ("503", {"status": 503}, REACH),
    (
        "503 with Retry-After",
        {"status": 503, "retry_after": 30},
        Ends(Transient, ErrorCode.PROVIDER_UNAVAILABLE, "provider", more={"cooldown_seconds": 30.0}),
    ),
    ("504", {"status": 504}, Ends(Transient, ErrorCode.PROVIDER_TIMEOUT, "provider")),
    (
        "529",
        {"status": 529, "type": "overloaded_error"},
        Ends(Transient, ErrorCode.PROVIDER_UNAVAILABLE, "model"),
    ),
]

ZAI: list[tuple[Ends, list[int]]] = [
    (
        Ends(Transient, ErrorCode.PROVIDER_RATE_LIMITED, "model", more={"shrink": True, "cooldown_seconds": None}),
        [1302, 1303],
    ),
    (Ends(Transient, ErrorCode.PROVIDER_UNAVAILABLE, "model"), [1305, 1312]),
    (
        Ends(Transient, ErrorCode.PROVIDER_RATE_LIMITED, "key", more={"cooldown_seconds": 3600.0}),
        [1304, 1308, 1310],
    ),
    (Ends(Transient, ErrorCode.PROVIDER_RATE_LIMITED, "key", more={"cooldown_seconds": 600.0}), [1313]),
    (DEAD, [1000, 1001, 1002, 1003, 1004, 1110, 1111, 1112, 1113, 1121, 1309, 1311]),
    (Ends(Permanent, ErrorCode.PROVIDER_REJECTED, "request"), [1210, 1212, 1213, 1214, 1215]),
    (Ends(Permanent, ErrorCode.MODEL_NOT_FOUND, "model"), [1211, 1220, 1221, 1222]),
    (Ends(Permanent, ErrorCode.CONTEXT_TOO_LONG, "request"), [1261]),
    (Ends(Permanent, ErrorCode.CONTENT_REFUSED, "request"), [1301]),
    (Ends(Transient, ErrorCode.PROVIDER_UNAVAILABLE, "provider"), [500, 1120, 1200, 1230, 1234]),
    (Ends(Transient, ErrorCode.PROVIDER_UNAVAILABLE, "request", more={"cooldown_seconds": None}), [1231]),
]


class Wall:
    """A scripted provider in a process of its own, and a worker's client."""

    def __init__(self, address: str, client: httpx.AsyncBaseTransport) -> None:
        self.address = address
        self.client = client
        self.said: list[str] = []

    async def script(self, *steps: dict[str, Any], **rest: Any) -> str:
        """Set what a new model does; gives its name."""
        model = f"model-{uuid4().hex[:8]}"
        script = {"match": {"model": model}, "steps": [{"tokens": TOKENS, **step} for step in steps], **rest}
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.post(f"{self.address}/__script", json=script)).raise_for_status()
        return model

    async def ask(
        self,
        dialect: str,
        model: str,
        *,
        stream: bool,
        first_seconds: float = PATIENT_SECONDS,
        idle_seconds: float = PATIENT_SECONDS,
    ) -> Completion:
        provider = Provider.model_validate(
            {
                "dialect": dialect,
                "base_url": self.address + PATHS[dialect],
                "api_key_env": "KEY",
                "first_token_timeout_seconds": first_seconds,
                "idle_timeout_seconds": idle_seconds,
                "stream": stream,
                "models": {model: {}},
            }
        )
        target = Target("wall", provider, model, Model(), SecretStr("planted-key"))
        question = Question(
            messages=[{"role": "user", "content": "planted question"}],
            options={},
            idempotency_key=f"demo:{uuid4()}",
            timeout_seconds=PATIENT_SECONDS,
        )
        self.said = []
        return await ask(self.client, target, question, on_text=self.said.append)


@pytest.fixture(scope="module")
async def wall() -> AsyncIterator[Wall]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.simulators.provider", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
        async with open_client() as client:
            yield Wall(line.rpartition(" at ")[2].strip().removesuffix("/v1"), client)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def struck(wall: Wall, dialect: str, model: str, ends: Ends, *, stream: bool, **hasty: float) -> None:
    """Ask, and compare how it ends."""
    with pytest.raises(CommandError) as caught:
        await wall.ask(dialect, model, stream=stream, **hasty)

    error = caught.value
    assert (type(error), error.code) == (ends.kind, ends.code)
    details = error.details
    assert (details["provider"], details["model"], details["scope"]) == ("wall", model, ends.scope)
    assert {name: details.get(name) for name in ends.more} == ends.more
    assert details["begun"] is bool(wall.said)
    assert "planted" not in f"{error.message} {details}"


def hurry(ends: Ends, fault: Fault) -> dict[str, float]:
    """Short time-outs for what only they end."""
    if ends.code is not ErrorCode.PROVIDER_TIMEOUT:
        return {}
    return {"idle_seconds" if fault is Fault.STALL_MID_BODY else "first_seconds": HASTY_SECONDS}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_of_every_vendor_ends_as_the_table_says(
    wall: Wall, fault: Fault, dialect: str, *, stream: bool
) -> None:
    listed = FAULTS[fault]
    ends = listed[stream] if isinstance(listed, tuple) else listed
    model = await wall.script({"fault": fault.value, "after_tokens": STRIKES_AFTER})

    await struck(wall, dialect, model, ends, stream=stream, **hurry(ends, fault))

    said = "".join(wall.said)
    if fault in LOSES_WHAT_IS_UNREAD:
        assert STRUCK_TEXT.startswith(said)
    elif fault is Fault.HUGE_BODY:
        assert bool(said) is ends.begun
    else:
        assert said == (STRUCK_TEXT if ends.begun else "")


def test_the_table_leaves_no_fault_out() -> None:
    assert FAULTS.keys() | HARMLESS == set(Fault)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", sorted(HARMLESS))
async def test_an_answer_whose_finish_reason_arrived_is_whole_however_it_ends(
    wall: Wall, fault: Fault, dialect: str, *, stream: bool
) -> None:
    model = await wall.script({"fault": fault.value})

    completion = await wall.ask(dialect, model, stream=stream)

    assert (completion.text, completion.finish_reason, completion.tokens_out) == (TEXT, "stop", TOKENS)
    assert "".join(wall.said) == TEXT


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("step", "ends"), [case[1:] for case in STATUSES], ids=[case[0] for case in STATUSES])
async def test_every_status_ends_as_the_table_says(
    wall: Wall, step: dict[str, Any], ends: Ends, dialect: str, *, stream: bool
) -> None:
    await struck(wall, dialect, await wall.script(step), ends, stream=stream)


@pytest.mark.parametrize("way", ["whole", "stream", "mid_stream"])
@pytest.mark.parametrize(("zai_code", "ends"), [(code, ends) for ends, codes in ZAI for code in codes])
async def test_every_code_of_zai_ends_as_the_table_says(wall: Wall, zai_code: int, ends: Ends, way: str) -> None:
    after_tokens = STRIKES_AFTER if way == "mid_stream" else None
    model = await wall.script({"zai_code": zai_code, "after_tokens": after_tokens})

    await struck(wall, "zai", model, ends, stream=way != "whole")

    assert "".join(wall.said) == (STRUCK_TEXT if way == "mid_stream" else "")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("sensitive", ErrorCode.CONTENT_REFUSED),
        ("network_error", ErrorCode.PROVIDER_UNAVAILABLE),
        ("model_context_window_exceeded", ErrorCode.CONTEXT_TOO_LONG),
        ("unheard of", ErrorCode.PROVIDER_INCOMPLETE),
    ],
)
async def test_a_finish_reason_of_zai_that_is_a_failure_is_one(
    wall: Wall, reason: str, code: ErrorCode, *, stream: bool
) -> None:
    model = await wall.script({"ok": True, "finish_reason": reason})

    with pytest.raises(CommandError) as caught:
        await wall.ask("zai", model, stream=stream)

    assert caught.value.code == code


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_flapping_provider_fails_and_answers_in_turn(wall: Wall, dialect: str, *, stream: bool) -> None:
    model = await wall.script({"status": 500}, {"ok": True}, repeat=True)

    for _ in range(2):
        await struck(wall, dialect, model, REACH, stream=stream)
        assert (await wall.ask(dialect, model, stream=stream)).text == TEXT


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_cut_at_any_byte_is_an_error_or_the_whole_answer(wall: Wall, dialect: str) -> None:
    model = await wall.script({"ok": True, "tokens": 3}, repeat=True)
    whole = await recorded_stream(wall, dialect, model)
    outcomes: dict[int, str | None] = {}

    async def cut_at(length: int) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            # no length and no chunks: nothing but the finish reason tells that something is missing
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            writer.write(whole[:length])
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                completion = await Wall(f"http://127.0.0.1:{port}", wall.client).ask(dialect, model, stream=True)
            except Transient:
                outcomes[length] = None
            else:
                outcomes[length] = completion.text

    for length in [*range(0, len(whole), max(1, len(whole) // 100)), len(whole)]:
        await cut_at(length)

    assert set(outcomes.values()) == {None, "token-1 token-2 token-3"}
    assert outcomes[0] is None
    assert outcomes[len(whole)] is not None


async def recorded_stream(wall: Wall, dialect: str, model: str) -> bytes:
    """The bytes of a good stream."""
    path = "/anthropic/v1/messages" if dialect == "anthropic" else f"{PATHS[dialect]}/chat/completions"
    question = {"model": model, "stream": True, "messages": [{"role": "user", "content": "planted question"}]}
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(wall.address + path, json=question)).content
