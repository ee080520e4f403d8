"""How much of the processors' time the machine's host has given to others: `python -m tests.stolen_time now|since NOW`.

Linux counts it as `steal` in /proc/stat. A test that fails while a fifth of the time is stolen says little about the code.
"""

import sys
from pathlib import Path

_STEAL = 7
"""Its place among the numbers of the line `cpu`; the two after it are counted in the first two already."""


def counters(stat: str) -> tuple[int, int]:
    """Stolen and all ticks since the machine started.

    Args:
        stat: What /proc/stat holds.
    """
    name, *numbers = stat.splitlines()[0].split()
    if name != "cpu":
        raise ValueError(f"/proc/stat begins with {name!r}, not with 'cpu'")
    ticks = [int(number) for number in numbers[: _STEAL + 1]]
    return ticks[_STEAL], sum(ticks)


def percent(before: tuple[int, int], after: tuple[int, int]) -> float:
    """How much was stolen between two looks.

    Args:
        before: From `counters`.
        after: From `counters`, later.
    """
    stolen, all_ticks = (later - earlier for earlier, later in zip(before, after, strict=True))
    return 100 * stolen / all_ticks if all_ticks else 0.0


def main(arguments: list[str]) -> str:
    """What the command says.

    Args:
        arguments: `now`, or `since` and what `now` said.
    """
    current = counters(Path("/proc/stat").read_text(encoding="ascii"))
    if arguments == ["now"]:
        return "{}:{}".format(*current)
    _, earlier = arguments
    stolen, all_ticks = earlier.split(":")
    return f"{percent((int(stolen), int(all_ticks)), current):.1f}"


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
