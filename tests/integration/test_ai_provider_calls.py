import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from contracts.ai import AiSend
from contracts.errors import CommandError, ErrorCode, Expired, Permanent, Transient
from ops.scripted_provider.ledger import Ledger
from ops.scripted_provider.scripts import Fault, Script, Scripts
from ops.scripted_provider.server import running
from workers.ai.client import open_client
from workers.ai.configuration import Configuration, load
from workers.ai.handler import build
from workers.handler import Command, Outcome

PROMPT = "why is the sky blue"
KEY = "key-planted-in-the-file"

# what each fault must amount to: the error's class and its code
EXPECTED: dict[Fault, tuple[type[CommandError], ErrorCode]] = {
    Fault.STALL_BEFORE_HEADERS: (Transient, ErrorCode.PROVIDER_TIMEOUT),
    Fault.STALL_MID_BODY: (Transient, ErrorCode.PROVIDER_TIMEOUT),
    Fault.TRICKLE: (Transient, ErrorCode.PROVIDER_TIMEOUT),
    Fault.RESET_BEFORE_HEADERS: (Transient, ErrorCode.PROVIDER_UNAVAILABLE),
    Fault.RESET_MID_HEADERS: (Transient, ErrorCode.PROVIDER_UNAVAILABLE),
    Fault.RESET_AFTER_HEADERS: (Transient, ErrorCode.PROVIDER_INCOMPLETE),
    Fault.RESET_MID_BODY: (Transient, ErrorCode.PROVIDER_INCOMPLETE),
    Fault.CLOSE_MID_BODY: (Transient, ErrorCode.PROVIDER_INCOMPLETE),
    Fault.HUGE_BODY: (Permanent, ErrorCode.PROVIDER_MALFORMED),
    Fault.EMPTY_BODY: (Transient, ErrorCode.PROVIDER_MALFORMED),
    Fault.MALFORMED_JSON: (Transient, ErrorCode.PROVIDER_MALFORMED),
    Fault.WRONG_CONTENT_TYPE: (Transient, ErrorCode.PROVIDER_MALFORMED),
    Fault.EMPTY_CHOICES: (Transient, ErrorCode.PROVIDER_MALFORMED),
    Fault.NULL_CONTENT: (Transient, ErrorCode.PROVIDER_MALFORMED),
    Fault.NO_FINISH_REASON: (Transient, ErrorCode.PROVIDER_INCOMPLETE),
    Fault.ERROR_IN_200: (Transient, ErrorCode.PROVIDER_UNAVAILABLE),
    Fault.DEAD_KEY: (Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
    Fault.INSUFFICIENT_QUOTA: (Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
    Fault.UNKNOWN_MODEL: (Permanent, ErrorCode.MODEL_NOT_FOUND),
    Fault.CONTEXT_TOO_LONG: (Permanent, ErrorCode.CONTEXT_TOO_LONG),
    Fault.CONTENT_REFUSED: (Permanent, ErrorCode.CONTENT_REFUSED),
    Fault.SENSITIVE: (Permanent, ErrorCode.CONTENT_REFUSED),
}


@dataclass(frozen=True, slots=True)
class Stand:
    """A scripted provider and a worker's client, both for real."""

    configuration: Configuration
    client: httpx.AsyncClient
    scripts: Scripts
    ledger: Ledger
    log: Path

    def script(self, *steps: dict[str, Any], **rest: Any) -> None:
        self.scripts.add(Script.model_validate({"steps": list(steps), **rest}))

    async def ask(self, *, command_id: UUID | None = None, publisher: str = "demo", **payload: Any) -> Outcome:
        remaining = payload.pop("remaining_seconds", 60)
        command = Command(
            publisher=publisher,
            id=command_id or uuid4(),
            kind="ai.send",
            owner="owner",
            payload=AiSend.model_validate({"prompt": PROMPT, **payload}),
            attempt=1,
            accepted_at=datetime.now(UTC),
            deadline_at=datetime.now(UTC) + timedelta(seconds=remaining),
        )
        return await build(self.configuration, client=self.client)(command)

    async def failure(self, **payload: Any) -> CommandError:
        with pytest.raises(CommandError) as caught:
            await self.ask(**payload)
        return caught.value

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines()]


def configured(tmp_path: Path, *, port: int, connect_timeout_seconds: float = 5) -> Configuration:
    (tmp_path / "key").write_text(KEY)
    provider = "\n".join(
        f"""
        [providers.{name}]
        dialect = "{dialect}"
        base_url = "http://127.0.0.1:{port}/v1"
        api_key_file = "key"
        connect_timeout_seconds = {connect_timeout_seconds}
        first_token_timeout_seconds = {seconds}
        idle_timeout_seconds = {seconds}
        [providers.{name}.models.plain]
        input_usd_per_million_tokens = 1
        output_usd_per_million_tokens = 10
        """
        for name, dialect, seconds in [("scripted", "openai", 30), ("hasty", "openai", 0.5), ("zai", "zai", 30)]
    )
    path = tmp_path / "providers.toml"
    path.write_text(provider)
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


async def test_an_answer_carries_text_usage_and_cost(stand: Stand) -> None:
    outcome = await stand.ask(prompt="hello", model="scripted/plain")

    assert outcome.output == {
        "text": "[2cf24dba5fb0] hello",
        "model": "plain",
        "provider": "scripted",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    assert outcome.usage.target == "scripted/plain"
    assert (outcome.usage.tokens_in, outcome.usage.tokens_out) == (1, 2)
    assert outcome.usage.cost_usd == pytest.approx(21e-6)
    assert outcome.messages == ()


@pytest.mark.parametrize("fault", Fault)
async def test_every_fault_ends_as_the_table_says_and_never_as_an_answer(stand: Stand, fault: Fault) -> None:
    kind, code = EXPECTED[fault]
    stand.script({"fault": fault.value})
    hasty = code is ErrorCode.PROVIDER_TIMEOUT

    error = await stand.failure(provider="hasty" if hasty else "scripted", **({"timeout_seconds": 2} if hasty else {}))

    assert type(error) is kind
    assert error.code == code
    assert error.details["model"] == "plain"
    assert PROMPT not in f"{error.message} {error.details}"
    assert KEY not in f"{error.message} {error.details}"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_a_failing_server_is_worth_another_try(stand: Stand, status: int) -> None:
    stand.script({"status": status})

    assert isinstance(await stand.failure(), Transient)


@pytest.mark.parametrize(("asked", "expected"), [(20, 20.0), ("Fri, 01 May 2020 12:00:00 GMT", 0.0), (None, None)])
async def test_a_rate_limited_call_asks_for_the_wait_that_the_provider_named(
    stand: Stand, asked: float | str | None, expected: float | None
) -> None:
    stand.script({"status": 429, "retry_after": asked})

    error = await stand.failure()

    assert isinstance(error, Transient)
    assert error.code == ErrorCode.PROVIDER_RATE_LIMITED
    assert error.retry_after_seconds == expected


async def test_the_code_of_zai_decides_over_its_status(stand: Stand) -> None:
    stand.script({"zai_code": 1113}, {"zai_code": 1302})

    first, second = await stand.failure(provider="zai"), await stand.failure(provider="zai")

    assert (type(first), first.code) == (Permanent, ErrorCode.PROVIDER_AUTHENTICATION)
    assert isinstance(second, Transient)
    assert second.retry_after_seconds == 1.0


async def test_a_server_that_is_not_there_is_worth_another_try(stand: Stand, tmp_path: Path) -> None:
    dead = configured(tmp_path, port=1)

    error = await replace(stand, configuration=dead).failure()

    assert isinstance(error, Transient)
    assert (error.code, error.message) == (
        ErrorCode.PROVIDER_UNAVAILABLE,
        "provider scripted cannot be reached",
    )


async def test_a_server_that_does_not_take_the_connection_cannot_be_reached(stand: Stand, tmp_path: Path) -> None:
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # more than the queue holds: the kernel now ignores who else knocks
            caller = waiting.enter_context(socket.socket())
            caller.settimeout(0)
            caller.connect_ex(full.getsockname())
        deaf = configured(tmp_path, port=full.getsockname()[1], connect_timeout_seconds=0.3)

        error = await replace(stand, configuration=deaf).failure()

    assert isinstance(error, Transient)
    assert error.message == "provider scripted cannot be reached"


HUGE = b"x" * 5 * 1024 * 1024
GZIP = b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"


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
    ],
    ids=["no http", "cut 401", "huge 502", "redirect", "broken gzip", "deep json", "bare code"],
)
async def test_an_odd_server_is_judged_by_the_most_that_can_be_known(
    stand: Stand, tmp_path: Path, answer: bytes, kind: type[CommandError], code: ErrorCode
) -> None:
    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
        odd = configured(tmp_path, port=server.sockets[0].getsockname()[1])
        error = await replace(stand, configuration=odd).failure()

    assert (type(error), error.code) == (kind, code)


