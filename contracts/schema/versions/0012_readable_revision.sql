-- Each process compares the revision of the tables with its own at its start.
grant select on alembic_version to ish_gateway, ish_worker, ish_outbox, ish_ops;
