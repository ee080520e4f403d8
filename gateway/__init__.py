"""HTTP in, commands out: validates, publishes under confirms, answers from Postgres; knows no provider and no phone."""

PUBLISHER = "gateway"
"""Publisher of every command that comes in over HTTP, and the RabbitMQ user that publishes it."""
