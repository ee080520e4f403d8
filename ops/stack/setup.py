"""What a stack needs once its services answer: users, roles, tables, queues, the publisher `demo` and an API key."""

import psycopg
from psycopg import sql

from contracts import schema
from contracts.amqp import broker
from contracts.database_errors import told
from ops.cli.topology import note_losses
from ops.stack.addresses import DATABASE, OWNER_ROLE, POSTGRES_ROLES, Addresses
from ops.stack.errors import StackError


def create_roles(addresses: Addresses, *, own_server: bool) -> None:
    """Create PostgreSQL's roles, and on the stack's own server the database.

    Args:
        addresses: With the administrator's address and the roles' passwords.
        own_server: False for a server given from outside: its database is used, and existing roles are left alone.

    Raises:
        StackError: The administrator may not create roles, or a role of ours exists with another password.
    """
    try:
        with psycopg.connect(addresses.postgres_administrator, autocommit=True, connect_timeout=10) as connection:
            for role in POSTGRES_ROLES:
                _create_role(connection, role, addresses.postgres_by_role[role], may_change=own_server)
            _prepare_database(connection, own_server=own_server)
    except psycopg.Error as error:
        role = "a role that may create roles"
        raise StackError(told(addresses.postgres_administrator, error, role=role)) from error


def apply_schema(addresses: Addresses) -> None:
    """Bring the tables up to date; the roles must exist, since rights are part of the migrations.

    Args:
        addresses: With the owner's address.

    Raises:
        StackError: PostgreSQL refuses.
    """
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415  # half a second, and most commands of `ish` need none of it

    url = addresses.postgres_by_role[OWNER_ROLE]
    try:
        schema.apply(url)
    except DBAPIError as error:
        raise StackError(told(url, error, role="a role that may create roles")) from error


async def apply_topology(addresses: Addresses) -> None:
    """Declare exchanges and queues; commands recorded for a queue that was missing will be published again.

    Args:
        addresses: With the administrator's AMQP address and that of the database, its tables made.

    Raises:
        StackError: Something exists with other arguments, or the broker is away.
    """
    try:
        made = await broker.apply_topology(addresses.amqp_by_user["admin"])
    except (broker.BrokerAway, ValueError) as error:
        raise StackError(str(error)) from error
    await note_losses(addresses.postgres_by_role["ish_ops"], made)


def _create_role(
    connection: "psycopg.Connection[tuple[object, ...]]", role: str, url: str, *, may_change: bool
) -> None:
    password = psycopg.conninfo.conninfo_to_dict(url)["password"]
    # hashed here: the server's log may show a statement that fails
    verifier = connection.pgconn.encrypt_password(str(password).encode(), role.encode(), b"scram-sha-256").decode()
    exists = connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone()
    if exists and not may_change:
        _check_login(role, url)
        return
    statement = sql.SQL("{verb} role {role} login password {verifier}").format(
        verb=sql.SQL("alter" if exists else "create"), role=sql.Identifier(role), verifier=sql.Literal(verifier)
    )
    connection.execute(statement)


def _check_login(role: str, url: str) -> None:
    try:
        psycopg.connect(url, connect_timeout=10).close()
    except psycopg.Error as error:
        message = (
            f"the role {role} exists on the PostgreSQL server given, with a password that this stack does not know: "
            f"put it into secrets/postgres-{role} of the state folder"
        )
        raise StackError(message) from error


def _prepare_database(connection: "psycopg.Connection[tuple[object, ...]]", *, own_server: bool) -> None:
    owner = sql.Identifier(OWNER_ROLE)
    name = DATABASE if own_server else connection.info.dbname
    if own_server and not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
        connection.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), owner))
    database = sql.Identifier(name)
    roles = sql.SQL(", ").join(map(sql.Identifier, POSTGRES_ROLES))
    connection.execute(sql.SQL("grant connect on database {} to {}").format(database, roles))
    connection.execute(sql.SQL("grant create on database {} to {}").format(database, owner))
    if own_server:
        connection.execute(sql.SQL("revoke all on database {} from public").format(database))
    else:
        connection.execute(sql.SQL("grant usage, create on schema public to {}").format(owner))
