"""Repairs what was lost: queues that are missing, commands whose message went with one, commands nobody ends."""
