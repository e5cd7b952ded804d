"""Charts, read as the SVG that they are."""

import re

from pipeline.reports import charts

TEXT = re.compile(r'<text style="([^"]*)"[^>]*>([^<]*)</text>')


BOX = re.compile(r'viewBox="0 0 [0-9.]+ ([0-9.]+)"')


def test_a_name_that_is_longer_than_a_heat_map_is_high() -> None:
    """A name of which the end is cut off."""
    name = "parameters.decompress-threads"
    drawn = charts.heat([[1.0, 2.0]], ["a", "b"], ["c"], ("level", name, "ms"))
    found = BOX.search(drawn)
    assert found
    middle = re.search(rf'x="[0-9.]+" y="([0-9.]+)"[^>]*>{name}<', drawn)
    assert middle
    half = len(name) * 5 / 2  # points: letters are no narrower, on average
    assert half <= float(middle[1]) <= float(found[1]) - half


def test_the_highest_mark_is_inside_of_its_chart() -> None:
    """A line of which a point is cut off, where all figures are nearly the same."""
    drawn = charts.lines({"x": [(1, 3609.25), (2, 3506.25)]}, "workers", "ms")
    box = re.search(r'<clipPath[^>]*>\s*<rect x="[0-9.]+" y="([0-9.]+)"', drawn)
    assert box
    marks = re.findall(r'<use [^>]*y="([0-9.]+)" style="fill: #', drawn)
    assert len(marks) == 2
    assert min(map(float, marks)) > float(box[1]) + 3


def test_a_cell_of_a_heat_map_without_a_figure_is_in_the_ink_of_the_page() -> None:
    """Black words on dark paper; on a light or a dark cell, ink of the same kind."""
    names = ("level", "workers", "total-time (ms)")
    drawn = charts.heat([[1.25, None], [700.0, 500.0]], ["a", "b"], ["c", "d"], names)
    inks = {text: style.partition("fill: ")[2] for style, text in TEXT.findall(drawn)}
    assert (inks["none"], inks["1.25"]) == ("currentColor", "")
    assert (inks["700"], inks["500"]) == ("#ffffff", "#ffffff")
    assert inks["level"] == inks["workers"] == inks["total-time (ms)"] == "currentColor"


def test_points_of_the_first_group_lie_above_the_others() -> None:
    """The one setting that nothing beats, hidden by one that is close to it."""
    drawn = charts.scatter({"front": [(1, 1)], "others": [(1, 1)]}, "ms", "s")
    marks = re.findall(r'<use [^>]*style="fill: (#[0-9a-f]+)', drawn.partition('id="legend_1"')[0])
    assert marks == [charts.SERIES[1], charts.SERIES[0]]
