"""One traversal of a list, page by page, and what can be said of it while it is read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from product_gateway.check_service.recording_client import JSON, CheckFailed, Exchange, PageAnswer, Service
from product_gateway.check_service.results import CheckResults
from product_gateway.json_tools.tolerant import is_text
from product_gateway.model.catalog import Page
from product_gateway.model.syncs import EntityType
from product_gateway.sync.product_service import PAGES_WITHOUT_NEW_RECORDS

LARGE_ANSWER = 1024 * 1024
# What is known to hold of a list when a page of it came.
PAGE_RULES = (
    *("answers-whole", "rate-limit", "token-accepted", "no-redirects", "no-failures", "status-200", "answer-size"),
    *("compression", "json", "page-shape", "content-type", "compressed", "page-bytes", "largest-page", "page-size"),
    *("next-cursor", "no-next-after-last"),
)
TRAVERSAL_RULES = ("cursor-leads-on", "paging-ends", "pages-disjoint", "empty-pages", "speed")

Look = Callable[[Page, list[Any], Exchange], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """A page: the cursor that it was asked for with, those that it names, and the ids of its records."""

    asked: str | None
    cursor: str | None
    more: bool
    total: Any
    ids: tuple[str, ...]
    size: int
    exchange: Exchange


@dataclass(slots=True)
class ListTraversal:
    """The pages of a list as far as they were read. `ended` is whether the last one was, `fit` the ids of records that
    a sync would keep, `items` some records as they came."""

    page_size: int
    pages: list[Seen] = field(default_factory=list)
    fit: list[str] = field(default_factory=list)
    items: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    broken: CheckFailed | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of the records, each once, in their order."""
        return list(dict.fromkeys(each for page in self.pages for each in page.ids))

    @property
    def size(self) -> int:
        """How many records were read."""
        return sum(page.size for page in self.pages)


async def traverse(
    service: Service, results: CheckResults, entity_type: EntityType, page_size: int, max_pages: int, look: Look
) -> ListTraversal:
    """Reads the list from its first page on, `max_pages` at the most; `look` is shown every page.

    Stops at what would stop a sync, which is then in the results and in `broken`.
    """
    traversal = ListTraversal(page_size)
    asked: set[str | None] = {None}
    known: set[str] = set()
    known_without_id: set[bytes] = set()
    cursor, without_new = None, 0
    try:
        while len(traversal.pages) < max_pages:
            answer = await _page(service, results, entity_type, traversal, cursor)
            _judge(service, results, entity_type, answer, traversal.page_size)
            seen = _seen(cursor, answer)
            traversal.pages.append(seen)
            traversal.fit += [each.id for each in answer.page.records]
            _keep_some(traversal.items, answer.items)
            look(answer.page, answer.items, answer.exchange)
            _twice(results, entity_type, seen, known)
            cursor = answer.page.next_cursor
            if cursor is None:
                traversal.ended = True
                break
            if cursor in asked:
                raise CheckFailed("cursor-leads-on", f"nextCursor is {cursor!r}, which was requested already.",
                             answer.exchange)  # fmt: skip
            asked.add(cursor)
            if not seen.size:
                results.failed("empty-pages", entity_type, "A page without records says that there are more.",
                             answer.exchange.curl)  # fmt: skip
            without_id = {each.payload_digest for each in answer.page.rejections if each.record_id is None}
            without_new = 0 if set(seen.ids) - known or without_id - known_without_id else without_new + 1
            known.update(seen.ids)
            known_without_id |= without_id
            if without_new == PAGES_WITHOUT_NEW_RECORDS:
                detail = f"The last {without_new} pages held no new record, and there are still more results."
                raise CheckFailed("paging-ends", detail, answer.exchange)
    except CheckFailed as broken:
        traversal.broken = broken
        results.failed(broken.code, entity_type, broken.detail, broken.exchange.curl)
    if traversal.pages:
        results.passed(entity_type, *PAGE_RULES)
        if traversal.broken is None:
            results.passed(entity_type, *TRAVERSAL_RULES)
    return traversal


