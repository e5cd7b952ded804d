"""The two ends of each attempt while it runs: what they say, whether they are there, what they are
told. What is told once may be lost, on either way; so it is looked for, or told again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline.batch.journal import Journal
from pipeline.batch.plan import Plan
from pipeline.cluster import tasks
from pipeline.cluster.attempt import Attempt
from pipeline.cluster.ends import Ended, Look
from pipeline.cluster.questions import Questions
from protocol.session import Role

AGAIN_S = 2.0
"""Behind this a host that has not done what it was told is told again."""
LOOK_S = 10.0
"""How often it is looked whether an end has said something that was not heard."""
END_S = 30.0
"""For an end that was told to stop: one past its commit waits so long for the answer."""
CANCELLED = "cancelled by the user"
GIVE_UP_S = 20.0
"""For a destination to end after its source."""


class Attending:
    """Of one batch: `attempts` by token, from their begin until all of them is over. `over` hears
    of each whose two ends are, once; `note` keeps what happens."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        questions: Questions,
        note: Callable[[str, Attempt, str], None],
        over: Callable[[Attempt], None],
    ) -> None:
        self.attempts: dict[str, Attempt] = {}
        self._plan = plan
        self._journal = journal
        self._questions = questions
        self._note = note
        self._over = over

    def begin(self, attempt: Attempt) -> None:
        """First its destination; its source, when that listens."""
        order = attempt.order(self._plan, "destination")
        self._run(attempt, "destination", tasks.attend, order)
        self._limit_time(attempt)

    def take_over(self, attempt: Attempt) -> None:
        """What has not begun of it never does, the rest is waited for."""
        self._limit_time(attempt)
        roles: tuple[Role, Role] = ("destination", "source")
        for role in roles:
            self._run(attempt, role, tasks.forbid, attempt.token, role)

    def _limit_time(self, attempt: Attempt) -> None:
        self._questions.within((attempt.token, "look"), LOOK_S, partial(self._look, attempt.token))
        seconds = self._plan.timeouts.attempt
        late = partial(self.stop, attempt.token, f"not done in {seconds:g} s")
        self._questions.within((attempt.token, "attempt"), seconds, late)

    def _run(
        self, attempt: Attempt, role: Role, function: Callable[..., object], *arguments: object
    ) -> None:
        """On the host of an end, whose end is heard of."""
        then = partial(self._ended, attempt.token, role)
        self._questions.run(attempt.host_of(role), function, *arguments, then=then)

    def heard(self, said: dict[str, Any]) -> None:
        """What an end's log says, as soon as it does."""
        attempt = self.attempts.get(str(said.get("token")))
        if attempt is None:
            return
        address = said.get("socket_address")
        if said.get("role") == "destination" and isinstance(address, str):
            self._listens(attempt, address)
        if said.get("event") == "progress" and said.get("role") == "source":
            attempt.percent = max(attempt.percent, float(said.get("percent") or 0))
            attempt.wire_rate = said.get("wire_rate") or attempt.wire_rate

    def _maybe_open(self, token: str) -> Attempt | None:
        """The attempt, where it is not over."""
        attempt = self.attempts.get(token)
        return None if attempt is None or attempt.is_over else attempt

    def _listens(self, attempt: Attempt, uri: str) -> None:
        if attempt.sent or attempt.stopping or attempt.there is not None:
            return
        attempt.uri, attempt.sent = uri, True
        self._journal.change_attempt(attempt.token, uri=uri)
        self._run(attempt, "source", tasks.attend, attempt.order(self._plan, "source"))

    def _ended(self, token: str, role: Role, answer: object) -> None:
        """An end is over, or its host has not answered: then it is asked for again."""
        if (attempt := self._maybe_open(token)) is None:
            return
        if not isinstance(answer, Ended):
            self._note("host", attempt, f"{attempt.host_of(role)} ({role}): {answer}")
            self.host_is_away(attempt, role)
            again = partial(self._run, attempt, role, tasks.forbid, token, role)
            self._questions.within((token, f"{role} again"), AGAIN_S, again)
            return
        self._questions.forget((token, role))
        if role == "source":
            attempt.here = attempt.here or answer
        else:
            attempt.there = attempt.there or answer
        self._one_is_over(attempt)

    def _look(self, token: str) -> None:
        """Now and then, since what is told once may be lost on its way. Whose host has not answered
        the last time is away: one that hangs Dask would not miss for minutes."""
        if (attempt := self._maybe_open(token)) is None:
            return
        for role in self._waited_for(attempt):
            if role in attempt.asked:
                self.host_is_away(attempt, role, f"{role} hangs")
                continue
            attempt.asked.add(role)
            then = partial(self._seen, token, role)
            self._questions.run(attempt.host_of(role), tasks.look, token, role, then=then)
        self._questions.within((token, "look"), LOOK_S, partial(self._look, token))

    def _seen(self, token: str, role: Role, answer: object) -> None:
        attempt = self.attempts.get(token)
        if attempt is None:
            return
        attempt.asked.discard(role)
        if not isinstance(answer, Look):
            return
        self._questions.forget((token, f"{role} hangs"))
        if role == "destination" and answer.address is not None:
            self._listens(attempt, answer.address)
        if answer.ended is not None:
            self._ended(token, role, answer.ended)

    def _waited_for(self, attempt: Attempt) -> list[Role]:
        """The ends that are not over."""
        found: list[Role] = [] if attempt.there is not None else ["destination"]
        if attempt.sent and attempt.here is None:
            found.append("source")
        return found

    def host_is_away(self, attempt: Attempt, role: Role, what: str = "") -> None:
        """It is waited for, for a while; from when on it is away counts once, for each `what`."""
        words = f"{attempt.host_of(role)} is gone"
        gone = partial(self._ended, attempt.token, role, Ended(begun=True, words=words))
        key = attempt.token, what or role
        self._questions.within(key, self._plan.timeouts.host, gone, once=True)

    def look_at_hosts(self, up: set[str]) -> None:
        """Those that are not `up` may have ends that nobody hears of."""
        for attempt in [one for one in self.attempts.values() if not one.is_over]:
            for role in self._waited_for(attempt):
                if attempt.host_of(role) not in up:
                    self.host_is_away(attempt, role, f"{role} hangs")

    def _one_is_over(self, attempt: Attempt) -> None:
        """Settle it, when both ends are; the other one is told, where it would wait for ever."""
        token = attempt.token
        if attempt.there is not None and not attempt.sent:
            attempt.here = Ended(begun=False)
        if attempt.here is not None and attempt.there is not None:
            self._questions.forget_all(token)
            attempt.is_over = True
            self._over(attempt)
        elif attempt.here is not None:
            result = attempt.result
            if result is None or result.guest_alive not in ("destination", "unknown"):
                self._questions.tell(attempt.destination, tasks.stop, token, "destination")
            late = Ended(begun=True, words="it did not end")
            give_up = partial(self._ended, token, "destination", late)
            self._questions.within((token, "behind"), GIVE_UP_S, give_up)

    def steer(self, token: str, share: int) -> None:
        """Until its source has taken it, or has another one by then."""
        attempt = self.attempts.get(token)
        if attempt is None or not attempt.sent or attempt.here or attempt.share != share:
            return

        def steered(answer: object) -> None:
            if answer is not True:
                self._questions.within((token, "steer"), AGAIN_S, partial(self.steer, token, share))

        self._questions.run(attempt.move.source, tasks.steer, token, share, then=steered)

    def stop(self, token: str, why: str) -> None:
        """Cancel an attempt; one past its commit goes on."""
        attempt = self.attempts.get(token)
        if attempt is None or (attempt.stopping is not None and why != CANCELLED):
            return
        was_told, attempt.stopping = attempt.stopping is not None, why
        self._note("stop", attempt, why)
        if not (attempt.is_over or was_told):
            late = partial(self._give_up, token)
            self._questions.within((token, "stop"), self._plan.timeouts.host + END_S, late)
            self._press(token)

    def _give_up(self, token: str) -> None:
        """Who was told to stop has not: it counts as over, and is asked where the guest is."""
        if (attempt := self._maybe_open(token)) is not None:
            for role in self._waited_for(attempt):
                self._ended(token, role, Ended(begun=True, words="it does not end"))

    def _press(self, token: str) -> None:
        """Tell the end that has the say to stop, until it has: one that is just starting does not
        hear."""
        if (attempt := self._maybe_open(token)) is None:
            return
        role: Role = "source" if attempt.sent and attempt.here is None else "destination"
        self._questions.tell(attempt.host_of(role), tasks.stop, token, role)
        self._questions.within((token, "press"), AGAIN_S, partial(self._press, token))
