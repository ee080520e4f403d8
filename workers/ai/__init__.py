"""The AI pool: which provider a question goes to, the call itself, and what its answer or failure means."""
