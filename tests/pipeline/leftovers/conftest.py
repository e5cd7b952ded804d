"""A process whose memory migrates, for the tests of what is left of that."""

from collections.abc import Iterator

import pytest

from pipeline.records.processes import Process, maybe_process
from tests.pipeline.guests.helpers import python


@pytest.fixture(name="writer")
def _writer() -> Iterator[Process]:
    with python("print(flush=True); input()") as (child, _):
        found = maybe_process(child.pid)
        assert found is not None
        yield found
