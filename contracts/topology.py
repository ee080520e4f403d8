"""Exchanges, queues, bindings and permissions as data; nothing here talks to a broker.

publishers ──► ish.commands (topic) ──► ish.relay | ish.ai | ish.ai.batch | ish.android ──► workers
                    │ no queue bound                     │ limit, length        │ transient
                    ▼                                    ▼                      ▼
               ish.unrouted                          ish.dead            ish.retry (direct)
                                                                                │
                      back to the pool's queue ◄── ish.<pool>.retry.<delay>  ◄──┘

phones: ish.commands ──► ish.android.device.<serial>, one for each, declared when a phone is first seen; what came to
ish.android for any phone is published again to the one chosen

results: ish.replies (direct, to reply.<publisher>) and ish.results (topic, <kind>.<status>, for anyone)
"""

import re
from dataclasses import dataclass, field
from typing import Any

COMMANDS = "ish.commands"
UNROUTED = "ish.unrouted"
DEAD = "ish.dead"
RETRY = "ish.retry"
REPLIES = "ish.replies"
RESULTS = "ish.results"

RELAY, AI, AI_BATCH, ANDROID = "ish.relay", "ish.ai", "ish.ai.batch", "ish.android"
WORK_QUEUES = (RELAY, AI, AI_BATCH, ANDROID)

ROUTING_KEYS = {RELAY: "relay", AI: "ai.send", AI_BATCH: "ai.send.batch", ANDROID: "android.execute"}
"""Each work queue's own key on `ish.commands`."""

RETRY_LEVELS = {"5s": 5, "30s": 30, "2m": 120, "10m": 600, "1h": 3600}
"""Wait queues of each pool: name and time to live in seconds."""

DELIVERY_LIMIT = 200
"""A backstop only. Attempts are counted in Postgres; a low limit kills what was prefetched beside a poison message."""

DEVICE_QUEUE_PREFIX = "ish.android.device."
DEVICE_DELIVERY_LIMIT = 1000
"""More than of other queues: a command that its phone blocks is held, and RabbitMQ takes it back every 30 minutes; this
lasts longer than the longest deadline."""

LAST_RESORT_DELIVERY_LIMIT = 1_000_000
"""Of queues from which nothing may be lost."""

OWN_USERS = frozenset({"gateway", "worker", "outbox"})
"""Users whose `x-publisher`, `x-owner` and `x-attempt` headers are believed."""

RESERVED_NAMES = OWN_USERS | {"ops", "admin", "guest", "ish"}
PUBLISHER_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange."""

    name: str
    type: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """One durable quorum queue."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue bound to an exchange by a key."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything the broker must have before a process starts."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class Permissions:
    """A RabbitMQ user's rights: regular expressions on resource names, and on topic keys of `ish.commands`."""

    configure: str
    write: str
    read: str
    topic_write: str | None = None
    """Keys it may publish on `ish.commands`; None means any."""


def retry_queue(work_queue: str, level: str) -> str:
    """The wait queue of a work queue, such as `ish.ai.retry.30s`.

    Args:
        work_queue: One of `WORK_QUEUES`.
        level: One of `RETRY_LEVELS`.
    """
    return f"{work_queue}.retry.{level}"


def retry_level(delay_seconds: float) -> str:
    """The longest wait that does not overshoot; what remains after it is waited for in a further hop.

    Args:
        delay_seconds: Time until the command is due; under the shortest level the shortest is taken.
    """
    fitting = [name for name, seconds in RETRY_LEVELS.items() if seconds <= delay_seconds + 0.5]
    return fitting[-1] if fitting else next(iter(RETRY_LEVELS))


def device_queue(serial: str) -> str:
    """The queue of one phone.

    Args:
        serial: Its `ro.serialno`.
    """
    return f"{DEVICE_QUEUE_PREFIX}{serial}"


def device_key(name: str) -> str:
    """The key on `ish.commands` of commands for one phone; they run one at a time in the order of their publication.

    Args:
        name: Its `ro.serialno`, or what its adb server calls it.
    """
    return f"{ROUTING_KEYS[ANDROID]}.{name}"


def kind_key(key: str) -> str | None:
    """The key of a kind that a key on `ish.commands` stands for; None when it is none of ours.

    Args:
        key: As published, such as `android.execute.<serial>`.
    """
    if key.startswith(device_key("")):
        return ROUTING_KEYS[ANDROID]
    return key if key in ROUTING_KEYS.values() else None


def command_key(queue: str) -> str:
    """The key on `ish.commands` whose commands a queue holds; of another queue, its name.

    Args:
        queue: A work queue, or that of a phone.
    """
    if queue.startswith(DEVICE_QUEUE_PREFIX):
        return device_key(queue.removeprefix(DEVICE_QUEUE_PREFIX))
    return ROUTING_KEYS.get(queue, queue)


def reply_queue(publisher: str) -> str:
    """The reply queue of an outside publisher.

    Args:
        publisher: Its RabbitMQ user name.
    """
    return f"reply.{publisher}"


