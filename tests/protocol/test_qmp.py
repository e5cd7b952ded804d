"""QMP: every request is seen once, however it is cut; what is none is an error, never a crash."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import qmp

REQUESTS = [
    b'{"execute": "query-status"}',
    b'{"execute": "migrate", "arguments": {"uri": "tcp:[::1]:4444"}, "id": {"a": [1, "}"]}}',
    b'{"execute": "x", "id": "a \\" quote, a } and a \\\\"}',
]


def split(data: bytes, sizes: list[int] | None = None) -> list[bytes | None]:
    """The requests in `data`, handed over in pieces."""
    splitter = qmp.Splitter()
    found: list[bytes | None] = []
    for size in sizes or []:
        found += splitter.feed(data[:size])
        data = data[size:]
    return found + list(splitter.feed(data))


@pytest.mark.parametrize("between", [b"\r\n", b"\n", b"", b" \n\n\t\n"])
@given(sizes=st.lists(st.integers(0, 40), max_size=20))
def test_requests_are_found_however_they_come(between: bytes, sizes: list[int]) -> None:
    """A client that ends no line, or sends byte by byte, and is never answered."""
    assert split(between.join([*REQUESTS, b""]), sizes) == REQUESTS


def test_a_line_is_the_end_of_what_is_broken() -> None:
    """One bad request after which nothing is understood any more."""
    broken = [b'{"execute": "a', b"nonsense", b"}}]", b'{"execute": ["b"}']
    assert split(b"\n".join([*broken, REQUESTS[0]])) == [*broken, REQUESTS[0]]


def test_what_is_too_long_is_dropped_and_said() -> None:
    """Memory that a client fills; or a client that is not heard any more after that."""
    splitter = qmp.Splitter()
    for _ in range(3 * qmp.MAX_REQUEST_BYTES // (1 << 16)):
        assert list(splitter.feed(b'["' + bytes(65) * 1000)) == []
        assert len(splitter._begun) <= qmp.MAX_REQUEST_BYTES
    assert list(splitter.feed(b"\n" + REQUESTS[0])) == [None, REQUESTS[0]]
    with pytest.raises(qmp.QmpError, match="at most"):
        qmp.decode_request(None)


def test_a_request_has_its_id_back() -> None:
    """An answer that no client can tell from another; null is an id, too."""
    request = qmp.decode_request(REQUESTS[1])
    assert (request.execute, request.arguments) == ("migrate", {"uri": "tcp:[::1]:4444"})
    assert qmp.encode_return(None, request.id) == b'{"return":{},"id":{"a":[1,"}"]}}\r\n'
    assert qmp.decode_request(b'{"execute": "x", "id": null}').id == {"id": None}
    error = qmp.encode_error(qmp.CommandNotFound("no"), {})
    assert error == b'{"error":{"class":"CommandNotFound","desc":"no"}}\r\n'


@pytest.mark.parametrize("text", [b"", b"7", b"[1]", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_what_is_no_request_is_an_error(text: bytes) -> None:
    """A traceback for a slip of the keyboard."""
    with pytest.raises(qmp.QmpError):
        qmp.decode_request(text)


def test_mutated_requests_are_errors_or_requests() -> None:
    """A byte that brings the server down."""
    random, decoded, refused = Random(1), 0, 0
    for _ in range(5000):
        text = bytearray(random.choice(REQUESTS))
        for _ in range(random.randint(1, 4)):
            text[random.randrange(len(text))] = random.randrange(256)
        for found in split(bytes(text) + b"\n", [random.randrange(20) for _ in range(4)]):
            try:
                qmp.decode_request(found)
                decoded += 1
            except qmp.QmpError:
                refused += 1
    assert min(decoded, refused) > 100


class Wanted(msgspec.Struct, rename="kebab"):
    """Two arguments."""

    first_one: int
    second: str = "x"


def test_arguments_are_checked_by_name_and_type() -> None:
    """A misspelt argument that is taken for one that was left out."""
    assert qmp.decode_arguments({"first-one": 3}, Wanted) == Wanted(3)
    for arguments, told in [
        ({}, "Parameter 'first-one' is missing"),
        ({"first-one": 1, "third": 2}, "Parameter 'third' is unexpected"),
        ({"first-one": "1"}, "first-one"),
        ([], "'arguments'"),
    ]:
        with pytest.raises(qmp.QmpError, match=told):
            qmp.decode_arguments(arguments, Wanted)


def test_an_event_has_its_time() -> None:
    """Seconds and microseconds that are not of one moment."""
    event = msgspec.json.decode(qmp.encode_event("STOP", {}, 1_700_000_000_123_456_789))
    assert event == {
        "event": "STOP",
        "data": {},
        "timestamp": {"seconds": 1_700_000_000, "microseconds": 123_456},
    }
