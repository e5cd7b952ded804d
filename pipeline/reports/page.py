"""A page: headings, words, tables and charts, all in one file of HTML without a script."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #6b7280;
  --line: #d6d9de; --shade: #f3f4f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15181c; --faint: #9aa3ad;
  --line: #3a4048; --shade: #1f242a; } }
@media print { :root { --ink: #000; --paper: #fff; --faint: #444; --line: #bbb; --shade: #f3f3f3; }
  figure, table { break-inside: avoid; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; color: var(--ink); }
figcaption { color: var(--faint); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: left; }
td.number { text-align: right; } tr.best { background: var(--shade); font-weight: 600; }
code { font-size: .9em; }
"""


class Page:
    """Filled from top to bottom; `html` is all of it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Of what follows."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def words(self, *sentences: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escape(' '.join(sentences))}</p>")

    def chart(self, svg: str, caption: str) -> None:
        """A drawing, and what it shows."""
        self._parts.append(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")

    def table(
        self, head: Sequence[str], rows: Iterable[Sequence[object]], best: int | None = None
    ) -> None:
        """Rows of cells; figures stand at the right. Row number `best` is set off."""
        cells = "".join(f"<th>{escape(name)}</th>" for name in head)
        body = "".join(_row(row, is_best=number == best) for number, row in enumerate(rows))
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    @property
    def html(self) -> str:
        """The file."""
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{escape(self._title)}</title>'
            f"<style>{STYLE}</style></head><body>\n" + "\n".join(self._parts) + "\n</body></html>\n"
        )


def _row(cells: Sequence[object], *, is_best: bool) -> str:
    kind = ' class="best"' if is_best else ""
    return f"<tr{kind}>{''.join(map(_cell, cells))}</tr>"


def _cell(cell: object) -> str:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return f"<td>{escape(str(cell))}</td>"
    figure = f"{cell:,}" if isinstance(cell, int) else f"{cell:,.6g}"
    return f'<td class="number">{figure}</td>'
