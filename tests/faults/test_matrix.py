"""The matrix of docs/faults.md, each cell made to happen: real processes, real signals.

Cases wait for silence and deadlines most of the time, so a few run at once.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL, SIGSTOP, Signals
from typing import NamedTuple

import pytest

from tests.faults.matrix import ending
from tests.faults.staged import POINTS
from tests.leaks import nothing_left

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"
AT_ONCE = 4
CI_TAKES = 8
"""One cell in so many; the others are slow. Every victim, point and signal is among them."""


class Cell(NamedTuple):
    """Who, when, by what; and where the guest is to be in the end."""

    victim: str
    point: str
    signal: Signals
    ending: str


def cells() -> list[Cell]:
    """What the document promises."""
    found = []
    for heading, signal in (("### The victim dies", SIGKILL), ("### The victim hangs", SIGSTOP)):
        section = DOCUMENT.read_text().partition(heading)[2].partition("\n#")[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        head, _, *body = rows
        for point, *endings in body:
            pairs = zip(head[1:], endings, strict=True)
            found += [Cell(victim, point, signal, told) for victim, told in pairs]
    return found


CELLS = cells()
QUICK = CELLS[::CI_TAKES]


@pytest.fixture(scope="module", name="endings")
def _endings(request: pytest.FixtureRequest) -> Iterator[dict[Cell, Future[str]]]:
    """The cells that were asked for, running."""
    wanted = [cell for item in request.session.items if (cell := _maybe_cell(item))]
    with nothing_left() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            cell: pool.submit(ending, folder / str(number), cell.victim, cell.point, cell.signal)
            for number, cell in enumerate(wanted)
        }


def _maybe_cell(item: pytest.Item) -> Cell | None:
    """The cell that a test is about."""
    return next((cell for cell in CELLS if item.name == f"test_a_cell[{_name(cell)}]"), None)


def _name(cell: Cell) -> str:
    return f"{cell.victim}-{cell.point}-{cell.signal.name}"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, marks=[] if cell in QUICK else pytest.mark.slow, id=_name(cell))
        for cell in CELLS
    ],
)
def test_a_cell(endings: dict[Cell, Future[str]], cell: Cell) -> None:
    """A guest that runs twice, nowhere without a word, or with a page that is wrong."""
    assert endings[cell].result() == cell.ending


def test_the_matrix_is_whole() -> None:
    """A point or victim that nobody looks at, or a selection that leaves one out."""
    assert {cell.point for cell in CELLS} == set(POINTS)
    assert len(CELLS) == len(POINTS) * 7 * 2
    for part in (0, 1, 2):
        assert {cell[part] for cell in QUICK} == {cell[part] for cell in CELLS}
