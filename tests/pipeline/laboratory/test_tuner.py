"""The command as a whole, where nothing is left to be tried: mistakes, and what it writes."""

from contextlib import closing
from pathlib import Path

import pytest

from pipeline.laboratory.experiment import Settings
from pipeline.laboratory.journal import Journal
from pipeline.laboratory.loading import load_experiment
from pipeline.laboratory.trials import Row, Trial
from pipeline.laboratory.tuner import Progress
from pipeline.shell.cli import run_command

GUEST = "base: {guest: {kind: synthetic, memory: 8MiB}}\n"
EXPERIMENT = GUEST + "space: {codec: [none, zlib]}\nrepeat: 1\nwarm-up: 0\n"
ROUND = {"round": 1, "bytes": 8 << 20, "wire-bytes": 1 << 20}
WRITTEN = ["trials.parquet", "trials.csv", "best.yaml", "report.html"]


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of `pageferry tune` with these."""
    assert run_command(["tune", *arguments]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("pageferry: ")
    return shown.err


def row(codec: str, time: float) -> Row:
    """One that has completed."""
    settings: Settings = {"codec": codec}
    measures = {"total-time": time, "downtime": 5.0}
    return Row(trial=Trial(settings, 0, 0, 0), measures=measures, result={"rounds": [ROUND]})


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """The file of one whose trials are all made, into the folder `o` beside it."""
    path = tmp_path / "x.yaml"
    path.write_text(EXPERIMENT)
    (tmp_path / "o").mkdir()
    signature = load_experiment(path).signature
    with closing(Journal(tmp_path / "o/trials.jsonl", signature, resume=False)) as journal:
        journal.add(row("none", 300))
        journal.add(row("zlib", 100))
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GUEST + "space: {}", "x.yaml:2: space: found a mapping, expected at least 1 entries"),
        (GUEST + "space: {codek: [none]}", "space.codek: codek: found an unknown key (did you"),
        (EXPERIMENT + "constraint: []", "x.yaml:5: constraint: found an unknown key (did you"),
        (
            EXPERIMENT + "constraints: [downtime < 3, downtime > 3]",
            "x.yaml:5: constraints: nothing keeps both downtime > 3 and downtime < 3",
        ),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    """A traceback, an exit code that says nothing, a folder of an experiment that is none."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert told in complaint(capsys, str(path))
    assert list(tmp_path.iterdir()) == [path]


def test_what_it_leaves(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The slowest one, taken for the best; a file that is named and not there."""
    out = experiment.parent / "o"
    assert run_command(["tune", str(experiment), "--out", str(out), "--resume"]) == 0
    shown = capsys.readouterr()
    assert "codec: zlib" in shown.out
    assert "codec: zlib" in (out / "best.yaml").read_text()
    assert {path.name for path in out.iterdir()} == {*WRITTEN, "trials.jsonl"}


def test_the_best_so_far_is_that_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that goes on, and calls its first trial the best; a warm-up that is; another link's."""
    path = tmp_path / "x.yaml"
    path.write_text(EXPERIMENT)
    progress = Progress(load_experiment(path), [row("none", 300), row("zlib", 200)], quiet=False)
    warm = Row(trial=Trial({"codec": "none"}, 0, 0, -1), measures={"total-time": 50.0})
    there = Row(trial=Trial({"codec": "none"}, 0, 1, 0), measures={"total-time": 700.0})
    for one in (warm, row("zstd", 250), row("lz4", 100), there):
        progress.told(one, 6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", best ")[2].split(",")[0] for line in lines] == [
        "200 ms", "200 ms", "100 ms", "700 ms"
    ]  # fmt: skip
    assert lines[1].startswith("4 of 6: codec=zstd: 250 ms")


@pytest.mark.parametrize("name", WRITTEN)
def test_no_room_for_what_it_leaves(
    experiment: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A traceback of a library behind a night of trials, or trials that are gone."""
    out = experiment.parent / "o"
    (out / name).symlink_to("/dev/full")
    kept = (out / "trials.jsonl").read_bytes()
    said = complaint(capsys, str(experiment), "--out", str(out), "--resume")
    assert said.endswith("o: No space left on device; trials.jsonl has the trials\n")
    assert (out / "trials.jsonl").read_bytes() == kept
