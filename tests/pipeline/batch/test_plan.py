"""Plans that are wrong: found before anything begins, named with line and key."""

import re
from pathlib import Path

import pytest

from pipeline.batch.loading import load_plan
from protocol.errors import ConfigError
from tests.pipeline.batch.plans import MIB, written

GOOD = """
hosts:
  a: {guests: [{name: g1}, {name: g2, priority: 5, config: {codec: none}}]}
  b: {memory: 100MiB}
  c: {}
drain: a
defaults:
  guest: {kind: synthetic, memory: 64MiB, socket: "/tmp/{name}.sock"}
  destination: {start: [start, "{name}"], socket: "/tmp/{name}-{destination}.sock"}
migrations:
  - {name: g3, source: b, destination: [c, a]}
"""
KEY = "a" * 40


def test_a_plan_and_its_moves(tmp_path: Path) -> None:
    """A guest that is drained to where it is; a key that is lost on its way."""
    plan, moves = load_plan(written(tmp_path, GOOD))
    assert plan.limits.per_destination == 2
    told = {one.name: (one.source, one.candidates, one.memory, one.codec) for one in moves}
    assert told == {
        "g3": ("b", ("c", "a"), 64 * MIB, "zlib"),
        "g1": ("a", ("b", "c"), 64 * MIB, "zlib"),
        "g2": ("a", ("b", "c"), 64 * MIB, "none"),
    }
    assert {one.start for one in moves} == {("start", "{name}")}
    assert all("start" not in one.settings["destination"] for one in moves)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("destination: [c, a]", "destination: [c, x]", 11,
         "migrations.0.destination: found 'x', expected one of the hosts: a, b, c"),
        ("source: b", "source: x", 11, "migrations.0.source: found 'x'"),
        ("drain: a", "drain: x", 6, "drain.0: found 'x'"),
        ("destination: [c, a]", "destination: b", 11,
         "migrations.0.destination: found 'b', where g3 is already"),
        ("{name: g3,", "{name: g1,", 3, "hosts.a.guests.0.name: found 'g1', which is listed twice"),
        ("/tmp/{name}.sock", "/tmp/one.sock", 3, "guest.socket /tmp/one.sock, which"),
        ("{name: g1}", "{name: g1, memory: 1GiB}", None, None),
        ("  c: {}", "  c: {address: 192.0.2.1}", 11, None),
        ("codec: none", "codec: nine", 3, "hosts.a.guests.1.config: g2: codec: found 'nine'"),
        ("codec: none", "name: x", 3, "hosts.a.guests.1.config.name: found it, expected none"),
        ("start: [start", "start: [3, start", 11,
         "migrations.0.config.destination.start: expected a list of words"),
        ("  c: {}", "  c: {memroy: 1}", 5, "hosts.c.memroy: found an unknown key (did you mean"),
        ("drain: a", "drain: a\nlimits: {per-source: 0}", 7, "limits.per-source: found 0"),
        ("drain: a", "drain: [a, b, c]", 6, "drain: no host is left for g1"),
        ("drain: a", "window: {opens: 8, closes: '09:00'}", 6, "window.opens: found 8, expected"),
        ("drain: a", "window: {opens: '8', closes: '9'}", 6, "expected a time of day as '22:30'"),
        ("drain: a", "window: {opens: '08:00', closes: '08:00'}", 6, "it would never be open"),
        ("drain: a", "window: {opens: \"08:00\\n\", closes: '09:00'}", 6, "expected a time of day"),
        ("{name: g1}", "{name: g1, memory: -5}", 3, "hosts.a.guests.0.memory: found -5"),
        ("{name: g1}", "{name: g1, memory: 9223372036854775808}", 3, "hosts.a.guests.0.memory"),
        ("/tmp/{name}-{destination}.sock", "/tmp/in.sock", 3,
         "found destination.socket /tmp/in.sock, which is listed twice"),
        ("/tmp/{name}-{destination}.sock", "/tmp/in-{destination}.sock", 3,
         "destination.socket /tmp/in-c.sock, which"),
        ("/tmp/{name}-{destination}.sock", "/tmp/{attempt}.sock", None, None),
        ('destination: {start: [start, "{name}"], socket: "/tmp/{name}-{destination}.sock"}',
         "destination: here", None, "destination: found 'here', expected a mapping"),
        ("defaults:", "defaults:\n  security: 3", None, "security: found 3, expected a mapping"),
        ("drain: a\n", "", None, None),
        ("/tmp/{name}.sock", "/tmp/{name}-{nam}.sock", 11,
         "g3: found {nam} in a text, expected {name}, {source}, {destination}, {attempt}"),
        ("drain: a", "failure-policy: never", 6, "failure-policy: found 'never'"),
    ],
)  # fmt: skip
def test_bad_plans(tmp_path: Path, old: str, new: str, line: int | None, words: str | None) -> None:
    """A mistake that is found in the middle of the night, when its turn comes."""
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    if words is None and line is None:
        load_plan(path)
        return
    with pytest.raises(ConfigError) as failed:
        load_plan(path)
    said = str(failed.value)
    assert "\n" not in said
    assert words is None or words in said
    assert re.match(rf"{path}:\d+: ", said)
    if line is not None and words is not None:
        assert said.startswith(f"{path}:{line}: "), said


def test_a_guest_that_fits_nowhere(tmp_path: Path) -> None:
    """One that waits for ever for room; one that is refused although others make room for it."""
    text = GOOD.replace("  c: {}", "  c: {memory: 32MiB}")
    load_plan(written(tmp_path, text.replace("{name: g1}", "{name: g1, memory: 160MiB}")))
    with pytest.raises(
        ConfigError, match=r":3: hosts\.a\.guests\.0\.memory: g1 has 1GiB, b, c have room"
    ):
        load_plan(written(tmp_path, text.replace("{name: g1}", "{name: g1, memory: 1GiB}")))


def test_between_machines_keys_are_needed(tmp_path: Path) -> None:
    """Memory that is refused at the other end, guest by guest."""
    text = GOOD.replace("  c: {}", "  c: {address: 192.0.2.1}")
    with pytest.raises(ConfigError, match=r"hosts\.b\.keys: found nothing.* g3 goes from b to c"):
        load_plan(written(tmp_path, text))
    keyed = text.replace("  b: {", f"  b: {{keys: /k, key: {KEY}, ")
    with pytest.raises(ConfigError, match=r"hosts\.c\.keys: found nothing"):
        load_plan(written(tmp_path, keyed))
    insecure = text.replace("defaults:", "defaults:\n  security: {insecure: true}")
    load_plan(written(tmp_path, insecure))


def test_a_plan_that_moves_nobody(tmp_path: Path) -> None:
    """A traceback for a file without its main key."""
    path = written(tmp_path, "name: x\nhosts: {a: {}}\n")
    with pytest.raises(ConfigError) as failed:
        load_plan(path)
    assert str(failed.value).startswith(f"{path}:1: ")
    assert "expected migrations, or a host to drain" in str(failed.value)
    assert "\n" not in str(failed.value)
