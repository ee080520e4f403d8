"""The payload of ai.send, and what an answer uses."""
