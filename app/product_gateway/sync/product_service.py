"""Pages of records from a merchant: paging, new attempts, and what it is called when a pull fails."""

import asyncio
import hashlib
import itertools
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
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
from product_gateway.telemetry import logs, tracing


class _PageTooLarge(PullFailed):
    """A smaller page may go through. `times` is how many times too large an answer was, if that is known."""

    def __init__(self, code: str, detail: str, times: float | None = None, *, refused: bool = False) -> None:
        super().__init__(code, detail)
        self.times = times
        self.refused = refused  # by the service, which does not say what it would accept


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
    AnswerTooLarge: (PullFailed, "ANSWER_TOO_LARGE", "Send no more records in a page than page_size asks for."),
    AnswerUnreadable: (PullFailed, "INVALID_PAGE", "Send it as plain JSON, or compressed with gzip alone."),
    OutboundError: (PullFailed, "PRODUCT_SERVICE_UNAUTHORIZED", "No request was sent."),
}


PAGES_WITHOUT_NEW_RECORDS = 10  # in a row: as many end a list that says that there are more
RETRIED_4XX = (408, 425, 429)
HALVINGS = 2  # of a page size that the service refuses; then comes a single record
MOST_IDS = 100
LONGEST_IDS = 4000  # characters in an address


class LookUp(NamedTuple):
    """The answer to a request for records by id: those that came, as a page, and the ids that are certainly gone.

    An id is certainly gone if the same answer has a record that the service is known to have, and none that was not
    asked for: then the service looks at `ids`.
    """

    page: Page
    gone: frozenset[str]


