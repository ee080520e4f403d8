"""Differences between the broker and the topology, and the names of outside publishers."""

from typing import Any

import pytest

from contracts.topology import RELAY, topology
from ops.admin.publishers import check_name
from ops.admin.topology_state import Found, differences


def found(**changes: Any) -> Found:
    """A broker that has everything, with changes."""
    wanted = topology()
    values: dict[str, Any] = {
        "exchanges": {
            one.name: {"name": one.name, "type": one.type, "arguments": one.arguments} for one in wanted.exchanges
        },
        "queues": {one.name: {"name": one.name, "durable": True, "arguments": one.arguments} for one in wanted.queues},
        "bindings": frozenset((one.exchange, one.queue, one.key) for one in wanted.bindings),
    }
    return Found(**{**values, **changes})


def test_a_broker_that_has_everything_has_no_differences() -> None:
    assert differences(topology(), found()) == []


def test_an_empty_broker_lacks_every_thing_once() -> None:
    wanted = topology()

    lines = differences(wanted, Found())

    assert len(lines) == len(wanted.exchanges) + len(wanted.queues) + len(wanted.bindings)
    assert all(line.startswith("+ ") for line in lines)


def test_changed_arguments_and_foreign_bindings_are_named() -> None:
    queues = {**found().queues}
    queues[RELAY] = {**queues[RELAY], "arguments": {**queues[RELAY]["arguments"], "x-delivery-limit": 3, "x-extra": 1}}
    bindings = found().bindings | {
        ("ish.commands", RELAY, "#"),
        ("elsewhere", RELAY, "#"),
        ("ish.commands", "tap", "#"),
    }

    lines = differences(topology(), found(queues=queues, bindings=bindings))

    assert lines == [
        "~ queue ish.relay: x-delivery-limit is 3, should be 200",
        "~ queue ish.relay: x-extra is 1, should be None",
        "- binding ish.commands -> ish.relay by '#' is not ours",
    ]


@pytest.mark.parametrize("name", ["demo", "a", "shop-2_x", "a" * 63])
def test_a_good_name_of_a_publisher_passes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["gateway", "worker", "outbox", "ops", "guest", "demo\n", "-a", "a.b", "Ä"])
def test_a_bad_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a publisher's name"):
        check_name(name)
