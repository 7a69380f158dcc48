"""A process of a process group, seen from inside: what it reports to its parent and asks of it."""

import asyncio
import itertools
import json
import logging
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from product_gateway.errors import Unavailable
from product_gateway.services.channel import Message, encode
from product_gateway.services.service import shutdown_on_signals
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

SECONDS_FOR_THE_PARENT = 0.9


class Member:
    """This process as a member of its group. `shutdown` is set by SIGTERM, and when the parent has ended."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._turn = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[Message]] = {}
        self.shutdown = shutdown_on_signals()
        # A terminal signals all of its processes: the parent alone decides on the order in which they stop.
        for each in (signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)

    def report(self, metrics: Metrics, supervisor: Supervisor) -> None:
        """Answer the parent's questions from now on, in a thread."""

        def answer() -> Message:
            return {"exposition": metrics.exposition().decode(), "fault": _fault(supervisor)}

        threading.Thread(target=self._listen, args=(answer,), name="channel", daemon=True).start()

    def started(self) -> None:
        """Tell the parent that this process works."""
        self._send({"started": True})

    def failed(self, detail: str) -> None:
        """Tell the parent why this process ends."""
        self._send({"failed": detail})

    async def exposition(self) -> bytes:
        """Return the sum of the metrics of all processes, with this one. Raises Unavailable."""
        found: str = (await self._ask())["exposition"]
        return found.encode()

    async def check(self) -> None:
        """Raise Unavailable if another process of the group fails."""
        faults: list[str] = (await self._ask())["faults"]
        if faults:
            raise Unavailable(" ".join(faults))

    async def _ask(self) -> Message:
        number = next(self._numbers)
        future: Future[Message] = Future()
        self._asked[number] = future
        try:
            async with asyncio.timeout(SECONDS_FOR_THE_PARENT):
                self._send({"ask": number})
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise Unavailable("The parent of the processes does not answer.") from None
        finally:
            del self._asked[number]

    def _send(self, message: Message) -> None:
        try:
            with self._turn:
                self._end.sendall(encode(message))
        except OSError:  # the parent has ended
            self.shutdown.set()

    def _listen(self, answer: Callable[[], Message]) -> None:
        with suppress(OSError), self._end.makefile("rb") as lines:
            for line in lines:
                message: Message = json.loads(line)
                if "report" in message:
                    self._send(answer())
                elif (future := self._asked.get(message["answer"])) is not None:
                    with suppress(InvalidStateError):  # it has waited for too long
                        future.set_result(message)
        logger.warning("The parent of this process has ended: it stops, too.")
        self.shutdown.set()


def _fault(supervisor: Supervisor) -> str | None:
    try:
        supervisor.check()
    except Unavailable as fault:
        return fault.detail
    return None
