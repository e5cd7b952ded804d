"""From a plan's file to a Plan and its moves, or one line that says what is wrong, and where."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from pipeline.batch.moves import UNKNOWN_MEMORY, Move, Wanted, filled, unknown_words, wanted
from pipeline.batch.plan import (
    Guest,
    Hooks,
    Host,
    Limits,
    Migration,
    Plan,
    Retries,
    Timeouts,
    Window,
)
from pipeline.config.links import is_loopback
from pipeline.config.loading import Document, read_document, validated
from pipeline.config.merging import merged
from pipeline.config.model import Config, Section, SyntheticGuest
from pipeline.config.units import format_bytes
from protocol.errors import ConfigError

PLAN_SECTIONS: dict[str, type[Section]] = {
    "hosts": Host,
    "guests": Guest,
    "migrations": Migration,
    "limits": Limits,
    "retries": Retries,
    "timeouts": Timeouts,
    "window": Window,
    "hooks": Hooks,
}
LOOK = 16
"""Candidates of a guest that are looked at for places that two guests would share: the name of the
host is the only difference between them."""
OURS = ("name", "uri")
"""Keys of a configuration that each attempt sets."""


class PlanError(ConfigError):
    """A mistake in the key at the end of `keys` of a plan, that was found after its loading."""

    def __init__(self, keys: tuple[object, ...], text: str) -> None:
        super().__init__(text)
        self.keys = keys


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Say of a PlanError where in the plan's file `path` its key stands."""
    try:
        yield
    except PlanError as error:
        raise ConfigError(f"{places(path)(error.keys)}: {error}") from None


def places(path: Path) -> Callable[[tuple[object, ...]], str]:
    """What says where in the plan's file `path` a key stands."""
    return partial(_place, read_document(path))


def _place(document: Document, keys: tuple[object, ...]) -> str:
    return f"{document.where}:{document.line(keys)}: {'.'.join(map(str, keys))}"


def load_plan(path: Path) -> tuple[Plan, list[Move]]:
    """The plan in the file `path` and its moves; ConfigError, in one line, for every mistake."""
    document = read_document(path)
    plan = validated(document, Plan, PLAN_SECTIONS)
    checks = _Checks(document, plan)
    moves = [checks.move(one) for one in wanted(plan)]
    checks.once(moves)
    checks.room(moves)
    return plan, moves


