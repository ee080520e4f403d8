"""Alembic revisions: each a Python file that runs the SQL beside it."""
