import pytest

from contracts.errors import ErrorCode
from workers.android.adb.server import ShellOutput
from workers.android.readings import failure
from workers.android.reasons import MAX_REASON_CHARACTERS, complains, reason

FRAMES = "".join(f"\tat com.android.server.pm.Manager.call{n}(Manager.java:{n})\n" for n in range(200))
NO_USER = "java.lang.SecurityException: Shell does not have permission to access user 150"


@pytest.mark.parametrize(
    ("stdout", "stderr", "line"),
    [
        ("", f"\nException occurred while executing 'list':\n{NO_USER}\n{FRAMES}", NO_USER),
        ("", FRAMES + NO_USER, NO_USER),
        ("  bash arg: -p\n", "** SYS_KEYS has no physical keys but with factor 2.0%.\n", None),
        ("  bash arg: -p\n  bash arg: com.a\n** No activities found to run, monkey aborted.\n", "", None),
        (
            "\tpkg: /data/local/tmp/a.apk\nFailure [INSTALL_FAILED_TEST_ONLY]\n",
            "",
            "Failure [INSTALL_FAILED_TEST_ONLY]",
        ),
        ("", "avc: denied for vendor.log: x\nFailure [INSTALL_FAILED_OLDER_SDK: needs 30]\n", None),
        (
            "Starting: Intent { cmp=com.a/.B }\n",
            "Error type 3\nError: Activity class {com.a/.B} does not exist.\n",
            "Error: Activity class {com.a/.B} does not exist.",
        ),
        (
            "",
            "Security exception: Permission Denial: not exported from uid 10\n\njava.lang.NullPointerException\n",
            None,
        ),
        ("", "ERROR: could not get idle state.\n", "ERROR: could not get idle state."),
        ("", "WARNING: linker: x has text relocations\ncat: /sdcard/x: No such file\n", "cat: /sdcard/x: No such file"),
        ("just this\n", "", "just this"),
        ("", "", "it printed nothing"),
    ],
)
def test_the_reason_is_the_line_that_holds_it(stdout: str, stderr: str, line: str | None) -> None:
    output = ShellOutput(stdout.encode(), stderr.encode(), 255)
    wanted = line or next(one for one in (stdout + stderr).splitlines() if one[:2] in ("**", "Fa", "Se"))

    assert reason(output) == wanted
    assert failure(output).message.endswith(wanted)


def test_a_reason_is_never_longer_than_a_sentence() -> None:
    assert len(reason(ShellOutput(b"", b"Error: " + b"x" * 10_000, 1))) == MAX_REASON_CHARACTERS


@pytest.mark.parametrize(
    ("printed", "failed"),
    [
        ("Starting: Intent { cmp=com.a/.ErrorActivity }\n", False),
        ("Warning: Activity not started, its current task has been brought to the front\n", False),
        ("Broadcast completed: result=0\n", False),
        ("Error: Invalid arguments\n", True),
        (NO_USER, True),
        ("** No activities found to run, monkey aborted.\n", True),
        ("java.lang.NullPointerException\n\tat a.B.c(B.java:1)\n", True),
        ("java.lang.ClassNotFoundException: com.vendor.Booster\n\tat a.B.c(B.java:1)\n", False),
    ],
)
def test_a_program_that_exits_with_0_may_still_say_that_it_failed(printed: str, *, failed: bool) -> None:
    assert complains(ShellOutput(printed.encode(), b"", 0)) is failed


def test_a_user_that_adb_may_not_see_is_denied_without_advice_on_input() -> None:
    error = failure(ShellOutput(b"", NO_USER.encode(), 255))

    assert error.code is ErrorCode.DENIED
    assert "Security settings" not in error.message
