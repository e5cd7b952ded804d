"""Workers that do not answer: found in time, and no other is taken for one."""

from workers.watch import ASK_NS, SILENCE_NS, Watch

START = 10**15


def watching() -> Watch:
    watch = Watch()
    watch.add(4, START)
    watch.add(7, START)
    return watch


def test_each_is_asked_once_a_second() -> None:
    """A flood of questions, or a worker that is never asked."""
    watch = watching()
    assert watch.to_ask(START + ASK_NS - 1) == []
    assert watch.to_ask(START + ASK_NS) == [4, 7]
    assert watch.to_ask(START + ASK_NS) == []
    assert watch.to_ask(START + 2 * ASK_NS) == [4, 7]


def test_who_owes_an_answer_for_long_is_silent() -> None:
    """A patience that begins anew with each question that is not answered either."""
    watch = watching()
    for second in range(1, 4):
        watch.to_ask(START + second * ASK_NS)
        watch.heard(7)
    assert watch.silent(START + ASK_NS + SILENCE_NS) == []
    assert watch.silent(START + ASK_NS + SILENCE_NS + 1) == [4]


def test_who_was_not_asked_or_is_gone_is_not_silent() -> None:
    """A command that slept for an hour and kills all its workers when it wakes up."""
    watch = watching()
    assert watch.silent(START + 3600 * 10**9) == []
    watch.to_ask(START + ASK_NS)
    watch.remove(4)
    assert watch.silent(START + 3600 * 10**9) == [7]
