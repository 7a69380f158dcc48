"""Batcher: concurrent requests of one kind share the statements and the transaction of one batch."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from product_gateway.db.errors import clone
from product_gateway.db.executor import deadline
from product_gateway.errors import Unavailable

Request = TypeVar("Request")
T = TypeVar("T")

MAX_BATCH = 200

Work = Callable[[Sequence[Request]], Awaitable[Sequence[T | Exception]]]
"""Runs a batch and returns an outcome for each of its requests."""


class _Submitted(NamedTuple, Generic[Request, T]):
    request: Request
    deadline: float | None
    future: asyncio.Future[T]


class Batcher(Generic[Request, T]):
    """Runs one batch at a time. Requests submitted meanwhile form the next batch."""

    def __init__(self, work: Work[Request, T]) -> None:
        self._work = work
        self._waiting: list[_Submitted[Request, T]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> T:
        """Return the outcome of this request, or raise it if it is an exception."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Submitted(request, deadline.get(), future))
        if self._task is None:
            # An empty context: the batch has neither the deadline nor the span of the request that starts it.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        try:
            return await future
        finally:
            del future  # breaks a reference cycle: the future holds the error, whose traceback holds this frame

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # the event loop reads what else has arrived: it joins this batch
                batch = [each for each in self._waiting[:MAX_BATCH] if not each.future.done()]
                del self._waiting[:MAX_BATCH]
                for each, outcome in zip(batch, await self._outcomes(batch), strict=True):
                    if each.future.done():  # cancelled
                        continue
                    if isinstance(outcome, Exception):
                        each.future.set_exception(outcome)
                    else:
                        each.future.set_result(outcome)
        finally:
            self._task = None

    async def _outcomes(self, batch: Sequence[_Submitted[Request, T]]) -> Sequence[T | Exception]:
        """Run the batch under its earliest deadline; if it fails, run its requests one by one.

        Unavailable holds for all requests, so it is not tried again.
        """
        deadline.set(min((each.deadline for each in batch if each.deadline is not None), default=None))
        try:
            return await self._work([each.request for each in batch])
        except Unavailable as error:
            return [clone(error) for _ in batch]
        except Exception as error:  # noqa: BLE001 - handed to the caller of `submit`
            if len(batch) == 1:
                return [error]
        return [outcome for each in batch for outcome in await self._outcomes([each])]
