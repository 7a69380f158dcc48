"""The parent of several processes: starts them, replaces those that end, and stops them in order.

The parent forks while it is small and has one thread; each process then imports what it runs. It serves nothing itself.
"""

import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from product_gateway.errors import GatewayError, SettingsError
from product_gateway.http_client.backoff import exponential_delay
from product_gateway.services.channel import ParentEnd
from product_gateway.services.reports import Reporter, Reports
from product_gateway.services.service import INTERRUPTED, stop_signals
from product_gateway.telemetry import logs, standard_streams

if TYPE_CHECKING:
    from product_gateway.services.member import Member

logger = logging.getLogger(__name__)

API, WORKER, OPERATIONS = "api", "worker", "operations"  # kinds of roles, as in metrics.PROCESSES
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0  # seconds before a process is replaced
SECONDS_OF_A_GOOD_START = 60.0  # after these, the pauses begin with FIRST_PAUSE again
LONGEST_LOOK = 1.0  # seconds
# Together less than the TimeoutStopSec of the units: 15 seconds.
SECONDS_TO_DRAIN = 12.0
SECONDS_FOR_OPERATIONS_TO_STOP = 2.0


@dataclass(frozen=True)
class Role:
    """What a process runs, and the sockets that it uses."""

    kind: str
    number: int
    run: "Callable[[Member], None]"
    keeps: Sequence[socket.socket] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def comm(self) -> str:
        """The name of the process in `ps -o comm` and `top`, of 15 characters at most."""
        return f"pg-{self.kind}-{self.number}"


