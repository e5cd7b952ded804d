"""`pageferry tune`: makes the trials of an experiment, and says what came of them."""

import sys
from contextlib import closing
from pathlib import Path
from time import monotonic

from pipeline.config.units import format_bytes
from pipeline.laboratory.experiment import Experiment
from pipeline.laboratory.journal import Journal
from pipeline.laboratory.links import check_links
from pipeline.laboratory.loading import load_experiment
from pipeline.laboratory.measures import UNITS
from pipeline.laboratory.report import report
from pipeline.laboratory.running import Laboratory, subreaper
from pipeline.laboratory.search import Search
from pipeline.laboratory.standings import Place, Standing, Standings
from pipeline.laboratory.tables import write_best, write_tables
from pipeline.laboratory.trials import Row
from protocol.errors import ConfigError


def tune(path: Path, out: Path, *, resume: bool, quiet: bool) -> tuple[str, bool]:
    """Make the experiment of the file `path` into the folder `out`; what came of it, in words, and
    whether a setting did.

    ConfigError for what is wrong with it, or with the folder; what was made until then is kept.
    """
    experiment = load_experiment(path)
    check_links(experiment.links)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {out}: {error.strerror}") from None
    with closing(Journal(out / "trials.jsonl", experiment.signature, resume=resume)) as journal:
        progress = Progress(experiment, journal.rows, quiet=quiet)
        try:
            laboratory = Laboratory(experiment, out / "trial")
            with subreaper():
                Search(experiment, journal, laboratory.make, progress.told).run()
        except KeyboardInterrupt:
            sys.stderr.write(f"{len(journal.rows)} trials are kept: --resume goes on\n")
            raise
        except OSError as error:
            where, kept = error.filename or out, len(journal.rows)
            raise ConfigError(f"{where}: {error.strerror}; {kept} trials are kept") from None
        finally:
            found = _written(out, experiment, journal.rows)
        return found


class Progress:
    """A line a trial on standard error: how many, what came of it, best so far, time left."""

    def __init__(self, experiment: Experiment, known: list[Row], *, quiet: bool) -> None:
        self._objective = experiment.objectives[0]
        self._quiet = quiet
        self._made = len(known)
        self._here = 0
        self._began = monotonic()
        self._best: dict[Place, float] = {}
        for row in known:
            self._count(row)

    def told(self, row: Row, in_all: int | None) -> None:
        """One more was made."""
        self._made, self._here = self._made + 1, self._here + 1
        if self._quiet:
            return
        self._count(row)
        objective = self._objective
        of = "" if in_all is None else f" of {in_all}"
        known = self._best.get((row.trial.guest, row.trial.link))
        best = "" if known is None else f", best {shown(objective, known)}"
        sys.stderr.write(f"{self._made}{of}: {_said(row, objective)}{best}{self._left(in_all)}\n")

    def _count(self, row: Row) -> None:
        """Whether it is the best so far, of its guest and link."""
        figure, place = row.measures.get(self._objective), (row.trial.guest, row.trial.link)
        if figure is not None and row.trial.repetition >= 0:
            known = self._best.get(place, figure)
            self._best[place] = min(figure, known, key=lambda one: self._objective.sign * one)

    def _left(self, in_all: int | None) -> str:
        if in_all is None:
            return ""
        seconds = (monotonic() - self._began) / self._here * (in_all - self._made)
        return f", {seconds:.0f} s left"


def _said(row: Row, objective: str) -> str:
    setting = " ".join(f"{key}={value}" for key, value in row.trial.settings.items())
    if row.trial.repetition < 0:
        return f"warm-up, {setting}"
    if not row.measures:
        return f"{setting}: failed: {row.error}"
    return f"{setting}: {shown(objective, row.measures[objective])}"


def shown(measure: str, figure: float) -> str:
    """A figure with its unit, for people."""
    unit = UNITS[measure]
    if "bytes" in unit:
        return f"{format_bytes(figure)}{unit.removeprefix('bytes')}"
    return f"{figure:.0f} ms" if unit == "ms" else f"{figure:.2f} {unit}"


def _written(out: Path, experiment: Experiment, rows: list[Row]) -> tuple[str, bool]:
    """Write all results but the journal; as `tune`."""
    standings = Standings(rows, experiment.objectives, experiment.constraints)
    best = standings.best()
    about = _about(experiment, standings, best) if best else ""
    try:
        write_tables(out, experiment, rows)
        if best:
            write_best(out / "best.yaml", experiment, best[0], about)
        if rows:
            (out / "report.html").write_text(report(experiment, rows, standings, about))
    except OSError as error:
        raise ConfigError(f"--out: {out}: {error.strerror}; trials.jsonl has the trials") from None
    if not best:
        why = "keeps the constraints" if any(row.measures for row in rows) else "has completed"
        return f"no setting {why}; {out / 'trials.csv'} has all trials\n", False
    setting = "\n".join(f"  {key}: {value}" for key, value in best[0].settings.items())
    return f"{about}\n{setting}\n{out / 'best.yaml'}\n", True


def _about(experiment: Experiment, standings: Standings, best: list[Standing]) -> str:
    """What is known of the best one, in a few lines."""
    objective = experiment.objectives[0]
    lines = [f"the best of {len(standings.all)} settings of {experiment.name}, by {objective}"]
    for place in standings.places:
        figure = shown(objective, best[0].medians(place)[objective])
        link = experiment.links[place[1]].name
        apart = f", spread {best[0].spread(place, objective):.1%}"
        apart = apart if best[0].repetitions(place) > 1 else ""
        lines.append(f"guest {place[0]}, {link}: {figure}{apart}")
    if best[1:]:
        lines.append(f"ties with it: {len(best) - 1}, within the noise of"
                     f" {standings.noise(objective):.1%}")  # fmt: skip
    return "\n".join(lines)