async def test_the_callers_time_limit_ends_the_call(stand: Stand) -> None:
    stand.script({"fault": "stall_before_headers"})

    error = await stand.failure(timeout_seconds=0.3)

    assert (type(error), error.code) == (Transient, ErrorCode.PROVIDER_TIMEOUT)


@pytest.mark.parametrize("remaining_seconds", [-1, 0.3])
async def test_a_passed_deadline_is_expired_and_not_a_failed_try(stand: Stand, remaining_seconds: float) -> None:
    stand.script({"fault": "stall_before_headers"})

    error = await stand.failure(remaining_seconds=remaining_seconds)

    assert (type(error), error.code) == (Expired, ErrorCode.DEADLINE_PASSED)


async def test_the_same_command_sends_the_same_key_and_another_publishers_equal_id_another(stand: Stand) -> None:
    command_id = uuid4()
    stand.script({"status": 500})

    await stand.failure(command_id=command_id)
    await stand.ask(command_id=command_id)
    await stand.ask(command_id=command_id, publisher="other app")

    keys = [line["idempotency_key"] for line in stand.lines() if line["event"] == "invoke"]
    assert keys == [f"demo:{command_id}", f"demo:{command_id}", f"other%20app:{command_id}"]
    assert stand.ledger.calls_of(str(command_id)) == 3


