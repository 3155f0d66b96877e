"""The health report as a picture: use of every level above; perplexity, reconstruction, collisions below."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genrec.files import atomic_file
from genrec.tokenizers.health import Health, LevelHealth

_BLUE, _ORANGE, _GREY, _LIGHT = "#2b6ca3", "#d9822b", "#8a8a8a", "#e3e3e3"
_LINES = (_BLUE, _ORANGE, "#3f8f5b", "#a3477a", _GREY)


def plot_health(health: Health, file: Path) -> None:
    """Write the report as a PNG file."""
    width = 3.2 * max(3, len(health.levels))
    figure = Figure(figsize=(width, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    usage = above.subplots(1, len(health.levels), squeeze=False)[0]
    for number, (axes, level) in enumerate(zip(usage, health.levels, strict=True), start=1):
        _plot_usage(axes, level, number, even=health.num_items / level.size)
    perplexity, reconstruction, collisions = below.subplots(1, 3)
    _plot_perplexity(perplexity, health)
    _plot_reconstruction(reconstruction, health)
    _plot_collisions(collisions, health)
    with atomic_file(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _plot_usage(axes: Axes, level: LevelHealth, number: int, *, even: float) -> None:
    counts = np.sort(level.counts)[::-1]
    axes.fill_between(np.arange(1, len(counts) + 1), counts, step="mid", color=_BLUE, linewidth=0)
    axes.axhline(even, color=_ORANGE, linewidth=1.2, label="even use")
    axes.set_title(f"level {number}: {level.used} of {level.size} used", fontsize=10)
    axes.set_xlabel("codes, most used first")
    axes.set_ylabel("items")
    axes.set_ylim(bottom=0, top=1.25 * max(float(counts[0]), even))
    axes.legend(fontsize=8, frameon=False, loc="upper right")


def _plot_perplexity(axes: Axes, health: Health) -> None:
    names = [str(number) for number in range(1, len(health.levels) + 1)]
    axes.bar(names, [level.size for level in health.levels], color=_LIGHT)
    bars = axes.bar(names, [level.perplexity for level in health.levels], color=_BLUE, width=0.55)
    axes.bar_label(bars, fmt="%.0f", fontsize=9)
    axes.set_title("perplexity per level (grey: codes)", fontsize=10)
    axes.set_xlabel("level")
    axes.margins(y=0.12)


def _plot_reconstruction(axes: Axes, health: Health) -> None:
    read = np.arange(1, health.num_own_levels + 1)
    for (name, errors), color in zip(health.reconstruction.items(), cycle(_LINES)):
        axes.plot(read, errors, marker="o", color=color, label=name)
    axes.legend(fontsize=8, frameon=False)
    axes.set_xticks(read)
    axes.set_ylim(bottom=0)
    axes.set_title("reconstruction error, share of variance", fontsize=10)
    axes.set_xlabel("codes read")


def _plot_collisions(axes: Axes, health: Health) -> None:
    shares = [100 * health.colliding_before, 100 * health.colliding_after]
    bars = axes.bar(["before policy", "after policy"], shares, color=[_GREY, _BLUE])
    axes.bar_label(bars, fmt="%.1f %%", fontsize=9)
    axes.set_title("items that share all codes", fontsize=10)
    axes.set_ylabel("% of items")
    axes.set_ylim(bottom=0, top=max(1.0, 1.2 * max(shares)))
