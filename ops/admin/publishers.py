"""RabbitMQ users: our own roles and outside publishers, each with exact rights, made through the management API.

An outside publisher may write its kinds to `ish.commands` and read `reply.NAME`; nothing else.
Source: https://www.rabbitmq.com/docs/access-control (permissions, topic authorisation).
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiormq

from contracts.amqp.broker import connected, declare, queue_exists
from contracts.service_urls import DEFAULT_VHOST, vhost_of
from contracts.topology import (
    COMMANDS,
    NOTHING,
    PUBLISHER_NAME,
    REPLIES,
    RESERVED_NAMES,
    ROLES,
    ROUTING_KEYS,
    WORK_QUEUES,
    Binding,
    Permissions,
    Queue,
    Topology,
    publisher_permissions,
    reply_queue,
)
from ops.admin import publisher_records
from ops.admin.rabbitmq_management import Management

REPLIES_MAX_LENGTH = 1_000_000
"""Replies a publisher's queue holds before it refuses more; the outbox worker keeps what did not fit."""

DELIVERY_LIMIT = 1_000_000
"""RabbitMQ 4 drops a message after 20 redeliveries unless told otherwise: a reader that crashes would lose replies."""

_PASSWORD_BYTES = 32
_TAGS = {"ops": "monitoring"}
_WRITE = publisher_permissions("any").write


@dataclass(frozen=True, slots=True)
class Publisher:
    """An outside publisher as the broker knows it."""

    name: str
    kinds: tuple[str, ...]
    """Routing keys it may use."""
    replies_waiting: int | None
    """Messages in its reply queue; None when the queue is missing."""


async def add_publisher(
    management_url: str,
    name: str,
    *,
    kinds: Sequence[str] | None = None,
    amqp_url_for_admin: str,
    postgres_url: str | None = None,
) -> str:
    """Make an outside publisher; one that exists gets a new password and these rights.

    Args:
        management_url: The management API as an administrator.
        name: Its user name; results go to `reply.NAME`.
        kinds: Routing keys it may use (`relay`, `ai.send`, `ai.send.batch`, `android.execute`); None means all.
        amqp_url_for_admin: AMQP as a user that may configure `reply.*` and write to `ish.replies`.
        postgres_url: As the role `ish_ops`, for workers to know its kinds; None leaves them to the broker's own check.

    Returns:
        Its password, which cannot be shown again.

    Raises:
        ValueError: The name or a kind breaks its rule, or the reply queue exists with other arguments.
        ManagementError: The API cannot be reached, or this user is no administrator.
        BrokerAway: AMQP cannot be reached.
        DatabaseTrouble: PostgreSQL cannot be reached.
    """
    check_name(name)
    rights = publisher_permissions(name, _queues_of(kinds))
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    async with connected(amqp_url_for_admin, name="ish publishers") as connection:
        await declare(connection, reply_topology(name))
    if postgres_url is not None:
        await publisher_records.record(postgres_url, name, _kinds_of(rights.topic_write or NOTHING))
    async with Management(management_url, vhost=vhost_of(amqp_url_for_admin)) as api:
        await _put_user(api, name, password, rights)
        await api.put(
            "topic-permissions",
            api.vhost,
            name,
            body={"exchange": COMMANDS, "write": rights.topic_write or NOTHING, "read": NOTHING},
        )
    return password


async def restore_publishers(management_url: str, *, amqp_url_for_admin: str, postgres_url: str) -> list[str]:
    """Make what a publisher has lost, without a new password: its reply queue, and the row that names its kinds.

    Args:
        management_url: The management API as an administrator.
        amqp_url_for_admin: AMQP as a user that may configure `reply.*` and write to `ish.replies`.
        postgres_url: As the role `ish_ops`.

    Returns:
        Names of the queues that were missing and have been made.

    Raises:
        ValueError: A reply queue exists with other arguments.
        ManagementError: See there.
        BrokerAway: AMQP cannot be reached.
        DatabaseTrouble: PostgreSQL cannot be reached.
    """
    found = await list_publishers(management_url, vhost=vhost_of(amqp_url_for_admin))
    made: list[str] = []
    if found:
        async with connected(amqp_url_for_admin, name="ish publishers") as connection:
            for one in found:
                if not await queue_exists(connection, reply_queue(one.name)):
                    made.append(reply_queue(one.name))
                await declare(connection, reply_topology(one.name))
        await publisher_records.record_known(postgres_url, {one.name: one.kinds for one in found})
    return made


