"""The conversation with the process of a synthetic guest: each question has a deadline."""

import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import msgspec

from pipeline.guests import wire
from protocol.errors import GuestError

ANSWER_S = 5.0
LOOK_S = 0.05
"""How often something else is done while an answer is waited for."""

T = TypeVar("T", bound=wire.Answer)


class Conversation:
    """One socket to the guest process `pid`; owned by one thread."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._socket = connection
        self._who = f"the guest process {pid}"
        self._number = 0
        self.was_cut = False
        """Whether the other end has closed it, as a process does that dies."""

    def ask(
        self,
        request: wire.Request,
        expected: type[T],
        within_s: float = ANSWER_S,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> T:
        """The answer to `request`; GuestError for a refusal, a death or silence.

        `meanwhile` is called while it is waited for, and must ask nothing itself.
        """
        answer, fds = self._ask(request, within_s, meanwhile)
        close_all(fds)
        return self._expect(answer, expected)

    def tell(self, request: wire.Request) -> None:
        """What it may not hear, or not answer: `ask` passes over an answer that comes too late."""
        self._number += 1
        with suppress(OSError):
            self._socket.settimeout(0)
            self._socket.send(wire.encode((self._number, request)))

    def describe(self) -> tuple[wire.Described, int]:
        """Where the guest's memory is, and a descriptor of it, the caller's."""
        answer, fds = self._ask(wire.Describe(), ANSWER_S)
        described = self._expect(answer, wire.Described)
        if not fds:
            raise GuestError(f"{self._who} did not hand over its memory")
        return described, fds[0]

    @property
    def is_over(self) -> bool:
        """Whether it was closed."""
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Ask nothing more. Idempotent."""
        self._socket.close()

    def _ask(
        self,
        request: wire.Request,
        within_s: float,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> tuple[wire.AnyAnswer, list[int]]:
        self._number += 1
        try:
            self._socket.settimeout(within_s)
            self._socket.send(wire.encode((self._number, request)))
            return self._hear(time.monotonic() + within_s, meanwhile)
        except TimeoutError:
            what = type(request).__name__.lower()
            raise GuestError(f"{self._who} did not answer {what} within {within_s:g} s") from None
        except ConnectionError:
            self.was_cut = True
            raise GuestError(f"{self._who} died") from None
        except OSError as error:
            raise GuestError(f"{self._who} cannot be asked: {error.strerror}") from None
        except msgspec.DecodeError:
            raise GuestError(f"{self._who} answers nonsense") from None

    def _hear(
        self, until: float, meanwhile: Callable[[], object]
    ) -> tuple[wire.AnyAnswer, list[int]]:
        while (left_s := until - time.monotonic()) > 0:
            if not self._comes(min(left_s, LOOK_S)):
                meanwhile()
                continue
            packet, fds, _, _ = socket.recv_fds(
                self._socket, wire.PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
            if not packet:
                raise ConnectionResetError
            number, answer = wire.decode_answer(packet)
            if number == self._number:
                return answer, fds
            close_all(fds)
        raise TimeoutError

    def _comes(self, within_s: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def _expect(self, answer: wire.AnyAnswer, expected: type[T]) -> T:
        if isinstance(answer, wire.Refused):
            raise GuestError(answer.reason)
        if not isinstance(answer, expected):
            raise GuestError(f"{self._who} answered {type(answer).__name__}")
        return answer


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