class _Checks:
    """Of one plan: what no single key can be wrong in."""

    def __init__(self, document: Document, plan: Plan) -> None:
        self._document = document
        self._plan = plan
        for number, name in enumerate(plan.drain):
            self._known(name, ("drain", number))

    def fail(self, keys: tuple[object, ...], text: str) -> ConfigError:
        """For the key at the end of `keys`."""
        return ConfigError(f"{_place(self._document, keys)}: {text}")

    def _known(self, host: str, keys: tuple[object, ...]) -> None:
        if host not in self._plan.hosts:
            raise self.fail(keys, f"found {host!r}, expected one of the hosts:"
                                  f" {', '.join(list(self._plan.hosts)[:20])}")  # fmt: skip

    def move(self, one: Wanted) -> Move:
        """What is wanted, as a move, once it was seen that it can be one."""
        self._check_places(one)
        settings = merged(self._plan.defaults, one.guest.config)
        start = self._start(settings, one)
        config = self._config(settings, one)
        memory = self._memory(config, one)
        guest = config.guest
        rate = guest.workload.dirty_rate if isinstance(guest, SyntheticGuest) else 0
        return Move(
            name=one.guest.name,
            source=one.source,
            candidates=one.candidates,
            memory=memory,
            dirty_rate=rate if one.guest.dirty_rate is None else one.guest.dirty_rate,
            codec=config.effective_codec,
            max_bandwidth=config.parameters.max_bandwidth,
            priority=one.guest.priority,
            settings=settings,
            start=start,
            hooks=one.guest.hooks or self._plan.hooks,
            where=one.where,
        )

    def _check_places(self, one: Wanted) -> None:
        where, hosts = one.where, self._plan.hosts
        self._known(one.source, (*where, "source"))
        for candidate in one.candidates:
            self._known(candidate, (*where, "destination"))
        if one.source in one.candidates:
            raise self.fail((*where, "destination"), f"found {one.source!r}, where"
                            f" {one.guest.name} is already, expected another host")  # fmt: skip
        if not one.candidates:
            raise self.fail(("drain",), f"no host is left for {one.guest.name}")
        for candidate in one.candidates:
            self._check_keys(one, hosts[one.source], hosts[candidate], candidate)

    def _check_keys(self, one: Wanted, here: Host, there: Host, name: str) -> None:
        """Between machines nothing travels without keys that the other end trusts."""
        security = _mapping(merged(self._plan.defaults, one.guest.config), "security")
        if is_loopback(there.address) or security.get("insecure") or security.get("keys"):
            return
        for host, host_name in ((here, one.source), (there, name)):
            for field, value in (("keys", host.keys), ("key", host.key)):
                if value is None:
                    raise self.fail(("hosts", host_name, field), "found nothing, expected"
                                    f" {'a folder' if field == 'keys' else 'the public key'}:"
                                    f" {one.guest.name} goes from {one.source} to {name},"
                                    " and no end would trust the other")  # fmt: skip

    def _start(self, settings: dict[str, Any], one: Wanted) -> tuple[str, ...] | None:
        """`destination.start`, which is no key of a configuration: it is taken out of it."""
        if not (destination := dict(_mapping(settings, "destination"))):
            return None
        start = destination.pop("start", None)
        settings["destination"] = destination
        if start is None:
            return None
        if not isinstance(start, list) or not start or not all(isinstance(w, str) for w in start):
            raise self.fail((*one.where, "config", "destination", "start"),
                            "expected a list of words: a command")  # fmt: skip
        return tuple(start)

    def _config(self, settings: dict[str, Any], one: Wanted) -> Config:
        keys = (*one.where, "config")
        for key in OURS:
            if key in settings:
                raise self.fail((*keys, key), "found it, expected none: each attempt has its own")
        words = words_of(one.guest.name, one.source, one.candidates[0], "0" * 32)
        data = CommentedMap(filled(settings, words))
        for word in unknown_words(data):
            known = ", ".join(f"{{{one}}}" for one in words)
            raise self.fail(keys, f"{one.guest.name}: found {word} in a text, expected {known}")
        try:
            return validated(Document("--set", data), Config)
        except ConfigError as error:
            raise self.fail(keys, f"{one.guest.name}: {str(error).removeprefix('--set: ')}") from (
                None
            )

    def _memory(self, config: Config, one: Wanted) -> int:
        if one.guest.memory is not None:
            return one.guest.memory
        guest = config.guest
        return guest.memory if isinstance(guest, SyntheticGuest) else UNKNOWN_MEMORY

    def room(self, moves: list[Move]) -> None:
        """ConfigError for a guest that fits nowhere, even where all leave that are to."""
        leaving: Counter[str] = Counter()
        for move in moves:
            leaving[move.source] += move.memory
        for move in moves:
            rooms = [self._plan.hosts[name].memory for name in move.candidates]
            most = max((leaving[name] + (room or 0) for name, room in
                        zip(move.candidates, rooms, strict=True)), default=0)  # fmt: skip
            if None not in rooms and most < move.memory:
                where = ", ".join(move.candidates[:5])
                text = (
                    f"{move.name} has {format_bytes(move.memory)}, {where} have room for"
                    f" {format_bytes(most)} at most"
                )
                raise self.fail((*move.where, "memory"), text)

    def once(self, moves: list[Move]) -> None:
        """ConfigError for a guest that is listed twice, or two that are one."""
        seen: dict[str, str] = {}
        for move in moves:
            for what in _what_it_is(move, one_machine=self._plan.is_embedded):
                if what in seen:
                    raise self.fail((*move.where, "name"), f"found {what}, which is listed twice")
                seen[what] = move.name


def _mapping(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """What stands there, if it is what it should be; else the configuration's own check says so."""
    found = settings.get(key)
    return found if isinstance(found, dict) else {}


def _what_it_is(move: Move, *, one_machine: bool) -> Iterator[str]:
    """What names a guest, beside its name: where it answers at its source, and where what waits for
    it does, on hosts that may all be `one_machine`."""
    yield repr(move.name)
    for one in _places(move, "guest", move.candidates[0]):
        yield one if one_machine else f"{one} at {move.source}"
    there = {
        one if one_machine else f"{one} at {candidate}"
        for candidate in move.candidates[:LOOK]
        for one in _places(move, "destination", candidate)
    }
    yield from sorted(there)


def _places(move: Move, section: str, candidate: str) -> Iterator[str]:
    """What stands in a section that no two guests have, in an attempt to go to `candidate`."""
    words = words_of(move.name, move.source, candidate, move.name)
    settings = move.settings.get(section) or {}
    for key in ("socket", "qmp", "path"):
        if value := settings.get(key):
            yield f"{section}.{key} {filled(value, words)}"


def words_of(name: str, source: str, destination: str, attempt: str) -> dict[str, str]:
    """What may stand in braces in a configuration or command of the plan."""
    return {"name": name, "source": source, "destination": destination, "attempt": attempt}