async def remove_publisher(
    management_url: str,
    name: str,
    *,
    replies: bool = False,
    amqp_url_for_admin: str,
    postgres_url: str | None = None,
) -> int | None:
    """Remove an outside publisher; the broker closes its connections. Its queue stays while there are replies in it.

    Args:
        management_url: The management API as an administrator.
        name: Its user name.
        replies: Delete its reply queue also when there are messages in it.
        amqp_url_for_admin: AMQP as a user that may configure `reply.*`.
        postgres_url: As the role `ish_ops`, where its kinds are recorded.

    Returns:
        Replies that are left in its queue; None when the queue is gone.

    Raises:
        ValueError: There is no such publisher.
        ManagementError: See there.
        BrokerAway: AMQP cannot be reached.
    """
    async with Management(management_url, vhost=vhost_of(amqp_url_for_admin)) as api:
        if name not in {one.name for one in await _publishers(api)}:
            raise ValueError(f"there is no publisher {name}")
        await api.delete("users", name)
    if postgres_url is not None:
        await publisher_records.forget(postgres_url, name)
    async with connected(amqp_url_for_admin, name="ish publishers") as connection:
        channel = await connection.channel()
        try:
            # over AMQP, since the API's counts are seconds old
            queue = await channel.declare_queue(reply_queue(name), passive=True)
        except aiormq.ChannelNotFoundEntity:
            return None
        waiting = queue.declaration_result.message_count or 0
        if waiting and not replies:
            return waiting
        await channel.queue_delete(reply_queue(name))
    return None


async def list_publishers(management_url: str, *, vhost: str = DEFAULT_VHOST) -> list[Publisher]:
    """Every outside publisher of a vhost, by name.

    Args:
        management_url: The management API as an administrator.
        vhost: Where it may publish.

    Raises:
        ManagementError: See there.
    """
    async with Management(management_url, vhost=vhost) as api:
        return await _publishers(api)


async def known(api: Management) -> list[str]:
    """Names of the outside publishers.

    Args:
        api: As an administrator.

    Raises:
        ManagementError: See there.
    """
    return [one.name for one in await _publishers(api)]


async def list_users(management_url: str) -> list[str]:
    """Names of all users of the broker.

    Args:
        management_url: The management API as an administrator.

    Raises:
        ManagementError: See there.
    """
    async with Management(management_url) as api:
        return sorted(user["name"] for user in await api.get("users"))


async def apply_users(management_url: str, passwords: Mapping[str, str], *, vhost: str = DEFAULT_VHOST) -> None:
    """Make or update the users of our own processes, with the rights of `contracts.topology.ROLES`.

    Args:
        management_url: The management API as an administrator.
        passwords: By user, a key of `ROLES`.
        vhost: Where they have these rights.

    Raises:
        ManagementError: See there.
    """
    async with Management(management_url, vhost=vhost) as api:
        for user, password in passwords.items():
            await _put_user(api, user, password, ROLES[user])


def check_name(name: str) -> None:
    """Refuse a name that breaks the rule or is one of our own.

    Args:
        name: Of an outside publisher.

    Raises:
        ValueError: With the rule.
    """
    if not PUBLISHER_NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ValueError(
            "a publisher's name is 1 to 63 of a-z, 0-9, _ and -, begins with a letter, and is none of "
            f"{', '.join(sorted(RESERVED_NAMES))}"
        )


def _queues_of(kinds: Sequence[str] | None) -> tuple[str, ...]:
    if kinds is None:
        return WORK_QUEUES
    by_key = {key: queue for queue, key in ROUTING_KEYS.items()}
    unknown = [kind for kind in kinds if kind not in by_key]
    if unknown or not kinds:
        raise ValueError(f"kinds are {', '.join(by_key)}; not {', '.join(unknown) or 'none at all'}")
    return tuple(by_key[kind] for kind in kinds)


def _kinds_of(topic_write: str) -> tuple[str, ...]:
    return tuple(key for key in ROUTING_KEYS.values() if re.search(topic_write, key))


def reply_topology(name: str) -> Topology:
    """What an outside publisher needs on the broker.

    Args:
        name: Its RabbitMQ user.
    """
    queue = Queue(
        reply_queue(name),
        {
            "x-queue-type": "quorum",
            "x-max-length": REPLIES_MAX_LENGTH,
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
        },
    )
    return Topology((), (queue,), (Binding(REPLIES, queue.name, queue.name),))


async def _put_user(api: Management, name: str, password: str, rights: Permissions) -> None:
    await api.put("users", name, body={"password": password, "tags": _TAGS.get(name, "")})
    await api.put(
        "permissions",
        api.vhost,
        name,
        body={"configure": rights.configure, "write": rights.write, "read": rights.read},
    )


async def _publishers(api: Management) -> list[Publisher]:
    topics = {
        one["user"]: one["write"]
        for one in await api.get("topic-permissions")
        if one["vhost"] == api.vhost and one["exchange"] == COMMANDS
    }
    names = sorted(
        one["user"]
        for one in await api.get("permissions")
        if one["vhost"] == api.vhost and one["write"] == _WRITE and one["user"] not in RESERVED_NAMES
    )
    return [
        Publisher(name, _kinds_of(topics.get(name, "")), await _messages(api, reply_queue(name)))
        for name in names
        if name in topics
    ]


async def _messages(api: Management, queue: str) -> int | None:
    found = await api.get("queues", api.vhost, queue)
    return None if found is None else int(found.get("messages", 0))
