"""Answers on their way: read as they are made, cached, kept until they are recorded, and streamed to whoever waits."""
