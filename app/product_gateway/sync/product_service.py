"""The client of a merchant's product service: paging, retries, and the code of each failure."""

import asyncio
import hashlib
import itertools
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import quote

from product_gateway.errors import (
    AddressNotAllowed,
    AnswerTooLarge,
    AnswerUnreadable,
    OutboundError,
    PullFailed,
    PullInterrupted,
    Unreachable,
)
from product_gateway.http_client.backoff import Backoff
from product_gateway.http_client.client import MEBIBYTE, HttpClient, Response, retry_after
from product_gateway.http_client.status_advice import status_advice
from product_gateway.model.catalog import AnyPage, Page
from product_gateway.model.syncs import EntityType
from product_gateway.sync import records
from product_gateway.sync.page_size import PageSize
from product_gateway.telemetry import logs, tracing


class _PageTooLarge(PullFailed):
    """A page that may succeed when smaller. `times` is its size divided by the limit, if that is known."""

    def __init__(self, code: str, detail: str, times: float | None = None, *, refused: bool = False) -> None:
        super().__init__(code, detail)
        self.times = times
        self.refused = refused  # by the service, which does not name a size that it accepts


class _AddressTooLong(PullFailed):
    """The service refuses the length of the URL."""


_FAILURES: dict[type[OutboundError], tuple[type[PullFailed], str, str]] = {
    Unreachable: (
        PullInterrupted,
        "PRODUCT_SERVICE_UNREACHABLE",
        "Check that the product service runs and can be reached from the internet, then start the sync again.",
    ),
    AddressNotAllowed: (PullFailed, "ADDRESS_NOT_ALLOWED", "Register an https address on the public internet."),
    AnswerTooLarge: (PullFailed, "ANSWER_TOO_LARGE", "Send no more records in a page than page_size asks for."),
    AnswerUnreadable: (PullFailed, "INVALID_PAGE", "Send it as plain JSON, or compressed with gzip alone."),
    OutboundError: (PullFailed, "PRODUCT_SERVICE_UNAUTHORIZED", "No request was sent."),
}


PAGES_WITHOUT_NEW_RECORDS = 10  # in a row, after which the pull fails
RETRIED_4XX = (408, 425, 429)
REFUSES_SIZE = (400, 413, 422)  # perhaps: many frameworks answer 422 for a parameter out of range
MAY_COME_FROM_GROWTH = ("PRODUCT_SERVICE_UNREACHABLE", "PRODUCT_SERVICE_ERROR", "INVALID_PAGE")
HALVINGS = 2  # of a page size that the service refuses; after them, a single record is requested
MOST_IDS = 100
LONGEST_IDS = 4000  # characters in a URL


class FoundById(NamedTuple):
    """The answer to one request by ids: the records that came, and the ids that are certainly gone.

    Ids are certainly gone if the answer to a request for them and for the `known` record has that record alone. Such
    an answer proves that the service filters by `ids`, and that it does not send only some of the records.
    """

    page: Page
    gone: frozenset[str]


