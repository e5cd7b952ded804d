"""What tests of whole migrations share: a folder in which nothing may be left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import nothing_left


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path for sockets and files; the test fails for whatever is left behind."""
    with nothing_left() as made:
        yield made
