"""Artifacts that were uploaded: kept in pieces, so that neither end holds one in memory."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL beside this file as one script; through a cursor of the driver's, since it has percent signs."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    cursor = op.get_bind().connection.cursor()
    cursor.execute(sql)
    cursor.close()