@dataclass(eq=False)
class ProductService:
    """A merchant's product service. `retried` is called at each retry with the status before it. Waits in seconds.

    A `page_size` that is an integer does not grow.

    With `skip_unchanged`, the next pages are decoded lazily: set it when most of their records are likely unchanged.
    """

    outbound: HttpClient
    url: str
    token: str | None = field(repr=False)
    page_size: int | PageSize
    max_pages: int = 100_000
    max_record_bytes: int = MEBIBYTE
    attempts: int = 6
    wait_initial: float = 1
    wait_max: float = 30
    retried: Callable[[str], None] = lambda _: None
    skip_unchanged: bool = False

    def __post_init__(self) -> None:
        logs.add_secret(self.token or "")
        self.url = self.url.rstrip("/")
        size = self.page_size
        self._size = PageSize(size, size) if isinstance(size, int) else size
        self._seconds = 0.0  # of the last request
        self._backoff = Backoff(self.attempts, self.wait_initial, max(self.wait_initial, self.wait_max))

    async def pages(
        self, entity_type: EntityType, cursor: str | None, pages_read: int = 0
    ) -> AsyncGenerator[AnyPage, None]:
        """Fetch the pages from `cursor` on (None: from the first), each when it is requested.

        `pages_read` counts the pages before `cursor`. Raises PullFailed, or its subclass PullInterrupted where a later
        sync may succeed.
        """
        schema = records.list_schema(entity_type)
        asked = {_digest(cursor)}
        empty = 0
        for number in itertools.count(pages_read + 1):
            where = f"Page {number} of {schema.path}"
            if number > self.max_pages:
                raise PullFailed(
                    "TOO_MANY_PAGES",
                    f"{where} is one more than the {self.max_pages} that a sync may read. Send more records in a "
                    "page, or end the list with moreResults false.",
                )
            with tracing.span("fetch page", page=number):
                page = await self._fetch(schema, cursor, where)
                tracing.note(records=page.size)
            cursor = page.next_cursor
            if cursor is not None and _digest(cursor) in asked:
                raise PullFailed(
                    "INVALID_PAGING",
                    f"{where} has a nextCursor that this sync has already asked for, so it would never end. "
                    "Each nextCursor must lead on to records that have not been sent yet.",
                )
            empty = 0 if page.size else empty + 1
            if cursor is not None and empty == PAGES_WITHOUT_NEW_RECORDS:
                raise PullFailed(
                    "INVALID_PAGING",
                    f"{where} is the {empty}th in a row without a record, and says that there are more. "
                    "End the list with moreResults false.",
                )
            yield page
            if cursor is None:
                return
            asked.add(_digest(cursor))

    async def fetch_by_ids(
        self, entity_type: EntityType, ids: Sequence[str], known: str | None = None
    ) -> AsyncGenerator[FoundById, None]:
        """Fetch records by id, in several requests. A `known` id shows whether the service filters by ids.

        Some services answer only some of the ids at a time: what did not come is requested again, until nothing comes.
        Others refuse many ids: the next requests have fewer. Ids with a comma are skipped: the service would read them
        as two ids. Raises PullFailed, as `pages` does.
        """
        schema = records.list_schema(entity_type)
        left = [each for each in ids if "," not in each]
        part: frozenset[str] = frozenset()
        most = MOST_IDS
        while left:
            part = part or _first(left, most)
            asked = part if known is None else part | {known}
            try:
                page = await self._fetch_ids(schema, asked, f"{len(part)} of {schema.path} by id")
            except (_PageTooLarge, _AddressTooLong):
                if len(part) == 1:
                    raise
                part, most = frozenset(), max(1, len(part) // 4)
                continue
            found = tuple(record for record in page.records if record.id in part)
            rejected = tuple(rejection for rejection in page.rejections if rejection.record_id in part)
            answered = {record.id for record in page.records} | {rejection.record_id for rejection in page.rejections}
            filters = answered <= asked
            came = part & answered if filters else frozenset()
            certain = filters and not came and known in answered and page.next_cursor is None
            yield FoundById(Page(found, rejected, next_cursor=None, total=None), part if certain else frozenset())
            done = came or part
            part -= done
            left = [each for each in left if each not in done]

    async def _fetch_ids(self, schema: records.ListSchema, asked: frozenset[str], where: str) -> Page:
        params = {"ids": ",".join(sorted(asked)), "page_size": str(len(asked))}
        with tracing.span("fetch by id", ids=len(asked)):
            response = await self._fetch_with_retries(schema.path, params, where)
            page = schema.page(response.content, where, self.max_record_bytes, response.header("Content-Type"))
            tracing.note(records=page.size)
        return page

    async def _fetch(self, schema: records.ListSchema, cursor: str | None, where: str) -> AnyPage:
        failures: list[_PageTooLarge] = []
        while True:
            try:
                params = {"page_size": str(self._size.size)} | ({} if cursor is None else {"cursor": cursor})
                response = await self._fetch_with_retries(schema.path, params, where)
                read = schema.lazy_page if self.skip_unchanged else schema.page
                page = read(response.content, where, self.max_record_bytes, response.header("Content-Type"))
            except _PageTooLarge as failed:
                if self._size.size == 1:
                    raise
                failures.append(failed.with_traceback(None))
                self._size.refused(_smaller(self._size.size, failures))
            except PullFailed as failed:
                smaller = self._size.before_growth
                if smaller is None or failed.code not in MAY_COME_FROM_GROWTH:
                    raise
                self._size.refused(smaller)
            else:
                if page.next_cursor is not None:
                    self._size.received(page.size, len(response.content), self._seconds)
                return page

    async def _fetch_with_retries(self, path: str, params: dict[str, str], where: str) -> Response:
        waited, attempt = 0.0, 0
        while True:
            attempt += 1
            try:
                return await self._ask(path, params, where, attempt, waited)
            except PullInterrupted as error:
                wait, status = self._backoff.wait(attempt, error.retry_after, waited), error.status
                if wait is None:
                    raise
            waited += wait
            await asyncio.sleep(wait)
            self.retried(status)

    async def _ask(self, path: str, params: dict[str, str], where: str, attempt: int, waited: float) -> Response:
        began = time.monotonic()
        try:
            response = await self.outbound.get(self.url + path, params=params, bearer=self.token)
        except OutboundError as error:
            failure, code, advice = _FAILURES[type(error)]
            detail = f"{where} could not be read: {error.detail} {advice}"
            if isinstance(error, AnswerTooLarge):
                raise _PageTooLarge(code, detail, error.size and error.size / error.limit) from None
            raise failure(code, detail) from error
        self._seconds = time.monotonic() - began
        tracing.set_attributes({"http.response.status_code": response.status})
        if response.status != 200:
            raise self._error_for_status(response, self.url + path, where, attempt, waited)
        return response

    def _error_for_status(self, response: Response, url: str, where: str, attempt: int, waited: float) -> PullFailed:
        meaning, what_to_do = status_advice(
            response.status,
            response.header("Location"),
            response.header("Content-Type"),
            url=url,
            has_token=self.token is not None,
        )
        failed = f"{where} could not be read"
        answered = f"the product service answered {response.status}"
        if response.status in RETRIED_4XX or response.status >= 500:
            asked = retry_after(response)
            tried = f"in {attempt} attempt{'s' if attempt > 1 else ''}"
            if self._backoff.asks_too_much(asked, waited):
                tried = "now" if attempt == 1 else tried
                limits = f"a sync waits {self._backoff.longest_asked:.0f} s, and {self._backoff.total:.0f} s in all"
                meaning += f", and to come back in {asked:.0f} s, while {limits} for one page"
            limited = response.status == 429
            return PullInterrupted(
                "PRODUCT_SERVICE_RATE_LIMITED" if limited else "PRODUCT_SERVICE_ERROR",
                f"{failed} {tried}: {answered}{meaning}. "
                f"{'Allow the gateway more requests,' if limited else what_to_do} then start the sync again.",
                asked,
                str(response.status),
            )
        if response.status in REFUSES_SIZE:
            detail = (
                f"{failed}: {answered}, even when asked for a single record (page_size=1). "
                "Look into its log for what it refuses."
            )
            return _PageTooLarge("PRODUCT_SERVICE_ERROR", detail, refused=True)
        failure = _AddressTooLong if response.status == 414 else PullFailed
        code = "PRODUCT_SERVICE_UNAUTHORIZED" if response.status in (401, 403) else "PRODUCT_SERVICE_ERROR"
        return failure(code, logs.redact(f"{failed}: {answered}{meaning}. {what_to_do}"))


def _smaller(page_size: int, failures: Sequence[_PageTooLarge]) -> int:
    """Return the page size for the next request, after these failures with larger pages.

    After an answer of known size, return half the size that would fit, as records differ in size. After an answer of
    unknown size, return the square root, then 1: such an answer is downloaded at most three times.
    """
    last = failures[-1]
    if last.refused:
        return page_size // 2 if len(failures) <= HALVINGS else 1
    if last.times is None:
        return math.isqrt(page_size) if len(failures) == 1 else 1
    before = failures[-2].times if len(failures) > 1 else None
    if len(failures) > 2 or (before is not None and last.times > 0.9 * before):  # the service ignores page_size
        return 1
    return max(1, int(page_size / last.times / 2))


class Prefetcher:
    """An iterator over pages that can fetch the next page, and only that one, while the current one is in use."""

    def __init__(self, pages: AsyncGenerator[AnyPage, None]) -> None:
        self._pages = pages
        self._next: asyncio.Future[AnyPage] | None = None

    def fetch(self) -> None:
        """Start to fetch the next page. `__anext__` returns it, or raises its error."""
        self._next = self._next or asyncio.ensure_future(anext(self._pages))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyPage:
        task, self._next = self._next, None
        return await (task or anext(self._pages))

    async def aclose(self) -> None:
        """Cancel the fetch that is under way, and close the pages."""
        if self._next:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._pages.aclose()


def _first(ids: Sequence[str], most: int) -> frozenset[str]:
    """Return the first of the ids: as many as fit into a URL, and at most this number."""
    lengths = itertools.accumulate(len(quote(each)) + 3 for each in ids[:most])
    return frozenset(ids[: max(1, sum(length <= LONGEST_IDS for length in lengths))])


def _digest(cursor: str | None) -> bytes:
    """Return a short hash of a cursor: the cursors of ten million records would fill a worker's memory."""
    return hashlib.blake2b((cursor or "").encode(), digest_size=8).digest()
