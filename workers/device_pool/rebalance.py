"""Decides which phones a worker takes and which it gives away, without any I/O.

Each worker's share is its part of all phones, by rank, so that the shares add up exactly (a share rounded up would leave
the last worker with none). A phone that nobody takes for some seconds is taken by whoever can; such a one is kept for a
while, since giving it away again would only make it stand idle.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

_LEFT_OVER_SECONDS = 3.0
_UNREACHED_SECONDS = 6.0
_FIRST_KEPT_SECONDS = 15.0
_LONGEST_KEPT_SECONDS = 300.0
_INTERRUPTED_SECONDS = 2.0
"""After a pause of this length it is not known what was free all the time."""


@dataclass(slots=True)
class Memory:
    """What is remembered from one decision to the next."""

    free_since: dict[str, float] = field(default_factory=dict)
    kept_until: dict[str, float] = field(default_factory=dict)
    """Phones that nobody else wanted."""
    kept_seconds: dict[str, float] = field(default_factory=dict)
    """For how long that was the last time: it doubles each time."""
    workers: tuple[UUID, ...] = ()
    at: float = float("-inf")
    """When it was used last."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now."""

    take: tuple[str, ...] = ()
    give: tuple[str, ...] = ()


def share(total: int, *, workers: int, rank: int) -> int:
    """How many phones a worker should hold.

    Args:
        total: All phones.
        workers: All workers.
        rank: This worker's place among them, from 0.
    """
    return total // workers + (rank < total % workers)


def decide(
    memory: Memory,
    *,
    me: UUID,
    workers: Sequence[UUID],
    mine: Mapping[str, bool],
    others: Collection[str],
    within_reach: Collection[str],
    known: Collection[str],
    now: float,
    slack: int = 0,
) -> Decision:
    """What this worker should take and give away.

    Args:
        memory: From the decision before; it is brought up to date.
        me: This worker's incarnation.
        workers: Those that live, in the same order for everybody.
        mine: Phones held here that are not being given away, each with whether it is idle.
        others: Phones that living workers hold, and those that are being given away here.
        within_reach: Phones whose adb server answers this worker.
        known: All phones.
        now: Monotonic time.
        slack: How many phones beyond its share it may keep.
    """
    if memory.workers != tuple(workers):
        memory.workers = tuple(workers)
        memory.kept_until.clear()
        memory.kept_seconds.clear()
    if now - memory.at > _INTERRUPTED_SECONDS:
        memory.free_since.clear()
    memory.at = now
    free = set(known) - set(mine) - set(others)
    memory.free_since = {serial: memory.free_since.get(serial, now) for serial in free}
    memory.kept_until = {serial: until for serial, until in memory.kept_until.items() if until > now}
    if me not in workers:
        return Decision()
    total = len(set(mine) | set(others) | (free & set(within_reach)))
    quota = share(total, workers=len(workers), rank=list(workers).index(me))
    take = random.sample(sorted(free & set(within_reach)), len(free & set(within_reach)))[: max(0, quota - len(mine))]
    for serial in sorted(free - set(take)):
        reached = serial in within_reach
        if now - memory.free_since[serial] > (_LEFT_OVER_SECONDS if reached else _UNREACHED_SECONDS):
            take.append(serial)
            kept_seconds = min(2 * memory.kept_seconds.get(serial, _FIRST_KEPT_SECONDS / 2), _LONGEST_KEPT_SECONDS)
            memory.kept_seconds[serial], memory.kept_until[serial] = kept_seconds, now + kept_seconds
    movable = [serial for serial in mine if serial not in memory.kept_until]
    give = [serial for serial in movable if serial not in within_reach]
    excess = max(0, len(movable) - len(give) - quota - slack)  # what nobody else wanted is beyond the share
    give += sorted((serial for serial in movable if serial not in give), key=lambda serial: not mine[serial])[:excess]
    return Decision(tuple(take), tuple(give))
