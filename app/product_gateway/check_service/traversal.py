"""Traversals of a list, page by page, with the checks that each page allows.

The worker's `ProductService` is not used here: it stops at the first fault, discards the items as they were sent, and
its failure codes are coarser than the rules.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from product_gateway.check_service.recording_client import JSON, CheckFailed, Exchange, PageAnswer, Service
from product_gateway.check_service.results import ListResults
from product_gateway.json_tools.tolerant import is_text
from product_gateway.model.catalog import Page
from product_gateway.sync.product_service import PAGES_WITHOUT_NEW_RECORDS, REFUSES_SIZE

LARGE_PAGE = 1024 * 1024  # bytes
PAGE_RULES = (
    *("answers-whole", "rate-limit", "token-accepted", "no-redirects", "no-failures", "status-200", "answer-size"),
    *("compression", "json", "page-shape", "content-type", "compressed", "page-bytes", "largest-page", "page-size"),
    *("next-cursor", "no-next-after-last"),
)
TRAVERSAL_RULES = ("cursor-leads-on", "paging-ends", "pages-disjoint", "empty-pages", "speed")
ITEMS_KEPT, ORDINARY_ITEMS_KEPT_PER_PAGE, ODD_ITEMS_KEPT = 100, 3, 8

PageCheck = Callable[[Page, list[Any], Exchange], None]


@dataclass(frozen=True, slots=True)
class SeenPage:
    """A page: the cursor in its request, the cursor and total that it states, and the ids of its records.

    `size` counts its records, also those without an id.
    """

    requested_cursor: str | None
    cursor: str | None
    total: Any
    ids: tuple[str, ...]
    size: int
    exchange: Exchange


@dataclass(slots=True)
class ListTraversal:
    """The pages that a traversal has read. `ended` is True if it read the last one.

    `fit` are the ids of records that a sync would keep, `items` some records as they were sent.
    """

    page_size: int
    pages: list[SeenPage] = field(default_factory=list)
    fit: list[str] = field(default_factory=list)
    items: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    broken: CheckFailed | None = None

    @property
    def ids(self) -> list[str]:
        """The distinct ids of the records, in the order of the list."""
        return list(dict.fromkeys(each for page in self.pages for each in page.ids))

    @property
    def size(self) -> int:
        """The number of records, with repeated ones."""
        return sum(page.size for page in self.pages)


async def traverse(
    service: Service, results: ListResults, page_size: int, max_pages: int, check_page: PageCheck
) -> ListTraversal:
    """Read at most `max_pages` from the beginning of the list. Call `check_page` for every page.

    A fault that would stop a sync ends the traversal. It is in `broken` and is added to the results, unless the
    service has never answered, which is one finding about the service.
    """
    traversal = ListTraversal(page_size)
    try:
        await _read_pages(service, results, traversal, max_pages, check_page)
    except CheckFailed as broken:
        traversal.broken = broken
        if service.is_reachable:
            results.failed(broken.code, broken.detail, broken.exchange)
    if traversal.pages:
        results.passed(*PAGE_RULES)
        if traversal.broken is None:
            results.passed(*TRAVERSAL_RULES)
    return traversal


async def _read_pages(
    service: Service, results: ListResults, traversal: ListTraversal, max_pages: int, check_page: PageCheck
) -> None:
    cursor: str | None = None
    requested: set[str | None] = {None}
    known: set[str | bytes] = set()  # ids, and digests of records without one
    without_new = 0
    while len(traversal.pages) < max_pages:
        answer = await _request_page(service, results, traversal, cursor)
        exchange, items = answer.exchange, answer.items
        _check_page(service, results, answer, traversal.page_size)
        ids = tuple(ids_of(items))
        own, total = answer.pagination.get("cursor") or None, answer.pagination.get("totalNumber")
        own = own if isinstance(own, str) and is_text(own) else None
        traversal.pages.append(SeenPage(cursor, own, total, ids, len(items), exchange))
        traversal.fit += [each.id for each in answer.page.records]
        _keep_some(traversal.items, items)
        check_page(answer.page, items, exchange)
        times = Counter(ids)
        for each in ids:
            if each in known or times[each] > 1:
                where = "on an earlier page too" if each in known else "twice on this page"
                results.failed("pages-disjoint", f"The record {each!r} is {where}.", exchange)
                break  # pages that overlap share many records: report one
        cursor = answer.page.next_cursor
        if cursor is None:
            traversal.ended = True
            return
        if cursor in requested:
            raise CheckFailed("cursor-leads-on", f"nextCursor is {cursor!r}, which was requested already.", exchange)
        requested.add(cursor)
        if not items:
            results.failed("empty-pages", "A page without records says that there are more.", exchange)
        nameless = (each.payload_digest for each in answer.page.rejections if each.record_id is None)
        keys: set[str | bytes] = {*ids, *nameless}
        without_new = 0 if keys - known else without_new + 1
        known |= keys
        if without_new == PAGES_WITHOUT_NEW_RECORDS:
            detail = f"The last {without_new} pages held no new record, and there are still more results."
            raise CheckFailed("paging-ends", detail, exchange)


async def _request_page(
    service: Service, results: ListResults, traversal: ListTraversal, cursor: str | None
) -> PageAnswer:
    """Request the page at the cursor. Halve the page size while the service refuses it, as a sync does."""
    refused: CheckFailed | None = None
    while True:
        try:
            answer = await service.page(results.subject, {"page_size": traversal.page_size, "cursor": cursor})
        except CheckFailed as broken:
            if traversal.page_size == 1 or not wants_a_smaller_page(broken):
                raise
            refused = refused or broken
            traversal.page_size //= 2
        else:
            if refused is not None:
                seen = f"{refused.detail} With page_size={traversal.page_size} it is served."
                results.failed("largest-page", seen, refused.exchange)
            return answer


def wants_a_smaller_page(broken: CheckFailed) -> bool:
    """Return whether a request with a smaller page size may succeed."""
    return broken.code == "answer-size" or broken.exchange.status in REFUSES_SIZE


def _check_page(service: Service, results: ListResults, answer: PageAnswer, page_size: int) -> None:
    exchange, settings = answer.exchange, service.settings
    if len(answer.items) > page_size:
        seen = f"The page has {len(answer.items)} records, and page_size is {page_size}."
        results.failed("page-size", seen, exchange)
    content_type = exchange.content_type.partition(";")[0].strip().lower()
    if content_type != JSON:
        seen = f"The Content-Type is {content_type!r}." if content_type else "There is no Content-Type."
        results.failed("content-type", seen, exchange)
    if exchange.size * 2 > settings.max_page_bytes:
        seen = f"The page has {exchange.size} bytes. The maximum is {settings.max_page_bytes}."
        results.failed("page-bytes", seen, exchange)
    if exchange.size > LARGE_PAGE and not exchange.compressed:
        results.failed("compressed", f"The page has {exchange.size} bytes, uncompressed.", exchange)
    timeout = min(settings.read_timeout_seconds, settings.request_timeout_seconds)
    if exchange.seconds * 2 > timeout:
        results.failed("speed", f"The page took {exchange.seconds:.2f} s. The timeout is {timeout:g} s.", exchange)
    for name in ("cursor", "nextCursor"):  # a sync does not use every cursor, so that such a page does not end it
        value = answer.pagination.get(name)
        if not isinstance(value, str | None) or not is_text(value or ""):
            results.failed("page-shape", f"pagination.{name} is {value!r:.80}. A cursor is text.", exchange)
    if not answer.pagination["moreResults"] and (cursor := answer.pagination.get("nextCursor")):
        results.failed("no-next-after-last", f"moreResults is false, and nextCursor is {cursor!r}.", exchange)


def ids_of(items: Iterable[Any]) -> list[str]:
    """Return the ids of items as they were sent, without those that are not valid text."""
    ids = (item.get("id") for item in items if isinstance(item, dict))
    return [each for each in ids if isinstance(each, str) and is_text(each)]


def _keep_some(kept: dict[str, Any], items: list[Any]) -> None:
    """Keep the first records of a page and those with odd ids, for requests by id."""
    ordinary = 0
    for item in items:
        for record_id in ids_of([item]):
            if is_odd(record_id):
                wanted = sum(map(is_odd, kept)) < ODD_ITEMS_KEPT
            else:
                wanted = ordinary < ORDINARY_ITEMS_KEPT_PER_PAGE and len(kept) < ITEMS_KEPT
                ordinary += 1
            if wanted:
                kept.setdefault(record_id, item)


def is_odd(record_id: str) -> bool:
    """Return whether an id has characters that a URL percent-encodes."""
    return not all(each.isascii() and (each.isalnum() or each in "-._~") for each in record_id)