class _Place:
    """The place of a process in its group, taken by one process after the other. Without one, `pid` is 0."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.reporter = Reporter(str(role), role.kind)
        self.pid = 0
        self.failure = ""
        self.starts_at = 0.0
        self._began = 0.0
        self._failures = 0

    def begin(self, pid: int, channel: ParentEnd) -> None:
        """Take a new process."""
        self.pid, self.failure, self._began = pid, "", time.monotonic()
        self.reporter.begin(channel)

    def wait_before_next(self) -> float:
        """Return the seconds until the next process may start: more after each short life."""
        lived = time.monotonic() - self._began
        self._failures = 1 if lived >= SECONDS_OF_A_GOOD_START else self._failures + 1
        seconds = exponential_delay(self._failures, FIRST_PAUSE, LONGEST_PAUSE)
        self.starts_at = time.monotonic() + seconds
        return seconds

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.pid:
            os.kill(self.pid, number)  # until it is waited for, its number is not given to another


class ProcessGroup:
    """A process for each role. `sockets` are all that the roles keep; `listening` are closed when a stop begins."""

    def __init__(
        self,
        roles: Sequence[Role],
        sockets: Sequence[socket.socket],
        listening: Sequence[socket.socket] = (),
        *,
        seconds_to_drain: float = SECONDS_TO_DRAIN,
    ) -> None:
        self._sockets = sockets
        self._listening = listening
        self._seconds_to_drain = seconds_to_drain
        self._places = [_Place(role) for role in roles]
        self._reports = Reports([each.reporter for each in self._places])
        self._alarm, self._woken = socket.socketpair()
        self._stops = False
        self._watched = (*stop_signals(), signal.SIGCHLD)

    def run(self, prepare: "Callable[[Member], None]", started: Callable[[], None]) -> None:
        """Run `prepare` in a process, start the others, call `started`, and replace processes until SIGTERM or Ctrl-C.

        Raise SettingsError if a process cannot start, with what the first of these says.
        """
        preparing = _Place(Role("preparation", 1, prepare))
        with self._signals():
            try:
                self._start(preparing)
                while preparing.pid and not self._stops:
                    for place, status in self._turn([preparing]):
                        self._release(place)
                        if status and not self._stops:
                            raise _cannot_start(place, status)
                for place in self._places:
                    if not self._stops:
                        self._start(place)
                while not (self._stops or all(each.reporter.has_started for each in self._places)):
                    for place, status in self._turn(self._places):
                        self._release(place)
                        if not self._stops:
                            raise _cannot_start(place, status)
                if not self._stops:
                    started()
                while not self._stops:
                    self._replace_ended()
            finally:
                self._stop_all([preparing, *self._places])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let signals set `_stops` or end the wait of `_turn`."""
        for each in (self._alarm, self._woken):
            each.setblocking(False)
        before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        for number in self._watched:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _note(self, number: int, _: object) -> None:
        if number == signal.SIGINT and self._stops:
            for each in self._places:
                each.send(signal.SIGKILL)
            os._exit(INTERRUPTED)  # leases and transactions make this safe
        self._stops = self._stops or number != signal.SIGCHLD

    def _start(self, place: _Place) -> None:
        ours, theirs = socket.socketpair()
        standard_streams.flush()
        # Between the fork and its own handlers, the new process must not lose a signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become(place.role, theirs)
        theirs.close()
        place.begin(pid, ParentEnd(ours))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._watched)

    def _become(self, role: Role, channel: socket.socket) -> NoReturn:
        """Run the role in the forked process, which closes the sockets of other roles: else they would stay open."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channels = [each.reporter.channel.socket for each in self._places if each.reporter.channel]
            for each in (self._alarm, self._woken, *channels, *self._sockets):
                if each not in role.keeps:
                    each.close()
            with suppress(OSError):  # not on Linux
                Path("/proc/self/comm").write_text(role.comm)
            logs.name_process(role.comm)
            from product_gateway.services.member import Member

            member = Member(channel)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._watched)
            try:
                role.run(member)
                status = 0
            except GatewayError as error:
                member.failed(error.detail)
        except BaseException:  # noqa: BLE001 - it is logged
            sys.excepthook(*sys.exc_info())
        finally:
            standard_streams.flush()
            os._exit(status)

    def _replace_ended(self) -> None:
        for place, status in self._turn(self._places):
            pid = place.pid
            self._release(place, unexpectedly=not self._stops)
            if self._stops:  # systemd signals all processes where KillMode is not mixed
                continue
            how, seconds = _ending(status), place.wait_before_next()
            logger.error(
                "The process %s (%d) %s. Another one starts in %.1f s. %s", place.role, pid, how, seconds, place.failure
            )
        for place in self._places:
            if not (place.pid or self._stops) and place.starts_at <= time.monotonic():
                self._start(place)

    def _turn(self, places: Sequence[_Place], until: float = math.inf) -> list[tuple[_Place, int]]:
        """Wait for messages, a signal or the next start. Return ended processes with their exit status."""
        now = time.monotonic()
        moments = [now + LONGEST_LOOK, until, self._reports.due, *(each.starts_at for each in places if not each.pid)]
        selector = selectors.PollSelector()  # not epoll, whose state forked processes would share
        selector.register(self._alarm, selectors.EVENT_READ)
        for place in places:
            if (channel := place.reporter.channel) is not None and channel.is_open:
                selector.register(channel.socket, channel.events, place)
        for key, _ in selector.select(max(0.0, min(moments) - now)):
            if key.data is None:
                with suppress(BlockingIOError):
                    self._alarm.recv(4096)
            else:
                self._exchange(key.data)
        self._reports.proceed()
        return [(each, status) for each in places if each.pid and (status := self._status(each)) is not None]

    def _exchange(self, place: _Place) -> None:
        """Receive what the process has sent, and send what waits for it."""
        channel = place.reporter.channel
        if channel is not None:
            channel.flush()
            for message in channel.receive():
                place.reporter.has_started |= "started" in message
                place.failure = message.get("failed", place.failure)
                self._reports.receive(place.reporter, message)

    def _status(self, place: _Place) -> int | None:
        """Return the exit status of an ended process, negative for a signal, after its last messages."""
        pid, status = os.waitpid(place.pid, os.WNOHANG)
        if not pid:
            return None
        self._exchange(place)
        return os.waitstatus_to_exitcode(status)

    def _release(self, place: _Place, *, unexpectedly: bool = False) -> None:
        """Forget an ended process."""
        if place.reporter.channel is not None:
            place.reporter.channel.close()
        self._reports.ended(place.reporter, unexpectedly=unexpectedly)
        place.pid = 0

    def _stop_all(self, places: Sequence[_Place]) -> None:
        """Stop the operations port last, so that an orchestrator can follow the others."""
        for each in self._listening:
            each.close()
        last = [each for each in places if each.role.kind == OPERATIONS]
        self._stop([each for each in places if each not in last], last, self._seconds_to_drain)
        self._stop(last, [], SECONDS_FOR_OPERATIONS_TO_STOP)

    def _stop(self, places: Sequence[_Place], beside: Sequence[_Place], seconds: float) -> None:
        until = time.monotonic() + seconds
        for each in places:
            each.send(signal.SIGTERM)
        while any(each.pid for each in places) and time.monotonic() < until:
            for place, _ in self._turn([each for each in (*places, *beside) if each.pid], until):
                self._release(place)
        for each in places:
            if each.pid:
                logger.error("The process %s (%d) has not ended in time, and is killed.", each.role, each.pid)
                each.send(signal.SIGKILL)
                os.waitpid(each.pid, 0)
                self._release(each)


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"has ended with status {status}"


def _cannot_start(place: _Place, status: int) -> SettingsError:
    return SettingsError(
        place.failure or f"The process {place.role} {_ending(status)} before it has started. The log says why."
    )
