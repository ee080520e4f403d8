"""Says in one line what PostgreSQL could not do, where, and what to do about it; never the password."""

from urllib.parse import unquote, urlsplit

from contracts.plain_text import plain
from contracts.service_errors import place_of, sentence, user_of

_SETTING = "ISH_POSTGRES_URL"
_SAYINGS = (
    (("28",), "login refused ({said})", f"correct the user and the password in {_SETTING}"),
    (("3D000",), "there is no database {database}", f"correct {_SETTING}, or start the stack, which makes it"),
    (
        ("42P01", "42703", "42883", "3F000"),
        "the tables in the database {database} are missing or of another version ({said})",
        f"start the stack with `ish up`, which brings them up to date, or correct {_SETTING}",
    ),
    (("42501",), "this role may not do that ({said})", f"{_SETTING} must be the address of {{role}}"),
    (("53", "57P03"), "it takes no connection now ({said})", "try again later"),
)
"""SQLSTATEs, or how they begin; what happened; what to do about it."""
_OF_LIBPQ = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    'role "': "28000",
    "does not exist": "3D000",
    "permission denied": "42501",
    "too many clients": "53300",
    "starting up": "57P03",
}
"""libpq tells no SQLSTATE of a connection that failed: it is known by these words."""


def told(postgres_url: str, error: BaseException, *, role: str) -> str:
    """One line about what PostgreSQL could not do.

    Args:
        postgres_url: Where.
        error: What asyncpg, psycopg or SQLAlchemy raised.
        role: Whose address the setting should hold.
    """
    error = getattr(error, "orig", None) or error  # SQLAlchemy's around psycopg's
    said = plain(" ".join(str(error).split()))
    code = getattr(error, "sqlstate", None)
    if not code and "certificate" not in said:  # a file of TLS may not exist either
        code = next((code for words, code in _OF_LIBPQ.items() if words in said), "")
    if not code:
        return sentence("PostgreSQL", postgres_url, error, setting=_SETTING)
    return _line(postgres_url, code, said, role)


def tables_missing(postgres_url: str, said: str) -> str:
    """One line about a database without the tables that this program needs.

    Args:
        postgres_url: Where.
        said: What is known of it.
    """
    return _line(postgres_url, "42P01", said, "")


def _line(postgres_url: str, code: str, said: str, role: str) -> str:
    what, to_do = next(
        ((what, to_do) for prefixes, what, to_do in _SAYINGS if code.startswith(prefixes)),
        ("{said}", f"check {_SETTING}"),
    )
    database = plain(unquote(urlsplit(postgres_url).path.removeprefix("/")))
    where = f"PostgreSQL at {place_of(postgres_url)} as {user_of(postgres_url) or 'this system user'}"
    return f"{where}: {what.format(said=said, database=database)}; {to_do.format(role=role)}"
