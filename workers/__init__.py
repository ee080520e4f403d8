"""Queue to work to store to reply: one consume path, a handler for each kind, and the outbox worker."""
