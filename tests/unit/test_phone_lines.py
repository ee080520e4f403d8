import asyncio
from pathlib import Path

import pytest

from ops.simulators.phone.device import Device
from ops.simulators.phone.effects import EffectLog, read_effects
from ops.simulators.phone.lab import Printed, shell, until

FENCED = '{ read f </data/local/tmp/ish.fence && [ "$f" = 17 ]; } || { echo ish-fenced >&2; exit 113; }; input tap 1 2'


@pytest.fixture
def device() -> Device:
    return Device("SIM1", EffectLog(None))


def actions(device: Device) -> list[str]:
    return [effect["action"] for effect in device.effects.latest]


@pytest.mark.parametrize(
    ("line", "stdout", "stderr", "exit_code"),
    [
        ("echo out; echo err >&2; exit 7", b"out\n", b"err\n", 7),
        ("foo", b"", b"/system/bin/sh: foo: inaccessible or not found\n", 127),
        ("false && echo a || echo b; echo c", b"b\nc\n", b"", 0),
        ("false && echo a | grep a; echo $?", b"1\n", b"", 0),
        ("true || echo a && echo b", b"b\n", b"", 0),
        ("! true; echo $?; ! false && echo $?", b"1\n0\n", b"", 0),
        ("seq 3 | grep -v 2 | grep -c .", b"2\n", b"", 0),
        ("a=' x  y '; echo $a; echo \"$a\"; echo $none", b"x y\n x  y \n\n", b"", 0),
        ('[ "$none" = "" ] && [ -z "$none" ] && [ 3 -gt 2 ] && test ! -e /nope && echo yes', b"yes\n", b"", 0),
        ("[ 1 = 1", b"", b"/system/bin/sh: [: missing ]\n", 2),
        ("if false; then echo a; elif true; then echo b; else echo c; fi", b"b\n", b"", 0),
        ("if false; then echo a; fi; echo $?", b"0\n", b"", 0),
        ("(exit 3); echo $?; { exit 4; }; echo never", b"3\n", b"", 4),
        ("a=1; (a=2; echo $a); echo $a", b"2\n1\n", b"", 0),
        ("echo a b c | { read x y; echo $y; }", b"b c\n", b"", 0),
        ("read x </dev/null; echo $?", b"1\n", b"", 0),
        ("export A=b; echo $A; exec echo last; echo never", b"b\nlast\n", b"", 0),
        ("exit 300", b"", b"", 44),
        ("read x </nope", b"", b"/system/bin/sh: can't open /nope: No such file or directory\n", 1),
        ("echo a >/system/a", b"", b"/system/bin/sh: can't create /system/a: Read-only file system\n", 1),
        ("echo a 2>/dev/null >/dev/null", b"", b"", 0),
        ("cat", b"typed", b"", 0),
    ],
)
async def test_a_line_prints_and_exits_as_on_a_phone(
    device: Device, line: str, stdout: bytes, stderr: bytes, exit_code: int
) -> None:
    assert await shell(device, line, stdin=b"typed") == Printed(stdout, stderr, exit_code)


async def test_a_line_that_is_not_simulated_does_nothing_but_be_logged(device: Device) -> None:
    printed = await shell(device, "input tap 1 2; echo $(id)")

    assert (printed.stdout, printed.exit_code) == (b"", 2)
    assert actions(device) == ["syntax_not_simulated"]


async def test_files_are_written_whole_and_read_back(device: Device) -> None:
    await shell(device, "echo 17 >/sdcard/a; echo 18 >>/sdcard/a; { echo out; echo err >&2; } >/sdcard/b 2>&1")

    assert (await shell(device, "cat /sdcard/a /sdcard/b")).stdout == b"17\n18\nout\nerr\n"
    assert actions(device) == ["write_file"] * 3
    assert device.effects.latest[0]["text"] == "17\n"


async def test_what_an_exit_leaves_behind_is_in_the_file(device: Device) -> None:
    assert (await shell(device, "{ echo a; exit 5; } >/sdcard/a")).exit_code == 5

    assert (await shell(device, "cat /sdcard/a")).stdout == b"a\n"


@pytest.mark.parametrize("fence", ["18", "", "17 x"])
async def test_a_fenced_line_is_refused_under_another_token(device: Device, fence: str) -> None:
    await shell(device, f"echo {fence} >/data/local/tmp/ish.fence")

    assert await shell(device, FENCED) == Printed(b"", b"ish-fenced\n", 113)
    assert "tap" not in actions(device)


async def test_a_fenced_line_runs_under_its_token_and_not_without_a_file(device: Device) -> None:
    assert (await shell(device, FENCED)).exit_code == 113

    await shell(
        device, "echo 17 >/data/local/tmp/ish.fence.new && mv /data/local/tmp/ish.fence.new /data/local/tmp/ish.fence"
    )
    assert await shell(device, FENCED) == Printed(b"", b"", 0)
    assert actions(device) == ["write_file", "move_file", "tap"]


async def test_a_phone_that_keeps_no_files_says_so(device: Device) -> None:
    device.control.change(writes_files=False)

    printed = await shell(device, "echo 17 >/data/local/tmp/ish.fence")

    assert printed == Printed(
        b"", b"/system/bin/sh: can't create /data/local/tmp/ish.fence: No space left on device\n", 1
    )
    assert device.effects.count == 0


async def test_effects_that_take_time_have_a_begin_and_an_end(tmp_path: Path) -> None:
    log = EffectLog(tmp_path / "effects.jsonl")
    device = Device("SIM1", log)
    device.control.change(slow_seconds={"am": 0.01})

    await shell(device, "ISH_MARKER=first input swipe 1 2 3 4 10; am force-stop com.ish.notes; input tap 5 6")
    log.close()

    swipe, stop, tap = read_effects(tmp_path / "effects.jsonl")
    assert swipe["monotonic"] < swipe["ended_monotonic"] <= stop["monotonic"] < stop["ended_monotonic"]
    assert "ended_monotonic" not in tap
    assert (swipe["marker"], swipe["serial"], swipe["running"]) == ("first", "SIM1", 1)
    assert (tap["x"], tap["y"], tap["hit"]["package"]) == (5, 6, "com.ish.launcher")


async def test_an_effect_that_is_cut_off_ends_in_the_log(tmp_path: Path) -> None:
    log = EffectLog(tmp_path / "effects.jsonl")
    device = Device("SIM1", log)

    async with asyncio.TaskGroup() as tasks:
        swiping = tasks.create_task(shell(device, "input swipe 1 2 3 4 60000"))
        await until(lambda: device.effects.count > 0)
        swiping.cancel()
    log.close()

    [swipe] = read_effects(tmp_path / "effects.jsonl")
    assert swipe["ended_monotonic"] - swipe["monotonic"] < 60


async def test_the_count_of_effects_goes_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        log = EffectLog(tmp_path / "effects.jsonl")
        await shell(Device("SIM1", log), "input swipe 1 2 3 4 1; input tap 1 1")
        log.close()

    assert [effect["n"] for effect in read_effects(tmp_path / "effects.jsonl")] == [1, 2, 3, 4]
