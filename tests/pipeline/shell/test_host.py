"""`pageferry host` and mistakes of whoever starts it."""

import pytest

from pipeline.shell.cli import run_command


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tls://127.0.0.1:9", "no keys for TLS: Dask's configuration names them"),
        ("nowhere", "missing port number"),
        ("tcp://host.invalid:9", "host.invalid"),
    ],
)
def test_a_scheduler_that_cannot_be_is_one_line(
    address: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page of Dask's own words for a key that is not there."""
    assert run_command(["host", "a", "--scheduler", address]) == 2
    said = capsys.readouterr().err.strip()
    assert f"--scheduler: {address}: " in said
    assert words in said
    assert "\n" not in said
