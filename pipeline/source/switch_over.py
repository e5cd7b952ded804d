"""From the stop of the guest to the answer of the destination; the downtime ends a little before.

The guest is stopped all the while. Until `commit` any error leaves it to the caller
to let it run again; from then on only the destination's answer decides who has it.
"""

from pipeline.source.downtime import DowntimeClock
from pipeline.source.engine import SourceEngine
from pipeline.source.quiet import has_stayed_quiet
from protocol import control as c
from protocol.devices import Section, encode_sections
from protocol.digest import table_digest
from protocol.errors import GuestError, IntegrityError, RemoteProtocolError
from protocol.limits import DEVICE_PIECE_BYTES
from workers.pages import Pages

VERIFY_SECONDS = 600.0
LOAD_SECONDS = 60.0
FLUSH_PAGE_SECONDS = 100e-6
"""For a page of a disk that is still to be written out: 40 MiB/s."""


class SwitchOver:
    """The steps of one switch-over, in the order in which they stand here."""

    def __init__(self, engine: SourceEngine, clock: DowntimeClock) -> None:
        self._engine = engine
        self._clock = clock
        self._sent = engine.dirty_map()

    def send_last(self) -> None:
        """Send all that is still dirty, now that nothing writes any more.

        Where hashes are kept, one pass over all memory finds what the tracker missed;
        what it finds is sent while it is still looking.
        """
        engine = self._engine
        engine.live.rate = 0
        engine.disks.check_alone(engine.guest.process)
        engine.disks.guest_stands()
        if engine.tracking.scans:
            engine.scan()
        engine.fence()
        engine.dispatcher.final = True
        engine.start_round(self._sent)
        if engine.sent.hashes is not None:
            engine.scan_hashes(self._send_found)
        engine.fence()
        self._clock.lap("last-round")

    def _send_found(self, block: int, pages: Pages) -> None:
        """Send what a hash pass found, but for what this round has sent already."""
        fresh = pages[~self._sent.marked(block, pages)]
        size = self._engine.config.batch_pages
        self._engine.dispatcher.plan(
            ((block, fresh[start : start + size]) for start in range(0, len(fresh), size)),
            len(fresh),
        )
        of_disk = block >= self._engine.disks.first
        self._engine.statistics.enlarge_round(len(fresh), of_disk=of_disk)

    def verify(self) -> None:
        """Prove that the destination holds what was sent; send once more what differs.

        IntegrityError where it still differs, GuestError where a file that nobody
        stopped was written meanwhile.
        """
        self._compare()
        if self._engine.pump.mismatches:
            self._resend()
            self._compare()
        if self._engine.pump.mismatches:
            count = sum(len(pages) for _, pages in self._engine.pump.mismatches)
            raise IntegrityError(f"{count} pages differ at the destination, sent twice")
        if not self._engine.guest.can_stop:
            self.look_again()
        self._engine.disks.check_untouched()
        self._clock.lap("verify")

    def _compare(self) -> None:
        tables = self._engine.sent.hashes if self._engine.config.verify == "full" else None
        self._engine.link.send(
            c.Verify(
                last_seq=self._engine.dispatcher.last_seq,
                digests=[table_digest(table) for table in tables or []],
            )
        )
        self._engine.pump.expect(c.Verified, within_s=VERIFY_SECONDS)

    def _resend(self) -> None:
        engine = self._engine
        if engine.sent.hashes is None or engine.config.verify != "full":
            raise RemoteProtocolError("mismatches found where nothing was to be compared")
        for block, pages in engine.pump.mismatches:
            if block >= len(engine.block_pages) or int(pages.max()) >= engine.block_pages[block]:
                raise RemoteProtocolError(f"a mismatch outside the guest's memory, block {block}")
            engine.sent.forget(block, pages)
            engine.dirty.mark(block, pages)
        engine.pump.mismatches.clear()
        engine.start_round()
        engine.fence()

    def look_again(self) -> None:
        """GuestError where memory is not what was sent: somebody has written it who was not
        stopped."""
        engine, guest, found = self._engine, self._engine.guest, list[Pages]()
        if engine.sent.hashes is not None:
            engine.scan_hashes(lambda _, pages: found.append(pages))
        quiet = not any(len(pages) for pages in found)
        if quiet and engine.tracking.name == "none":
            quiet = engine.pump.aside(lambda: has_stayed_quiet(guest, engine.tracking.stamps))
        if not quiet:
            raise GuestError(f"{guest.name} is being written")

    def load(self, sections: list[Section]) -> None:
        """Send the device state and wait until the destination is ready to start."""
        stream = encode_sections(sections)
        starts = range(0, len(stream), DEVICE_PIECE_BYTES)
        for start in starts:
            piece = stream[start : start + DEVICE_PIECE_BYTES]
            self._engine.link.send(c.Devices(data=piece, last=start == starts[-1]))
        flush_s = self._engine.disks.pages * FLUSH_PAGE_SECONDS
        ready = self._engine.pump.expect(c.Ready, within_s=LOAD_SECONDS + flush_s)
        self._engine.link.await_commit(self._engine.config.commit_timeout)
        self._clock.lap("transfer", other="load", other_ms=ready.load_ms)

    def commit(self) -> None:
        """Give the guest away: returns when it is there.

        NotStartedThere when it certainly is not; PeerLost when nobody knows.
        """
        timeout_s = self._engine.config.commit_timeout
        self._engine.link.send(c.Commit())
        started = self._engine.pump.expect(c.Started, within_s=timeout_s)
        self._clock.stop("start", started.since_ms)
