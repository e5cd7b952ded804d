"""The destination as a command: waits for a guest, keeps it, tells what happened."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import structlog

from pipeline.config.environment import check_codec
from pipeline.config.model import Config
from pipeline.destination.receiver import Receiver
from pipeline.guests.base import ArrivingGuest
from pipeline.guests.file import FileArrival
from pipeline.guests.memory import make_file, remove_file
from pipeline.guests.process import process_at
from pipeline.guests.synthetic import SyntheticArrival
from pipeline.leftovers.cleanup import clear_way
from pipeline.progress import Observer, Progress, every_so_often
from pipeline.records.store import SessionRecord
from pipeline.result import GuestAlive, Ram, Result, verified
from pipeline.shell.signals import cancelled_by_signals
from pipeline.streams.way import Way, way_to
from pipeline.timeline import Timeline
from protocol.control import Hello
from protocol.errors import GuestError, MigrationError, RemoteProtocolError
from protocol.limits import PAGE_BYTES
from protocol.status import INCOMING_TRANSITIONS, Status, StatusMachine
from protocol.uri import Uri
from workers.pool import warm_up

TABLE_BYTES_A_PAGE = 16
"""Expected hash 8, newest read-back job 4, marks for written, wrong and a comparison."""


def incoming(config: Config, uri: Uri, stay: float | None, observer: Observer) -> Result:
    """Take one guest in at `uri`, and keep it for `stay` seconds once it runs.

    None keeps a synthetic guest until it has checked itself. ConfigError for the
    user's mistakes; whatever else goes wrong is in the result.
    """
    status = StatusMachine(INCOMING_TRANSITIONS)
    timeline = Timeline(status)
    with ExitStack() as left:
        way = left.enter_context(way_to(uri, "destination"))
        receiver = _receiver(config, way, status, timeline, observer)
        left.enter_context(cancelled_by_signals(receiver.cancel))
        address = str(uri) if uri.is_stream else receiver.engine.link.endpoint
        structlog.get_logger().info("listening", socket_address=address)
        warm_up()
        try:
            receiver.receive()
            way.close()
            return _keep(receiver, _result(receiver, status, timeline), stay)
        finally:
            if receiver.guest is not None:
                receiver.guest.close()


def _receiver(
    config: Config, way: Way, status: StatusMachine, timeline: Timeline, observer: Observer
) -> Receiver:
    def tell() -> None:
        observer(_progress(receiver, status, timeline))

    show = every_so_often(tell)

    def on_tick(now_ns: int) -> None:
        way.check()
        show(now_ns)

    receiver = Receiver(
        way.uri,
        config.parameters,
        _guest_maker(config),
        status,
        autostart=config.autostart,
        commit_timeout_s=config.commit_timeout,
        on_tick=on_tick,
    )
    status.notify(lambda _: tell())
    return receiver


def _progress(receiver: Receiver, status: StatusMachine, timeline: Timeline) -> Progress:
    """What has arrived; how much is still to come only the source knows."""
    elapsed_s, arrival = timeline.elapsed_ms() / 1e3, receiver.engine.arrival
    if arrival is None:
        return Progress(status.status, elapsed_s)
    memory = arrival.reassembly
    received = memory.landed_pages * PAGE_BYTES
    return Progress(status.status, elapsed_s, memory.round_no, received=received)


def _guest_maker(config: Config) -> Callable[[Hello, SessionRecord], ArrivingGuest]:
    path, socket = config.destination.path, config.destination.socket

    def make(hello: Hello, record: SessionRecord) -> ArrivingGuest:
        check_codec(hello.codec)
        if hello.kind == "synthetic" and socket is not None:
            process = process_at(socket)
            clear_way(lambda earlier: earlier.guest == process)
            guest: ArrivingGuest = SyntheticArrival.attach(socket, hello.blocks)
        else:
            _check_room(hello, path)
            if path is not None:
                _make_place(path, record)
            guest = _land(hello, path)
        record.name_guest(guest.process, None if socket is None else str(socket.absolute()))
        return guest

    return make


def _make_place(path: Path, record: SessionRecord) -> None:
    """See that there is a file, and that one that was made here is on record."""
    place = str(path.absolute())
    clear_way(lambda earlier: place in [getattr(one, "path", "") for one in earlier.effects])
    made = make_file(path)
    if made is None:
        return
    try:
        record.add(made)
    except MigrationError:
        remove_file(made)
        raise


def _land(hello: Hello, path: Path | None) -> ArrivingGuest:
    match hello.kind:
        case "synthetic":
            return SyntheticArrival.start(hello.blocks, path)
        case "file":
            return FileArrival(path, hello.blocks)
    raise RemoteProtocolError(f"a guest of unknown kind {hello.kind!r}")


def _check_room(hello: Hello, path: Path | None) -> None:
    """GuestError for a guest that there is no room for: its memory, and the tables about it.

    A guest that runs on here writes into its holes, too; of a file they stay holes.
    """
    pages = sum(block.pages for block in hello.blocks)
    here = psutil.virtual_memory()
    where = None if path is None else path.parent
    room = here.total if where is None else _room(where, path, all_of_it=hello.kind == "file")
    if pages * PAGE_BYTES > room:
        raise GuestError(
            f"the guest has {pages * PAGE_BYTES} bytes of memory,"
            f" {where or 'this machine'} has room for {room}"
        )
    if pages * TABLE_BYTES_A_PAGE > here.available:
        raise GuestError(f"no room for the tables about a guest of {pages} pages")


def _room(where: Path, path: Path | None, *, all_of_it: bool) -> int:
    """The bytes that fit into the file system of folder `where`; what `path` takes is free."""
    usage = shutil.disk_usage(where)
    if all_of_it:
        return usage.total
    taken = path.stat().st_blocks * 512 if path is not None and path.exists() else 0
    return usage.free + taken


def _keep(receiver: Receiver, result: Result, stay: float | None) -> Result:
    """Let a guest that runs here run on, and check it: at once, and again when `stay` is over."""
    guest = receiver.guest
    if guest is None or result.status is not Status.COMPLETED or not receiver.runs_here:
        return result
    try:
        wrong = guest.self_check()
        if stay is not None and wrong is None:
            structlog.get_logger().info(f"the guest runs here, for {stay:g} s more")
            receiver.cancel.wait(stay)
            wrong = guest.self_check()
        result.guest_gap = guest.statistics().gap_ms
    except GuestError as error:
        wrong = str(error)
        result.guest_alive = "none" if guest.is_dead() else "unknown"
    result.self_check = wrong or "clean"
    return result


def _guest_alive(receiver: Receiver, *, completed: bool) -> GuestAlive | None:
    """Where the guest runs, as far as this end knows; nothing runs in a file."""
    if completed:
        hello = receiver.engine.pump.hello
        return None if hello is None or hello.kind == "file" else "destination"
    return "unknown" if receiver.begun else "source"


def _result(receiver: Receiver, status: StatusMachine, timeline: Timeline) -> Result:
    engine = receiver.engine
    hello = engine.pump.hello
    completed = status.status is Status.COMPLETED
    total = sum(block.pages for block in hello.blocks) * PAGE_BYTES if hello else None
    return Result(
        status=status.status,
        total_time=round(timeline.elapsed_ms()),
        ram=None if total is None else Ram(total=total),
        name=hello.name if hello else None,
        session=engine.link.session_id.hex() or None,
        verified=verified(hello.verify) if hello and completed else False,
        guest_alive=_guest_alive(receiver, completed=completed),
        error_desc=receiver.error,
    )
