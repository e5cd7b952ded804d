"""Which codecs can be used here: some need a package that is an extra."""

from importlib.util import find_spec
from typing import get_args

from protocol.control import CodecName

_PACKAGES = {"zstd": "zstandard", "lz4": "lz4"}
"""Codec → the package that it needs, where that is an optional one."""


def missing_package(codec: str) -> str | None:
    """The package that `codec` needs and that is not installed."""
    package = _PACKAGES.get(codec)
    return package if package is not None and find_spec(package) is None else None


def available() -> list[CodecName]:
    """The codecs that can be used."""
    return [name for name in get_args(CodecName) if missing_package(name) is None]
