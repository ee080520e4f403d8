"""The outbox worker: sends again what was not confirmed, and ends, repairs and tidies what no other worker holds."""

from workers.outbox.run import run

__all__ = ["run"]
