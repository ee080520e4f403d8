"""The breaker of one process: what it remembers of calls, and for how long."""

import tracemalloc

from workers.ai.limits.breaker import Breaker
from workers.ai.limits.protocol import Leaving
from workers.ai.limits.scopes import Report, Scope, Verdict

SCOPE = Scope("provider:one", "provider", 0, 0, 0)


def hear(breaker: Breaker, verdict: Verdict, *, at: float, command: str = "c") -> str | None:
    report = Report({"provider": verdict}, about="provider" if verdict == "fail" else None)
    change = breaker.hear(Leaving((SCOPE,), command, f"p{at}", at, 0, report), SCOPE, calls=1, now=at)
    return change.state if change is not None else None


def test_a_provider_that_never_fails_costs_no_memory() -> None:
    breaker = Breaker()
    for call in range(1_000):
        hear(breaker, "ok", at=call * 0.1)
    tracemalloc.start()
    try:
        for call in range(1_000, 21_000):
            hear(breaker, "ok", at=call * 0.1)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert grown < 200_000  # a minute's calls stay: 600 of some 100 bytes; all of them would be two megabytes


def test_successes_of_the_last_minute_count_against_failures() -> None:
    breaker = Breaker()
    for call in range(40):
        hear(breaker, "ok", at=float(call))
    heard = []
    for number in range(6):  # never three in a row
        heard.append(hear(breaker, "fail", at=41 + number, command=f"f{number}"))
        hear(breaker, "ok", at=41.5 + number)

    assert heard[:4] == [None] * 4
    assert heard[4] == "open"  # five of 49 are more than a tenth