def owns_reply_queue(publisher: str, name: str) -> bool:
    """Whether a publisher may ask for its results at this name: its own queue, or one below it.

    Args:
        publisher: The original publisher.
        name: The `reply_to` of its message.
    """
    own = reply_queue(publisher)
    return name == own or name.startswith(f"{own}.")


def _quorum(**arguments: Any) -> dict[str, Any]:
    return {"x-queue-type": "quorum", **{name.replace("_", "-"): value for name, value in arguments.items()}}


def _at_least_once(**arguments: Any) -> dict[str, Any]:
    return _quorum(x_overflow="reject-publish", x_dead_letter_strategy="at-least-once", **arguments)


def topology(queue_max_length: int = 2_000_000) -> Topology:
    """What `ish topology apply` declares.

    Args:
        queue_max_length: Commands a work queue holds before publishes are refused.
    """
    exchanges = (
        Exchange(UNROUTED, "fanout"),
        Exchange(DEAD, "fanout"),
        Exchange(COMMANDS, "topic", {"alternate-exchange": UNROUTED}),
        Exchange(RETRY, "direct"),
        Exchange(REPLIES, "direct"),
        Exchange(RESULTS, "topic"),
    )
    # RabbitMQ 4 drops after 20 deliveries where no limit is set, and behind these two there is no other queue
    queues = [Queue(name, _quorum(x_delivery_limit=LAST_RESORT_DELIVERY_LIMIT)) for name in (UNROUTED, DEAD)]
    bindings = [Binding(UNROUTED, UNROUTED, ""), Binding(DEAD, DEAD, "")]
    for name in WORK_QUEUES:
        queues.append(Queue(name, _work(name, queue_max_length, x_delivery_limit=DELIVERY_LIMIT)))
        bindings += (Binding(COMMANDS, name, ROUTING_KEYS[name]), Binding(RETRY, name, name))
        for level, seconds in RETRY_LEVELS.items():
            waiting = retry_queue(name, level)
            queues.append(
                Queue(
                    waiting,
                    _at_least_once(
                        x_message_ttl=seconds * 1000,
                        x_max_length=queue_max_length,
                        x_dead_letter_exchange=RETRY,
                        x_dead_letter_routing_key=name,
                    ),
                )
            )
            bindings.append(Binding(RETRY, waiting, waiting))
    return Topology(exchanges, tuple(queues), tuple(bindings))


def device_topology(serial: str, transport: str, queue_max_length: int = 2_000_000) -> Topology:
    """What one phone needs: its queue, which one worker at a time consumes, and its names.

    Args:
        serial: Its `ro.serialno`.
        transport: What its adb server calls it; empty when no server has it.
        queue_max_length: As in `topology`.
    """
    name = device_queue(serial)
    arguments = _work(name, queue_max_length, x_delivery_limit=DEVICE_DELIVERY_LIMIT, x_single_active_consumer=True)
    names = dict.fromkeys(filter(None, (serial, transport)))
    return Topology((), (Queue(name, arguments),), tuple(Binding(COMMANDS, name, device_key(one)) for one in names))


def _work(name: str, queue_max_length: int, **arguments: Any) -> dict[str, Any]:
    return _at_least_once(
        x_max_length=queue_max_length, x_dead_letter_exchange=DEAD, x_dead_letter_routing_key=name, **arguments
    )


NOTHING = "^$"
ROLES: dict[str, Permissions] = {
    "gateway": Permissions(
        configure=r"^reply\.gateway\..*$",
        write=r"^(ish\.commands|reply\.gateway\..*)$",
        read=r"^(ish\.replies|reply\.gateway\..*)$",
    ),
    "worker": Permissions(
        configure=NOTHING,
        write=r"^ish\.(commands|retry|replies|results)$",
        read=r"^ish\.(relay|ai|ai\.batch|android|android\.device\..+)$",
    ),
    "outbox": Permissions(
        # redeclares what was deleted: ready-made queues and their bindings, nothing else
        configure=r"^ish\..*$",
        write=r"^ish\..*$",
        read=r"^ish\..*$",
    ),
    "ops": Permissions(configure=r"^(ish\.|reply\.).*$", write=r"^(ish\.|reply\.).*$", read=r"^(ish\.|reply\.).*$"),
}
"""Rights of our own users; an outside publisher's come from `publisher_permissions`."""


def permissions(user: str) -> Permissions:
    """The rights of one of our own users.

    Args:
        user: A key of `ROLES`.
    """
    return ROLES[user]


def publisher_permissions(name: str, queues: tuple[str, ...] = WORK_QUEUES) -> Permissions:
    """The rights of an outside publisher: write its kinds to `ish.commands`, read its own reply queue.

    Args:
        name: Its RabbitMQ user name, matching `PUBLISHER_NAME`.
        queues: Work queues whose keys it may use.
    """
    keys = "|".join(re.escape(ROUTING_KEYS[queue]) for queue in queues)
    return Permissions(
        configure=NOTHING,
        write=r"^ish\.commands$",
        read=f"^{re.escape(reply_queue(name))}$",
        topic_write=f"^({keys})(\\..+)?$",
    )
