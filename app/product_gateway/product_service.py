"""Pages of records from a merchant: paging, new attempts, and what it is called when a pull fails."""

import asyncio
import contextvars
import hashlib
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Self
from urllib.parse import quote

import stamina
import stamina.instrumentation

from product_gateway import logs, records, tracing
from product_gateway.errors import (
    AddressNotAllowed,
    AnswerTooLarge,
    AnswerUnreadable,
    OutboundError,
    PullFailed,
    PullInterrupted,
    Unreachable,
)
from product_gateway.model import EntityType, Page
from product_gateway.outbound import MEBIBYTE, Outbound, Reply, retry_after
from product_gateway.unread import AnyPage

# It would print to standard output by itself as soon as structlog is there.
stamina.instrumentation.set_on_retry_hooks(())


class _PageTooLarge(PullFailed):
    """A smaller page may go through."""


_FAILURES: dict[type[OutboundError], tuple[type[PullFailed], str, str]] = {
    Unreachable: (
        PullInterrupted,
        "PRODUCT_SERVICE_UNREACHABLE",
        "Check that the product service runs and can be reached from the internet, then start the sync again.",
    ),
    AddressNotAllowed: (
        PullFailed,
        "ADDRESS_NOT_ALLOWED",
        "Register an https address on the public internet.",
    ),
    AnswerTooLarge: (_PageTooLarge, "ANSWER_TOO_LARGE", "Send no more records in a page than page_size asks for."),
    AnswerUnreadable: (PullFailed, "INVALID_PAGE", "Send it as plain JSON, or compressed with gzip alone."),
    OutboundError: (PullFailed, "PRODUCT_SERVICE_UNAUTHORIZED", "No request was sent."),
}


EMPTY_PAGES_IN_A_ROW = 10
LONGEST_RETRY_AFTER = 300.0
MOST_IDS = 100
LONGEST_IDS = 4000  # characters in an address