class ProductService:
    """A merchant's product service. `attempts` and the waits (seconds) are for requests that may be tried again;
    `retried` is called before each such attempt.
    """

    def __init__(
        self,
        outbound: HttpClient,
        url: str,
        token: str | None,
        page_size: int,
        *,
        max_pages: int = 100_000,
        max_record_bytes: int = MEBIBYTE,
        attempts: int = 6,
        wait_initial: float = 1,
        wait_max: float = 30,
        retried: Callable[[], None] = lambda: None,
    ) -> None:
        self._outbound = outbound
        self._url = url.rstrip("/")
        self._token = token
        logs.add_secret(token or "")
        self._page_size = page_size
        self._max_pages = max_pages
        self._max_record_bytes = max_record_bytes
        self._backoff = Backoff(attempts, wait_initial, max(wait_initial, wait_max))
        self._retried = retried
        self.skip_unchanged = False  # pages from now on: for who expects most of their records to be as they were

    async def pages(
        self, entity_type: EntityType, cursor: str | None, pages_read: int = 0
    ) -> AsyncGenerator[AnyPage, None]:
        """Every page from `cursor` on (None: from the first), each fetched when it is asked for.

        `pages_read` are those before it. Raises PullFailed; as PullInterrupted, after all attempts, where starting
        again later may help.
        """
        contract = records.list_schema(entity_type)
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

    async def look_up(
        self, entity_type: EntityType, ids: Sequence[str], known: str | None = None
    ) -> AsyncGenerator[LookUp, None]:
        """Ask for records by id, in parts. With the id of a `known` record, the answers show whether ids are looked at.

        Raises PullFailed, as `pages` does.
        """
        contract = records.list_schema(entity_type)
        for some in _in_parts(ids):
            where = f"{len(some)} of {contract.path} by id"
            asked = some if known is None else some | {known}
            params = {"ids": ",".join(sorted(asked)), "page_size": str(len(asked))}
            with tracing.span("fetch by id", ids=len(some)):
                reply = await self._fetch_patiently(contract.path, params, where)
                page = contract.page(reply.content, where, self._max_record_bytes, content_type(reply))
                tracing.fetched(page.size)
            found = tuple(each for each in page.records if each.id in some)
            rejected = tuple(each for each in page.rejections if each.record_id in some)
            answered = {each.id for each in page.records} | {each.record_id for each in page.rejections}
            certain = known is not None and known in answered and answered <= asked and page.next_cursor is None
            gone = some - answered if certain else frozenset()
            yield LookUp(_without_secrets(Page(found, rejected, next_cursor=None, total=None)), gone)

    async def _fetch(self, contract: records.ListSchema, cursor: str | None, where: str) -> AnyPage:
        failures: list[_PageTooLarge] = []
        while True:
            try:
                params = {"page_size": str(self._page_size)} | ({} if cursor is None else {"cursor": cursor})
                reply = await self._fetch_patiently(contract.path, params, where)
            except _PageTooLarge as failed:
                failures.append(failed.with_traceback(None))
                self._page_size = _smaller(self._page_size, failures)
            else:
                read = contract.lazy_page if self.skip_unchanged else contract.page
                return _masked(read(reply.content, where, self._max_record_bytes, content_type(reply)))

    async def _fetch_patiently(self, path: str, params: dict[str, str], where: str) -> Response:
        waited = 0.0
        for attempt in itertools.count(1):
            try:
                return await self._ask(path, params, where, attempt, waited)
            except PullInterrupted as error:
                wait = self._backoff.wait(attempt, error.retry_after, waited)
                if wait is None:
                    raise
            waited += wait
            await asyncio.sleep(wait)
            self._retried()
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _ask(self, path: str, params: dict[str, str], where: str, attempt: int, waited: float) -> Response:
        try:
            reply = await self._outbound.get(self._url + path, params=params, bearer=self._token)
        except OutboundError as error:
            failure, code, advice = _FAILURES[type(error)]
            detail = f"{where} could not be read: {error.detail} {advice}"
            if isinstance(error, AnswerTooLarge) and self._page_size > 1:
                raise _PageTooLarge(code, detail, error.size and error.size / error.limit) from None
            raise failure(code, detail) from error
        tracing.set_attributes({"http.response.status_code": reply.status})
        if reply.status != 200:
            raise self._refusal(reply, self._url + path, where, attempt, waited)
        return reply

    def _refusal(self, reply: Response, url: str, where: str, attempt: int, waited: float) -> PullFailed:
        meaning, what_to_do = status_advice(
            reply.status,
            reply.header("Location"),
            reply.header("Content-Type"),
            url=url,
            has_token=self._token is not None,
        )
        failed = f"{where} could not be read"
        answered = f"the product service answered {reply.status}"
        if reply.status in RETRIED_4XX or reply.status >= 500:
            asked = retry_after(reply)
            tried = f"in {attempt} attempt{'s' if attempt > 1 else ''}"
            if self._backoff.asks_too_much(asked, waited):
                tried = "now" if attempt == 1 else tried
                limits = f"a sync waits {self._backoff.longest_asked:.0f} s, and {self._backoff.total:.0f} s in all"
                meaning += f", and to come back in {asked:.0f} s, while {limits} for one page"
            limited = reply.status == 429
            return PullInterrupted(
                "PRODUCT_SERVICE_RATE_LIMITED" if limited else "PRODUCT_SERVICE_ERROR",
                f"{failed} {tried}: {answered}{meaning}. "
                f"{'Allow the gateway more requests,' if limited else what_to_do} then start the sync again.",
                asked,
            )
        if reply.status in (400, 413):
            detail = (
                f"{failed}: {answered}, even when asked for a single record (page_size=1). "
                "Look into its log for what it refuses."
            )
            if self._page_size > 1:
                return _PageTooLarge("PRODUCT_SERVICE_ERROR", detail, refused=True)
            return PullFailed("PRODUCT_SERVICE_ERROR", detail)
        code = "PRODUCT_SERVICE_UNAUTHORIZED" if reply.status in (401, 403) else "PRODUCT_SERVICE_ERROR"
        return PullFailed(code, logs.redact(f"{failed}: {answered}{meaning}. {what_to_do}"))


def _smaller(page_size: int, failures: Sequence[_PageTooLarge]) -> int:
    """Return the page size to ask for after these failures with larger ones.

    After an answer whose size is known, it is half of what would fit, for records differ in size. After any other it
    is the square root, then 1: an answer of unknown size is downloaded three times at the most.
    """
    last = failures[-1]
    if last.refused:
        return page_size // 2 if len(failures) <= HALVINGS else 1
    if last.times is None:
        return math.isqrt(page_size) if len(failures) == 1 else 1
    before = failures[-2].times if len(failures) > 1 else None
    if len(failures) > 2 or (before is not None and last.times > 0.9 * before):  # it does not heed page_size
        return 1
    return max(1, int(page_size / last.times / 2))


class Prefetcher:
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


def content_type(reply: Response) -> str:
    """Return the Content-Type of an answer; "" where it has none."""
    return reply.header("Content-Type")


def _masked(page: AnyPage) -> AnyPage:
    """Redact secrets in the ids of rejected records, which API clients can read: a service may send the token back."""
    if isinstance(page, Page):
        return _without_secrets(page)
    return replace(page, decode=lambda unchanged: _without_secrets(page.decode(unchanged)))


def _without_secrets(page: Page) -> Page:
    masked = (replace(each, record_id=each.record_id and logs.redact(each.record_id)) for each in page.rejections)
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
