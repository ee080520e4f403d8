import random
from uuid import UUID

import pytest

from workers.device_pool.rebalance import Decision, Memory, decide, share

WORKERS = [UUID(int=number) for number in range(1, 8)]


class Crowd:
    """Workers that decide by turns about the same phones."""

    def __init__(self, phones: int, workers: int) -> None:
        self.phones = {f"P{number}" for number in range(phones)}
        self.reach: dict[UUID, set[str]] = {worker: set(self.phones) for worker in WORKERS[:workers]}
        self.memories: dict[UUID, Memory] = {}
        self.held: dict[UUID, set[str]] = {}
        self.now = 0.0
        for worker in self.reach:
            self.join(worker)

    def join(self, worker: UUID) -> None:
        self.reach.setdefault(worker, set(self.phones))
        self.memories[worker], self.held[worker] = Memory(), set()

    def die(self, worker: UUID) -> None:
        del self.memories[worker], self.held[worker], self.reach[worker]

    def look(self, worker: UUID) -> Decision:
        others = {serial for one, held in self.held.items() if one != worker for serial in held}
        return decide(
            self.memories[worker],
            me=worker,
            workers=sorted(self.held),
            mine=dict.fromkeys(self.held[worker], True),
            others=others,
            within_reach=self.reach[worker],
            known=self.phones,
            now=self.now,
        )

    def run(self, seconds: float) -> int:
        """Rounds of half a second, in any order; returns how many phones changed hands."""
        moved = 0
        for _ in range(int(seconds * 2)):
            for worker in random.sample(sorted(self.held), len(self.held)):
                decision = self.look(worker)
                taken = {serial for serial in decision.take if not any(serial in held for held in self.held.values())}
                self.held[worker] = (self.held[worker] | taken) - set(decision.give)
                moved += len(taken) + len(decision.give)
            self.now += 0.5
        return moved

    @property
    def counts(self) -> list[int]:
        return sorted(len(held) for held in self.held.values())


@pytest.mark.parametrize(("phones", "workers"), [(20, 4), (20, 6), (1, 3), (3, 7), (0, 2), (100, 7)])
def test_shares_add_up_and_differ_by_one_at_the_most(phones: int, workers: int) -> None:
    shares = [share(phones, workers=workers, rank=rank) for rank in range(workers)]

    assert sum(shares) == phones
    assert max(shares) - min(shares) <= 1


def test_a_first_worker_takes_everything_and_gives_half_to_a_second() -> None:
    crowd = Crowd(20, 1)
    crowd.run(1)
    assert crowd.counts == [20]

    crowd.join(WORKERS[1])
    crowd.run(2)

    assert crowd.counts == [10, 10]


def test_phones_of_a_dead_worker_are_shared_among_the_others_and_nothing_else_moves() -> None:
    crowd = Crowd(20, 4)
    crowd.run(2)
    assert crowd.counts == [5, 5, 5, 5]

    crowd.die(WORKERS[0])
    moved = crowd.run(2)

    assert crowd.counts == [6, 7, 7]
    assert moved <= 5 + 2  # a change of rank may move one or two more


def test_settled_phones_stay_where_they_are() -> None:
    crowd = Crowd(20, 3)
    crowd.run(2)

    assert crowd.run(60) == 0


def test_what_only_one_worker_reaches_it_takes_beyond_its_share_and_offers_ever_more_seldom() -> None:
    crowd = Crowd(10, 2)
    crowd.reach[WORKERS[1]] = set()
    crowd.run(5)
    assert crowd.counts == [0, 10]

    moves = [crowd.run(300) for _ in range(4)]
    assert moves[3] < moves[0]
    assert moves[3] <= 2 * 2 * 10
    crowd.reach[WORKERS[1]] = set(crowd.phones)
    crowd.run(310)

    assert crowd.counts == [5, 5]


def test_what_was_free_before_a_pause_counts_as_free_from_now() -> None:
    crowd = Crowd(4, 2)
    crowd.held[WORKERS[1]] = {"P0", "P1", "P2"}
    assert crowd.look(WORKERS[0]).take == ("P3",)  # others were faster

    crowd.now += 60
    crowd.held[WORKERS[0]] = {"P3", "P0"}
    crowd.held[WORKERS[1]] = {"P1"}

    assert crowd.look(WORKERS[0]) == Decision()


def test_a_phone_that_nobody_reaches_is_held_all_the_same_so_that_its_commands_end() -> None:
    crowd = Crowd(4, 2)
    crowd.run(1)

    for reached in crowd.reach.values():
        reached.clear()
    crowd.run(20)

    assert sum(crowd.counts) == 4


def test_the_busy_stay_and_the_idle_go() -> None:
    mine = {"BUSY1": False, "IDLE": True, "BUSY2": False}

    decision = decide(
        Memory(),
        me=WORKERS[0],
        workers=WORKERS[:2],
        mine=mine,
        others=set(),
        within_reach=set(mine),
        known=set(mine),
        now=0.0,
    )

    assert decision == Decision(give=("IDLE",))


def test_a_worker_that_is_not_on_record_does_nothing() -> None:
    decision = decide(
        Memory(), me=WORKERS[3], workers=[], mine={}, others=set(), within_reach={"P"}, known={"P"}, now=9.0
    )

    assert decision == Decision()
