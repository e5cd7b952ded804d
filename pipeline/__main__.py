"""Start of the command. Imports next to nothing: every worker process imports it again."""

import signal


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a migration listens
    try:
        from pipeline.shell.cli import run_command

        raise SystemExit(run_command())
    except KeyboardInterrupt:  # so early that nobody else heard it
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
