"""Start of the command. Imports next to nothing: every worker process imports it again."""

import os
import signal
from pathlib import Path

from pipeline.descriptors import note_inherited


def import_from_here_alone() -> None:
    """No process that is started from now on runs code that lies in the current folder."""
    root, others = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, others)))


def main() -> None:
    """Run the command line and exit with its code."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # until a migration listens
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, signal.default_int_handler)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's: they spin, and nobody uses them
    note_inherited()
    import_from_here_alone()
    try:
        from pipeline.shell.cli import run_command

        raise SystemExit(run_command())
    except KeyboardInterrupt:  # so early that nobody else heard it
        raise SystemExit(130) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # how it has ended is decided
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
