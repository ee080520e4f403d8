"""The stack's `env` file: addresses and the API key, for people and scripts to source."""

import shlex

from ops.stack.addresses import Addresses
from ops.stack.errors import StackError
from ops.stack.layout import Layout
from ops.stack.secrets import write_private


def write(layout: Layout, addresses: Addresses, *, publisher_url: str, api_key: str) -> None:
    """Write `env`, mode 0600.

    Args:
        layout: Where.
        addresses: Of the services.
        publisher_url: AMQP address of the outside publisher `demo`.
        api_key: Of the owner `demo`.
    """
    values = {
        "ISH_GATEWAY_URL": layout.gateway_url,
        "ISH_API_KEY": api_key,
        "ISH_AMQP_URL": publisher_url,
        "ISH_POSTGRES_URL": addresses.postgres_by_role["ish_ops"],
        "ISH_REDIS_URL": addresses.redis_by_role["ops"],
        "ISH_RABBITMQ_MANAGEMENT_URL": addresses.management_by_user["ops"],
        "ISH_ADB_SERVERS": addresses.adb_servers,
    }
    lines = ["# Addresses of this stack and an API key, written at its start: `source` it, and keep it to yourself."]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    write_private(layout.environment_file, "\n".join(lines) + "\n")


def read_value(layout: Layout, name: str) -> str:
    """One value of the file.

    Args:
        layout: Where.
        name: Such as `ISH_API_KEY`.

    Raises:
        StackError: The file or the name is not there.
    """
    try:
        lines = layout.environment_file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        variable, _, value = line.removeprefix("export ").partition("=")
        if variable == name:
            return shlex.split(value)[0]
    message = f"{layout.environment_file} has no {name}: start the stack first"
    raise StackError(message)
