"""How every command writes to the terminal: tables that keep within its width, and text that is shown as text.

Nothing here is read as rich's markup, and no control character of what others wrote reaches the terminal.
"""

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contracts.plain_text import plain

_LONGEST_WHOLE = 64
_LEAST_READABLE = 12
"""Columns that a value needs, unless it is shorter, to be read although it is folded."""
_ANY_WIDTH = 100_000


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; in a pipe 80 columns, or what COLUMNS says.

    Args:
        stderr: For progress, so that what is piped stays clean.
    """
    return Console(markup=False, highlight=False, emoji=False, stderr=stderr)


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Collection[str] = (), gap: int = 2
) -> Table:
    """A table of what others wrote.

    Args:
        headers: One per column.
        rows: A value per column; None is an empty cell, a `Text` keeps its colour.
        whole: Columns whose values are copied, such as ids: never broken, unless longer than 64 characters.
        gap: Spaces between two columns.
    """
    made = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
    cells = [[_cell(value) for value in row] for row in rows]
    for place, header in enumerate(headers):
        longest = max((row[place].cell_len for row in cells), default=0)
        made.add_column(Text(header), overflow="fold", no_wrap=header in whole and longest <= _LONGEST_WHOLE)
    for row in cells:
        made.add_row(*row)
    return made


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    whole: Collection[str] = (),
    spare: Sequence[str] = (),
    gap: int = 2,
) -> None:
    """Print a table on standard output; one block of lines per row where its columns would be too narrow to read.

    Args:
        headers: See `table`.
        rows: See `table`.
        whole: See `table`.
        spare: Columns that are left out of a table, the first one first, where it would be wider than the terminal.
        gap: See `table`.
    """
    out, names, values = console(), list(headers), [list(row) for row in rows]
    made = table(names, values, whole=whole, gap=gap)
    for name in spare:
        if fits(out, made):
            break
        place = names.index(name)
        names.pop(place)
        for row in values:
            row.pop(place)
        made = table(names, values, whole=whole, gap=gap)
    if _is_readable(made, names, values, whole=whole, gap=gap, width=out.width):
        out.print(made)
    else:
        _print_blocks(out, headers, rows)


def _is_readable(
    made: Table,
    names: Sequence[str],
    values: Sequence[Sequence[object]],
    *,
    whole: Collection[str],
    gap: int,
    width: int,
) -> bool:
    """Whether what is copied stays unbroken, and leaves the other columns room for more than a few letters a line."""
    needed = gap * (len(names) - 1)
    for place, (name, column) in enumerate(zip(names, made.columns, strict=True)):
        longest = max((_cell(row[place]).cell_len for row in values), default=0)
        least = longest if column.no_wrap else min(longest, _LEAST_READABLE)
        needed += max(least, len(name))
    return needed <= width or not whole


def _print_blocks(out: Console, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    for number, row in enumerate(rows):
        block = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for header, value in zip(headers, row, strict=True):
            cell = _cell(value)
            if cell.plain:
                block.add_row(Text(header), cell)
        if number:
            out.print()
        out.print(block)


def fits(out: Console, made: Table) -> bool:
    """Whether a table can be printed without breaking a line.

    Args:
        out: Where.
        made: The table.
    """
    return made.__rich_measure__(out, out.options.update(max_width=_ANY_WIDTH)).maximum <= out.width


def print_text(text: object, *, indent: int = 0, out: Console | None = None) -> None:
    """Print sentences, wrapped at the terminal's width.

    Args:
        text: Line ends are kept.
        indent: Columns to the left.
        out: Where; standard output without it.
    """
    shown = Text(plain(text, lines=True), overflow="fold")
    (out or console()).print(Padding(shown, (0, 0, 0, indent), expand=False) if indent else shown)


def write_line(text: object) -> None:
    """Write one line to standard output at once and never wrapped: a script may be waiting for it.

    Args:
        text: The line.
    """
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def write_json(document: Any) -> None:
    """Write JSON to standard output; ASCII only, so no character of it steers the terminal.

    Args:
        document: JSON-ready, but for times and ids.
    """
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")
    sys.stdout.flush()


def _cell(value: object) -> Text:
    return value if isinstance(value, Text) else Text(plain(value, lines=True))
