"""The tables: Alembic revisions in plain SQL, forward only, applied as the owner of the database."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(__file__).parent
ROLES = ("ish_gateway", "ish_worker", "ish_outbox", "ish_ops")
"""Login roles that must exist before the first revision; it grants each what it needs and nothing else."""


def apply(url: str) -> str:
    """Bring a database to the newest revision; does nothing when it is there already.

    Args:
        url: postgresql:// URL of the role that owns the database.

    Returns:
        The revision that it is at now.
    """
    from alembic import command  # noqa: PLC0415  # half a second, and most commands of `ish` need none of it
    from sqlalchemy import create_engine, text  # noqa: PLC0415

    configuration = _configuration()
    engine = create_engine(_dialect(url))
    try:
        with engine.begin() as connection:
            # two starts at once: the second waits, then finds nothing to do
            connection.execute(text("select pg_advisory_xact_lock(4947238)"))
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
    finally:
        engine.dispose()
    return head()


def newest() -> str:
    """The newest revision of this version of the code, at the cost of reading a folder."""
    return max(path.stem[:4] for path in (_FOLDER / "versions").glob("[0-9]*.sql"))


def head() -> str:
    """The newest revision of this version of the code."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    revision = ScriptDirectory.from_config(_configuration()).get_current_head()
    if revision is None:
        raise ValueError("there is no revision")
    return revision


def _configuration() -> "Config":
    from alembic.config import Config  # noqa: PLC0415

    configuration = Config()
    configuration.set_main_option("script_location", str(_FOLDER))
    return configuration


def _dialect(url: str) -> str:
    return f"postgresql+psycopg://{url.partition('://')[2]}"
