"""Every mistake in a file or an option is one line that says where, what and what is allowed."""

import re
from pathlib import Path

import pytest

from pipeline.config.loading import load_config
from pipeline.config.model import NOT_YET_VALUES
from protocol.errors import ConfigError

GUEST = "guest: {kind: synthetic}\n"


def refusal(tmp_path: Path, text: str | bytes, *overrides: str) -> str:
    """The line that `text` gets, without the path of the file."""
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path}:", "FILE:")


BYTES = "expected bytes, as a whole number or with the unit KiB, MiB, GiB or TiB"
PARAMETERS = GUEST + "parameters:\n  "

REFUSED = [
    (
        "unknown key",
        PARAMETERS + "compress-levl: 1",
        "FILE:3: parameters.compress-levl: found an unknown key (did you mean "
        "compress-level?), expected one of compress-level, compress-threads, "
        "decompress-threads, max-bandwidth, downtime-limit, xbzrle-cache-size",
    ),
    (
        "a required key that is misspelt",
        "guest:\n  kind: file\n  paht: /x",
        "FILE:3: guest.paht: found an unknown key (did you mean path?), expected one of kind, path,"
        " pid, on-completed",
    ),
    (
        "unknown key of a guest",
        "guest:\n  kind: file\n  path: /x\n  memory: 1",
        "FILE:4: guest.memory: found an unknown key, expected one of kind, path, pid, on-completed",
    ),
    (
        "wrong unit",
        "guest:\n  kind: synthetic\n  memory: 64MB",
        f"FILE:3: guest.memory: found '64MB', {BYTES}",
    ),
    (
        "level 10",
        PARAMETERS + "compress-level: 10",
        "FILE:3: parameters.compress-level: found 10, Parameter 'compress_level' expects "
        "a value between 0 and 9",
    ),
    (
        "no threads",
        PARAMETERS + "compress-threads: 0",
        "FILE:3: parameters.compress-threads: found 0, Parameter 'compress_threads' "
        "expects a value between 1 and 255",
    ),
    (
        "256 threads",
        PARAMETERS + "decompress-threads: 256",
        "FILE:3: parameters.decompress-threads: found 256, Parameter 'decompress_threads' "
        "expects a value between 1 and 255",
    ),
    (
        "wrong type",
        GUEST + "name: 5",
        "FILE:2: name: found 5, expected text",
    ),
    (
        "text for a number",
        PARAMETERS + "compress-level: '1'",
        "FILE:3: parameters.compress-level: found '1', expected a whole number",
    ),
    (
        "number for a truth",
        GUEST + "autostart: 1",
        "FILE:2: autostart: found 1, expected true or false",
    ),
    (
        "null section",
        GUEST + "parameters:",
        "FILE:2: parameters: found null, expected a mapping",
    ),
    (
        "not a number",
        GUEST + "commit-timeout: .nan",
        "FILE:2: commit-timeout: found nan, expected a number",
    ),
    (
        "empty name",
        GUEST + "name: ''",
        "FILE:2: name: found '', expected text that is not empty",
    ),
    (
        "unknown codec",
        GUEST + "codec: gzip",
        "FILE:2: codec: found 'gzip', expected 'none', 'zlib', 'zstd', 'lz4' or 'auto'",
    ),
    (
        "odd memory",
        "guest: {kind: synthetic, memory: 50000}",
        "FILE:1: guest.memory: found 50000, expected a multiple of 4096",
    ),
    (
        "cache over memory",
        "guest: {kind: synthetic, memory: 1MiB}\nparameters:\n  xbzrle-cache-size: 2MiB",
        "FILE:3: parameters.xbzrle-cache-size: found '2MiB', Parameter 'cache size' "
        "expects exceeds guest ram size",
    ),
    (
        "working set over memory",
        "guest:\n  kind: synthetic\n  memory: 1MiB\n  workload:\n    working-set: 2MiB",
        "FILE:5: guest.workload.working-set: found '2MiB', expected at most "
        "1044480 bytes in this guest's memory",
    ),
    (
        "uri without port",
        GUEST + "uri: tcp:host",
        "FILE:2: uri: found 'tcp:host', which has no port, expected tcp:HOST:PORT",
    ),
    (
        "no guest",
        "name: x",
        "FILE:1: guest: found nothing, expected a value",
    ),
    (
        "no kind",
        "name: x\nguest: {}",
        "FILE:2: guest.kind: found null, expected 'synthetic', 'file' or 'qemu'",
    ),
    (
        "no path",
        "name: x\nguest: {kind: file}",
        "FILE:2: guest.path: found nothing, expected a value",
    ),
    (
        "guest is no mapping",
        "guest: 3",
        "FILE:1: guest: found 3, expected a mapping",
    ),
    (
        "number as key",
        GUEST + "1: 2",
        "FILE:2: 1: found 1, expected text as a key",
    ),
    (
        "duplicate key",
        GUEST + "name: a\nname: b",
        'FILE:3: found duplicate key "name" with value "b" (original value: "a")',
    ),
    (
        "empty",
        "",
        "FILE: found an empty file, expected a mapping with the key guest",
    ),
    (
        "comments alone",
        "# nothing\n",
        "FILE: found an empty file, expected a mapping with the key guest",
    ),
    (
        "list",
        "- 1",
        "FILE:1: found a list, expected a mapping",
    ),
    (
        "no YAML",
        GUEST + "a: [1",
        "FILE:2: expected ',' or ']', but got '<stream end>'",
    ),
    (
        "two documents",
        GUEST + "---\na: 1",
        "FILE:2: but found another document",
    ),
    (
        "binary",
        b"\xff\xfe\x00",
        "FILE: found bytes that are not UTF-8, expected YAML",
    ),
]


