"""The picture of a soak: one panel for each process, its memory over time and its slope."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")  # no screen

from matplotlib import pyplot as plt  # after the choice of the backend

from tests.soak.memory import History, Slope

_COLUMNS = 2


def draw(history: History, slopes: Mapping[str, Slope | None], *, warm_up_minutes: float, path: Path) -> None:
    """Write the picture as PNG.

    Args:
        history: What was measured.
        slopes: Of each process.
        warm_up_minutes: What the slopes leave out; drawn grey.
        path: Where to.
    """
    rows = -(-len(history.mebibytes) // _COLUMNS)
    figure, panels = plt.subplots(rows, _COLUMNS, figsize=(12, 2.6 * rows), squeeze=False, layout="constrained")
    for panel in panels.flat[len(history.mebibytes) :]:
        panel.set_visible(False)
    for panel, (name, values) in zip(panels.flat, history.mebibytes.items(), strict=False):
        found = slopes[name]
        panel.plot(history.minutes, values, linewidth=1)
        panel.axvspan(0, warm_up_minutes, color="0.93")
        told = f"{found.middle:+.2f} MiB/h [{found.low:+.2f}, {found.high:+.2f}]" if found else "too short for a slope"
        panel.set_title(f"{name}: {told}", fontsize=9)
        panel.set_xlabel("minutes", fontsize=8)
        panel.set_ylabel("resident MiB", fontsize=8)
        panel.set_ylim(0, max(values) * 1.15)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
