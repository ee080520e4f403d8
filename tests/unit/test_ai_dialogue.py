"""What a model is shown of a conversation, and what is left out when it has no room for all of it."""

from uuid import UUID, uuid4

import pytest

from contracts.ai.chat import AiSend
from workers.ai.dialogue import Dialogue, Line, estimate_tokens, wants_history


def line(sender: str, text: str, command_id: UUID | None = None) -> Line:
    return Line(sender, text, command_id or uuid4())


def asked(**fields: object) -> AiSend:
    return AiSend.model_validate({"prompt": "and now?", "conversation_id": "room", **fields})


def test_the_history_stands_oldest_first_between_the_system_line_and_the_question() -> None:
    newest_first = [line("bot", "two"), line("user", "one")]

    messages = Dialogue.of(asked(system="be brief"), newest_first).messages(8_000)

    assert messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "and now?"},
    ]


@pytest.mark.parametrize(("context_tokens", "kept"), [(1_000, 2), (1_250, 4), (10_000, 20)])
def test_the_oldest_lines_are_left_out_until_the_rest_fits_the_models_context(context_tokens: int, kept: int) -> None:
    newest_first = [line("bot" if number % 2 == 0 else "user", f"{number:3} " + "x" * 396) for number in range(20)]

    messages = Dialogue.of(asked(max_tokens=700), newest_first).messages(context_tokens)

    assert [message["content"][:3].strip() for message in messages[:-1]] == [str(n) for n in reversed(range(kept))]
    assert sum(estimate_tokens(message["content"]) for message in messages) <= context_tokens - 700


def test_an_answer_whose_question_is_cut_off_is_left_out_too() -> None:
    newest_first = [line("user", "three"), line("bot", "two"), line("user", "x" * 100_000)]

    messages = Dialogue.of(asked(), newest_first).messages(4_000)

    assert [message["content"] for message in messages] == ["three", "and now?"]


def test_the_question_itself_is_never_left_out() -> None:
    payload = asked(prompt="x" * 50_000)

    assert Dialogue.of(payload, [line("user", "one")]).messages(100) == [{"role": "user", "content": payload.prompt}]


def test_the_relayed_line_that_is_being_answered_is_not_shown_twice() -> None:
    relay = uuid4()

    messages = Dialogue.of(asked(in_reply_to=str(relay)), [line("user", "and now?", relay)]).messages(None)

    assert messages == [{"role": "user", "content": "and now?"}]


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        ({"prompt": "a"}, False),
        ({"prompt": "a", "conversation_id": "c"}, True),
        ({"messages": [{"role": "user", "content": "a"}], "conversation_id": "c"}, True),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": "c"},
                ],
                "conversation_id": "c",
            },
            False,
        ),
    ],
    ids=["no conversation", "a prompt", "a message", "a dialogue of its own"],
)
def test_the_history_is_shown_unless_the_messages_bring_their_own(payload: dict[str, object], *, wanted: bool) -> None:
    assert wants_history(AiSend.model_validate(payload)) is wanted


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("four", 1), ("fives", 2), ("你好", 2), ("hi 你", 2)])
def test_a_token_is_four_ascii_characters_or_one_of_another_script(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