class ProductService:
    """A merchant's product service. `attempts` and the waits (seconds) are for requests that may be tried again;
    `retried` is called before each such attempt.
    """

    def __init__(
        self,
        outbound: Outbound,
        url: str,
        token: str | None,
        page_size: int,
        *,
        max_pages: int = 100_000,
        max_record_bytes: int = MEBIBYTE,
        attempts: int = 4,
        wait_initial: float = 0.2,
        wait_max: float = 10,
        retried: Callable[[], None] = lambda: None,
    ) -> None:
        self._outbound = outbound
        self._url = url.rstrip("/")
        self._token = token
        logs.hide(token or "")
        self._page_size = page_size
        self._max_pages = max_pages
        self._max_record_bytes = max_record_bytes
        self._attempts = attempts
        self._wait_initial = wait_initial
        self._wait_max = max(wait_initial, wait_max)
        self._retried = retried
        self.leave_unread = False  # pages from now on: for who expects most of their records to be as they were

    async def pages(
        self, entity_type: EntityType, cursor: str | None, pages_read: int = 0
    ) -> AsyncGenerator[AnyPage, None]:
        """Every page from `cursor` on (None: from the first), each fetched when it is asked for.

        `pages_read` are those before it. Raises PullFailed; as PullInterrupted, after all attempts, where starting
        again later may help.
        """
        contract = records.contract(entity_type)
        asked = {_digest(cursor)}
        empty = 0
        for number in itertools.count(pages_read + 1):
            where = f"Page {number} of {contract.path}"
            if number > self._max_pages:
                raise PullFailed(
                    "TOO_MANY_PAGES",
                    f"{where} is one more than the {self._max_pages} that a sync may read. Send more records in a "
                    "page, or end the list with moreResults false.",
                )
            with tracing.span("fetch page", page=number):
                page = await self._fetch(contract, cursor, where)
                tracing.fetched(page.size)
            cursor = page.next_cursor
            if cursor is not None and _digest(cursor) in asked:
                raise PullFailed(
                    "INVALID_PAGING",
                    f"{where} has a nextCursor that this sync has already asked for, so it would never end. "
                    "Each nextCursor must lead on to records that have not been sent yet.",
                )
            empty = 0 if page.size else empty + 1
            if cursor is not None and empty == EMPTY_PAGES_IN_A_ROW:
                raise PullFailed(
                    "INVALID_PAGING",
                    f"{where} is the {empty}th in a row without a record, and says that there are more. "
                    "End the list with moreResults false.",
                )
            yield page
            if cursor is None:
                return
            asked.add(_digest(cursor))

    async def still_there(self, entity_type: EntityType, ids: Sequence[str]) -> AsyncGenerator[Page, None]:
        """Those of the records that the service still has, asked for by id; no page where it has none.

        Raises PullFailed, as `pages` does.
        """
        contract = records.contract(entity_type)
        for some in _in_parts(ids):
            where = f"{len(some)} of {contract.path} by id"
            params = {"ids": ",".join(some), "page_size": str(len(some))}
            with tracing.span("fetch by id", ids=len(some)):
                reply = await self._fetch_patiently(contract.path, params, where)
                page = contract.page(reply.content, where, self._max_record_bytes, content_type(reply))
                tracing.fetched(page.size)
            found = tuple(each for each in page.records if each.id in some)
            rejected = tuple(each for each in page.rejections if each.record_id in some)
            if found or rejected:
                yield _without_secrets(Page(found, rejected, next_cursor=None, total=None))

    async def _fetch(self, contract: records.Contract, cursor: str | None, where: str) -> AnyPage:
        while True:
            try:
                params = {"page_size": str(self._page_size)} | ({} if cursor is None else {"cursor": cursor})
                reply = await self._fetch_patiently(contract.path, params, where)
            except _PageTooLarge:
                self._page_size = max(1, self._page_size // 2)
            else:
                read = contract.unread_page if self.leave_unread else contract.page
                return _masked(read(reply.content, where, self._max_record_bytes, content_type(reply)))

    async def _fetch_patiently(self, path: str, params: dict[str, str], where: str) -> Reply:
        async for attempt in stamina.retry_context(
            self._backoff,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._wait_initial,
            wait_max=self._wait_max,
            wait_jitter=self._wait_initial,
        ):
            if attempt.num > 1:
                self._retried()
            with attempt:
                return await self._ask(path, params, where)
        raise AssertionError("stamina makes at least one attempt")  # pragma: no cover

    def _backoff(self, error: Exception) -> bool | float:
        """Whether to try again; as a number, after how many seconds."""
        if not isinstance(error, PullInterrupted):
            return False
        if error.retry_after is None:
            return True
        return False if error.retry_after > LONGEST_RETRY_AFTER else max(error.retry_after, self._wait_initial)

    async def _ask(self, path: str, params: dict[str, str], where: str) -> Reply:
        try:
            reply = await self._outbound.get(self._url + path, params=params, bearer=self._token)
        except OutboundError as error:
            failure, code, advice = _FAILURES[type(error)]
            if failure is _PageTooLarge and self._page_size == 1:
                failure = PullFailed
            raise failure(code, f"{where} could not be read: {error.detail} {advice}") from error
        tracing.note({"http.response.status_code": reply.status})
        if reply.status != 200:
            raise self._refusal(reply, where)
        return reply

    def _refusal(self, reply: Reply, where: str) -> PullFailed:
        answered = f"the product service answered {reply.status}"
        if reply.status in (401, 403):
            return PullFailed(
                "PRODUCT_SERVICE_UNAUTHORIZED",
                f"{where} could not be read: {answered}, so it does not accept the gateway's token. "
                "Register a token that may read products and collections.",
            )
        if reply.status in (408, 429) or reply.status >= 500:
            limited = reply.status == 429
            told = retry_after(reply)
            tried = f"in {self._attempts} attempts"
            if told is not None and told > LONGEST_RETRY_AFTER:
                tried = "now"
                answered += f", and to come back in {told:.0f} s, while a sync waits {LONGEST_RETRY_AFTER:.0f} s"
            return PullInterrupted(
                "PRODUCT_SERVICE_RATE_LIMITED" if limited else "PRODUCT_SERVICE_ERROR",
                f"{where} could not be read {tried}: {answered}. "
                f"{'Allow the gateway more requests' if limited else 'Look into its log'}, "
                "then start the sync again.",
                told,
            )
        failure = PullFailed
        if reply.status in (400, 413):
            failure = _PageTooLarge if self._page_size > 1 else PullFailed
            advice = ", even when asked for a single record (page_size=1). Look into its log for what it refuses."
        elif 300 <= reply.status < 400:
            advice = "; redirects are not followed. Register the address that it leads to."
        else:
            advice = " instead of 200. Check the registered address: the lists must be right beneath it."
        return failure("PRODUCT_SERVICE_ERROR", f"{where} could not be read: {answered}{advice}")


class ReadAhead:
    """Pages, of which the next may be fetched while one is in use: one, however slow its use is."""

    def __init__(self, pages: AsyncGenerator[AnyPage, None]) -> None:
        self._pages = pages
        self._coming: asyncio.Task[AnyPage] | None = None

    def fetch(self) -> None:
        """The next page is on its way; how that ends is for the one who asks for it."""
        self._coming = self._coming or asyncio.create_task(self._next())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyPage:
        coming, self._coming = self._coming, None
        return await (coming or self._next())

    async def aclose(self) -> None:
        """What is on its way is not waited for."""
        if self._coming:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        await self._pages.aclose()

    async def _next(self) -> AnyPage:
        return await anext(self._pages)


def content_type(reply: Reply) -> str:
    """Return the Content-Type of an answer; "" where it has none."""
    return reply.headers.get("Content-Type", "")


def _masked(page: AnyPage) -> AnyPage:
    """A service may send our token back, as a record's id for one; the merchant's clients can read what is rejected."""
    if isinstance(page, Page):
        return _without_secrets(page)
    here = contextvars.copy_context()  # it is read in a thread of the database's, which knows no secret
    return replace(page, read=lambda but: here.run(lambda: _without_secrets(page.read(but))))


def _without_secrets(page: Page) -> Page:
    masked = (replace(each, record_id=each.record_id and logs.masked(each.record_id)) for each in page.rejections)
    return replace(page, rejections=tuple(masked))


def _in_parts(ids: Sequence[str]) -> Iterator[frozenset[str]]:
    """Parts that fit into an address. An id with a comma would be taken for two."""
    part: list[str] = []
    length = 0
    for each in ids:
        length += len(quote(each)) + 3
        if part and (length > LONGEST_IDS or len(part) == MOST_IDS):
            yield frozenset(part)
            part, length = [], len(quote(each)) + 3
        if "," not in each:
            part.append(each)
    if part:
        yield frozenset(part)


def _digest(cursor: str | None) -> bytes:
    """Stands for a cursor: the cursors of ten million records would take a worker's memory."""
    return hashlib.blake2b((cursor or "").encode(), digest_size=8).digest()
