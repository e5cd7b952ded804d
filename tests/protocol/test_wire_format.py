"""docs/wire-format.md says what the code does: its tables are compared with it."""

import struct
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, get_args

import pytest

from protocol import channel, devices, frames, limits, stream
from protocol.control import AnyMessage, Commit, encode_message
from protocol.frames import CodecId, Flag, FrameType, PageKind
from protocol.session import MESSAGES
from protocol.status import INCOMING_TRANSITIONS, TRANSITIONS, Status
from tests.protocol.samples import SESSION, forge_envelope, make_batch

DOCUMENT = Path(__file__).parents[2] / "docs" / "wire-format.md"
CODES = {"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"}

Row = dict[str, str]


def _table(heading: str) -> list[Row]:
    """The first table below `heading`, as rows keyed by column."""
    section = DOCUMENT.read_text().partition(f"# {heading}\n")[2]
    assert section, f"no heading {heading!r}"
    lines = section.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    cells = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split("|")])
    columns, _, *rows = cells
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _code(kind: str) -> str:
    if kind.startswith("bytes["):
        return kind.removeprefix("bytes[").removesuffix("]") + "s"
    return CODES[kind]


def _read(heading: str, data: bytes) -> dict[str, Any]:
    """The fields of `data`, found by the document's offsets alone."""
    return {
        row["field"]: struct.unpack_from(f"<{_code(row['type'])}", data, int(row["offset"]))[0]
        for row in _table(heading)
    }


@pytest.mark.parametrize(
    ("heading", "layout"),
    [
        ("Header", frames.HEADER),
        ("Control envelopes", channel.ENVELOPE),
        ("Stream preamble", stream.PREAMBLE),
        ("Record header", stream.RECORD),
        ("Stream header", devices._STREAM),
        ("Section header", devices._SECTION),
    ],
)
def test_offset_tables_agree_with_the_structs(heading: str, layout: struct.Struct) -> None:
    """A field moved, widened or added in one place only."""
    rows = _table(heading)
    offset = 0
    for row in rows:
        assert int(row["offset"]) == offset, row["field"]
        assert int(row["size"]) == struct.calcsize(f"<{_code(row['type'])}")
        offset += int(row["size"])
    assert "<" + "".join(_code(row["type"]) for row in rows) == layout.format
    assert offset == layout.size


def test_a_frame_read_by_the_document() -> None:
    """Two fields of the same size that changed places."""
    head = frames.encode_batch(make_batch(), content_digest=True)
    expected = frames.Header(*frames.HEADER.unpack_from(head))._asdict()
    assert _read("Header", head) == expected
    batch = make_batch()
    said = (expected["seq"], expected["attempt"], expected["round_no"], expected["block"])
    assert said == (batch.seq, batch.attempt, batch.round_no, batch.block)


def test_an_envelope_read_by_the_document() -> None:
    """The same for an envelope: number and acknowledgement have one size."""
    peer = channel.Channel(SESSION)
    for number in (1, 2):
        peer.incoming(forge_envelope(encode_message(Commit()), number=number))
    fields = _read("Control envelopes", peer.outgoing(Commit()))
    fields.pop("digest")
    assert fields == {
        "magic": b"PGFC",
        "version": 1,
        "flags": 0,
        "session": SESSION,
        "number": 1,
        "acknowledged": 2,
    }


def test_a_record_read_by_the_document() -> None:
    """The same for a record: the lengths of its parts have one size."""
    fields = _read("Stream preamble", stream.encode_preamble(stream.Content.SAVED))
    assert fields == {"magic": b"PGFS", "version": 1, "content": 2}
    record = stream.Record(stream.Kind.FRAME, 7, [memoryview(b"head"), memoryview(b"payload")])
    fields = _read("Record header", stream.encode_record(record))
    assert fields == {"kind": 2, "parts": 2, "lane": 7, "first_bytes": 4, "second_bytes": 7}


def test_a_section_read_by_the_document() -> None:
    """The same for a section: instance, version and length have one size."""
    stream = devices.encode_sections([devices.Section("clock", 2, 3, b"1234")])
    assert _read("Stream header", stream) == {"magic": b"PGFD", "count": 1}
    fields = _read("Section header", stream[8:])
    fields.pop("digest")
    assert fields == {"name_bytes": 5, "instance": 2, "version": 3, "payload_bytes": 4}


@pytest.mark.parametrize(
    ("heading", "values"),
    [
        ("Frame types", FrameType),
        ("Codecs", CodecId),
        ("Page kinds", PageKind),
        ("Flags", Flag),
        ("Stream contents", stream.Content),
        ("Record kinds", stream.Kind),
    ],
)
def test_numbers_agree(heading: str, values: type[IntEnum]) -> None:
    """A kind, codec or flag that the document does not know, or numbers otherwise."""
    told = [(row["name"], int(row["value"])) for row in _table(heading)]
    assert told == [(member.name, member.value) for member in values]


def test_messages_agree() -> None:
    """A message or a field that the document does not know."""
    told = {row["message"]: row["fields"] for row in _table("Control messages")}
    assert told == {
        message.__name__: ", ".join(message.__struct_fields__) for message in get_args(AnyMessage)
    }


def test_stages_agree_with_the_session() -> None:
    """A row of the conversation added, lost or changed by one letter."""
    told = {
        (row["from"], row["stage"], row["message"], row["next stage"]) for row in _table("Stages")
    }
    assert told == {
        (role, stage.name.lower(), message.__name__, then.name.lower())
        for role, rows in MESSAGES.items()
        for (stage, message), then in rows.items()
    }


@pytest.mark.parametrize(
    ("heading", "transitions"),
    [("Outgoing status", TRANSITIONS), ("Incoming status", INCOMING_TRANSITIONS)],
)
def test_status_tables_agree(heading: str, transitions: Mapping[Status, frozenset[Status]]) -> None:
    """A way between two statuses that the rules do not have."""
    told = {row["status"]: set(row["may become"].split(", ")) for row in _table(heading)}
    assert told == {str(old): set(map(str, new)) for old, new in transitions.items() if new}


def test_limits_agree() -> None:
    """A limit changed in silence."""
    told = {row["name"]: int(row["value"]) for row in _table("Limits")}
    assert told == {name: value for name, value in vars(limits).items() if name.isupper()}
