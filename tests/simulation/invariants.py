"""What must hold at every step of a migration, judged by what really happened at both ends.

Knows the truth that neither end knows: what each frame held when it was sent, what lies in
memory, what is on both disks.
"""

from collections import Counter

import numpy as np
import xxhash

from pipeline.source.dirty import DirtyMap
from protocol import control as c
from protocol.commit import Step
from protocol.digest import page_seed
from protocol.frames import Batch, PageKind
from protocol.limits import PAGE_BYTES, REDOS
from protocol.session import Role
from tests.simulation.disk import Disk
from tests.simulation.guest import Guest
from tests.simulation.story import Story
from workers.messages import Arrived, SendJob
from workers.pages import VOID_HASH, ZERO_HASH, Hashes

Content = dict[int, int]
"""Page → the number in it."""


class Truth:
    """The invariants of a migration; `broken` holds what was seen to be wrong."""

    def __init__(self, story: Story, disk: Disk, source: Guest, destination: Guest) -> None:
        self._story = story
        self._disk = disk
        self._source = source
        self._destination = destination
        self.broken: list[str] = []
        self.landed = self.window = self.heard = 0
        self.landed_as: dict[int, list[Content]] = {}
        self._memory = [0] * destination.memory.pages
        self._rounds: Counter[tuple[int, int]] = Counter()
        self._last_of_round: dict[int, int] = {}
        self._owed: dict[int, int] = {}
        self.starts = 0
        self.commits = 0

    def check(self, holds: bool, words: str, *details: object) -> None:
        """Note it where something does not hold."""
        if not holds:
            self.broken.append(words.format(*details))
            self._story.tell("broken", "BROKEN: " + words, *details)

    def hears(self, role: Role, message: c.AnyMessage) -> None:
        """One end is about to say something to the other."""
        if isinstance(message, c.Alive):
            return
        kind = type(message).__name__
        self._story.tell(kind, "the {} says {}", role, message)
        match message:
            case c.Welcome(window=window):
                self.window = window
            case c.Commit():
                self.commits += 1
            case c.Applied(seq=seq):
                self.check(
                    seq <= self.landed, "Applied({}) is said, {} is written", seq, self.landed
                )

    def gives(self, job: SendJob) -> None:
        """The source gives a job to a worker."""
        self._story.tell("job", "job {} attempt {} of round {}", job.seq, job.attempt, job.round_no)
        self.check(job.attempt <= REDOS, "frame {} is redone {} times", job.seq, job.attempt)
        out = job.seq - self.heard
        self.check(out <= self.window, "{} frames are out, the window is {}", out, self.window)
        if job.attempt:
            self._story.tell("redone", "frame {} is given out anew", job.seq)
            return
        self._last_of_round[job.round_no] = job.seq
        before = self._last_of_round.get(job.round_no - 1, 0)
        self.check(
            before <= self.landed,
            "round {} begins at frame {}, {} is applied", job.round_no, job.seq, self.landed,
        )  # fmt: skip
        for page in np.frombuffer(job.pages, np.uint32).tolist():
            self._rounds[job.round_no, page] += 1
            self.check(
                self._rounds[job.round_no, page] == 1,
                "page {} stands twice in round {}", page, job.round_no,
            )  # fmt: skip

    def takes(self, dirty: DirtyMap) -> None:
        """Pages are taken off the dirty set: they are owed."""
        pages = np.arange(len(self._memory), dtype=np.uint32)
        numbers = self._source.memory.numbers
        taken = pages[dirty.marked(0, pages)].tolist()
        self._owed.update({page: numbers[page] for page in taken})

    def settles(self, dirty: DirtyMap, table: Hashes | None, session: bytes) -> None:
        """The fence has fallen: what was taken has arrived, or is dirty again."""
        pages = np.arange(len(self._memory), dtype=np.uint32)
        again = dirty.marked(0, pages).tolist()
        for page, number in self._owed.items():
            self.check(
                self._memory[page] >= number or again[page],
                "page {} was taken with {}, holds {} and is not dirty",
                page, number, self._memory[page],
            )  # fmt: skip
        self._owed.clear()
        if table is not None:
            self._trusts(table, page_seed(session))

    def _trusts(self, table: Hashes, seed: int) -> None:
        """A hash that is not void is that of what the destination holds."""
        for page, known in enumerate(table.tolist()):
            number = self._memory[page]
            self.check(
                known in (VOID_HASH, hash_of(number, seed)),
                "the hash of page {} at the source is not that of {}", page, number,
            )  # fmt: skip

    def sends(self, batch: Batch) -> None:
        """A worker has a frame ready, made of one copy of its pages."""
        pages = batch.pages.tolist()
        self._story.tell(
            "frame", "frame {} attempt {} holds pages {}", batch.seq, batch.attempt, pages
        )
        data = np.frombuffer(batch.payload, np.uint64)[:: PAGE_BYTES // 8].tolist()
        content = dict.fromkeys(pages, 0)
        content.update(zip(batch.pages[batch.kinds == PageKind.DATA].tolist(), data, strict=True))
        self.landed_as.setdefault(batch.seq, []).append(content)

    def lands(self, arrived: Arrived) -> None:
        """A frame was written into the destination's memory."""
        self._story.tell("landed", "frame {} attempt {} is written", arrived.seq, arrived.attempt)
        self.check(
            arrived.seq == self.landed + 1,
            "frame {} is written behind frame {}", arrived.seq, self.landed,
        )  # fmt: skip
        self.landed = arrived.seq
        self._memory = memory = self._destination.memory.read()
        pages = np.frombuffer(arrived.pages, np.uint32).tolist()
        wrote = {page: memory[page] for page in pages}
        self.check(
            wrote in self.landed_as.get(arrived.seq, ()),
            "frame {} wrote {}, which was never sent", arrived.seq, wrote,
        )  # fmt: skip

    def runs(self, guest: Guest) -> None:
        """A guest begins to run."""
        other = self._destination if guest is self._source else self._source
        self.check(not other.runs, "two guests run")
        if guest is self._source:
            self._goes_on()
        else:
            self._starts()

    def _goes_on(self) -> None:
        if Step.INTENT in self._disk.steps["source"]:
            self.check(
                self._disk.last_step("destination") is Step.NOT_STARTED,
                "the source's guest goes on after the intent, while the destination says {}",
                self._disk.last_step("destination"),
            )

    def _starts(self) -> None:
        self.starts += 1
        step = self._disk.last_step("destination")
        self.check(self.starts == 1, "the guest is started {} times", self.starts)
        self.check(self.commits > 0, "the guest is started, and no commit was sent")
        self.check(step is Step.COMMITTED, "the guest is started, on record is {}", step)
        here = self._destination.memory.read()
        self.check(
            here == self._source.memory.numbers,
            "the guest starts with {}, at the source was {}", here, self._source.memory.numbers,
        )  # fmt: skip


def hash_of(number: int, seed: int) -> int:
    """The hash of a page that holds `number`."""
    if not number:
        return ZERO_HASH
    page = number.to_bytes(8, "little") + bytes(PAGE_BYTES - 8)
    return xxhash.xxh3_64_intdigest(page, seed)
