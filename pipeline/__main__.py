"""Start of the command. Imports nothing: every worker process imports the main module again."""


def main() -> None:
    """Run the command line and exit with its code."""
    from pipeline.cli import run_command

    raise SystemExit(run_command())


if __name__ == "__main__":
    main()
