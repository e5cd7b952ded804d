"""The commands that an end knows: a table of names, arguments and what is done."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from protocol.errors import MigrationError
from protocol.qmp import CommandNotFound, QmpError, Request, decode_arguments

SPOKEN = {"major": 2, "minor": 4, "micro": 0}
"""The QEMU whose commands these are."""


class NoArguments(Struct):
    """A command without any."""


class Commands:
    """Does what is asked; `do` belongs to the thread that owns the migration."""

    def __init__(self) -> None:
        self._table: dict[str, tuple[type[Struct], Callable[[Any], object]]] = {}
        self.add("query-version", spoken_version)
        self.add("query-commands", lambda: [{"name": name} for name in self.names])

    @property
    def names(self) -> list[str]:
        """All commands, and that which the server itself answers."""
        return sorted([*self._table, "qmp_capabilities"])

    def add(self, name: str, do: Callable[[], object]) -> None:
        """A command without arguments."""
        self._table[name] = (NoArguments, lambda _: do())

    def add_with(self, name: str, kind: type[Struct], do: Callable[[Any], object]) -> None:
        """A command whose arguments are the fields of `kind`."""
        self._table[name] = (kind, do)

    def check(self, request: Request) -> None:
        """QmpError for a command that there is not."""
        if not isinstance(request.execute, str):
            raise QmpError("a request has the member 'execute', a string")
        if request.execute not in self._table:
            raise CommandNotFound(f"The command {request.execute} has not been found")

    def do(self, request: Request) -> object:
        """Do it; what is answered, ready for JSON. QmpError where that cannot be."""
        self.check(request)
        kind, do = self._table[request.execute]
        try:
            return without_nulls(do(decode_arguments(request.arguments, kind)))
        except (MigrationError, OSError) as error:
            raise QmpError(str(error)) from None
        except QmpError:
            raise
        except Exception as error:
            structlog.get_logger().error("unexpected error: a bug of pageferry", exc_info=error)
            raise QmpError(f"{request.execute} failed: {error!r}") from None


def spoken_version() -> dict[str, object]:
    """As `query-version` and the greeting tell it."""
    return {"qemu": SPOKEN, "package": f"pageferry {version('pageferry')}"}


def without_nulls(value: object) -> object:
    """`value` as JSON types; a field that is null is left out, as QEMU does."""
    return _clean(msgspec.to_builtins(value))


def _clean(value: object) -> object:
    if isinstance(value, dict):
        return {name: _clean(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_clean(one) for one in value]
    return value
