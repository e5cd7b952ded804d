"""QMP, the JSON language in which a machine is driven: requests in, answers and events out. Pure.

A request ends with its line, or where its brackets close: clients send it either way. What
cannot be read is answered by an error, and the next line is a new beginning.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

MAX_REQUEST_BYTES = 1 << 20
"""A request that is longer is dropped while it comes in; the longest honest one has some 5 KiB."""

_MARKS = re.compile(rb'["\\{}\[\]\n]')
_LINE_END = ord("\n")
_OPENING, _CLOSING = b"{[", b"}]"


class QmpError(Exception):
    """A request that is not done: `kind` is the error's class, the message its desc."""

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.kind = kind


class CommandNotFound(QmpError):
    """A command that there is not, or not now; clients look for this class."""

    def __init__(self, desc: str) -> None:
        super().__init__(desc, "CommandNotFound")


@dataclass(frozen=True)
class Request:
    """A command and its arguments, not checked by type yet; `id` is what is echoed with the
    answer: a dict with the key id, or an empty one."""

    execute: Any = None
    arguments: Any = field(default_factory=dict)
    id: dict[str, Any] = field(default_factory=dict)


class Splitter:
    """Cuts what a client sends into requests; None stands for one that is too long."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped_at = -1
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The requests that `data` completes."""
        taken = 0
        for mark in _MARKS.finditer(data):
            at = mark.start()
            if self._ends(data[at], len(self._begun) + at - taken):
                self._keep(data[taken : at + 1])
                taken = at + 1
                yield from self._finish()
        self._keep(data[taken:])

    def _ends(self, byte: int, place: int) -> bool:
        """Whether `byte`, at `place` of the request, is the last one of it."""
        if byte == _LINE_END:
            return True
        if self._escaped_at == place:
            return False
        if byte == ord("\\"):
            self._escaped_at = place + 1
        elif byte == ord('"'):
            self._in_string = not self._in_string
        elif not self._in_string:
            return self._closes(byte)
        return False

    def _closes(self, byte: int) -> bool:
        if byte in _OPENING:
            self._depth += 1
        elif byte in _CLOSING and self._depth:
            self._depth -= 1
            return not self._depth
        return False

    def _keep(self, piece: bytes) -> None:
        self._begun += piece
        if len(self._begun) > MAX_REQUEST_BYTES:
            self._too_long = True
            self._begun.clear()
            self._escaped_at = -1

    def _finish(self) -> Iterator[bytes | None]:
        text, too_long = bytes(self._begun).strip(), self._too_long
        self.__init__()  # type: ignore[misc]
        if too_long:
            yield None
        elif text:
            yield text


def decode_request(text: bytes | None) -> Request:
    """What a client asks; QmpError for what is no JSON object."""
    if text is None:
        raise QmpError(f"a request has at most {MAX_REQUEST_BYTES} bytes")
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise QmpError(f"this is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise QmpError("a request is a JSON object")
    known = {name: body[name] for name in ("execute", "arguments") if name in body}
    return Request(**known, id={"id": body["id"]} if "id" in body else {})


Arguments = TypeVar("Arguments", bound=msgspec.Struct)


def decode_arguments(given: object, kind: type[Arguments]) -> Arguments:
    """The arguments of a command as its `kind`; QmpError names the one that is wrong."""
    if not isinstance(given, dict):
        raise QmpError("the member 'arguments' of a request is an object")
    fields = msgspec.structs.fields(kind)
    for name in given:
        if name not in [one.encode_name for one in fields]:
            raise QmpError(f"Parameter '{name}' is unexpected")
    for one in fields:
        if one.required and one.encode_name not in given:
            raise QmpError(f"Parameter '{one.encode_name}' is missing")
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise QmpError(f"wrong arguments: {error}") from None


def encode_greeting(version: dict[str, Any]) -> bytes:
    """The first word to a client."""
    return _line({"QMP": {"version": version, "capabilities": []}})


def encode_return(value: object, request_id: dict[str, Any]) -> bytes:
    """The answer to what was done; None is the empty object."""
    return _line({"return": {} if value is None else value, **request_id})


def encode_error(error: QmpError, request_id: dict[str, Any]) -> bytes:
    """The answer to what was not done."""
    return _line({"error": {"class": error.kind, "desc": str(error)}, **request_id})


def encode_event(name: str, data: dict[str, object], wall_ns: int) -> bytes:
    """An event at `wall_ns`, nanoseconds since 1970."""
    seconds, rest_ns = divmod(wall_ns, 1_000_000_000)
    stamp = {"seconds": seconds, "microseconds": rest_ns // 1000}
    return _line({"event": name, "data": data, "timestamp": stamp})


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\r\n"
