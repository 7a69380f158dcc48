"""What is alike, asked for or written together: what waits goes into the statements and the transaction of one."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from product_gateway.db.errors import clone
from product_gateway.db.executor import deadline
from product_gateway.errors import Unavailable

Asked = TypeVar("Asked")
T = TypeVar("T")

MOST = 200  # in a batch

Work = Callable[[Sequence[Asked]], Awaitable[Sequence[T | Exception]]]
"""Reads or writes a batch, and says for each in it what came of it."""


class Batcher(Generic[Asked, T]):
    """Waits for nobody: whoever comes while the database is at one batch is in the next.

    There is one batch at a time. With two, each has half as many, and all that is done once a batch is done twice.
    """

    def __init__(self, work: Work[Asked, T]) -> None:
        self._work = work
        self._waiting: list[tuple[Asked, float | None, asyncio.Future[T]]] = []
        self._is_running = False
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself keeps no hold of them

    async def submit(self, asked: Asked) -> T:
        """What came of it. Raises what its own part of the batch raises."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, deadline.get(), future))
        if not self._is_running:
            self._is_running = True
            # of no request: neither its deadline nor its span is that of the batch
            task = asyncio.create_task(self._run(), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await future
        finally:
            del future  # it holds the error, which holds this frame: only the garbage collector would find that

    async def _run(self) -> None:
        try:
            await self._do_what_waits()
        finally:
            self._is_running = False

    async def _do_what_waits(self) -> None:
        while self._waiting:
            batch = [each for each in self._waiting[:MOST] if not each[2].done()]
            del self._waiting[:MOST]
            deadline.set(min((end for _, end, _ in batch if end is not None), default=None))
            try:
                outcomes = await self._work([asked for asked, _, _ in batch])
            except Exception as error:  # noqa: BLE001 - each hears of it
                outcomes = [error] * len(batch) if len(batch) == 1 else await self._one_by_one(batch, error)
            for (_, _, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():  # nobody waits any more
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    async def _one_by_one(
        self, batch: Sequence[tuple[Asked, float | None, asyncio.Future[T]]], error: Exception
    ) -> Sequence[T | Exception]:
        """One that cannot be done must not fail the others. A database that is away is so for all of them."""
        if isinstance(error, Unavailable):
            return [clone(error) for _ in batch]
        found: list[T | Exception] = []
        for asked, end, _ in batch:
            deadline.set(end)
            try:
                found += await self._work([asked])
            except Exception as fault:  # noqa: BLE001 - it is its own
                found.append(fault)
        return found
