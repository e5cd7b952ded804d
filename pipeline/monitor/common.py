"""The commands that both ends have: settings, and what the guest does."""

from collections.abc import Callable

import msgspec

from pipeline.config.adjustable import Adjustable
from pipeline.monitor import arguments
from pipeline.monitor.commands import Commands
from protocol.qmp import QmpError

MS = 1000


class SettingCommands:
    """Parameters and capabilities; `check_idle` raises while a migration is under way."""

    def __init__(
        self, commands: Commands, settings: Adjustable, check_idle: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._check_idle = check_idle
        commands.add("query-migrate-parameters", self._parameters)
        commands.add("query-migrate-capabilities", self._capabilities)
        commands.add("query-migrate-cache-size", self._cache_size)
        commands.add_with("migrate-set-parameters", arguments.SetParameters, self._set_parameters)
        commands.add_with(
            "migrate-set-capabilities", arguments.SetCapabilities, self._set_capabilities
        )
        commands.add_with("migrate-set-cache-size", arguments.SetCacheSize, self._set_cache_size)
        commands.add_with("migrate_set_speed", arguments.SetSpeed, self._set_speed)
        commands.add_with("migrate_set_downtime", arguments.SetDowntime, self._set_downtime)

    def _parameters(self) -> object:
        found = self._settings.parameters.model_dump(by_alias=True)
        return {name: int(value) for name, value in found.items()}  # auto, too

    def _capabilities(self) -> object:
        states = self._settings.config.capabilities.model_dump(by_alias=True)
        return [{"capability": name, "state": state} for name, state in states.items()]

    def _cache_size(self) -> object:
        return self._settings.parameters.xbzrle_cache_size

    def _set_parameters(self, given: arguments.SetParameters) -> None:
        self._settings.set_parameters(msgspec.to_builtins(given))

    def _set_capabilities(self, given: arguments.SetCapabilities) -> None:
        self._check_idle()
        self._settings.set_capabilities({one.capability: one.state for one in given.capabilities})

    def _set_cache_size(self, given: arguments.SetCacheSize) -> None:
        self._settings.set_parameters({"xbzrle-cache-size": given.value})

    def _set_speed(self, given: arguments.SetSpeed) -> None:
        self._settings.set_parameters({"max-bandwidth": given.value})

    def _set_downtime(self, given: arguments.SetDowntime) -> None:
        if not 0 <= given.value <= arguments.MAX_INT / MS:
            raise QmpError("Parameter 'value' expects seconds, not negative")
        self._settings.set_parameters({"downtime-limit": round(given.value * MS)})
