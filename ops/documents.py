"""Generates the documents other systems build against: JSON Schemas of payloads and results, and AsyncAPI 3.

They are kept in the repository under `contracts/documents/`, and a test fails when they drift from the models. FastStream
describes the channels; it consumes nothing here.
"""

import json
from pathlib import Path
from typing import Any

from faststream.rabbit import ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.specification import AsyncAPI
from pydantic import BaseModel

from contracts import topology
from contracts.commands import KINDS, Kind
from contracts.results import Result

FOLDER = Path(__file__).parent.parent / "contracts" / "documents"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def render() -> dict[str, str]:
    """Every document by its file name."""
    documents = {f"{kind.type}.schema.json": _schema(kind.payload, kind.type) for kind in KINDS.values()}
    documents["result.v1.schema.json"] = _schema(Result, "result.v1")
    documents["asyncapi.json"] = _asyncapi()
    return documents


def write() -> list[Path]:
    """Write every document into the repository.

    Returns:
        The files that changed.
    """
    FOLDER.mkdir(exist_ok=True)
    changed = []
    for name, text in render().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def _schema(model: type[BaseModel], title: str) -> str:
    schema: dict[str, Any] = {"$schema": _DIALECT, **model.model_json_schema(mode="validation"), "title": title}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _asyncapi() -> str:
    broker = RabbitBroker("amqp://localhost:5672/")
    commands = RabbitExchange(topology.COMMANDS, type=ExchangeType.TOPIC, durable=True)
    replies = RabbitExchange(topology.REPLIES, type=ExchangeType.DIRECT, durable=True)
    results = RabbitExchange(topology.RESULTS, type=ExchangeType.TOPIC, durable=True)
    for kind in KINDS.values():
        _describe_commands(broker, commands, kind)
    broker.publisher(
        exchange=replies,
        routing_key="reply.PUBLISHER",
        title="reply",
        description="The result of a command, to the publisher that asked with `reply_to`. Delivered at least once.",
        schema=Result,
    )
    broker.publisher(
        exchange=results,
        routing_key="KIND.STATUS",
        title="result event",
        description="Every result, for anyone who subscribes: `relay.succeeded`, `ai.send.failed`, …",
        schema=Result,
    )
    specification = AsyncAPI(
        broker,
        title="ISH Chat",
        version="1",
        description=(
            "Durable commands on RabbitMQ. Publish persistent and mandatory, wait for the confirm, and set `message_id` "
            "(a UUID; with the publisher it is the identity), `type`, `user_id` and, for an answer, `reply_to`."
        ),
        schema_version="3.0.0",
    )
    return json.dumps(specification.to_specification().to_jsonable(), indent=2, sort_keys=True) + "\n"


def _describe_commands(broker: RabbitBroker, exchange: RabbitExchange, kind: Kind) -> None:
    queue = RabbitQueue(
        kind.queue, queue_type=QueueType.QUORUM, durable=True, routing_key=topology.ROUTING_KEYS[kind.queue]
    )

    async def consume(payload: BaseModel) -> None:
        """Only described."""

    consume.__annotations__ = {"payload": kind.payload, "return": None}
    broker.subscriber(
        queue, exchange, title=kind.type, description=(kind.payload.__doc__ or "").strip(), no_reply=True
    )(consume)


if __name__ == "__main__":
    for path in write():
        print(path.name)  # noqa: T201  # a command's answer
