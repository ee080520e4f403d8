"""Publishes under confirms, fast: frames of one event-loop pass leave in one write, and nothing counts until acked.

A thin layer on aiormq's own channel (connect, TLS, login and heartbeats stay aio-pika's and aiormq's). A publish ends in
one of four ways: confirmed, `Unroutable` (returned), `Refused` (nacked, such as a full queue) or `Unconfirmed` (nobody
knows: the connection went or the confirm did not come in time; publish again under the same id).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aio_pika
import aiormq
from aiormq.abc import ChannelFrame, ConfirmationFrameType
from aiormq.channel import Channel
from pamqp import commands as spec
from structlog.stdlib import BoundLogger
from typing_extensions import override

from contracts.amqp.broker import BrokerAway, connect, open_channel, passing_channel
from contracts.amqp.frames import Properties, encode_publish
from contracts.logs import get_logger

_MAX_IN_FLIGHT = 20_000
_SWEEP_SECONDS = 0.1
_PROBE_SECONDS = 0.5
_DECLARE_SECONDS = 5.0
_REFUSED_SECONDS = 10.0
"""How long a refusal speaks for the publishes after it, unless one of them is confirmed."""


class PublishFailed(Exception):
    """The broker did not take the message."""


class Unroutable(PublishFailed):
    """The message was mandatory and no queue is bound for it."""


class Refused(PublishFailed):
    """The broker answered nack: a queue is full or could not store it."""


class Unconfirmed(PublishFailed):
    """No answer: the message may or may not be queued. Publish it again under the same id."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish, persistent."""

    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    mandatory: bool = True


_Key = tuple[str, str, str]


class Standing(StrEnum):
    """What the broker does with publishes now."""

    OK = "ok"
    AWAY = "away"
    """There is no connection."""
    BLOCKED = "blocked"
    """It has raised a memory or disk alarm, and reads nothing from whoever publishes."""
    SILENT = "silent"
    """It confirms nothing in time."""


