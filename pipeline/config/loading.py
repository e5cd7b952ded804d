"""From a YAML file and `--set` options to a Config, or one line that says what is wrong.

A line is `FILE:LINE: KEY: found X, expected Y`; of several mistakes the first in the
file is told. Nothing outside the file is looked at here (pipeline/config/environment.py).
"""

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning

from pipeline.config.model import (
    NOT_YET_KEYS,
    NOT_YET_VALUES,
    SECTIONS,
    Config,
    Section,
    SyntheticGuest,
)
from protocol.errors import ConfigError

Kind = TypeVar("Kind", bound=Section)
MOST_VALUES = 2_000_000
"""Of a file: a plan of 10,000 guests has some 100,000."""

_EXPECTED = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "path_type": "a path",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "invalid_key": "text as a key",
}


@dataclass(frozen=True)
class Words:
    """What is said of mistakes in a `model` that has `sections`, by the names of their keys."""

    model: type[Section]
    sections: Mapping[str, type[Section]]

    def explain(self, key: str, mistake: ErrorDetails) -> str:
        """What is wrong, and what would be right."""
        kind, found = mistake["type"], mistake["input"]
        if kind.startswith("union_tag") or kind == "misfit":
            found = found.get(key.rpartition(".")[2])
        if key in NOT_YET_KEYS:
            return "not available in this version"
        if found in NOT_YET_VALUES.get(key, ()):
            return f"{_show(found)} is not available in this version"
        if kind == "extra_forbidden":
            return self._unknown_key(mistake["loc"])
        if kind == "missing":
            return "found nothing, expected a value"
        return f"found {_show(found)}, {_allowed(kind, mistake)}"

    def _unknown_key(self, loc: tuple[object, ...]) -> str:
        section = self.model
        for part in loc[:-1]:
            section = self.sections.get(str(part), section)
        allowed = [str(info.alias) for info in section.model_fields.values()]
        homes = _homes(str(loc[0])) if len(loc) == 1 else []
        close = homes or difflib.get_close_matches(str(loc[-1]), allowed, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"found an unknown key{hint}, expected one of {', '.join(allowed)}"


@dataclass
class Document:
    """What was read, and from where each key came."""

    where: str
    data: CommentedMap
    overridden: set[tuple[str, ...]] = field(default_factory=set)

    def line(self, keys: Iterable[object]) -> int:
        """The line of the deepest of `keys` that stands in the file, from 1."""
        node: Any = self.data
        line = 1
        for key in keys:
            if not isinstance(node, CommentedMap | CommentedSeq) or key not in (node.lc.data or {}):
                break
            line = (node.lc.key if isinstance(node, CommentedMap) else node.lc.item)(key)[0] + 1
            node = node[key]
        return line

    def is_overridden(self, keys: tuple[object, ...]) -> bool:
        """Whether the value at `keys`, or what it lies in, came from an option."""
        return any(keys[: len(option)] == option for option in self.overridden)


def load_config(
    path: Path | None, overrides: Sequence[str] = (), *, need_guest: bool = True
) -> Config:
    """The configuration in `path` (None: all defaults), with `a.b=value` options over it.

    Without `need_guest`, as for the incoming end, a missing guest is a synthetic one.
    ConfigError, in one line, for every mistake.
    """
    document = Document("--set", CommentedMap()) if path is None else read_document(path)
    for option in overrides:
        _override(document, option)
    if not need_guest:
        document.data.setdefault("guest", CommentedMap(kind="synthetic"))
    return validated(document, Config)


def validated(
    document: Document, model: type[Kind], sections: Mapping[str, type[Section]] = SECTIONS
) -> Kind:
    """What is in the document as a `model`, which has `sections`; ConfigError, in one line."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    words = Words(model, sections)
    raise ConfigError(min(_tell(document, mistake, words) for mistake in mistakes)[3])


def read_document(path: Path) -> Document:
    """The mapping in the file `path`; ConfigError where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: found bytes that are not UTF-8, expected YAML") from None
    data = _parse(text, str(path))
    if data is None:
        raise ConfigError(f"{path}: found an empty file, expected a mapping with the key guest")
    if not isinstance(data, CommentedMap):
        raise ConfigError(f"{path}:1: found {_show(data)}, expected a mapping")
    if _values(data) > MOST_VALUES:
        raise ConfigError(
            f"{path}: found more than {MOST_VALUES:,} values, counting each place of an alias"
        )
    return Document(str(path), data)


def _values(data: object) -> int:
    """How many there are, each as often as it stands somewhere; beyond the most nobody counts."""
    count, rest = 0, [data]
    while rest and count <= MOST_VALUES:
        count += 1
        node = rest.pop()
        if isinstance(node, dict | list):
            rest += node.values() if isinstance(node, dict) else node
    return count


def _parse(text: str, where: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", YAMLWarning)
            return YAML().load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(_one_line(f"{where}:{line}: {error.problem}")) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(_one_line(f"{where}: not YAML: {error}")) from None


def _override(document: Document, option: str) -> None:
    dotted, equals, text = option.partition("=")
    keys = tuple(dotted.split("."))
    if not equals or not all(keys):
        raise ConfigError(
            f"--set: found {option!r}, expected KEY=VALUE, as in parameters.compress-level=6"
        )
    node: Any = document.data
    for key in keys[:-1]:
        if node.get(key) is None:
            node[key] = CommentedMap()
        node = node[key]
        if not isinstance(node, CommentedMap):
            raise ConfigError(f"--set: {dotted}: {key} is {_show(node)}, expected a mapping")
    node[keys[-1]] = _parse(text, f"--set {dotted}")
    document.overridden.add(keys)


def _tell(document: Document, mistake: ErrorDetails, words: Words) -> tuple[bool, bool, int, str]:
    """(missing, from an option, line, text) of a mistake: its place in the order, and what to say.

    What is missing may be there under a name that is misspelt: that is told first.
    """
    keys = _keys(mistake)
    option = document.is_overridden(keys)
    line = document.line(keys)
    where = "--set" if option or document.where == "--set" else f"{document.where}:{line}"
    key = ".".join(map(str, keys))
    missing = mistake["type"] == "missing"
    named = f"{where}: {key}" if key else where  # of the file as a whole
    return missing, option, line, _one_line(f"{named}: {words.explain(key, mistake)}")


def _keys(mistake: ErrorDetails) -> tuple[object, ...]:
    """Where it is in the file; pydantic names a guest's kind as well, which is no key."""
    loc = tuple(part for part in mistake["loc"] if "[" not in str(part))  # one kind of several
    if mistake["type"].startswith("union_tag"):
        return (*loc, "kind")
    if mistake["type"] == "misfit":
        loc = (*loc, mistake["ctx"]["key"])
    return (loc[0], *loc[2:]) if loc[:1] == ("guest",) else loc


def _homes(key: str) -> list[str]:
    """Where a key belongs that stands in the wrong section."""
    homes = ("parameters", "capabilities", "destination", "guest")
    models = (SECTIONS.get(home, SyntheticGuest) for home in homes)
    aliases = [{info.alias for info in model.model_fields.values()} for model in models]
    return [f"{home}.{key}" for home, known in zip(homes, aliases, strict=True) if key in known]


def _allowed(kind: str, mistake: ErrorDetails) -> str:
    context = mistake.get("ctx", {})
    match kind:
        case "value_error":
            return str(context["error"])
        case "misfit":
            return str(context["text"])
        case "literal_error":
            return f"expected {context['expected']}".replace("False", "false")
        case "union_tag_invalid" | "union_tag_not_found":
            return "expected 'synthetic', 'file' or 'qemu'"
        case "too_long" | "too_short":
            most = context.get("max_length", context.get("min_length"))
            return f"expected at {'most' if kind == 'too_long' else 'least'} {most} entries"
        case "string_too_long":
            return f"expected at most {context['max_length']} characters"
    return f"expected {_EXPECTED.get(kind, mistake['msg'])}"


def _show(value: object) -> str:
    """`value` as the user knows it, never long."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case int() if value.bit_length() > 200:
            return "a number of so many digits"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
