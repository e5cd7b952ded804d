"""Errors cross processes."""

import inspect
import pickle

import pytest

from protocol import errors
from protocol.errors import FrameDamaged, MigrationError, RemoteProtocolError

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_pickles_with_its_notes(cls: type[MigrationError]) -> None:
    """A worker's error that arrives as another one, or breaks the pool on the way."""
    error = cls("seq 3: what, where and why")
    error.add_note("the second error")
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is cls
    assert str(arrived) == "seq 3: what, where and why"
    assert arrived.__notes__ == ["the second error"]


def test_it_is_one_tree() -> None:
    """An error that `except MigrationError` lets through."""
    assert len(CLASSES) == 14
    assert all(issubclass(cls, MigrationError) for cls in CLASSES)
    assert issubclass(FrameDamaged, RemoteProtocolError)
