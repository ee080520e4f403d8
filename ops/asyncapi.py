"""The AsyncAPI document: all that another system needs to publish a command and to read its result.

AsyncAPI has no place for the properties of an AMQP message, so each message carries them as `x-amqp-properties`, a JSON
Schema, and a whole publish as `x-amqp-example`. `$message.header#/NAME` stands for the property or header of that name.
Source: https://www.asyncapi.com/docs/reference/specification/v3.1.0 and its AMQP bindings, 0.3.0.
"""

from typing import Any

from contracts import topology
from contracts.commands import KIND_AI, KIND_ANDROID, KINDS, VERSION, Kind
from contracts.envelope import MAX_DEADLINE, PRIORITIES, TRACEPARENT, X_CREATED_MS, X_DEADLINE_MS, X_PRIORITY
from contracts.errors import ErrorCode
from contracts.results import TERMINAL, Result
from contracts.settings import Settings
from ops import asyncapi_examples as examples
from ops.asyncapi_examples import Example

_BINDING = "0.3.0"
_SCHEMAS = "#/components/schemas/{model}"
_BATCH, _DEVICE = "ai.send.batch", "android.execute.device"
_UNKNOWN_RESULT = f"result.v{VERSION}"
_UUID = {"type": "string", "format": "uuid"}
_DEFAULT_DEADLINE_SECONDS = int(Settings.model_fields["command_deadline_seconds"].default)

_ABOUT = f"""\
Durable commands on RabbitMQ: what the broker has confirmed is finished exactly once on record, and its result arrives.

To publish one:

1. Connect with the URL that `ish publishers add NAME` prints. `NAME` is your user; you may write to the exchange
   `{topology.COMMANDS}` with the keys of your kinds, and read the queue `reply.NAME`. Declare nothing: it is there.
2. Put the channel in confirm mode. Publish to `{topology.COMMANDS}` with the channel's address as routing key,
   **mandatory** and **persistent** (`delivery_mode` 2), with the properties of `x-amqp-properties`.
3. Wait for the confirm. A returned message (`basic.return`) reached no queue; a nack means that its queue is full. When
   neither comes you do not know: publish the same `message_id` with the same body again. It is the same command, answers
   again and runs once.
4. Read `reply.NAME`. A result arrives at least once, byte for byte the same each time; know it by its `message_id`.

A message that cannot become a command is a dead letter, kept with its reason for an operator. Where it names a reply
queue and carries a `user_id`, its publisher also gets a `failed` result, whose `error.code` is that reason. Dead letters
are not readable on the broker.
"""


def document() -> dict[str, Any]:
    """The document, JSON-ready."""
    schemas: dict[str, Any] = {}
    messages = {kind.type: _command(schemas, kind) for kind in KINDS.values()}
    messages |= {
        kind.result_type: _result(schemas, kind.result_type, examples.results(kind.name)) for kind in KINDS.values()
    }
    messages[_UNKNOWN_RESULT] = _result(schemas, _UNKNOWN_RESULT, examples.REFUSALS)
    schemas["ErrorCode"] = {
        "type": "string",
        "enum": [code.value for code in ErrorCode],
        "description": "The closed list of wire codes; codes are added, never renamed.",
    }
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "ISH Chat",
            "version": str(VERSION),
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}",
                "protocol": "amqp",
                "protocolVersion": "0-9-1",
                "pathname": "/",
                "description": "RabbitMQ; virtual host `/`. `ish publishers add` prints the whole URL.",
                "variables": {"host": {"default": "127.0.0.1:5672", "description": "Its address and port."}},
                "security": [{"$ref": "#/components/securitySchemes/publisher"}],
            }
        },
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {
                "publisher": {"type": "userPassword", "description": "The RabbitMQ user of `ish publishers add`."}
            },
        },
    }


