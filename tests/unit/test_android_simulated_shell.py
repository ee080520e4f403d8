import pytest

from ops.phone.sh import SimpleCommand, SyntaxNotSimulated, parse


def argvs(line: str) -> list[list[str]]:
    return [command.argv for command in parse(line)]


def test_a_raw_line_runs_as_many_commands_as_it_holds() -> None:
    assert parse("echo a; input keyevent 3 && true || false | grep x\nid") == [
        SimpleCommand(";", argv=["echo", "a"]),
        SimpleCommand(";", argv=["input", "keyevent", "3"]),
        SimpleCommand("&&", argv=["true"]),
        SimpleCommand("||", argv=["false"]),
        SimpleCommand("|", argv=["grep", "x"]),
        SimpleCommand(";", argv=["id"]),
    ]


def test_quotes_hold_a_word_together() -> None:
    assert argvs("""echo 'a; b' "c && d" e\\ f g'h'"i" '' """) == [["echo", "a; b", "c && d", "e f", "ghi", ""]]


def test_assignments_stand_before_the_program() -> None:
    assert parse("ISH_MARKER='a b' input tap 1 2 x=3") == [
        SimpleCommand(";", assignments={"ISH_MARKER": "a b"}, argv=["input", "tap", "1", "2", "x=3"])
    ]


@pytest.mark.parametrize(
    "line", ["echo $(id)", "echo `id`", 'echo "$HOME"', "echo > x", "echo *", "a & b", "echo 'open"]
)
def test_what_is_not_simulated_is_refused_as_a_whole(line: str) -> None:
    with pytest.raises(SyntaxNotSimulated):
        parse(line)
