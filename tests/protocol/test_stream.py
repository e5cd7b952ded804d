"""Records of a byte stream: cut anywhere, read back whole; refused where no peer sends them."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.limits import MAX_CONTROL_BYTES, MAX_LANE
from protocol.stream import (
    DIGEST,
    MAX_HEAD_BYTES,
    MAX_PAYLOAD_BYTES,
    PREAMBLE,
    RECORD,
    Content,
    Kind,
    Record,
    RecordReader,
    encode_preamble,
    encode_record,
)
from tests.protocol.samples import single_bit_flips

Plain = tuple[Kind, int, list[bytes]]

BYTES = st.binary(min_size=1, max_size=40)
PLAIN: st.SearchStrategy[Plain] = st.one_of(
    st.tuples(st.just(Kind.CONTROL), st.just(0), st.lists(BYTES, min_size=1, max_size=1)),
    st.tuples(
        st.just(Kind.FRAME),
        st.integers(0, MAX_LANE),
        st.one_of(
            BYTES.map(lambda head: [head]), st.tuples(BYTES, st.binary(max_size=40)).map(list)
        ),
    ),
)
SAMPLE: list[Plain] = [
    (Kind.CONTROL, 0, [b"an envelope"]),
    (Kind.FRAME, 3, [b"a hello"]),
    (Kind.FRAME, MAX_LANE, [b"a head", b"its payload"]),
    (Kind.FRAME, 0, [b"a head", b""]),
    (Kind.END, 0, [DIGEST.pack(7)]),
]


def encoded(records: Iterable[Plain]) -> bytes:
    """The whole stream."""
    stream = [encode_preamble(Content.TUNNEL)]
    for kind, lane, parts in records:
        stream.append(encode_record(Record(kind, lane, [memoryview(part) for part in parts])))
        stream += parts
    return b"".join(stream)


def read(stream: bytes, reader: RecordReader, most: int = 1 << 30) -> list[Plain]:
    """What `reader` makes of `stream`, given `most` bytes at a time."""
    found: list[Plain] = []
    while stream:
        count = min(len(stream), len(reader.room), most)
        reader.room[:count] = stream[:count]
        record, stream = reader.took(count), stream[count:]
        if record is not None:
            found.append((record.kind, record.lane, [bytes(part) for part in record.parts]))
    return found


@given(st.lists(PLAIN, max_size=6), st.integers(1, 50))
def test_records_come_out_as_they_went_in(records: list[Plain], most: int) -> None:
    """A part that begins in the wrong place, an empty payload that is lost."""
    reader = RecordReader(Content.TUNNEL)
    assert read(encoded(records), reader, most) == records
    assert reader.is_between


@pytest.mark.parametrize("size", range(len(encoded(SAMPLE))))
def test_cut_anywhere(size: int) -> None:
    """Half a record that counts, or an end in the middle that passes for one."""
    whole = encoded(SAMPLE)
    reader = RecordReader(Content.TUNNEL)
    found = read(whole[:size], reader)
    assert found == SAMPLE[: len(found)]
    ends = [0, *(len(encoded(SAMPLE[:count])) for count in range(len(SAMPLE)))]
    assert reader.is_between == (size in ends)


def test_every_flipped_bit_is_refused_or_only_changes_what_it_hit() -> None:
    """A length that is believed beyond its limit, an error that is no refusal."""
    for damaged in single_bit_flips(encoded(SAMPLE)):
        reader = RecordReader(Content.TUNNEL)
        try:
            found = read(damaged, reader)
        except RemoteProtocolError:
            continue
        assert found != SAMPLE or not reader.is_between
        assert len(reader.room) <= MAX_HEAD_BYTES + MAX_PAYLOAD_BYTES


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ((0, 1, 0, 1, 0), "a record of unknown kind 0"),
        ((9, 1, 0, 1, 0), "a record of unknown kind 9"),
        ((Kind.CONTROL, 0, 0, 1, 0), "CONTROL with 0 parts"),
        ((Kind.CONTROL, 2, 0, 1, 0), "CONTROL with 2 parts"),
        ((Kind.FRAME, 3, 0, 1, 1), "FRAME with 3 parts"),
        ((Kind.FRAME, 1, 0, 1, 1), "FRAME with 1 parts"),
        ((Kind.CONTROL, 1, 0, 0, 0), "CONTROL with 0 + 0 bytes"),
        ((Kind.CONTROL, 1, 0, MAX_CONTROL_BYTES + 1, 0), "are allowed"),
        ((Kind.FRAME, 2, 0, MAX_HEAD_BYTES + 1, 1), "are allowed"),
        ((Kind.FRAME, 2, 0, 1, MAX_PAYLOAD_BYTES + 1), "are allowed"),
        ((Kind.FRAME, 2, MAX_LANE + 1, 1, 1), "FRAME for lane 512"),
        ((Kind.CONTROL, 1, 1, 1, 0), "CONTROL for lane 1"),
        ((Kind.END, 1, 0, DIGEST.size + 1, 0), "are allowed"),
    ],
)
def test_a_header_that_is_refused(header: tuple[int, ...], told: str) -> None:
    """Memory allocated by a number of the peer's that was held against nothing."""
    reader = RecordReader(Content.TUNNEL)
    with pytest.raises(RemoteProtocolError, match=told.replace("+", r"\+")):
        read(encoded([]) + RECORD.pack(*header), reader)
    assert len(reader.room) <= RECORD.size


@pytest.mark.parametrize(
    ("preamble", "told"),
    [
        (b"Welcome ", "not a pageferry stream: it begins with b'Welcome '"),
        (PREAMBLE.pack(b"PGFS", 2, Content.TUNNEL), "wrong version 2 of a stream"),
        (PREAMBLE.pack(b"PGFS", 1, Content.SAVED), "a stream of content 2, not 1"),
    ],
)
def test_a_preamble_that_is_refused(preamble: bytes, told: str) -> None:
    """The greeting of a shell, or a saved guest, taken for a peer."""
    with pytest.raises(RemoteProtocolError, match=told):
        read(preamble, RecordReader(Content.TUNNEL))
