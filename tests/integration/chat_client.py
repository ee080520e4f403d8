"""Requests to `/v1/chat/completions` for tests, and how a command is ended for them by hand."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx

from contracts.errors import CommandError
from contracts.results import State, encode_result
from contracts.tables import ENVELOPE_COLUMNS, envelope_of
from ops.stack.session import Session
from tests.integration.gateway_process import DEADLINE_SECONDS, database, eventually, recorded

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
OUTPUT = {
    "text": "Hello, world",
    "model": "steady",
    "provider": "scripted",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}


async def only_command(client: httpx.AsyncClient) -> str:
    async def items() -> Any:
        return (await client.get("/api/commands")).json()["items"]

    [command] = await eventually(items)
    return str(command["id"])


async def fail(services: Session, command_id: str, error: CommandError, state: State = State.FAILED) -> None:
    await eventually(lambda: recorded(services, command_id))
    now = datetime.now(UTC)
    async with database(services, "ish_worker") as connection:
        row = await connection.fetchrow(
            f"select {ENVELOPE_COLUMNS} from commands where id = $1",  # noqa: S608  # only a constant
            UUID(command_id),
        )
        body = encode_result(
            envelope_of(row), state, error=error, attempts=1, started_at=now, finished_at=now, worker="test"
        )
        await connection.execute(
            "update commands set state = $2, result = $3 where id = $1", UUID(command_id), state.value, body.decode()
        )


class ChatStream:
    """A streaming request, sent and read in the background."""

    def __init__(self, client: httpx.AsyncClient, **body: Any) -> None:
        self.chunks: list[dict[str, Any]] = []
        self.answer: httpx.Response | None = None
        self._done = False
        self._client = client
        self._body = {**ASK, "stream": True, **body}
        self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async with self._client.stream("POST", CHAT, json=self._body) as answer:
            self.answer = answer
            if answer.status_code != 200:
                self.chunks = [json.loads(await answer.aread())]
                return
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    self._done = True
                elif line.startswith("data: "):
                    self.chunks.append(json.loads(line.removeprefix("data: ")))

    def complete(self) -> bool:
        """Whether it ended with [DONE]."""
        return self._done

    @property
    def text(self) -> str:
        return "".join(
            choice["delta"].get("content", "") for chunk in self.chunks for choice in chunk.get("choices", ())
        )

    async def reaches(self, text: str) -> None:
        async def there() -> bool:
            return self.text == text

        await eventually(there)

    async def ended(self) -> Any:
        """The last chunk."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._task
        return self.chunks[-1]
