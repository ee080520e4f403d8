import pytest

from ops.simulators.phone.sh import SyntaxNotSimulated, parse
from ops.simulators.phone.syntax import Group, If, Part, Redirection, Simple


def argvs(line: str) -> list[list[str]]:
    return [command.argv for command in parse(line)]


def test_a_raw_line_runs_as_many_commands_as_it_holds() -> None:
    commands = parse("echo a; input keyevent 3 && true || false | grep x\nid")

    assert [(command.operator, command.argv) for command in commands] == [
        (";", ["echo", "a"]),
        (";", ["input", "keyevent", "3"]),
        ("&&", ["true"]),
        ("||", ["false"]),
        ("|", ["grep", "x"]),
        (";", ["id"]),
    ]


def test_quotes_hold_a_word_together() -> None:
    assert argvs("""echo 'a; b' "c && d" e\\ f g'h'"i" '' """) == [["echo", "a; b", "c && d", "e f", "ghi", ""]]
    assert argvs('echo "a\\"b\\$c\\d" "x\ny" a!') == [["echo", 'a"b$c\\d', "x\ny", "a!"]]


def test_assignments_stand_before_the_program() -> None:
    [command] = parse("ISH_MARKER='a b' input tap 1 2 x=3")

    assert isinstance(command, Simple)
    assert command.argv == ["input", "tap", "1", "2", "x=3"]
    assert [(name, [part.text for part in value]) for name, value in command.assignments] == [
        ("ISH_MARKER", ["", "a b"])
    ]


def test_variables_are_known_with_and_without_quotes() -> None:
    [command] = parse('echo $f "$f" "a${b}c" $?')

    assert isinstance(command, Simple)
    assert command.words[1] == (Part("f", quoted=False, is_variable=True),)
    assert Part("f", quoted=True, is_variable=True) in command.words[2]
    assert Part("b", quoted=True, is_variable=True) in command.words[3]
    assert command.words[4] == (Part("?", quoted=False, is_variable=True),)


def test_redirections_belong_to_their_command() -> None:
    first, second = parse("read f </data/local/tmp/x && echo 17 >>y 2>&1")

    assert first.redirections == [Redirection(0, "<", (Part("/data/local/tmp/x", quoted=False),))]
    assert [(each.stream, each.kind) for each in second.redirections] == [(1, ">>"), (2, ">&")]
    assert second.argv == ["echo", "17"]


def test_groups_and_conditions_hold_whole_lines() -> None:
    group, subshell, condition = parse("{ a; b; } && (c) ; if d; then e; elif f; then g; else h; fi")

    assert isinstance(group, Group)
    assert [command.argv for command in group.commands] == [["a"], ["b"]]
    assert isinstance(subshell, Group)
    assert subshell.subshell
    assert isinstance(condition, If)
    assert [[command.argv for command in body] for _, body in condition.branches] == [[["e"]], [["g"]]]
    assert [command.argv for command in condition.otherwise] == [["h"]]


def test_words_that_only_look_reserved_are_plain_arguments() -> None:
    assert argvs("echo if then { } [ ] for =") == [["echo", "if", "then", "{", "}", "[", "]", "for", "="]]


@pytest.mark.parametrize(
    "line",
    [
        *("echo $(id)", "echo `id`", 'echo "$(id)"', 'echo "`id`"', "echo ${a:-b}", "echo $1", "echo $((1))"),
        *("echo *", "echo a?", "echo [a]", "echo {a,b}", "echo ~", "a # b", "a &", "a & b", "a &> b", "a << b"),
        *("echo 'open", 'echo "open', "a &&", "a |", "; a", "a ;; b", "{ a; ", "( a", "a )", "if a; then b", "{ }"),
        *("for a in b; do c; done", "while true; do a; done", "case a in b) c;; esac", "fi", "a >", "a > ;"),
    ],
)
def test_what_is_not_simulated_is_refused_as_a_whole(line: str) -> None:
    with pytest.raises(SyntaxNotSimulated):
        parse(line)
