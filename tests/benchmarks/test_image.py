"""The image that the benchmarks move: its shares, its determinism, its file pages."""

import itertools
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.image import LONGEST_RUN_PAGES, FilePages, Kind, build_image, plan_runs
from benchmarks.report import Results
from benchmarks.running import Measured
from protocol.limits import PAGE_BYTES

PAGES = 10_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three files without a zero page: a page and a half, two pages, and less than a page."""
    folder = tmp_path / "files"
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_bytes(b"a" * (PAGE_BYTES * 3 // 2))
    (folder / "below" / "b").write_bytes(b"b" * (PAGE_BYTES * 2))
    (folder / "small").write_bytes(b"s" * 100)
    (folder / "link").symlink_to("small")
    return folder


def test_shares_are_exact() -> None:
    """Would catch shares that drift with the drawn lengths, or pages lost in cutting."""
    pages: Counter[Kind] = Counter()
    for run in plan_runs(PAGES, random.Random(3)):
        pages[run.kind] += run.pages
    assert pages == {Kind.ZERO: 3000, Kind.RANDOM: 500, Kind.FILE: 6500}


def test_kinds_are_interleaved_in_runs_of_varied_length() -> None:
    """Would catch an image in three lumps, or one of equal runs."""
    runs = plan_runs(PAGES, random.Random(3))
    lengths = {run.pages for run in runs}
    assert min(lengths) >= 1
    assert max(lengths) < LONGEST_RUN_PAGES
    assert len(lengths) > 20
    changes = sum(a.kind is not b.kind for a, b in itertools.pairwise(runs))
    assert changes > len(runs) // 4


def test_image_holds_the_planned_shares(tmp_path: Path, root: Path) -> None:
    """Would catch a wrong size, zero pages left out, or padded ends of files."""
    path = tmp_path / "image"
    build_image(path, PAGES * PAGE_BYTES, seed=1, root=root)
    pages = np.fromfile(path, dtype=np.uint8).reshape(-1, PAGE_BYTES)
    assert len(pages) == PAGES
    uniform = (pages == pages[:, :1]).all(axis=1)
    assert Counter(pages[uniform, 0].tolist()).keys() == {0, ord("a"), ord("b")}
    assert (pages[uniform, 0] == 0).sum() == 3000
    assert (~uniform).sum() == 500


def test_same_seed_same_image(tmp_path: Path, root: Path) -> None:
    """Would catch a source of chance beside the seed: figures of two days would not compare."""
    images = []
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        build_image(tmp_path / name, 200 * PAGE_BYTES, seed, root)
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]
    assert images[0] != images[2]


def test_stream_goes_round_and_loses_nothing(root: Path) -> None:
    """Would catch pages dropped between two takes, or an end of the stream."""
    stream = FilePages([root / "a", root / "below" / "b"], random.Random(1))
    taken = stream.take(2) + stream.take(5) + stream.take(2)
    counts = Counter(taken[::PAGE_BYTES])
    assert len(taken) == 9 * PAGE_BYTES
    assert counts == {ord("a"): 3, ord("b"): 6}


def test_nothing_to_build_from(tmp_path: Path) -> None:
    """Would catch an endless search for file pages where there are none."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no readable file"):
        build_image(tmp_path / "image", PAGE_BYTES, 1, tmp_path / "empty")


def test_ratio_is_the_median_of_the_rounds() -> None:
    """Would catch a ratio of medians, or one upside down: 2x, 3x and 10x have the median 3x."""
    results = Results(image_bytes=1 << 20)
    for ours, theirs in ((1.0, 2.0), (5.0, 15.0), (1.0, 10.0)):
        results.add("pageferry-zlib", Measured(ours, 0))
        results.add("qemu-compress", Measured(theirs, 0))
    assert results.ratios() == {("pageferry-zlib", "qemu-compress"): pytest.approx(3.0)}
