"""What routes use: keys, idempotency, records, waits for results, token streams, PostgreSQL."""
