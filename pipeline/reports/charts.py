"""Charts in SVG whose ink is that of the page they stand in: each has axes and units."""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SERIES = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6")
"""Told apart on light and on dark paper."""
INK = "#010203"
"""Stands for the ink of the page."""
ROOM = 1.08
"""Times the highest figure, so that its mark is whole."""
LETTER = 0.085
"""Inches of the name of an axis, for a letter."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pageferry",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def lines(
    series: Mapping[str, Sequence[tuple[object, float]]],
    across: str,
    up: str,
    *,
    bars: bool = False,
) -> str:
    """Figures (`up`) over values (`across`), which keep their order; a line for each series."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(7, 3)
        names = list(dict.fromkeys(str(x) for points in series.values() for x, _ in points))
        for number, (name, points) in enumerate(series.items()):
            places = [names.index(str(x)) for x, _ in points]
            heights, colour = [y for _, y in points], SERIES[number % len(SERIES)]
            if bars:
                axes.bar(places, heights, color=colour, label=name, width=0.6)
            else:
                axes.plot(places, heights, color=colour, label=name, marker="o")
        axes.set_xticks(range(len(names)), names)
        highest = max((y for points in series.values() for _, y in points), default=0)
        axes.set_ylim(0, highest * ROOM or 1)
        return _finished(figure, axes, across, up, legend=len(series) > 1)


def stacked(
    series: Mapping[str, Sequence[float]],
    names: Sequence[str],
    across: str,
    colours: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A bar for each of `names`, made of a piece of each series, one behind the other; those of a
    series whose name begins with _ are left empty. `colours`: of some series."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(7, 1.2 + 0.4 * len(names))
        begins = [0.0] * len(names)
        for number, (name, pieces) in enumerate(series.items()):
            colour = colours.get(name, SERIES[number % len(SERIES)])
            shown = "none" if name.startswith("_") else colour
            axes.barh(names, pieces, left=begins, color=shown, label=name)
            begins = [begin + piece for begin, piece in zip(begins, pieces, strict=True)]
        axes.invert_yaxis()
        return _finished(figure, axes, across, "", legend=True)


def scatter(groups: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    """Points, in groups, those of the first one above the others."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(7, 3.5)
        for number, (name, points) in enumerate(groups.items()):
            xs, ys = [x for x, _ in points], [y for _, y in points]
            colour, above = SERIES[number % len(SERIES)], 2 + 1 / (1 + number)
            axes.scatter(xs, ys, color=colour, label=name, s=28, zorder=above)
        return _finished(figure, axes, across, up, legend=len(groups) > 1)


def heat(
    table: Sequence[Sequence[float | None]],
    columns: Sequence[object],
    rows: Sequence[object],
    names: tuple[str, str, str],
) -> str:
    """A figure for each pair of values: `names` are those of columns, rows, and of the figure."""
    with mpl.rc_context(_STYLE):
        height = max(1.2 + 0.55 * len(rows), *(0.7 + LETTER * len(name) for name in names[1:]))
        figure, axes = _figure(1.5 + 1.1 * len(columns), height)
        filled = [[float("nan") if cell is None else cell for cell in row] for row in table]
        image = axes.imshow(filled, cmap="viridis_r", aspect="auto")
        middle = sum(image.get_clim()) / 2
        for y, row in enumerate(table):
            for x, cell in enumerate(row):
                ink = INK if cell is None else "white" if cell > middle else "black"
                text = "none" if cell is None else _short(cell)
                axes.text(x, y, text, ha="center", va="center", color=ink, fontweight="bold")
        axes.set_xticks(range(len(columns)), [str(one) for one in columns])
        axes.set_yticks(range(len(rows)), [str(one) for one in rows])
        figure.colorbar(image, ax=axes, label=names[2])
        return _finished(figure, axes, names[0], names[1], legend=False)


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(max(width, 4.5), height), layout="constrained")
    return figure, figure.add_subplot()


def _finished(figure: Figure, axes: Axes, across: str, up: str, *, legend: bool) -> str:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if legend:
        figure.legend(loc="outside upper center", frameon=False, ncols=8)
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    drawing = written.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
