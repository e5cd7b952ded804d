"""Charts, read as the SVG that they are."""

import re

from pipeline.reports import charts

TEXT = re.compile(r'<text style="([^"]*)"[^>]*>([^<]*)</text>')


def test_a_cell_of_a_heat_map_without_a_figure_is_in_the_ink_of_the_page() -> None:
    """Black words on dark paper; on a light or a dark cell, ink of the same kind."""
    names = ("level", "workers", "total-time (ms)")
    drawn = charts.heat([[1.25, None], [700.0, 500.0]], ["a", "b"], ["c", "d"], names)
    inks = {text: style.partition("fill: ")[2] for style, text in TEXT.findall(drawn)}
    assert (inks["none"], inks["1.25"]) == ("currentColor", "")
    assert (inks["700"], inks["500"]) == ("#ffffff", "#ffffff")
    assert inks["level"] == inks["workers"] == inks["total-time (ms)"] == "currentColor"
