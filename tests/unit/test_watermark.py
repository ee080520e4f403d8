"""Acks of a run of deliveries: never past one that is not settled."""

from hypothesis import given
from hypothesis import strategies as st

from workers.stages import Watermark


@given(st.permutations(range(1, 30)), st.integers(min_value=1, max_value=5))
def test_the_mark_never_passes_an_unsettled_delivery(order: list[int], size: int) -> None:
    watermark, settled = Watermark(), set[int]()

    for start in range(0, len(order), size):
        part = order[start : start + size]
        settled.update(part)
        mark = watermark.settle(part)
        if mark is not None:
            assert set(range(1, mark + 1)) <= settled
            assert mark + 1 not in settled

    assert watermark.low == 29


def test_a_mark_that_has_not_moved_acks_nothing() -> None:
    watermark = Watermark()

    assert watermark.settle([2, 3]) is None
    assert watermark.settle([1]) == 3
    assert watermark.settle([1]) is None
