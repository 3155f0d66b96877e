"""The health report as a picture: use of every level, perplexity, reconstruction, collisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genrec.run import atomic_file
from genrec.tokenizers.health import Health

_BLUE, _ORANGE, _GREY = "#2b6ca3", "#d9822b", "#8a8a8a"


def plot_health(health: Health, file: Path) -> None:
    """Write a PNG: one row of usage curves, one of summaries."""
    levels = health.levels
    columns = max(3, len(levels))
    figure = Figure(figsize=(3.4 * columns, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    for number, level in enumerate(levels, start=1):
        axes = figure.add_subplot(2, columns, number)
        counts = np.sort(level.counts)[::-1]
        axes.fill_between(np.arange(len(counts)), counts, step="mid", color=_BLUE, linewidth=0)
        axes.axhline(health.num_items / level.size, color=_ORANGE, linewidth=1.2, label="even use")
        axes.set_title(f"level {number}: {level.used} of {level.size} used", fontsize=10)
        axes.set_xlabel("codes, most used first")
        axes.set_ylabel("items")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, frameon=False)
    names = [str(number) for number in range(1, len(levels) + 1)]
    axes = figure.add_subplot(2, 3, 4)
    axes.bar(names, [level.size for level in levels], color="#e3e3e3", label="codes")
    axes.bar(names, [level.perplexity for level in levels], color=_BLUE, width=0.5, label="perplexity")
    axes.set_title("perplexity per level", fontsize=10)
    axes.set_xlabel("level")
    axes.legend(fontsize=8, frameon=False)
    axes = figure.add_subplot(2, 3, 5)
    axes.plot(names[: len(health.reconstruction)], health.reconstruction, marker="o", color=_BLUE)
    axes.set_ylim(bottom=0)
    axes.set_title("reconstruction error, share of variance", fontsize=10)
    axes.set_xlabel("codes read")
    axes = figure.add_subplot(2, 3, 6)
    shares = [100 * health.colliding_before, 100 * health.colliding_after]
    bars = axes.bar(["before policy", "after policy"], shares, color=[_GREY, _BLUE])
    axes.bar_label(bars, fmt="%.1f %%", fontsize=9)
    axes.set_title("items sharing all codes", fontsize=10)
    axes.set_ylabel("% of items")
    axes.margins(y=0.15)
    with atomic_file(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