class _ConfirmChannel(Channel):
    """aiormq's channel with its own confirm ledger and coalesced writes."""

    def __init__(self, connection: Any, number: int) -> None:
        super().__init__(connection, number, publisher_confirms=True)
        self._buffer: list[bytes] = []
        self._pending: OrderedDict[int, tuple[asyncio.Future[None], float, _Key]] = OrderedDict()
        self._returned: dict[_Key, int] = {}
        self._refused: dict[str, float] = {}
        self._next_tag = 1
        self._wake = asyncio.Event()
        self._flusher = self.create_task(self._flush())

    @property
    def is_writing(self) -> bool:
        """Whether what is sent reaches the connection."""
        return not self.is_closed and not self._flusher.done()

    @property
    def in_flight(self) -> int:
        """Messages sent and not answered yet."""
        return len(self._pending)

    def send(self, outgoing: Outgoing) -> asyncio.Future[None]:
        """Queue one publish for this pass of the event loop.

        The tag is taken and the bytes are queued in one step, and neither is ever taken back: a caller that stops
        waiting cannot shift the confirms of those behind it.
        """
        frames = encode_publish(
            self.number,
            outgoing.exchange,
            outgoing.routing_key,
            outgoing.properties,
            outgoing.body,
            mandatory=outgoing.mandatory,
            frame_max=self.connection.connection_tune.frame_max,
        )
        future: asyncio.Future[None] = self.loop.create_future()
        key = (outgoing.properties.message_id, outgoing.exchange, outgoing.routing_key)
        self._pending[self._next_tag] = (future, self.loop.time(), key)
        self._next_tag += 1
        self._buffer.append(frames)
        self._wake.set()
        return future

    async def _flush(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            payload = b"".join(self._buffer)
            self._buffer.clear()
            await self.write_queue.put(ChannelFrame(payload=payload, should_close=False))

    @override
    async def _on_return_frame(self, frame: spec.Basic.Return) -> None:
        header = await self._get_frame()
        message = await self._read_content(frame, header)  # type: ignore[arg-type]  # a return is always followed by a header
        key = (message.header.properties.message_id or "", frame.exchange, frame.routing_key or "")
        # a return carries no tag and precedes its ack: remembered until that ack comes
        self._returned[key] = self._returned.get(key, 0) + 1

    @override
    async def _on_confirm_frame(self, frame: ConfirmationFrameType) -> None:
        tag = frame.delivery_tag or 0
        if not getattr(frame, "multiple", False):
            self._settle(tag, acked=isinstance(frame, spec.Basic.Ack))
            return
        while self._pending:
            first = next(iter(self._pending))
            if tag and first > tag:  # a multiple of tag 0 means all
                break
            self._settle(first, acked=isinstance(frame, spec.Basic.Ack))

    def _settle(self, tag: int, *, acked: bool) -> None:
        entry = self._pending.pop(tag, None)
        if entry is None:
            return
        future, _, key = entry
        returned = bool(self._returned) and self._take_returned(key)
        if future.done():
            return
        if returned:
            future.set_exception(Unroutable(f"no queue is bound for {key[2]!r} on {key[1]!r}"))
        elif acked:
            if self._refused:
                self._refused.pop(key[2], None)
            future.set_result(None)
        else:
            self._refused[key[2]] = self.loop.time()
            future.set_exception(Refused(f"the broker refused a message for {key[2]!r} (queue full?)"))

    def _take_returned(self, key: _Key) -> bool:
        count = self._returned.get(key, 0)
        if not count:
            return False
        if count == 1:
            del self._returned[key]
        else:
            self._returned[key] = count - 1
        return True

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has said that it takes nothing from this connection."""
        # aiormq keeps this event for itself: clear between connection.blocked and connection.unblocked
        unblocked: asyncio.Event = self.connection._Connection__connection_unblocked  # type: ignore[attr-defined]  # noqa: SLF001
        return not unblocked.is_set()

    def refusing(self, age_seconds: float) -> list[str]:
        """Routing keys for which the newest answer was a refusal, or none has come for longer than this."""
        now = self.loop.time()
        keys = {key for key, at in self._refused.items() if now - at < _REFUSED_SECONDS}
        for _, sent_at, (_, _, key) in self._pending.values():
            if now - sent_at < age_seconds:
                break
            keys.add(key)
        return sorted(keys - {""})  # the probe's

    def fail_older(self, age_seconds: float) -> int:
        """Give up on confirms that are older than this; their entries stay, so that late answers find their place."""
        limit = self.loop.time() - age_seconds
        failed = 0
        for future, sent_at, _ in self._pending.values():
            if sent_at > limit:
                break
            if not future.done():
                future.set_exception(Unconfirmed(f"no confirm within {age_seconds:g} s"))
                failed += 1
        return failed

    def fail_all(self, reason: str) -> None:
        """The channel is gone: what is not confirmed is unknown."""
        for future, _, _ in self._pending.values():
            if not future.done():
                future.set_exception(Unconfirmed(reason))
        self._pending.clear()


class Publisher:
    """A connection of its own for publishing, kept open by `run()`.

    Args:
        url: AMQP URL of this process's user.
        name: Connection name shown by the broker.
        timeout_seconds: How long a publish waits for a connection and then for its confirm.
        probe: An exchange that `check` publishes to, declared here and bound to nothing; None makes it only look.
    """

    def __init__(self, url: str, *, name: str, timeout_seconds: float, probe: str | None = None) -> None:
        self._url = url
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._channel: _ConfirmChannel | None = None
        self._probe = probe
        self._can_probe = False
        self._ready = asyncio.Event()
        self._log: BoundLogger = get_logger(connection=name)
        self.connects = 0

    @property
    def is_open(self) -> bool:
        """Whether a publish could be sent right now."""
        channel = self._channel
        return channel is not None and not channel.is_closed

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has said that it takes nothing for now; nothing that is sent would be confirmed."""
        channel = self._channel
        return channel is not None and not channel.is_closed and channel.is_blocked

    def refusing(self) -> list[str]:
        """Routing keys whose messages the broker refuses (a full queue) or does not confirm in time."""
        return self._channel.refusing(self._timeout_seconds) if self._channel is not None else []

    async def check(self) -> Standing:
        """Find out what the broker does with publishes, by one that goes nowhere.

        An alarm is told to a connection only when it publishes: one that has published nothing since knows nothing of it.
        """
        channel = self._channel
        if channel is None or channel.is_closed:
            return Standing.AWAY
        confirmed = channel.is_blocked or not self._can_probe or await self._is_probe_confirmed()
        if self._channel is not channel or channel.is_closed:
            return Standing.AWAY
        if channel.is_blocked:
            return Standing.BLOCKED
        return Standing.OK if confirmed else Standing.SILENT

    async def _is_probe_confirmed(self) -> bool:
        probe = Outgoing(self._probe or "", "", Properties(message_id="probe", type="probe"), b"", mandatory=False)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self.send_now(probe)
        except (TimeoutError, PublishFailed):
            return False
        return True

    async def _declare_probe(self, connection: aio_pika.abc.AbstractConnection) -> None:
        """On a channel of its own, which a refusal closes."""
        self._can_probe = False
        if self._probe is None:
            return
        try:
            async with asyncio.timeout(_DECLARE_SECONDS), passing_channel(connection) as channel:
                await channel.exchange_declare(self._probe, exchange_type="fanout", durable=True)
            self._can_probe = True
        except (aiormq.AMQPError, TimeoutError) as error:
            self._log.warning("probe_not_declared", exchange=self._probe, error=repr(error))

    async def run(self) -> None:
        """Keep the connection open until cancelled; reconnects with back-off."""
        delay_seconds = 0.1
        while True:
            try:
                connection = await connect(self._url, name=self._name)
            except BrokerAway as error:
                self._log.warning("broker_unreachable", error=str(error), retry_in_seconds=round(delay_seconds, 1))
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(delay_seconds * 2, 2.0)
                continue
            try:
                await self._serve(connection)
                delay_seconds = 0.1
            except (aiormq.AMQPError, ConnectionError, TimeoutError) as error:
                self._log.warning("publishing_channel_lost", error=repr(error))
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(delay_seconds * 2, 2.0)
            finally:
                self._ready.clear()
                if self._channel is not None:
                    self._channel.fail_all("the connection to the broker was lost")
                    self._channel = None
                with suppress(Exception):
                    await connection.close()

    async def _serve(self, connection: aio_pika.abc.AbstractConnection) -> None:
        await self._declare_probe(connection)
        channel = await open_channel(connection, _ConfirmChannel)
        self._channel = channel
        self._ready.set()
        self.connects += 1
        self._log.info("publishing_channel_opened")
        closing = channel.closing  # read once: each read makes a future that stays with the channel as long as it lives
        while channel.is_writing:
            channel.fail_older(self._timeout_seconds)
            await asyncio.wait({closing}, timeout=_SWEEP_SECONDS)
        self._log.warning("publishing_channel_lost", error="closed")

    async def send(self, outgoing: Outgoing) -> asyncio.Future[None]:
        """Send one message; the future ends when the broker has answered.

        Args:
            outgoing: The message.

        Raises:
            Unconfirmed: Nothing was sent: there is no connection, or too many confirms are outstanding.
        """
        if self._channel is None:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._ready.wait()
            except TimeoutError:
                raise Unconfirmed("not connected to the broker") from None
        return self.send_now(outgoing)

    def send_now(self, outgoing: Outgoing) -> asyncio.Future[None]:
        """As `send`, without waiting for a connection.

        Args:
            outgoing: The message.

        Raises:
            Unconfirmed: Nothing was sent.
        """
        channel = self._channel
        if channel is None or channel.is_closed:
            raise Unconfirmed("not connected to the broker")
        if channel.in_flight >= _MAX_IN_FLIGHT:
            raise Unconfirmed("too many messages wait for the broker's confirm")
        try:
            return channel.send(outgoing)
        except ValueError as error:
            raise Refused(str(error)) from error
        except Exception as error:
            raise Unconfirmed(f"it could not be sent: {error!r}") from error

    async def publish(self, outgoing: Outgoing) -> None:
        """Publish one message and wait for its confirm.

        Args:
            outgoing: The message.

        Raises:
            PublishFailed: See its three kinds.
        """
        await (await self.send(outgoing))

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        """Publish many messages at once and wait for all their confirms.

        Args:
            messages: The messages, in order.

        Returns:
            For each message None when it was confirmed, else how it failed.
        """
        results: list[PublishFailed | None] = []
        futures: list[asyncio.Future[None] | PublishFailed] = []
        for message in messages:
            try:
                futures.append(await self.send(message))
            except PublishFailed as error:
                futures.append(error)
        for future in futures:
            if isinstance(future, PublishFailed):
                results.append(future)
                continue
            try:
                await future
                results.append(None)
            except PublishFailed as error:
                results.append(error)
        return results
