"""`pageferry tune`: throughput tuning experiments."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.config.environment import check_packages
from pipeline.result import write_out
from pipeline.shell.options import Quiet
from protocol.errors import ConfigError


def tune(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="A YAML file.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For results; default: EXPERIMENT with .results."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in DIR: nothing is made twice.")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Try many settings on this machine, and find out which is best.

    \b
    pageferry tune configs/experiments/level-threads.yaml --out /tmp/levels
    pageferry tune configs/experiments/level-threads.yaml --out /tmp/levels --resume
    """
    check_packages("tune", "optuna", "polars", "matplotlib")
    from pipeline.laboratory.tuner import tune as tune_here

    if not experiment.is_file():
        raise ConfigError(f"{experiment}: cannot be read: no such file")
    folder = out or experiment.with_suffix(".results")
    words, found = tune_here(experiment, folder, resume=resume, quiet=quiet)
    write_out(words)
    return 0 if found else 1
