"""Each role of PostgreSQL may do what its process does, and nothing else: tried, not read from the catalogue."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from ops.stack.session import Session

# r select, w insert, u update any column, d delete; (columns) where only those may be read or changed
GRANTS: dict[str, dict[str, str]] = {
    "ish_gateway": {
        "ai_models": "r",
        "alembic_version": "r",
        "api_keys": "r",
        "artifact_owners": "rw",
        "artifact_pieces": "rw",
        "artifact_uploads": "rwu",
        "artifacts": "rw",
        "attempts": "r",
        "command_keys": "rw",
        "commands": "rwu",
        "device_leases": "r",
        "devices": "r",
        "messages": "r",
        "outbox": "rw",
        "workers": "r",
    },
    "ish_worker": {
        "ai_models": "rwud",
        "alembic_version": "r",
        "artifact_owners": "rw",
        "artifact_pieces": "r",
        "artifacts": "rw",
        "attempts": "rw",
        "command_keys": "rw",
        "commands": "rwu",
        "conversations": "rw",
        "dead_letters": "rw",
        "deliveries": "rw",
        "device_leases": "rwud",
        "devices": "rwud",
        "messages": "rw",
        "outbox": "rwd",
        "publishers": "r",
        "workers": "rwu",
    },
    "ish_outbox": {
        "alembic_version": "r",
        "artifact_owners": "rd",
        "artifact_pieces": "rud",
        "artifact_uploads": "rud",
        "artifacts": "rd",
        "command_keys": "rw",
        "commands": "rwu",
        "conversations": "r",
        "dead_letters": "rwud",
        "deliveries": "rwud",
        "delivery_turns": "rwud",
        "device_leases": "r",
        "devices": "r",
        "messages": "r",
        "outbox": "rwud",
        "publishers": "r",
        "queue_losses": "rwud",
        "targets": "r",
        "workers": "rwud",
    },
    "ish_ops": {
        "ai_models": "r",
        "alembic_version": "r",
        "api_keys": "rwu",
        "artifact_owners": "r",
        "artifact_uploads": "r",
        "artifacts": "r",
        "attempts": "r",
        "audit_log": "rw",
        "command_keys": "r",
        "commands": "r",
        "conversations": "r",
        "dead_letters": "r",
        "deliveries": "r",
        "delivery_turns": "r",
        "device_leases": "rd",
        "devices": "r",
        "messages": "r",
        "outbox": "r",
        "publishers": "rwud",
        "queue_losses": "rw",
        "targets": "wu",
        "workers": "r",
    },
}
COLUMNS = {
    ("ish_gateway", "artifacts"): {"u": {"created_at"}},
    ("ish_worker", "artifacts"): {"u": {"created_at"}},
    ("ish_worker", "targets"): {"r": {"id", "owner", "name", "conversation_id", "disabled_at"}},
    ("ish_ops", "targets"): {
        "r": {"id", "owner", "name", "url", "conversation_id", "created_at", "disabled_at"},
    },
    ("ish_ops", "devices"): {"u": {"tags"}},
    ("ish_ops", "dead_letters"): {"u": {"replayed_as"}},
}
FUNCTIONS = {
    "maintain_partitions(90)": {"ish_outbox"},
    "prune_api_keys(90, 0)": {"ish_outbox"},
    "prune_audit_log(90, 0)": {"ish_outbox"},
    "prune_conversations('', '', 90, 0)": {"ish_outbox"},
    "prune_devices(90, 0)": {"ish_outbox"},
    "prune_keys(0)": {"ish_outbox"},
    "prune_messages('', '', 90, 0, 0)": {"ish_outbox"},
    "prune_targets(90, 0)": {"ish_outbox"},
    "renew_keys('{}', '{}', '{}')": {"ish_gateway", "ish_worker", "ish_outbox"},
}


@pytest.fixture(scope="module")
def tables(services: Session) -> dict[str, list[str]]:
    """Every table with its columns; of partitions, the parent alone."""
    with psycopg.connect(services.postgres_url("ish_owner")) as connection:
        rows = connection.execute(
            "select c.relname, array_agg(a.attname::text order by a.attnum) from pg_class c"
            " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
            " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
            " group by 1"
        ).fetchall()
    return dict(rows)


def allowed(connection: "psycopg.Connection[tuple[object, ...]]", statement: sql.Composed | sql.SQL) -> bool:
    """Whether a statement gets past the check of rights; whatever it does is undone."""
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.Error:
        return True  # a default or constraint is in its way, which is looked at after the rights
    finally:
        connection.rollback()
    return True


@pytest.mark.parametrize("role", GRANTS)
def test_a_role_may_do_what_is_stated_and_nothing_else(
    services: Session, tables: dict[str, list[str]], role: str
) -> None:
    found: dict[str, str] = {}
    found_columns: dict[tuple[str, str], dict[str, set[str]]] = {}
    with psycopg.connect(services.postgres_url(role)) as connection:
        for name, columns in tables.items():
            table = sql.Identifier(name)
            rights = ""
            for letter, whole, single in (
                ("r", "select * from {t} limit 0", "select {c} from {t} limit 0"),
                ("w", "insert into {t} default values", None),
                ("u", None, "update {t} set {c} = default where false"),
                ("d", "delete from {t} where false", None),
            ):
                of_columns = {
                    column
                    for column in columns
                    if single and allowed(connection, sql.SQL(single).format(t=table, c=sql.Identifier(column)))
                }
                every = allowed(connection, sql.SQL(whole).format(t=table)) if whole else of_columns == set(columns)
                if every:
                    rights += letter
                elif of_columns:
                    found_columns.setdefault((role, name), {})[letter] = of_columns
            if rights:
                found[name] = rights

    assert found == GRANTS[role]
    assert found_columns == {key: value for key, value in COLUMNS.items() if key[0] == role}


@pytest.mark.parametrize("role", GRANTS)
def test_a_role_runs_no_function_of_the_owner_but_its_own(services: Session, role: str) -> None:
    with psycopg.connect(services.postgres_url(role)) as connection:
        found = {one for one in FUNCTIONS if allowed(connection, sql.SQL("select " + one))}
        assert found == {one for one, roles in FUNCTIONS.items() if role in roles}
        assert not allowed(connection, sql.SQL("create table public.mine ()"))
        assert not allowed(connection, sql.SQL("create function public.mine() returns int language sql as 'select 1'"))


def test_every_function_of_the_owner_is_in_the_table_and_fixes_where_it_looks(services: Session) -> None:
    with psycopg.connect(services.postgres_url("ish_owner")) as connection:
        rows = connection.execute(
            "select proname, proconfig from pg_proc where pronamespace = 'public'::regnamespace and prosecdef"
        ).fetchall()

    assert {name for name, _ in rows} == {one.partition("(")[0] for one in FUNCTIONS}
    assert {tuple(settings) for _, settings in rows} == {("search_path=pg_catalog, public, pg_temp",)}


def partitions(services: Session) -> set[str]:
    with psycopg.connect(services.postgres_url("ish_owner")) as connection:
        return {name for (name,) in connection.execute("select inhrelid::regclass::text from pg_inherits").fetchall()}


@pytest.mark.parametrize("days", ["-1", "0", "-2147483648", "null"])
def test_no_retention_drops_partitions_that_are_in_use(services: Session, days: str) -> None:
    before = partitions(services)

    with (
        psycopg.connect(services.postgres_url("ish_outbox")) as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="retention_days must be at least 1"),
    ):
        connection.execute(f"select maintain_partitions({days})")

    assert partitions(services) == before


def test_an_old_partition_is_kept_while_a_command_in_it_is_unfinished(services: Session) -> None:
    day = (datetime.now(UTC) - timedelta(days=200)).date()
    week = day - timedelta(days=day.weekday())
    names = {f"{parent}_{week:%Y%m%d}" for parent in ("commands", "attempts")}
    id_ = uuid4()
    with psycopg.connect(services.postgres_url("ish_owner"), autocommit=True) as owner:
        for name in names:
            owner.execute(
                sql.SQL("create table {} partition of {} for values from ({}) to ({})").format(
                    sql.Identifier(name),
                    sql.Identifier(name.partition("_")[0]),
                    sql.Literal(week),
                    sql.Literal(week + timedelta(days=7)),
                )
            )
        owner.execute(
            "insert into commands (publisher, id, day, kind, owner, state, routing_key, payload, accepted_at, deadline_at)"
            " values ('demo', %s, %s, 'relay', 'demo', 'retrying', 'relay', '{}', now(), now())",
            (id_, day),
        )
        with psycopg.connect(services.postgres_url("ish_outbox"), autocommit=True) as outbox:
            outbox.execute("select maintain_partitions(90)")
            assert names <= partitions(services)

            owner.execute("update commands set state = 'failed' where id = %s", (id_,))
            outbox.execute("select maintain_partitions(90)")

    assert not names & partitions(services)