def _channels() -> dict[str, Any]:
    commands = {
        kind.name: _command_channel(kind, topology.ROUTING_KEYS[kind.queue], f"Commands of the kind `{kind.name}`.")
        for kind in KINDS.values()
    }
    commands[_BATCH] = _command_channel(
        KINDS[KIND_AI],
        topology.ROUTING_KEYS[topology.AI_BATCH],
        "Questions that may wait: they have a queue and places of their own, behind the others. Set `x-priority: batch`.",
    )
    commands[_DEVICE] = _command_channel(
        KINDS[KIND_ANDROID],
        topology.device_key("{device}"),
        "Commands for one phone, straight to its own queue: they run one at a time, in the order of their publication.",
    ) | {
        "parameters": {
            "device": {
                "description": "The phone's serial number, as `ish devices list` shows it; also set as `device`.",
                "examples": ["R58M12ABCDE"],
            }
        }
    }
    results = {name: {"$ref": f"#/components/messages/{name}"} for name in _result_types()}
    replies = {
        "address": topology.reply_queue("{publisher}"),
        "title": "Replies",
        "description": "Results of your commands that had `reply_to`. It exists, and only you may read it. Results are "
        f"published to it through the exchange `{topology.REPLIES}`, at least once each.",
        "messages": results,
        "parameters": {"publisher": {"description": "Your RabbitMQ user.", "examples": [examples.PUBLISHER]}},
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {
                    "name": topology.reply_queue("{publisher}"),
                    "durable": True,
                    "exclusive": False,
                    "autoDelete": False,
                    "vhost": "/",
                },
                "bindingVersion": _BINDING,
            }
        },
    }
    events = {
        "address": "{kind}.{status}",
        "title": "Result events",
        "description": "Every result of a command, for whoever may bind a queue here (an operator grants it).",
        "messages": {name: reference for name, reference in results.items() if name != _UNKNOWN_RESULT},
        "parameters": {
            "kind": {"description": "Of the command.", "enum": list(KINDS)},
            "status": {"description": "How it ended.", "enum": sorted(state.value for state in TERMINAL)},
        },
        "bindings": {"amqp": _exchange(topology.RESULTS, "topic")},
    }
    return {**commands, "replies": replies, "results": events}


def _command_channel(kind: Kind, address: str, description: str) -> dict[str, Any]:
    return {
        "address": address,
        "title": kind.name,
        "description": f"{description} The address is the routing key.",
        "messages": {kind.type: {"$ref": f"#/components/messages/{kind.type}"}},
        "bindings": {"amqp": _exchange(topology.COMMANDS, "topic")},
    }


def _exchange(name: str, kind: str) -> dict[str, Any]:
    exchange = {"name": name, "type": kind, "durable": True, "autoDelete": False, "vhost": "/"}
    return {"is": "routingKey", "exchange": exchange, "bindingVersion": _BINDING}


def _operations() -> dict[str, Any]:
    channels = {**{kind.name: kind for kind in KINDS.values()}, _BATCH: KINDS[KIND_AI], _DEVICE: KINDS[KIND_ANDROID]}
    operations = {
        f"receive.{channel}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{channel}"},
            "title": f"Run {kind.name}",
            "summary": "Takes a command from whoever publishes one, runs it and replies.",
            "messages": [{"$ref": f"#/channels/{channel}/messages/{kind.type}"}],
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "timestamp": True, "bindingVersion": _BINDING}},
            "reply": {
                "address": {
                    "description": "The property `reply_to`: your own reply queue, or one below it. Without it nobody is told.",
                    "location": "$message.header#/reply_to",
                },
                "channel": {"$ref": "#/channels/replies"},
                "messages": [
                    {"$ref": f"#/channels/replies/messages/{name}"} for name in (kind.result_type, _UNKNOWN_RESULT)
                ],
            },
        }
        for channel, kind in channels.items()
    }
    operations["send.results"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/results"},
        "title": "Tell of a result",
        "summary": "Publishes every result of a command once more, for anyone.",
        "messages": [{"$ref": f"#/channels/results/messages/{kind.result_type}"} for kind in KINDS.values()],
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": False, "bindingVersion": _BINDING}},
    }
    return operations


def _command(schemas: dict[str, Any], kind: Kind) -> dict[str, Any]:
    shown = examples.COMMANDS[kind.name]
    properties = {
        "message_id": examples.COMMAND_ID,
        "type": kind.type,
        "user_id": examples.PUBLISHER,
        "reply_to": topology.reply_queue(examples.PUBLISHER),
        "correlation_id": "order-17",
        "content_type": "application/json",
        "delivery_mode": 2,
        "timestamp": 1_767_225_600,
        "app_id": "my-system",
    }
    return {
        "name": kind.type,
        "title": f"A command: {kind.name}",
        "summary": (kind.payload.__doc__ or "").strip(),
        "contentType": "application/json",
        "headers": _COMMAND_HEADERS,
        "payload": _add(schemas, kind.payload),
        "correlationId": {
            "description": "Yours; echoed in the result.",
            "location": "$message.header#/correlation_id",
        },
        "bindings": {"amqp": {"messageType": kind.type, "bindingVersion": _BINDING}},
        "examples": _examples(shown),
        "x-amqp-properties": _command_properties(kind),
        "x-amqp-example": {
            "exchange": topology.COMMANDS,
            "routing_key": topology.ROUTING_KEYS[kind.queue],
            "mandatory": True,
            "properties": properties,
            "headers": shown[0][1],
            "payload": shown[0][2],
        },
    }


