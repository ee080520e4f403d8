"""What all workers share about providers: limits, breakers and waits, in Redis, or within one process without it."""

from workers.ai.limits.budget import RetryBudget
from workers.ai.limits.fleet import Fleet, open_fleet
from workers.ai.limits.permit import Failed, Pass, Served, Unknown, Unused, Wait

__all__ = ["Failed", "Fleet", "Pass", "RetryBudget", "Served", "Unknown", "Unused", "Wait", "open_fleet"]
