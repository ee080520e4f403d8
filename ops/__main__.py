"""`python -m ops` is the `ish` command."""

from ops.cli import app

app(prog_name="ish")