@pytest.mark.parametrize(("text", "line"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    """A mistake taken, told without its place, or told in pydantic's words."""
    assert refusal(tmp_path, text) == line


@pytest.mark.parametrize("text", ["\0", "[" * 3000], ids=["NUL", "deep"])
def test_hostile_text_is_one_line(tmp_path: Path, text: str) -> None:
    """A traceback from inside the YAML library."""
    assert "not YAML" in refusal(tmp_path, text)


def test_the_first_mistake_in_the_file_is_told(tmp_path: Path) -> None:
    """The order of the model's fields instead of the order of the file."""
    text = "batch-pages: 0\nguest: {kind: synthetic, memory: 1}\nname: 3\n"
    assert refusal(tmp_path, text).startswith("FILE:1: batch-pages:")
    assert refusal(tmp_path, text, "batch-pages=2", "codec=x").startswith("FILE:2: guest.memory:")


def test_a_number_of_thousands_of_digits_is_one_line(tmp_path: Path) -> None:
    """A traceback, since python shows no such number."""
    text = f"guest: {{kind: synthetic, memory: 0x{'f' * 5000}}}\n"
    assert "found a number of so many digits" in refusal(tmp_path, text)


def test_no_mistake_follows_from_another(tmp_path: Path) -> None:
    """A good working set blamed for a memory that could not be read."""
    text = "guest:\n  workload: {working-set: 1GiB}\n  memory: 2GB\n  kind: synthetic\n"
    assert refusal(tmp_path, text).startswith("FILE:3: guest.memory:")


def with_keys(dotted: str, value: str) -> list[str]:
    kind = ["guest.kind=synthetic"] if dotted != "guest.kind" else []
    return [*kind, f"{dotted}={value}"]


LATER_KEYS = ["destination.data-ports"]


@pytest.mark.parametrize("key", LATER_KEYS)
def test_keys_of_later_versions_are_refused_by_name(key: str) -> None:
    """A key taken and ignored, or called unknown."""
    with pytest.raises(ConfigError, match=f"{key}: not available in this version"):
        load_config(None, with_keys(key, "x"))


@pytest.mark.parametrize("key", sorted(NOT_YET_VALUES))
def test_values_of_later_versions_are_refused_by_name(key: str) -> None:
    """A value taken and ignored, or called wrong."""
    for value in NOT_YET_VALUES[key]:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        with pytest.raises(ConfigError, match=rf"{re.escape(key)}: '?{text}'? is not"):
            load_config(None, with_keys(key, text))


@pytest.mark.parametrize(
    ("disks", "words"),
    [
        ("[{to: a}]", "disks.0.to: found an unknown key, expected one of path, destination, base"),
        ("[{path: a}, {destination: b}]", "disks.1.path: found nothing, expected a value"),
        ("[{path: 3}]", "disks.0.path: found 3, expected a path"),
        ("{path: a}", "disks: found a mapping, expected a list"),
    ],
)
def test_a_disk_that_is_none(tmp_path: Path, disks: str, words: str) -> None:
    """A disk that was listed, and not moved."""
    assert refusal(tmp_path, GUEST + f"disks: {disks}") == f"FILE:2: {words}"


def test_unreadable_files(tmp_path: Path) -> None:
    """A traceback for a path that is not there, or is a folder."""
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_overrides_come_after_the_file(tmp_path: Path) -> None:
    """An option that the file wins over, or that is not read as YAML."""
    path = tmp_path / "c.yaml"
    path.write_text(GUEST + "codec: none\n")
    options = ["codec=lz4", "parameters.compress-level=6", "destination.path=null", "verify=off"]
    loaded = load_config(path, options)
    assert (loaded.codec, loaded.parameters.compress_level, loaded.verify) == ("lz4", 6, "off")


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("foo", "--set: found 'foo', expected KEY=VALUE, as in parameters.compress-level=6"),
        ("=1", "--set: found '=1', expected KEY=VALUE, as in parameters.compress-level=6"),
        ("name.x=1", "--set: name.x: name is 'a', expected a mapping"),
        ("name=[", "--set name:1: expected the node content, but found '<stream end>'"),
        ("name=", "--set: name: found null, expected text"),
        ("codec=x", "--set: codec: found 'x', expected 'none', 'zlib', 'zstd', 'lz4' or 'auto'"),
        ("guest={kind: file}", "--set: guest.path: found nothing, expected a value"),
        ("tracer=x", "--set: tracer: found an unknown key (did you mean tracker?)"),
    ],
)
def test_a_wrong_override_is_one_line(tmp_path: Path, option: str, line: str) -> None:
    """A mistake in an option told as if it stood in the file."""
    assert refusal(tmp_path, GUEST + "name: a\n", option).startswith(line)


def test_the_incoming_end_needs_no_guest_and_no_file(tmp_path: Path) -> None:
    """`incoming --uri URI` refused for a guest that only the source has."""
    loaded = load_config(None, ["destination.path=/dev/shm/x"], need_guest=False)
    assert str(loaded.destination.path) == "/dev/shm/x"
    path = tmp_path / "c.yaml"
    path.write_text("guest: {kind: file, path: /x}\n")
    assert load_config(path, need_guest=False).guest.kind == "file"


def test_anchors_and_merge_keys_have_lines(tmp_path: Path) -> None:
    """A crash on a key that stands in the file only through a merge."""
    text = GUEST + "parameters: &p {compress-level: 2}\ncapabilities:\n  <<: *p\n"
    assert refusal(tmp_path, text).startswith(
        "FILE:3: capabilities.compress-level: found an unknown"
    )