def _command_properties(kind: Kind) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["message_id", "type", "user_id", "delivery_mode"],
        "properties": {
            "message_id": {
                **_UUID,
                "description": "The command's id, chosen and kept by you: with your user name it is its identity. Published "
                "again with the same body it is the same command; with another body it is refused (`id_reused`).",
            },
            "type": {"const": kind.type, "description": "Kind and major version of the payload."},
            "user_id": {
                "type": "string",
                "description": "Your RabbitMQ user. The broker refuses any other; without it nobody can be answered.",
            },
            "reply_to": {
                "type": "string",
                "description": "Where the result goes: `reply.NAME`, or a queue whose name begins with `reply.NAME.`. "
                "Left out, no result is sent; it is on record all the same.",
            },
            "correlation_id": {"type": "string", "maxLength": 255, "description": "Echoed in the result; no NUL."},
            "content_type": {"const": "application/json", "description": "The body is JSON in UTF-8 in any case."},
            "delivery_mode": {"const": 2, "description": "Persistent: a transient message dies with the broker."},
            "timestamp": {
                "type": "integer",
                "description": "When you publish it, in seconds since the epoch; it orders conversations. "
                f"`{X_CREATED_MS}` says it more exactly; a time in the future counts as now.",
            },
            "app_id": {"type": "string", "description": "Anything; not read."},
        },
        "not": {"anyOf": [{"required": ["expiration"]}, {"required": ["content_encoding"]}]},
        "description": f"Of the publish. `expiration` must not be set (the message would end as a dead letter): use the header `{X_DEADLINE_MS}`. "
        "`priority` is not read. The body must not be compressed.",
    }


_COMMAND_HEADERS = {
    "type": "object",
    "description": "AMQP headers. All may be left out; others are ignored, and those with which our own processes speak "
    "to each other (`x-owner`, `x-publisher`, `x-attempt`, `x-not-before-ms`, `x-replay-of`) are not believed. `CC` and "
    "`BCC` must not be set: a command goes to one queue.",
    "properties": {
        X_DEADLINE_MS: {
            "type": "integer",
            "minimum": 0,
            "description": "The command expires when it has not finished by then: milliseconds since the epoch, at most "
            f"{MAX_DEADLINE.days} days ahead. By default {_DEFAULT_DEADLINE_SECONDS} seconds after it was accepted.",
        },
        X_PRIORITY: {
            "type": "string",
            "enum": list(PRIORITIES),
            "description": "Which of the work goes first at AI providers. `batch` belongs with the routing key "
            f"`{topology.ROUTING_KEYS[topology.AI_BATCH]}`.",
        },
        X_CREATED_MS: {
            "type": "integer",
            "minimum": 0,
            "description": "When you made it: milliseconds since the epoch. By default the property `timestamp`, else when it was read.",
        },
        TRACEPARENT: {
            "type": "string",
            "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
            "description": "W3C trace context, carried to the worker's logs; one that is none is ignored.",
        },
    },
}


def _result(schemas: dict[str, Any], type_: str, shown: list[Example]) -> dict[str, Any]:
    about = (
        "What became of a command." if type_ != _UNKNOWN_RESULT else "A message that is no command, of no known kind."
    )
    return {
        "name": type_,
        "title": f"A result: {type_}",
        "summary": about,
        "contentType": "application/json",
        "headers": {"type": "object", "description": "None."},
        "payload": _add(schemas, Result),
        "correlationId": {
            "description": "That of the command.",
            "location": "$message.header#/correlation_id",
        },
        "bindings": {"amqp": {"messageType": type_, "bindingVersion": _BINDING}},
        "examples": _examples(shown),
        "x-amqp-properties": {
            "type": "object",
            "required": ["message_id", "type", "user_id", "app_id", "content_type", "delivery_mode"],
            "properties": {
                "message_id": {
                    "type": "string",
                    "description": "The command's; empty when the message that is refused had none.",
                },
                "type": {"const": type_},
                "user_id": {"type": "string", "enum": sorted(topology.OWN_USERS)},
                "app_id": {"const": "ish-chat"},
                "correlation_id": {"type": "string", "description": "The command's, if it had one."},
                "content_type": {"const": "application/json"},
                "delivery_mode": {"const": 2},
            },
        },
    }


def _result_types() -> list[str]:
    return [*(kind.result_type for kind in KINDS.values()), _UNKNOWN_RESULT]


def _examples(shown: list[Example]) -> list[dict[str, Any]]:
    return [{"summary": summary, "headers": headers, "payload": payload} for summary, headers, payload in shown]


def _add(schemas: dict[str, Any], model: Any) -> dict[str, Any]:
    """Put a model and what it refers to among the components."""
    schema = _plain(model.model_json_schema(ref_template=_SCHEMAS))
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"$ref": _SCHEMAS.format(model=model.__name__)}


def _plain(value: Any) -> Any:
    """Without OpenAPI's discriminators, which are another thing in AsyncAPI; `oneOf` says the same."""
    if isinstance(value, dict):
        return {
            name: _plain(inner)
            for name, inner in value.items()
            if not (name == "discriminator" and isinstance(inner, dict) and "propertyName" in inner)
        }
    return [_plain(one) for one in value] if isinstance(value, list) else value