async def _page(
    service: Service, results: CheckResults, entity_type: EntityType, traversal: ListTraversal, cursor: str | None
) -> PageAnswer:
    """The page at the cursor, with fewer records where so many are refused, as a sync asks."""
    refused: CheckFailed | None = None
    while True:
        params = {"page_size": str(traversal.page_size)} | ({} if cursor is None else {"cursor": cursor})
        try:
            answer = await service.page(entity_type, params)
        except CheckFailed as broken:
            if traversal.page_size == 1 or not wants_a_smaller_page(broken):
                raise
            refused = refused or broken
            traversal.page_size //= 2
        else:
            if refused is not None:
                seen = f"{refused.detail} With page_size={traversal.page_size} it is served."
                results.failed("largest-page", entity_type, seen, refused.exchange.curl)
            return answer


def wants_a_smaller_page(broken: CheckFailed) -> bool:
    """Whether a smaller page may go through."""
    return broken.code == "answer-size" or broken.exchange.status in (400, 413)


def _judge(
    service: Service, results: CheckResults, entity_type: EntityType, answer: PageAnswer, page_size: int
) -> None:
    exchange, made = answer.exchange, service.settings
    if len(answer.items) > page_size:
        seen = f"The page has {len(answer.items)} records, and page_size is {page_size}."
        results.failed("page-size", entity_type, seen, exchange.curl)
    content_type = exchange.content_type.partition(";")[0].strip().lower()
    if content_type != JSON:
        seen = f"The Content-Type is {content_type!r}." if content_type else "There is no Content-Type."
        results.failed("content-type", entity_type, seen, exchange.curl)
    if exchange.size * 2 > made.max_page_bytes:
        seen = f"The page has {exchange.size} bytes, and {made.max_page_bytes} are the most."
        results.failed("page-bytes", entity_type, seen, exchange.curl)
    if exchange.size > LARGE_ANSWER and not exchange.compressed:
        results.failed("compressed", entity_type, f"The page has {exchange.size} bytes, as they are.", exchange.curl)
    longest = min(made.read_timeout_seconds, made.request_timeout_seconds)
    if exchange.seconds * 2 > longest:
        seen = f"The page took {exchange.seconds:.2f} s, and the gateway waits for {longest:g} s."
        results.failed("speed", entity_type, seen, exchange.curl)
    if not answer.pagination["moreResults"] and answer.pagination.get("nextCursor"):
        seen = f"moreResults is false, and nextCursor is {answer.pagination['nextCursor']!r}."
        results.failed("no-next-after-last", entity_type, seen, exchange.curl)


def _seen(cursor: str | None, answer: PageAnswer) -> Seen:
    pagination = answer.pagination
    return Seen(
        asked=cursor,
        cursor=pagination.get("cursor") or None,
        more=pagination["moreResults"],
        total=pagination.get("totalNumber"),
        ids=tuple(ids_of(answer.items)),
        size=len(answer.items),
        exchange=answer.exchange,
    )


def ids_of(items: Iterable[Any]) -> list[str]:
    """The ids of items as they came, where they have one that is text."""
    ids = (item.get("id") for item in items if isinstance(item, dict))
    return [each for each in ids if isinstance(each, str) and is_text(each)]


def _twice(results: CheckResults, entity_type: EntityType, seen: Seen, known: set[str]) -> None:
    here: set[str] = set()
    for each in seen.ids:
        if each in known or each in here:
            where = "on an earlier page too" if each in known else "twice on this page"
            results.failed("pages-disjoint", entity_type, f"The record {each!r} is {where}.", seen.exchange.curl)
            return  # one for a page is enough: pages that overlap share many
        here.add(each)


def _keep_some(kept: dict[str, Any], items: list[Any]) -> None:
    """The first records of a page, and those with odd ids: what is asked for by id later."""
    ordinary = 0
    for item in items:
        for record_id in ids_of([item]):
            odd = is_odd(record_id)
            if sum(map(is_odd, kept)) < 8 if odd else ordinary < 3 and len(kept) < 100:
                kept.setdefault(record_id, item)
            ordinary += not odd


def is_odd(record_id: str) -> bool:
    """Whether an id has characters that are percent-encoded in an address."""
    return not all(each.isascii() and (each.isalnum() or each in "-._~") for each in record_id)
