"""Writes an answer's text into its token stream while it is made; what cannot be written is left to the result.

Text is gathered for some 20 ms and leaves in one pipeline for all answers of this process. A stream never gets a hole:
when a write fails or waits for too long, the rest of that run is dropped, and readers take it from the result.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from contracts.logs import get_logger
from contracts.redis_client import open_redis, patience
from contracts.restarting import restarting
from contracts.service_errors import redis_in_words
from contracts.tokens import END, KEEP_SECONDS, MAX_ENTRIES, RUN, TEXT, stream_key

_FLUSH_SECONDS = 0.02
_FLUSH_WRITERS = 50
"""With more streams than this in one flush the flushes become rarer, so that their cost stays the same."""
_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_MAX_PENDING_CHARACTERS = 1024 * 1024
"""Text of one run that waits for Redis; a whole answer has 4 MiB at most, and nobody makes a quarter of it in 20 ms."""
_KEEP_AGAIN_SECONDS = 60.0


class TokenWriter:
    """One command's stream, as its handler writes it; no method ever fails.

    Args:
        streams: Where it is flushed.
        key: The stream's key.
    """

    def __init__(self, streams: "TokenStreams", key: str) -> None:
        self.key = key
        self._streams = streams
        self._name = token_hex(4)
        """Tells its runs from those of a worker that had this command before, or still believes to have it."""
        self._run = self._name
        self._parts: list[str] = []
        self._pending_characters = 0
        self._ended: asyncio.Future[None] | None = None
        self._lost = False
        self._kept_at: float | None = None

    def begin(self, run: str) -> None:
        """The answer begins, or begins anew: what was written under another run is void.

        Args:
            run: Names this run among those of this writer.
        """
        self._run = f"{self._name}.{run}"
        self._parts.clear()
        self._pending_characters = 0
        self._lost = False

    def write(self, text: str) -> None:
        """Add text to the run.

        Args:
            text: As the provider gave it; a NUL becomes what it becomes in the result.
        """
        if self._lost or not text:
            return
        self._pending_characters += len(text)
        if self._pending_characters > _MAX_PENDING_CHARACTERS:
            self.lose()
            return
        self._parts.append(text)
        self._streams.wake(self)

    async def end(self) -> None:
        """The run is whole; returns when all of it is in Redis, or when that has failed."""
        if self._lost:
            return
        self._ended = asyncio.get_running_loop().create_future()
        self._streams.wake(self)
        await self._ended

    async def close(self) -> None:
        """Forget what is not written yet; of a run that did not end it is void."""
        self.lose()
        self._streams.forget(self)

    def lose(self) -> None:
        """The run is not written any further; whoever waits for its end waits no longer."""
        self._lost = True
        self._parts.clear()
        self._pending_characters = 0
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    @property
    def ending(self) -> asyncio.Future[None] | None:
        """Whoever waits for the run's end to be written."""
        return None if self._ended is None or self._ended.done() else self._ended

    def take(self) -> dict[str, str]:
        """The entry that is to be written now; empty when there is none."""
        text = "".join(self._parts).replace("\x00", "\N{REPLACEMENT CHARACTER}")
        self._parts.clear()
        self._pending_characters = 0
        entry = {RUN: self._run, TEXT: text} if text else {}
        if self.ending is not None:
            entry |= {RUN: self._run, END: "1"}
        return entry

    def keep(self, now: float) -> bool:
        """Whether the stream's life is to be prolonged with this entry.

        Args:
            now: The loop's time.
        """
        due = self.ending is not None or self._kept_at is None or now - self._kept_at > _KEEP_AGAIN_SECONDS
        if due:
            self._kept_at = now
        return due


class TokenStreams:
    """All token streams of one process.

    Args:
        redis: Where they are; None drops everything.
    """

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis
        self._waiting: dict[TokenWriter, None] = {}
        self._any = asyncio.Event()
        self._away_until = 0.0
        self._reachable = True
        self._closed = False

    def writer(self, publisher: str, command_id: UUID) -> TokenWriter:
        """The stream of one command.

        Args:
            publisher: The command's publisher.
            command_id: The command.
        """
        return TokenWriter(self, stream_key(publisher, command_id))

    def wake(self, writer: TokenWriter) -> None:
        """Something is to be written.

        Args:
            writer: For which stream.
        """
        if self._redis is None or self._closed or asyncio.get_running_loop().time() < self._away_until:
            writer.lose()
            return
        self._waiting[writer] = None
        self._any.set()

    def forget(self, writer: TokenWriter) -> None:
        """Nothing is to be written any more.

        Args:
            writer: For which stream.
        """
        self._waiting.pop(writer, None)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._any.wait()
            self._any.clear()
            writers, self._waiting = list(self._waiting), {}
            await self._flush(writers)
            # the first text of an answer goes at once, what follows gathers
            await asyncio.sleep(_FLUSH_SECONDS * max(1.0, len(writers) / _FLUSH_WRITERS))

    def close(self) -> None:
        """Drop what is not written yet, and whatever comes; `run` has ended."""
        self._closed = True
        _lose(self._waiting)

    async def _flush(self, writers: list[TokenWriter]) -> None:
        redis = self._redis
        if redis is None:
            return
        now = asyncio.get_running_loop().time()
        pipeline = redis.pipeline(transaction=False)
        endings = _fill(pipeline, writers, now)
        try:
            async with patience(_PATIENCE_SECONDS):
                await pipeline.execute()
        except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, it is done without
            self._away_until = now + _PATIENCE_SECONDS + _PAUSE_SECONDS
            self._note(error)
            _lose((*writers, *self._waiting))
        except BaseException:
            _lose(writers)
            raise
        else:
            self._note(None)
            for ending in endings:
                if not ending.done():
                    ending.set_result(None)

    def _note(self, error: Exception | None) -> None:
        """One line when it goes, one when it is back."""
        if (error is None) is self._reachable:
            return
        self._reachable = error is None
        if error is None:
            get_logger().info("redis_reachable", of="token streams")
        else:
            get_logger().warning("redis_unreachable", of="token streams", error=redis_in_words(error))


def _fill(pipeline: Pipeline, writers: Iterable[TokenWriter], now: float) -> list[asyncio.Future[None]]:
    """Put what the writers have into a pipeline; returns whom to tell when it is written."""
    endings: list[asyncio.Future[None]] = []
    for writer in writers:
        entry = writer.take()
        if not entry:
            continue
        # `errors`: half of a character that a provider has cut must not fail the others' text
        fields = {name: value.encode(errors="replace") for name, value in entry.items()}
        pipeline.xadd(writer.key, fields, maxlen=MAX_ENTRIES, approximate=True)  # type: ignore[arg-type]  # dict is invariant
        if writer.keep(now):
            pipeline.expire(writer.key, KEEP_SECONDS)
        if writer.ending is not None:
            endings.append(writer.ending)
    return endings


def _lose(writers: Iterable[TokenWriter]) -> None:
    for writer in writers:
        writer.lose()


@asynccontextmanager
async def open_token_streams(redis_url: str) -> AsyncIterator[TokenStreams]:
    """Keep the token streams of a process.

    Args:
        redis_url: redis:// URL; with an empty one everything is dropped.
    """
    if not redis_url:
        yield TokenStreams(None)
        return
    redis = open_redis(redis_url, max_connections=1)
    streams = TokenStreams(redis)
    try:
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(restarting("token streams", streams.run))
            try:
                yield streams
            finally:
                writing.cancel()
    finally:
        streams.close()
        with suppress(Exception):
            await redis.aclose()
