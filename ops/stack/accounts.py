"""Who uses a fresh stack: our own users on a broker given from outside, the publisher `demo`, and one API key."""

from contextlib import suppress

import psycopg

from contracts.amqp import broker
from contracts.database_errors import told
from contracts.service_urls import vhost_of, with_explicit_vhost
from ops.admin import keys, publishers
from ops.admin.rabbitmq_management import ManagementError
from ops.stack import rabbitmq
from ops.stack.addresses import Addresses, with_login
from ops.stack.errors import StackError
from ops.stack.layout import Layout
from ops.stack.secrets import secret, write_private

DEMO = "demo"
"""Name of the outside publisher, and the key's owner."""


async def own_users(layout: Layout, addresses: Addresses) -> None:
    """Make our users on a broker given from outside; on the stack's own a boot makes them.

    Args:
        layout: Whose secrets folder holds their passwords.
        addresses: With the administrator's address of the management API.

    Raises:
        StackError: A user of that name exists with another password.
    """
    passwords = {user: secret(layout.secrets_dir, f"rabbitmq-{user}") for user in rabbitmq.USERS}
    del passwords[rabbitmq.ADMINISTRATOR]
    management_url = addresses.management_by_user[rabbitmq.ADMINISTRATOR]
    try:
        known = set(await publishers.list_users(management_url))
    except ManagementError as error:
        message = f"{error} (ISH_RABBITMQ_MANAGEMENT_URL must be an administrator's address)"
        raise StackError(message) from error
    for user in known & set(passwords):
        if not await _is_password_of(addresses.amqp_by_user[user]):
            message = (
                f"the user {user} exists on the RabbitMQ given, with a password that this stack does not know: "
                f"put it into {layout.secrets_dir / f'rabbitmq-{user}'}"
            )
            raise StackError(message)
    await publishers.apply_users(
        management_url, passwords, vhost=vhost_of(addresses.amqp_by_user[rabbitmq.ADMINISTRATOR])
    )


async def known_publishers(addresses: Addresses) -> None:
    """Have outside publishers' reply queues again, and their kinds recorded.

    Args:
        addresses: With the administrator's addresses and the operators' of PostgreSQL.

    Raises:
        StackError: The broker refuses.
    """
    try:
        await publishers.restore_publishers(
            addresses.management_by_user[rabbitmq.ADMINISTRATOR],
            amqp_url_for_admin=addresses.amqp_by_user[rabbitmq.ADMINISTRATOR],
            postgres_url=addresses.postgres_by_role["ish_ops"],
        )
    except (ManagementError, broker.BrokerAway, ValueError) as error:
        raise StackError(str(error)) from error


async def publisher(layout: Layout, addresses: Addresses) -> str:
    """Make the outside publisher `demo`, whose results go to `reply.demo`.

    Args:
        layout: Whose secrets folder keeps its password.
        addresses: With the administrator's addresses.

    Returns:
        Its AMQP address.
    """
    path = layout.secrets_dir / f"rabbitmq-{DEMO}"
    administrator = addresses.amqp_by_user[rabbitmq.ADMINISTRATOR]
    if path.exists():
        url = with_explicit_vhost(with_login(administrator, DEMO, path.read_text(encoding="utf-8").strip()))
        with suppress(broker.VhostClosed):
            if await _may_enter(url):
                return url
    password = await publishers.add_publisher(
        addresses.management_by_user[rabbitmq.ADMINISTRATOR],
        DEMO,
        amqp_url_for_admin=administrator,
        postgres_url=addresses.postgres_by_role["ish_ops"],
    )
    write_private(path, password)
    return with_explicit_vhost(with_login(administrator, DEMO, password))


async def api_key(layout: Layout, addresses: Addresses) -> str:
    """One API key for the owner `demo`, made once.

    Args:
        layout: Whose secrets folder keeps it.
        addresses: With the operators' address of PostgreSQL.
    """
    path = layout.secrets_dir / "api-key"
    url = addresses.postgres_by_role["ish_ops"]
    if path.exists():
        key = path.read_text(encoding="utf-8").strip()
        if _is_known(url, key):
            return key
    key = await keys.create_key(url, DEMO, "made by the local stack")
    write_private(path, key)
    return key


async def _is_password_of(url: str) -> bool:
    """Whether the login is right; the vhost may still be closed to it, since its rights are given afterwards."""
    try:
        return await _may_enter(url)
    except broker.VhostClosed:
        return True


async def _may_enter(url: str) -> bool:
    """Whether the login is right and the vhost open to it.

    Raises:
        VhostClosed: It is not open.
    """
    try:
        connection = await broker.connect(url, name="ish set-up")
    except broker.VhostClosed:
        raise
    except broker.BrokerAway:
        return False
    await connection.close()
    return True


def _is_known(postgres_url: str, key: str) -> bool:
    """Whether the database knows this key's id: it may be a new database."""
    words = key.split("_")
    try:
        with psycopg.connect(postgres_url, connect_timeout=10) as connection:
            found = connection.execute(
                "select 1 from api_keys where id = %s and revoked_at is null", (words[1] if len(words) > 1 else "",)
            ).fetchone()
    except psycopg.Error as error:
        raise StackError(told(postgres_url, error, role="the role ish_ops")) from error
    return found is not None
