"""What is kept of a batch: whole or not at all, for one conductor at a time; what is told of it."""

import json
import sqlite3
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from pipeline.batch.journal import AttemptRow, Journal, MoveRow, conducted, read_journal
from pipeline.batch.summary import summary
from pipeline.reports.batch import COLOURS, batch_report
from pipeline.result import Ram, Result, encode_result
from protocol.errors import ConfigError, MigrationError
from protocol.status import Status

MIB = 1 << 20
ROWS = [MoveRow(name, "a", 64 * MIB, place="a") for name in ("one", "two", "three")]
RESULT = Result(
    status=Status.COMPLETED,
    downtime=30,
    bottleneck="compress",
    ram=Ram(transferred=16 * MIB, normal_bytes=48 * MIB),
    verified=True,
)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of three guests of a."""
    made = Journal(tmp_path / "journal")
    made.begin("batch", b"plan", ROWS, 100.0)
    return made


def test_what_is_written_is_read_again(journal: Journal) -> None:
    """A decision that a restart does not know of."""
    journal.attempt(AttemptRow("t1", "one", "a", "b", 101.0), 1)
    journal.change_attempt("t1", ended=105.0, outcome="arrived", result=b"{}", closed=1)
    journal.change("one", state="arrived", place="b")
    with read_journal(journal.path) as again:
        assert again.plan == b"plan"
        assert again.times == (100.0, None)
        one = MoveRow("one", "a", 64 * MIB, "arrived", "b", "", 1, None, "t1")
        assert again.move("one") == one
        assert [row.outcome for row in again.attempts()] == ["arrived"]
        assert [event[2:5] for event in again.events()] == [("begin", "one", "t1")]


def test_half_a_decision_is_none(journal: Journal) -> None:
    """An attempt that has ended, of a guest that still runs."""
    with suppress(ZeroDivisionError), journal.together():
        journal.change("one", state="arrived")
        raise ZeroDivisionError
    assert journal.move("one").state == "waiting"


def test_one_conductor_at_a_time(tmp_path: Path) -> None:
    """Two that begin the same guest."""
    with (
        conducted(tmp_path / "j"),
        pytest.raises(ConfigError, match="another `pageferry batch run` is at work"),
        conducted(tmp_path / "j"),
    ):
        pass
    with conducted(tmp_path / "j"):
        pass


def test_what_is_no_journal(tmp_path: Path) -> None:
    """A traceback of a database."""
    with pytest.raises(ConfigError, match="no batch was begun"):
        read_journal(tmp_path / "none").__enter__()
    (tmp_path / "text").write_text("no database, " * 100)
    with pytest.raises(ConfigError, match="no journal: "):
        read_journal(tmp_path / "text").__enter__()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder: no journal: "):
        read_journal(tmp_path / "folder").__enter__()
    (tmp_path / "locked.lock").mkdir()
    with pytest.raises(ConfigError, match=r"locked\.lock cannot be made"):
        conducted(tmp_path / "locked").__enter__()
    with sqlite3.connect(tmp_path / "foreign") as foreign:
        foreign.execute("CREATE TABLE batch (colour TEXT)")
    with pytest.raises(MigrationError, match="foreign: no such column"):
        read_journal(tmp_path / "foreign").__enter__()


def test_it_is_for_its_user_alone(journal: Journal) -> None:
    """What stands in a plan, for everybody on the machine."""
    assert journal.path.stat().st_mode & 0o077 == 0


def test_requests_are_heard_once(journal: Journal) -> None:
    """A pause that is asked for anew at each turn; one that a restart does not know of."""
    journal.ask("pause")
    journal.ask("cancel", "one")
    asked = journal.asked()
    assert [(one.what, one.argument) for one in asked] == [("pause", ""), ("cancel", "one")]
    journal.is_done(asked[0])
    assert [one.what for one in journal.asked()] == ["cancel"]
    assert [one.what for one in journal.heard()] == ["pause"]


def test_a_summary_and_its_page(journal: Journal) -> None:
    """Percent of guests where those of bytes are asked for; a guest that nobody shows."""
    journal.attempt(AttemptRow("t1", "one", "a", "b", 101.0), 1)
    journal.change("one", state="arrived", place="b")
    journal.change_attempt("t1", ended=105.0, result=encode_result(RESULT).encode())
    journal.attempt(AttemptRow("t2", "two", "a", "c", 102.0), 2)
    journal.change_attempt("t2", percent=50.0)
    journal.change("three", state="unknown", place="", reason="<no answer>", session="5")
    found = summary("batch", (100.0, 110.0), journal.moves(), journal.attempts(), "abc")
    assert found.percent == pytest.approx(50)
    assert found.words == "1 running, 1 arrived, 1 unknown; 50 % of memory"
    assert not found.all_arrived
    one, two, three = found.moves
    assert (one.ratio, one.downtime, one.place, one.percent) == (3.0, 30, "b", 100)
    assert (two.state, two.percent, two.tries) == ("running", 50, 2)
    assert (three.place, three.session) == (None, "5")
    assert [(host.left, host.came, host.to_leave) for host in found.hosts] == [
        (1, 0, 2), (0, 1, 0), (0, 0, 0),
    ]  # fmt: skip
    page = batch_report(json.loads(msgspec.json.encode(found)))
    for words in ("not known", "&lt;no answer&gt;", "1 running, 1 arrived", "Over time", "3",
                  "from 1970-01-01 00:01:40 UTC to 1970-01-01 00:01:50 UTC"):  # fmt: skip
        assert words in page
    assert COLOURS["arrived"] in page
    assert COLOURS["failed"] not in page
    assert page.count("<figure>") == page.count("<figcaption>") == 2
