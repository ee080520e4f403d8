"""Which connections are timed out, make room or are turned away, and when."""

from dataclasses import dataclass, field

from gateway.http.connections import Bounds, Connections

BOUNDS = Bounds(connections=4, connections_per_address=3, unfinished=2)


@dataclass(eq=False)
class Fake:
    address: str = "a"
    started_at: float = 0.0
    deadline: float = 10.0
    waits_for_us: bool = False
    done: list[str] = field(default_factory=list)

    def time_out(self) -> None:
        self.done.append("timed out")

    def close(self) -> None:
        self.done.append("closed")

    def cut(self) -> None:
        self.done.append("cut")


def admitted(connections: Connections, *many: Fake, now: float = 0.0) -> list[Fake]:
    for one in many:
        assert connections.admit(one, now) is None
    return list(many)


def test_unfinished_request_is_timed_out_at_its_deadline_and_not_before() -> None:
    connections = Connections(BOUNDS)
    [one] = admitted(connections, Fake())

    connections.sweep(9.9)
    assert one.done == []
    connections.sweep(10)
    assert one.done == ["timed out"]


def test_request_whose_rest_this_side_does_not_read_gets_more_time() -> None:
    connections = Connections(BOUNDS)
    [one] = admitted(connections, Fake(waits_for_us=True))

    connections.sweep(10)

    assert (one.done, one.deadline) == ([], 30.0)


def test_answering_connection_has_no_deadline_and_an_idle_one_the_keep_alive() -> None:
    connections = Connections(BOUNDS)
    waiting, idle = admitted(connections, Fake(), Fake())
    connections.answering(waiting)
    connections.sweep(5)
    connections.idle(idle)

    connections.sweep(79)
    assert idle.done == []
    connections.sweep(80)
    assert (waiting.done, idle.done) == ([], ["closed"])


def test_client_that_does_not_read_is_cut_and_one_that_reads_again_is_not() -> None:
    connections = Connections(BOUNDS)
    stuck, slow = admitted(connections, Fake(), Fake())
    for one in (stuck, slow):
        connections.answering(one)
        connections.stalled(one, 0)
    connections.stalled(slow, None)

    connections.sweep(60)

    assert (stuck.done, slow.done) == (["cut"], [])


def test_oldest_unfinished_request_gives_way_unless_it_is_young() -> None:
    connections = Connections(BOUNDS)
    first, second = admitted(connections, Fake(), Fake())

    admitted(connections, Fake(address="b"), now=0.5)
    assert (first.done, second.done) == ([], [])
    admitted(connections, Fake(address="b"), now=2)
    assert (first.done, second.done) == (["timed out"], [])


def test_new_connection_takes_the_place_of_an_idle_one_of_its_address() -> None:
    connections = Connections(BOUNDS)
    mine = admitted(connections, Fake(), Fake(), Fake())
    [other] = admitted(connections, Fake(address="b"))
    connections.idle(other)
    connections.idle(mine[1])

    assert connections.admit(Fake(), 0) is None
    assert (other.done, mine[1].done) == ([], ["cut"])


def test_where_none_can_give_way_the_new_one_is_told_so() -> None:
    connections = Connections(BOUNDS)
    for one in admitted(connections, Fake(), Fake(), Fake(), Fake(address="b")):
        connections.answering(one)

    mine, others = connections.admit(Fake(), 0), connections.admit(Fake(address="c"), 0)

    assert mine is not None
    assert "Your address" in mine.detail
    assert others is not None
    assert "There are" in others.detail
    assert others.headers["Retry-After"]


def test_closed_connection_leaves_its_place() -> None:
    connections = Connections(BOUNDS)
    [one, *_] = admitted(connections, Fake(), Fake(), Fake())
    connections.remove(one)

    assert connections.admit(Fake(), 0) is None
    assert len(connections) == 3
