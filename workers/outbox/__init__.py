"""The outbox worker: sends again what was not confirmed, and ends, repairs and tidies what no other worker holds."""
