"""Compares what the broker has with what `contracts.topology` says it should have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.topology import ROLES, Topology
from ops.admin.rabbitmq_management import Management


@dataclass(frozen=True, slots=True)
class Found:
    """What the broker has of the names that matter, as the management API tells it."""

    exchanges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    queues: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bindings: frozenset[tuple[str, str, str]] = frozenset()
    """(exchange, queue, key)."""


async def find(api: Management) -> Found:
    """Read exchanges, queues and bindings.

    Args:
        api: As a user who may monitor.

    Raises:
        ManagementError: See there.
    """
    return Found(
        exchanges={one["name"]: one for one in await api.get("exchanges", api.vhost) or ()},
        queues={one["name"]: one for one in await api.get("queues", api.vhost) or ()},
        bindings=frozenset(
            (one["source"], one["destination"], one["routing_key"])
            for one in await api.get("bindings", api.vhost) or ()
            if one["destination_type"] == "queue"
        ),
    )


def differences(wanted: Topology, found: Found) -> list[str]:
    """What `apply` would make (+), and what it cannot change (~) or leaves alone (-), one line each.

    Args:
        wanted: What should be.
        found: What is.
    """
    lines: list[str] = []
    for exchange in wanted.exchanges:
        lines += _compare("exchange", exchange.name, {"type": exchange.type, **exchange.arguments}, found.exchanges)
    for queue in wanted.queues:
        lines += _compare("queue", queue.name, {"durable": True, **queue.arguments}, found.queues)
    wanted_bindings = {(one.exchange, one.queue, one.key) for one in wanted.bindings}
    lines += [f"+ {_binding(one)}" for one in sorted(wanted_bindings - found.bindings)]
    ours = {exchange.name for exchange in wanted.exchanges} & {one[0] for one in wanted_bindings}
    our_queues = {queue.name for queue in wanted.queues}
    lines += [
        f"- {_binding(one)} is not ours"
        for one in sorted(found.bindings - wanted_bindings)
        if one[0] in ours and one[1] in our_queues
    ]
    return lines


async def rights_differences(api: Management) -> list[str]:
    """What is wrong with the users of our own processes, one line each.

    Args:
        api: As an administrator.

    Raises:
        ManagementError: See there.
    """
    users = {user["name"] for user in await api.get("users")}
    rights = {one["user"]: one for one in await api.get("permissions") if one["vhost"] == api.vhost}
    lines = ["- user guest exists"] if "guest" in users else []
    for name, wanted in ROLES.items():
        if name not in users:
            lines.append(f"+ user {name}")
            continue
        for right in ("configure", "write", "read"):
            has = rights.get(name, {}).get(right)
            if has != getattr(wanted, right):
                lines.append(f"~ user {name}: {right} is {has}, should be {getattr(wanted, right)}")
    return lines


def _compare(sort: str, name: str, wanted: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    thing = found.get(name)
    if thing is None:
        return [f"+ {sort} {name}"]
    has = {**thing.get("arguments", {}), **{key: thing[key] for key in ("type", "durable") if key in wanted}}
    names = sorted(set(wanted) | set(thing.get("arguments", {})))
    return [
        f"~ {sort} {name}: {key} is {has.get(key)}, should be {wanted.get(key)}"
        for key in names
        if has.get(key) != wanted.get(key)
    ]


def _binding(binding: tuple[str, str, str]) -> str:
    exchange, queue, key = binding
    return f"binding {exchange} -> {queue} by {key!r}"
