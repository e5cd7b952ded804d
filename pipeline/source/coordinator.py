"""The source's driver: setup, rounds, switch-over, and who has the guest afterwards.

Does the steps of a migration in their order and as it is told: what is dirty is the
tracker's business, whether to send on the rounds', what may be said now the
session's. Page bytes never come through here.
"""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns

from pipeline.config.model import Config, Parameters
from pipeline.guests.base import SourceGuest
from pipeline.guests.disks import LeavingDisk
from pipeline.liveness import SILENCE_SECONDS
from pipeline.logs import log_if_unexpected
from pipeline.progress import and_every_so_often
from pipeline.signals import Flag
from pipeline.source.custody import Custody
from pipeline.source.downtime import DowntimeClock
from pipeline.source.engine import SourceEngine
from pipeline.source.pacing import Pacing
from pipeline.source.rounds import Verdict
from pipeline.source.switch_over import SwitchOver
from pipeline.source.tracking import Tracking
from protocol import control as c
from protocol.devices import encode_global_state
from protocol.errors import Cancelled, GuestError, MigrationError, NotStartedThere
from protocol.limits import REASON_CHARS
from protocol.status import FINISHED, Status, StatusMachine
from protocol.uri import Uri
from workers.keys import ClientKeys


class Coordinator:
    """One migration at its source; owned by the thread that calls `migrate`.

    The guest is the caller's; `custody.alive` says where it runs when `migrate` is over.
    `on_guest` hears when it is let run (True) or stopped.
    """

    def __init__(
        self,
        config: Config,
        guest: SourceGuest,
        tracking: Tracking,
        status: StatusMachine,
        uri: Uri,
        on_tick: Callable[[int], None],
        *,
        cancel: Flag | None = None,
        on_guest: Callable[[bool], None] = lambda _: None,
        keys: ClientKeys | None = None,
        disks: list[LeavingDisk] | None = None,
    ) -> None:
        self._config = config
        self._guest = guest
        self._status = status
        self._on_guest = on_guest
        self.cancel = cancel or Flag()
        self.go_on = Flag()
        """Leave pre-switchover."""
        self.has_stopped = False
        """Whether the guest was stopped for the switch-over, and not let go on since."""
        tick = and_every_so_often(on_tick, self._look)
        self.engine = SourceEngine(config, guest, tracking, uri, self.cancel, tick, keys, disks)
        self.pacing = Pacing(config, self.engine)
        self.clock = DowntimeClock()
        stays = uri.scheme == "file"
        self.custody = Custody(guest, config.name, self.engine.session_id, stays=stays)
        self.guest_dirty_rate: float | None = None
        self.error: str | None = None

    def _look(self) -> None:
        """Whether the guest lives, and its migration comes to an end: until it is stopped. Then all
        of it can be had, whatever becomes of its process."""
        if self.has_stopped:
            return
        self.custody.check()
        self.pacing.check()

    def migrate(self) -> None:
        """Move the guest. How it ended is in the status; errors are in `error`."""
        self._status.change(Status.NONE, Status.SETUP)
        try:
            self.custody.open()
            self._guest.tell_session(self.engine.session_id.hex())
            self.engine.set_up()
            self._status.change(Status.SETUP, Status.ACTIVE)
            self._guest.statistics()  # they count from here on
            self._send_rounds()
            self._switch_over()
        except Exception as error:  # whatever it is, the guest has to run again
            log_if_unexpected(error)
            self._fail(error)
        finally:
            self.engine.close()
            self.custody.close()
            self._guest.tell_session(None)

    def _send_rounds(self) -> None:
        """Round after round, until what is left fits into the downtime."""
        engine = self.engine
        self.pacing.begin()
        while True:
            engine.start_round()
            engine.pump.wait(lambda: engine.dispatcher.all_given)
            if not self._guest.can_stop:
                return
            self._check_guest()
            verdict = self.pacing.verdict()
            began_ns = monotonic_ns()
            engine.fence()
            if verdict is Verdict.SWITCH_OVER and self.pacing.still_fits(monotonic_ns() - began_ns):
                return
            self._slow_down()

    def _slow_down(self) -> None:
        percent, slowing = self.pacing.maybe_throttle(), self.custody.slowing
        if percent is not None and self.engine.pump.aside(lambda: slowing.take(percent)):
            self.pacing.throttled()

    def _check_guest(self) -> None:
        """GuestError where its state can no longer be saved, or it has other memory."""
        if (reason := self.engine.pump.aside(self._guest.why_not_movable)) is not None:
            raise GuestError(f"{self._guest.name} cannot be moved any more: {reason}")

    def _switch_over(self) -> None:
        self.guest_dirty_rate = self._guest.statistics().dirty_rate
        pump = self.engine.pump
        run_state = pump.aside(lambda: self.custody.stop(self.clock.start))
        self.has_stopped = True
        if run_state == "running":
            self._on_guest(False)
        self._check_guest()
        sections = [*pump.aside(self._guest.save_devices), encode_global_state(run_state)]
        self.clock.lap("device-save")
        steps = SwitchOver(self.engine, self.clock)
        steps.send_last()
        steps.verify()
        steps.load(sections)
        self._commit(steps)

    def _commit(self, steps: SwitchOver) -> None:
        held = Status.ACTIVE
        if self._config.capabilities.pause_before_switchover:
            held = self._pause()
            if self._guest.kind == "file":  # whose writers nobody holds
                steps.look_again()
        if not self._guest.is_dead():
            self._guest.check_stopped()
        self.engine.disks.check_untouched()
        if not self._status.change(held, Status.DEVICE):
            raise Cancelled("cancelled")
        self.custody.intend()
        self.engine.pump.commit()
        try:
            steps.commit()
        except NotStartedThere:
            self.custody.refused()
            raise
        self.engine.link.send(c.Settled() if self.custody.given() else c.Alive())
        self.custody.leave()
        self._part()
        self._status.change(Status.DEVICE, Status.COMPLETED)

    def _part(self) -> None:
        """Repeat the last word until it is heard, for 5 s at most: a destination that has not heard
        it stays, to be asked; the guest is there, whatever comes of that."""
        engine, deadline = self.engine, monotonic_ns() + int(SILENCE_SECONDS * 1e9)
        with suppress(MigrationError):
            engine.pump.wait(lambda: engine.link.all_acknowledged or monotonic_ns() > deadline)

    def _pause(self) -> Status:
        """All is there and nothing given away: wait until somebody says so."""
        self._status.change(Status.ACTIVE, Status.PRE_SWITCHOVER)
        self.engine.pump.wait(self.go_on.is_set)
        self.clock.lap("pause")
        return Status.PRE_SWITCHOVER

    def adjust(self, parameters: Parameters) -> None:
        """Let what was set meanwhile take effect."""
        self.pacing.rounds.most_ms = float(parameters.downtime_limit)
        self.engine.adjust(parameters, lifted=self.has_stopped)

    def _fail(self, error: Exception) -> None:
        """Tell the other end, take the guest back where it is still ours, keep the reason."""
        cancelled = isinstance(error, Cancelled)
        self.error = str(error)
        if cancelled:
            self._status.change(self._status.status, Status.CANCELLING)
        self.engine.link.end(c.Cancel(reason=self.error[:REASON_CHARS], failed=not cancelled))
        if self.custody.take_back():  # a guest that hangs is waited for
            self._on_guest(True)
        self.has_stopped = False
        end = Status.CANCELLED if cancelled else Status.FAILED
        if self._status.status not in FINISHED:
            self._status.change(self._status.status, end)
