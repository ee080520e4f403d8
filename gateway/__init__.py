"""HTTP in, commands out: validates, publishes under confirms, answers from Postgres; knows no provider and no phone."""
