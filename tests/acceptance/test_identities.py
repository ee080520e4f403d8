import asyncio
from uuid import uuid4

from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Stage


async def test_an_id_published_ten_times_at_once_is_one_command_and_one_provider_call(
    stage: Stage, demo: Outsider
) -> None:
    provider = await stage.provider(latency_seconds=0.5)
    for name in ("ai-a", "ai-b"):
        stage.worker("ai", name, ISH_PROVIDERS_FILE=str(provider.providers_file))
    id_ = str(uuid4())

    commands = [demo.command("ai.send.v1", {"model": "steady", "prompt": "once"}, message_id=id_) for _ in range(10)]
    await asyncio.gather(*(demo.publish(command) for command in commands))
    await until("ten replies", lambda: len(demo.replies[id_]) == 10)

    assert demo.reply(id_)["status"] == "succeeded"
    assert (await stage.records.commands(demo.name))[id_]["attempt"] == 1
    assert provider.calls()[id_] == 1
    await until("nothing waits", stage.queues.empty)


async def test_the_same_id_from_two_publishers_is_two_commands(stage: Stage, demo: Outsider, other: Outsider) -> None:
    provider = await stage.provider()
    stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
    id_ = str(uuid4())

    for publisher, prompt in ((demo, "mine"), (other, "theirs")):
        await publisher.publish(publisher.command("ai.send.v1", {"model": "steady", "prompt": prompt}, message_id=id_))
    await until("both are answered", lambda: bool(demo.replies[id_] and other.replies[id_]))

    assert "mine" in demo.reply(id_)["output"]["text"]
    assert "theirs" in other.reply(id_)["output"]["text"]
    assert provider.calls()[id_] == 2


async def test_the_same_id_with_another_body_is_a_dead_letter_and_the_worker_goes_on(
    stage: Stage, demo: Outsider
) -> None:
    worker = stage.worker("relay")
    body = {"sender": "user", "message": "first", "timestamp": "2025-01-01T00:00:00Z"}
    id_ = await demo.publish(demo.command("relay.v1", body))
    await until("the first is answered", lambda: bool(demo.replies[id_]))
    first = demo.reply(id_)

    await demo.publish(demo.command("relay.v1", body | {"message": "second"}, message_id=id_))
    after = await demo.publish(demo.command("relay.v1", body))
    await until("the next is answered", lambda: bool(demo.replies[after]))

    letters = await stage.records.dead_letters(demo.name)
    assert [(letter["reason"], letter["message_id"]) for letter in letters] == [("id_reused", id_)]
    assert demo.reply(id_) == first
    assert worker.running


async def test_a_second_publication_after_the_end_gets_the_stored_reply(stage: Stage, demo: Outsider) -> None:
    provider = await stage.provider()
    stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
    question = {"model": "steady", "prompt": "again"}
    id_ = await demo.publish(demo.command("ai.send.v1", question))
    await until("it is answered", lambda: len(demo.replies[id_]) == 1)

    await demo.publish(demo.command("ai.send.v1", question, message_id=id_))
    await until("it is answered again", lambda: len(demo.replies[id_]) == 2)

    assert demo.reply(id_)["attempts"] == 1
    assert provider.calls()[id_] == 1
