"""Types of the values in a configuration: sizes, ranges, URIs.

Every ValueError raised here is a text that says what is allowed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from pipeline.config.units import PATTERN, dump_bytes, parse_bytes
from protocol.errors import ConfigError
from protocol.limits import MAX_BLOCK_PAGES, PAGE_BYTES
from protocol.session import Role
from protocol.uri import parse_uri

MOST_WORKERS = 255


@dataclass(frozen=True)
class Between:
    """A range, both ends included; `parameter` is QEMU's name for it, where it has one."""

    low: float
    high: float
    parameter: str = ""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check after the type."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Tell the range to editors."""
        return {**handler(schema), "minimum": self.low, "maximum": self.high}

    def _check(self, value: float) -> float:
        if self.low <= value <= self.high:
            return value
        subject = f"Parameter '{self.parameter}' expects" if self.parameter else "expected"
        raise ValueError(f"{subject} a value between {self.low} and {self.high}")


class AllProcessors(int):
    """`auto` as a number of workers: the processors that this process may use here."""


@dataclass(frozen=True)
class OrAuto:
    """Besides a number of workers, `auto`."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Before the type is checked."""
        return core_schema.no_info_wrap_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Tell it to editors."""
        return {"anyOf": [handler(schema), {"const": "auto"}]}

    @staticmethod
    def _check(value: object, check: Callable[[object], int]) -> int:
        if value == "auto" or isinstance(value, AllProcessors):
            return AllProcessors(min(len(os.sched_getaffinity(0)), MOST_WORKERS))
        return check(value)


def _whole_pages(count: int) -> int:
    if count % PAGE_BYTES:
        raise ValueError(f"expected a multiple of {PAGE_BYTES}")
    return count


def _bandwidth(rate: int) -> int:
    """Negative is no limit, 1 to 9 count as 10: the smallest share of a 100 ms window is 1. What no
    link is fast enough for counts as the most that 64 bits hold."""
    return min(max(rate, 10), (1 << 63) - 1) if rate > 0 else 0


def cache_refusal(reason: str) -> str:
    """QEMU's words, which programs look for."""
    return f"Parameter 'cache size' expects {reason}"


def cache_size(count: int) -> int:
    """`count` rounded down to a power of two of pages: the cache is direct-mapped."""
    if count >= 1 << 64:
        raise ValueError(cache_refusal("exceeding address space"))
    if count < PAGE_BYTES:
        raise ValueError(cache_refusal("is smaller than page size"))
    return 1 << (count.bit_length() - 1)


def _uri(text: str) -> str:
    try:
        return absolute_uri(text)
    except ConfigError as error:
        raise ValueError("which " + str(error).removeprefix(f"uri: {text!r} ")) from None


def absolute_uri(text: str, role: Role | None = None) -> str:
    """`text`, a path in it made absolute: the other end may be in another folder.

    ConfigError where it is no URI, in the words of the end that is given.
    """
    uri = parse_uri(text, role)
    return f"{uri.scheme}:{Path(uri.path).absolute()}" if uri.path else text


Size = Annotated[
    int,
    BeforeValidator(parse_bytes),
    PlainSerializer(dump_bytes, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": PATTERN}]}),
]
GuestSize = Annotated[
    Size, Between(8 * PAGE_BYTES, MAX_BLOCK_PAGES * PAGE_BYTES), AfterValidator(_whole_pages)
]
WorkingSet = Annotated[
    Size, Between(4 * PAGE_BYTES, MAX_BLOCK_PAGES * PAGE_BYTES), AfterValidator(_whole_pages)
]
Rate = Annotated[Size, Between(0, 1 << 50)]
Bandwidth = Annotated[Size, AfterValidator(_bandwidth)]
CacheSize = Annotated[Size, AfterValidator(cache_size)]
UriText = Annotated[str, AfterValidator(_uri)]
FilePath = Annotated[Path, Field(strict=False)]
