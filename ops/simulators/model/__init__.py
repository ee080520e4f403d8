"""The local model: a small real language model behind an OpenAI-style server, for machines without a provider's key."""
