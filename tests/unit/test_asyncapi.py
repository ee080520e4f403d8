"""The AsyncAPI document is valid by the official schema, and its examples are what it says they are."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema_rs
import orjson
import pytest
from typing_extensions import override

from contracts import topology
from contracts.commands import KINDS, decode_payload
from contracts.envelope import read_envelope
from contracts.results import Result
from ops import asyncapi_examples as examples
from ops.documents import FOLDER

DOCUMENT: dict[str, Any] = json.loads((FOLDER / "asyncapi.json").read_text(encoding="utf-8"))
OFFICIAL = Path(__file__).parent.parent / "documents" / "asyncapi-3.1.0.schema.json"
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


def valid(schema: dict[str, Any], instance: Any) -> list[str]:
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(instance)]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_it_is_valid_by_the_official_schema() -> None:
    official = json.loads(OFFICIAL.read_text(encoding="utf-8"))

    assert [error.message for error in jsonschema_rs.validator_for(official).iter_errors(DOCUMENT)] == []
    assert DOCUMENT["asyncapi"] == "3.1.0"


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        here: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in here, reference
            here = here[step]


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_fit_their_schemas(name: str) -> None:
    message = MESSAGES[name]

    assert message["examples"]
    for example in message["examples"]:
        assert valid(message["payload"], example["payload"]) == [], example["summary"]
        assert valid(message["headers"], example["headers"]) == [], example["summary"]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_examples_of_commands_are_commands(kind: Any) -> None:
    message = MESSAGES[kind.type]

    for example in message["examples"]:
        decode_payload(kind, orjson.dumps(example["payload"]))
    whole = message["x-amqp-example"]
    assert valid(message["x-amqp-properties"], whole["properties"]) == []
    assert set(whole["properties"]) == set(message["x-amqp-properties"]["properties"])
    assert whole["routing_key"] == topology.ROUTING_KEYS[kind.queue]


@pytest.mark.parametrize("name", [name for name in MESSAGES if "result" in name])
def test_examples_of_results_are_results(name: str) -> None:
    for example in MESSAGES[name]["examples"]:
        Result.model_validate(example["payload"])


def test_every_header_that_is_read_is_described() -> None:
    described = set(MESSAGES["relay.v1"]["headers"]["properties"])

    class Reads(dict[str, Any]):
        @override
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return default

    asked: set[str] = set()
    properties: Any = SimpleNamespace(
        message_id=examples.COMMAND_ID,
        message_type="relay.v1",
        user_id="demo",
        correlation_id=None,
        reply_to=None,
        timestamp=None,
        headers=Reads(any=1),
    )
    read_envelope(properties, default_deadline=timedelta(hours=1), now=datetime.now(UTC))

    assert asked - described == {"x-delivery-count"}, "the broker's own"


def test_channels_are_the_topology() -> None:
    channels = DOCUMENT["channels"]

    for queue in topology.WORK_QUEUES:
        [channel] = [one for one in channels.values() if one["address"] == topology.ROUTING_KEYS[queue]]
        exchange = channel["bindings"]["amqp"]["exchange"]
        [declared] = [one for one in topology.topology().exchanges if one.name == exchange["name"]]
        assert (exchange["type"], exchange["durable"]) == (declared.type, True)
    assert channels["replies"]["bindings"]["amqp"]["queue"]["name"] == topology.reply_queue("{publisher}")


def test_every_command_is_replied_to() -> None:
    receiving = [one for one in DOCUMENT["operations"].values() if one["action"] == "receive"]

    assert len(receiving) == len(KINDS) + 2
    for operation in receiving:
        assert operation["reply"]["channel"]["$ref"] == "#/channels/replies"
        assert operation["bindings"]["amqp"]["mandatory"] is True
        assert operation["bindings"]["amqp"]["deliveryMode"] == 2