async def test_an_answer_cut_by_max_tokens_says_so(stand: Stand) -> None:
    stand.script({"ok": True, "text": "half", "finish_reason": "length"})

    assert (await stand.ask()).output["finish_reason"] == "length"


async def test_a_nul_in_an_answer_is_replaced_since_it_could_not_be_recorded(stand: Stand) -> None:
    stand.script({"ok": True, "text": "a\x00b"})

    assert (await stand.ask()).output["text"] == "a\ufffdb"


async def test_in_a_conversation_question_and_answer_are_recorded(stand: Stand) -> None:
    stand.script({"ok": True, "text": "because"})

    outcome = await stand.ask(conversation_id="room", metadata={"tag": 1})

    assert outcome.output["conversation_id"] == "room"
    assert [(line.sender, line.text) for line in outcome.messages] == [("user", PROMPT), ("bot", "because")]
    assert outcome.messages[0].metadata == {"tag": 1}
    assert outcome.messages[1].metadata == {"tag": 1, "provider": "scripted", "model": "plain"}


async def test_the_answer_to_a_relayed_message_is_recorded_without_the_question(stand: Stand) -> None:
    outcome = await stand.ask(conversation_id="room", in_reply_to=str(uuid4()))

    assert [line.sender for line in outcome.messages] == ["bot"]


async def test_the_ledger_has_every_call_before_and_after_its_answer(stand: Stand) -> None:
    stand.script({"status": 503}, {"fault": "stall_before_headers"})

    await stand.failure()
    await stand.failure(provider="hasty")
    await stand.ask()

    events = [(line["event"], line["call"], line.get("step")) for line in stand.lines()]
    assert events[:3] == [("invoke", 1, None), ("fail", 1, "status 503"), ("invoke", 2, None)]
    assert {("info", 2, "fault stall_before_headers"), ("invoke", 3, None), ("ok", 3, "ok")} == set(events[3:])


async def test_a_script_may_give_each_command_its_own_steps(stand: Stand) -> None:
    first, second = uuid4(), uuid4()
    stand.script({"status": 500}, per_command=True, match={"model": "pl*"})

    await stand.failure(command_id=first)
    await stand.failure(command_id=second)

    assert (await stand.ask(command_id=first)).output["text"]
    assert (await stand.ask(command_id=second)).output["text"]
