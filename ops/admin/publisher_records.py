"""The table `publishers`: which kinds each outside publisher may send, for workers to check.

RabbitMQ holds the same as a topic permission. The table is written first and the broker second, so that what the broker
lets in a worker never refuses for want of a row; `record_known` takes over publishers made before the table was.
"""

from collections.abc import Mapping, Sequence

from ops.admin.database import connected

_RECORD = """
insert into publishers (name, routing_keys) values ($1, $2)
on conflict (name) do update set routing_keys = excluded.routing_keys, updated_at = clock_timestamp()
"""
_RECORD_KNOWN = """
insert into publishers (name, routing_keys) values ($1, $2) on conflict (name) do nothing returning name
"""
_FORGET = "delete from publishers where name = $1"


async def record(postgres_url: str, name: str, routing_keys: Sequence[str]) -> None:
    """Write down what a publisher may send; workers know it within seconds.

    Args:
        postgres_url: As the role `ish_ops`.
        name: Its RabbitMQ user.
        routing_keys: Of the kinds that it may send.
    """
    async with connected(postgres_url) as connection:
        await connection.execute(_RECORD, name, list(routing_keys))


async def record_known(postgres_url: str, kinds: Mapping[str, Sequence[str]]) -> list[str]:
    """Write down publishers of which nothing is recorded yet, with what the broker lets them send.

    Args:
        postgres_url: As the role `ish_ops`.
        kinds: Routing keys by publisher, as the broker has them.

    Returns:
        Those that were new.
    """
    async with connected(postgres_url) as connection:
        found = [await connection.fetchval(_RECORD_KNOWN, name, list(keys)) for name, keys in kinds.items()]
    return [name for name in found if name is not None]


async def forget(postgres_url: str, name: str) -> None:
    """Remove a publisher's row.

    Args:
        postgres_url: As the role `ish_ops`.
        name: Its RabbitMQ user.
    """
    async with connected(postgres_url) as connection:
        await connection.execute(_FORGET, name)
