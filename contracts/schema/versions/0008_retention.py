"""Deletes what has served its time: functions of the owner, so that no daemon needs the right to delete it."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run the SQL beside this file as one script; through a cursor of the driver's, since it may have percent signs."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    cursor = op.get_bind().connection.cursor()
    cursor.execute(sql)
    cursor.close()
