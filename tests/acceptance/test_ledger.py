"""The ledger of tokens and cost says what the provider says, whenever a worker is killed."""

import signal

import pytest

from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Provider, Stage

COMMANDS = 60
INPUT_USD, OUTPUT_USD = 1e-6, 2e-6
"""For a token, as the stage's providers file has it."""


async def test_tokens_and_cost_are_the_providers_exactly_after_kills_in_and_after_calls(
    stage: Stage, demo: Outsider
) -> None:
    provider = await stage.provider(latency_seconds=0.05)
    await provider.script(match={"contains": "long"}, latency_seconds=4)
    settings = {"ISH_PROVIDERS_FILE": str(provider.providers_file)}
    stage.worker("outbox")

    # one answer at a time, so that nobody else's is between the provider and its worker at the kill
    one_at_a_time = {"ISH_AI_PREFETCH": "1", "ISH_KILL_POINT": "after_effect@5"}
    ids = await demo.publish_all(
        [demo.command("ai.send.v1", {"model": "steady", "prompt": f"short {n}"}) for n in range(COMMANDS)]
    )
    for life in range(3):
        assert (
            await stage.ended(stage.worker("ai", f"dies-after-{life}", **settings, **one_at_a_time)) == -signal.SIGKILL
        )
    ids += await demo.publish_all(
        [demo.command("ai.send.v1", {"model": "steady", "prompt": f"long {n}"}) for n in range(20)]
    )
    doomed = stage.worker("ai", "dies-in-calls", ISH_AI_PREFETCH=str(2 * COMMANDS), **settings)
    long = set(ids[COMMANDS:])
    await until("all the long ones are being answered", lambda: long <= set(provider.calls()))
    await until("the short ones are done", lambda: stage.records.finished(demo.name, ids[:COMMANDS]))
    doomed.send(signal.SIGKILL)
    await stage.ended(doomed)
    stage.worker("ai", "lives", **settings)
    await until("all are finished", lambda: stage.records.finished(demo.name, ids))

    calls = provider.calls()
    assert {calls[id_] for id_ in ids[:COMMANDS]} == {1}  # an answer that was got was not asked for again
    assert {calls[id_] for id_ in long} == {2}
    await assert_ledger_is_the_providers(stage, demo, provider, keys_honoured=False)
    killed = await stage.records.rows(
        "select count(*) as count from attempts where publisher = $1 and attempt > 1", demo.name
    )
    assert killed[0]["count"] == 3 + 20


async def assert_ledger_is_the_providers(
    stage: Stage, demo: Outsider, provider: Provider, *, keys_honoured: bool
) -> None:
    """Each command's tokens and cost in our ledger are those of the provider's good answers to it."""
    billed, spent = provider.billed(keys_honoured=keys_honoured), await stage.records.spent(demo.name)
    assert {id_: (tokens_in, tokens_out) for id_, (tokens_in, tokens_out, _) in spent.items()} == billed
    for tokens_in, tokens_out, cost_usd in spent.values():
        assert cost_usd == pytest.approx(tokens_in * INPUT_USD + tokens_out * OUTPUT_USD, rel=1e-9)
