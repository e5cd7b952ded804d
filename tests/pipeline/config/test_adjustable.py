"""Settings that change while an end lives: all of a set, or none of it."""

import pytest

from pipeline.config.adjustable import Adjustable
from pipeline.config.model import Config, Parameters
from protocol.errors import ConfigError
from tests.system.migrations import settings

RAM = 16 << 20


@pytest.fixture(name="adjustable")
def _adjustable() -> Adjustable:
    return Adjustable(Config.model_validate(settings()), RAM)


def test_a_set_takes_effect_as_a_whole(adjustable: Adjustable) -> None:
    """One that changes, and the next one refused; a listener that hears of what was refused."""
    heard: list[Parameters] = []
    adjustable.on_parameters = heard.append
    with pytest.raises(ConfigError, match="compress_level' expects a value between 0 and 9"):
        adjustable.set_parameters({"max-bandwidth": 5, "compress-level": 11})
    assert (heard, adjustable.parameters.max_bandwidth) == ([], 0)
    adjustable.set_parameters({"max-bandwidth": 5, "compress-level": 2})
    assert [(one.max_bandwidth, one.compress_level) for one in heard] == [(10, 2)]
    assert adjustable.parameters.compress_threads == 2, "what was not given stays"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"no-such": 1}, "Parameter 'no-such' is unexpected"),
        ({"compress-level": "high"}, "Parameter 'compress-level'"),
        ({"xbzrle-cache-size": 2 * RAM}, "exceeds guest ram size"),
        ({"xbzrle-cache-size": 1}, "is smaller than page size"),
        ({"xbzrle-cache-size": 1 << 64}, "exceeding address space"),
    ],
)
def test_what_is_wrong_is_named(
    adjustable: Adjustable, given: dict[str, object], told: str
) -> None:
    """A program that cannot tell which of its parameters was meant."""
    with pytest.raises(ConfigError, match=told):
        adjustable.set_parameters(given)


def test_capabilities_that_are_not_there_are_refused(adjustable: Adjustable) -> None:
    """A capability that is taken, and does nothing."""
    with pytest.raises(ConfigError, match="'rdma-pin-all': not in this version"):
        adjustable.set_capabilities({"events": False, "rdma-pin-all": True})
    assert adjustable.config.capabilities.events
    adjustable.set_capabilities({"events": False})
    assert not adjustable.config.capabilities.events
