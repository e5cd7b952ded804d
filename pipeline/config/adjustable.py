"""The settings of one end, which outlive its migrations and change while one runs."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from pydantic import ValidationError

from pipeline.config.environment import check_pace
from pipeline.config.fields import cache_refusal, cache_size
from pipeline.config.model import Config, Parameters, Section
from protocol.errors import ConfigError
from protocol.uri import Uri

Kind = TypeVar("Kind", bound=Section)


class Adjustable:
    """Owned by the migration's thread; `on_parameters` hears of every change that took effect.

    `ram_bytes` is the guest's memory, None where no guest is there yet.
    """

    def __init__(self, config: Config, ram_bytes: int | None) -> None:
        self.config = config
        self._ram_bytes = ram_bytes
        self.on_parameters: Callable[[Parameters], None] = lambda _: None

    @property
    def parameters(self) -> Parameters:
        """As they are now."""
        return self.config.parameters

    def set_parameters(self, given: Mapping[str, object]) -> None:
        """Check all that is `given`, by names with dashes, then let it take effect.

        ConfigError, and nothing has changed, where one of them is wrong.
        """
        size = given.get("xbzrle-cache-size")
        if isinstance(size, int):
            self._check_cache(size)
        parameters = _updated(self.config.parameters, given)
        self.config = self.config.model_copy(update={"parameters": parameters})
        self.on_parameters(parameters)

    def set_capabilities(self, given: Mapping[str, object]) -> None:
        """As `set_parameters`, for what is on and off."""
        capabilities = _updated(self.config.capabilities, given)
        self.config = self.config.model_copy(update={"capabilities": capabilities})

    def set_autostart(self, autostart: bool) -> None:
        """Whether a guest that comes is let run."""
        self.config = self.config.model_copy(update={"autostart": autostart})

    def check(self, uri: Uri) -> None:
        """ConfigError for what is asked for and cannot be."""
        if self.config.capabilities.xbzrle:
            self._check_xbzrle(uri)
        if self.config.disks and uri.scheme == "file":
            raise ConfigError("disks: a saved guest takes none along")
        check_pace(self.config)

    def _check_xbzrle(self, uri: Uri) -> None:
        """A saved guest is read back in whole pages."""
        if uri.scheme == "file":
            raise ConfigError("capabilities.xbzrle: a saved guest travels in whole pages")
        size = self.parameters.xbzrle_cache_size
        if size != Parameters().xbzrle_cache_size:  # the default one is cut
            self._check_cache(size)

    def _check_cache(self, size: int) -> None:
        try:
            cache_size(size)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self._ram_bytes is not None and size > self._ram_bytes:
            raise ConfigError(cache_refusal("exceeds guest ram size"))


def _updated(section: Kind, given: Mapping[str, object]) -> Kind:
    values = section.model_dump(by_alias=True)
    try:
        return type(section).model_validate(values | dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name, told = first["loc"][0], first["msg"].removeprefix("Value error, ")
        if name not in values:
            raise ConfigError(f"Parameter '{name}' is unexpected") from None
        if first["type"] == "literal_error":
            told = "not in this version"
        prefix = "" if told.startswith("Parameter") else f"Parameter '{name}': "
        raise ConfigError(f"{prefix}{told}") from None
