"""`python -m ops` is the `ish` command."""

from ops.cli.main import app

app(prog_name="ish")
