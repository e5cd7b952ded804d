"""Examples and documentation agree with the model."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipeline.config.loading import load_config
from pipeline.config.model import Config, Disk, FileGuest, QemuGuest, SyntheticGuest

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "configs").glob("*.yaml"))


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, object]:
    """Dotted key → default, of all leaves of `model`."""
    keys: dict[str, object] = {}
    for info in model.model_fields.values():
        kinds = get_args(info.annotation) or (info.annotation,)
        name = f"{prefix}{info.alias}"
        sections = [
            kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        for section in sections:
            keys |= keys_of(section, f"{name}.")
        if not sections:
            keys[name] = None
    return keys


def leaves(data: object, prefix: str = "") -> dict[str, object]:
    """Dotted key → value of nested mappings."""
    if not isinstance(data, dict):
        return {prefix: data}
    keys: dict[str, object] = {}
    for key, value in data.items():
        keys |= leaves(value, f"{prefix}.{key}" if prefix else key)
    return keys


def defaults() -> dict[str, object]:
    """Dotted key → default as `check` prints it, of all kinds of guest."""
    guests = (
        SyntheticGuest(kind="synthetic"),
        FileGuest(kind="file", path=Path("/x")),
        QemuGuest(kind="qemu", qmp=Path("/x")),
    )
    disk = Disk(path=Path("/x")).model_dump(mode="json", by_alias=True)
    both = leaves(disk, "disks")
    for guest in guests:
        both |= leaves(Config(guest=guest).model_dump(mode="json", by_alias=True))
    return both


def documented() -> dict[str, str]:
    """Dotted key → default, from the table in the documentation."""
    text = (ROOT / "docs/configuration.md").read_text().split("## Keys")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z.-]+)` \|[^|]*\|([^|]*)\|", text, re.MULTILINE)
    return {key: default.strip(" `") for key, default in rows}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    """An example that a reader copies and that does not load."""
    assert load_config(path).name


def test_the_examples_are_there() -> None:
    """The test above passing over an empty folder."""
    names = {path.stem for path in EXAMPLES}
    assert names >= {"quickstart", "file", "two-machines", "reference"}


def test_the_documentation_lists_every_key() -> None:
    """A key that nobody can find, or one that no longer exists."""
    assert set(documented()) == set(keys_of(Config))


def test_the_documentation_has_the_defaults() -> None:
    """A default that changed in the code alone."""
    yaml = YAML(typ="safe", pure=True)
    told = {key: yaml.load(text) for key, text in documented().items() if text}
    known = defaults()
    assert told == {key: known[key] for key in told}
    needed = {"guest.kind", "guest.path", "guest.qmp", "disks.path"}
    assert set(documented()) - set(told) == needed


def test_the_reference_has_every_key_with_its_default() -> None:
    """A reference file that is not one."""
    path = ROOT / "configs/reference.yaml"
    loaded = load_config(path)
    assert loaded == load_config(None, ["guest.kind=synthetic"])
    written = set(leaves(YAML(typ="safe", pure=True).load(path)))
    guests = {"guest.path", "guest.pid", "guest.qmp"}
    disks = {"disks.path", "disks.destination", "disks.base"}
    assert set(keys_of(Config)) - written == guests | disks
    names = ("path", "pid", "qmp", "destination", "base")
    assert all(f"# {key}: " in path.read_text() for key in names)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_a_child_is_given_means_the_same(path: Path, tmp_path: Path) -> None:
    """A destination that `run` starts with another configuration than its own."""
    config, written = load_config(path), tmp_path / "config.yaml"
    written.write_text(config.model_dump_json(by_alias=True))
    assert load_config(written) == config
