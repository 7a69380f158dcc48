"""Checks of a list beyond its schema: completeness, order, cursors, page sizes, speed, and records by id."""

import asyncio
from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from urllib.parse import quote

from product_gateway.check_service.recording_client import CheckFailed, Exchange, PageAnswer, Service
from product_gateway.check_service.results import CheckResults, ListResults, Measurement
from product_gateway.check_service.traversal import (
    ListTraversal,
    SeenPage,
    ids_of,
    is_odd,
    traverse,
    wants_a_smaller_page,
)
from product_gateway.json_tools import faults
from product_gateway.json_tools.tolerant import NotJSON, loads
from product_gateway.sync.product_service import LONGEST_IDS, MOST_IDS
from product_gateway.sync.records import list_schema

MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE = 1000, 100  # of the contract
SMALL_PAGES = 20
MEASURED_PAGE_SIZES = (50, 250, 500, 1000)
FAR_SLOWER = 2.0
SLOW_ENOUGH_TO_MATTER = 0.5  # seconds for a page
UNKNOWN = "no-such-record-7f3a"
SINGLE_RECORDS = 6
SEVERAL = 5
ID_RULES = (
    *("ids-known", "ids-several", "ids-many", "ids-unknown", "ids-duplicates", "ids-encoded"),
    *("record-by-id", "unknown-id"),
)


class ListChecks:
    """The checks of one list. `first` is a traversal of it."""

    def __init__(self, service: Service, results: ListResults, first: ListTraversal) -> None:
        self._service = service
        self._results = results
        self._first = first
        self._ids = first.ids
        self._is_valid = list_schema(results.subject).record_id.is_valid

    async def run(self) -> None:
        """Run all checks, one after the other."""
        self._total_number()
        small = await self._smaller_pages()
        await self._cursors(small if small is not None and len(small.pages) > 1 else self._first)
        await self._page_sizes()
        await self._concurrent_requests()
        await self._speed()

    def same_order(self, other: Sequence[str], where: str, exchange: Exchange | None = None) -> None:
        """Compare the order of the ids, which may be incomplete, with that of the first traversal."""
        ours, theirs = set(self._ids), set(other)
        pairs = zip((e for e in self._ids if e in theirs), (e for e in dict.fromkeys(other) if e in ours), strict=False)
        for number, (one, another) in enumerate(pairs, 1):
            if one != another:
                seen = f"Record {number} was {one!r} at first; {where} it is {another!r}."
                self._results.failed("stable-order", seen, exchange)
                break
        self._results.passed("stable-order")

    def _total_number(self) -> None:
        """The contract allows the number of the page or of the whole list, but not a mixture."""
        pages = [page for page in self._first.pages if page.total is not None]
        size, ended = self._first.size, self._first.ended
        if not pages:
            self._results.not_checked("no page has a totalNumber, which the contract allows", "total-number")
            return
        for page in pages:
            if type(page.total) is not int or page.total < 0:
                self._results.failed("total-number", f"totalNumber is {page.total!r}.", page.exchange)
                return
        of_pages = all(page.total == page.size for page in pages)
        total = pages[0].total
        of_list = len({page.total for page in pages}) == 1 and (total == size if ended else total >= size)
        if self._first.broken is None and not of_pages and not of_list:
            read = f"{size} records" if ended else f"the first {size} records"
            seen = f"totalNumber is {total}, the page has {pages[0].size} records, and {read} were read."
            self._results.failed("total-number", seen, pages[0].exchange)
        self._results.passed("total-number")

    async def _smaller_pages(self) -> ListTraversal | None:
        """Traverse the first records with smaller pages. A list whose records depend on the page size is incomplete."""
        on_first_page = len(self._first.pages[0].ids)
        if on_first_page < 2:
            self._results.not_checked("the first page has fewer than two records", "pages-complete", "stable-order")
            return None
        large = self._first.page_size
        page_size = max(1, min(on_first_page, large) // 3)
        unused = ListResults(CheckResults(self._service.token, ()), self._results.subject)
        small = await traverse(self._service, unused, page_size, SMALL_PAGES, lambda *_: None)
        if small.broken is not None:
            seen = f"With page_size={page_size}, page {len(small.pages) + 1}: {small.broken.detail}"
            self._results.failed("pages-complete", seen, small.broken.exchange)
            return None
        ids, exchange = small.ids, small.pages[-1].exchange
        expected = self._ids if small.ended and self._first.ended else self._ids[: len(ids)]
        directions = [(large, expected, page_size, ids)]
        if self._first.ended:
            directions.append((page_size, ids, large, self._ids))
        for brings, some, lacks, others in directions:
            known = set(others)
            missing = [each for each in some if each not in known]
            if missing:
                why = f"page_size={brings} brings it, and page_size={lacks} does not"
                seen = f"{len(missing)} records are missing, such as {missing[0]!r}: {why}."
                self._results.failed("pages-complete", seen, exchange)
        self._results.passed("pages-complete")
        self.same_order(ids, f"with page_size={page_size}", exchange)
        return small

    async def _cursors(self, traversal: ListTraversal) -> None:
        """Request the first, a middle and the last page again, by the cursor that led there and by the page's own."""
        cursors = {
            "cursor-stable": [(page, page.requested_cursor) for page in traversal.pages],
            "cursor-replays": [(page, page.cursor) for page in traversal.pages],
        }
        reasons = ("the list has one page", "no page has a cursor of its own, which the contract allows")
        for (code, all_pages), reason in zip(cursors.items(), reasons, strict=True):
            pages = [(page, cursor) for page, cursor in all_pages if cursor is not None]
            for n in sorted({0, len(pages) // 2, len(pages) - 1}) if pages else ():
                page, cursor = pages[n]
                before = f"Asked for {cursor!r}, the page had {_describe(page.ids)} at first"
                await self._same_ids(code, traversal.page_size, cursor, page, before)
            if not pages:
                self._results.not_checked(reason, code)

    async def _same_ids(self, code: str, page_size: int, cursor: str | None, page: SeenPage, before: str) -> None:
        with self._results.rule(code):
            answer = await self._page(page_size=page_size, cursor=cursor)
            found = ids_of(answer.items)
            if found != list(page.ids):
                raise CheckFailed(code, f"{before}, and now has {_describe(found)}.", answer.exchange)

    async def _page(self, **params: object) -> PageAnswer:
        return await self._service.page(self._results.subject, params)

    async def _page_sizes(self) -> None:
        for page_size in (1, 2, MAX_PAGE_SIZE):
            try:
                answer = await self._page(page_size=page_size)
            except CheckFailed as broken:
                code = "largest-page" if page_size > 2 and wants_a_smaller_page(broken) else "page-sizes"
                self._results.failed(code, broken.detail, broken.exchange)
                continue
            if len(answer.items) > page_size:
                seen = f"The page has {len(answer.items)} records, and page_size is {page_size}."
                self._results.failed("page-size", seen, answer.exchange)
            self._same_start("page-sizes", f"With page_size={page_size}", answer)
        self._results.passed("page-sizes")
        with self._results.rule("default-page-size"):
            answer = await self._page()
            if len(answer.items) > DEFAULT_PAGE_SIZE:
                seen = f"Without page_size, the page has {len(answer.items)} records."
                raise CheckFailed("default-page-size", seen, answer.exchange)
        with self._results.rule("unknown-parameter"):
            try:
                self._same_start("unknown-parameter", "With it", await self._page(page_size=1, x_check_service=1))
            except CheckFailed as broken:
                if broken.exchange.status != 400:
                    raise

    def _same_start(self, code: str, when: str, answer: PageAnswer) -> None:
        found = ids_of(answer.items)
        if found[:1] != self._ids[:1]:
            seen = f"{when} the list starts with {_describe(found)}, else with {_describe(self._ids)}."
            self._results.failed(code, seen, answer.exchange)

    async def _concurrent_requests(self) -> None:
        """Request the first two pages at once, as a worker may read both lists of a merchant at the same time."""
        async with asyncio.TaskGroup() as group:
            for page in (self._first.pages if len(self._first.pages) > 1 else self._first.pages * 2)[:2]:
                before = f"Alone, the page had {_describe(page.ids)}"
                check = self._same_ids("at-once", self._first.page_size, page.requested_cursor, page, before)
                group.create_task(check)

    async def _speed(self) -> None:
        """Compare the speed of page sizes. Other rules report page sizes that fail."""
        sizes = [each for each in MEASURED_PAGE_SIZES if each <= len(self._ids)]
        if len(sizes) < 2:
            reason = f"fewer than {MEASURED_PAGE_SIZES[1]} records say nothing about it"
            self._results.not_checked(reason, "best-page-size")
            return
        measured: dict[int, tuple[float, Exchange]] = {}  # by page size: records per second
        for page_size in sizes:
            try:
                answer = await self._page(page_size=page_size)
            except CheckFailed:
                continue
            exchange, records = answer.exchange, len(answer.items)
            measurement = Measurement(self._results.subject, page_size, records, exchange.seconds, exchange.size)
            self._results.all.measurements.append(measurement)
            measured[page_size] = (records / exchange.seconds, exchange)
        if measured:
            used = min(measured, key=lambda size: abs(size - self._first.page_size))
            best = max(measured, key=lambda size: measured[size][0])
            (fast, _), (slow, exchange) = measured[best], measured[used]
            if fast > FAR_SLOWER * slow and exchange.seconds > SLOW_ENOUGH_TO_MATTER:
                seen = f"page_size={best} brings {fast:.0f} records a second, page_size={used} {slow:.0f}."
                self._results.failed("best-page-size", seen, exchange)
        self._results.passed("best-page-size")

    async def run_by_id(self) -> None:
        """Check the filter `ids` of the list, and each record's own URL."""
        asked = [each for each in self._ids if self._is_valid(each) and "," not in each]
        if not asked:
            self._results.not_checked("no record has an id that can be asked for", *ID_RULES)
            return
        plain = [each for each in asked if not is_odd(each)]
        odd = [each for each in asked if is_odd(each)]
        one = (plain or asked)[-1]  # a service that ignores `ids` may well answer the first one
        await self._filter("ids-known", [one])
        await self._filter("ids-unknown", [one, UNKNOWN])
        await self._filter("ids-unknown", [UNKNOWN])
        await self._filter("ids-duplicates", [one, one])
        some = asked[:: max(1, len(asked) // SEVERAL)][:SEVERAL]
        if len(some) > 1:
            await self._filter("ids-several", some)
            # Unencoded commas, as generated clients send the contract's `explode: false`.
            query = f"?page_size={len(some)}&ids={','.join(quote(each, safe='') for each in some)}"
            await self._filter("ids-several", some, query)
            lengths = accumulate(len(quote(each)) + 3 for each in asked[:MOST_IDS])
            many = asked[: sum(length <= LONGEST_IDS for length in lengths)]
            await self._filter("ids-many", many)
        else:
            self._results.not_checked("the list has one record", "ids-several", "ids-many")
        if odd:
            await self._filter("ids-encoded", odd[:SEVERAL])
        else:
            self._results.not_checked("no id has reserved characters", "ids-encoded")
        await self._single_records()

    async def _filter(self, code: str, ids: Sequence[str], query: str = "") -> None:
        """Request the ids, with a ready query string if given, and compare the records with the known ids."""
        wanted = {*ids} - {UNKNOWN}
        params = {} if query else {"ids": ",".join(ids), "page_size": len(ids)}
        with self._results.rule(code):
            answer = await self._service.page(self._results.subject, params, query)
            found = ids_of(answer.items)
            extra = [each for each in found if each not in wanted]
            missing = [each for each in ids if each in wanted and each not in found]
            if missing:
                seen = f"Of {len(wanted)} known ids, {len(set(missing))} bring no record, such as {missing[0]!r}."
            elif extra:
                seen = f"{len(extra)} records came that were not asked for, such as {extra[0]!r}."
            elif len(found) != len(set(found)):
                seen = f"{len(found)} records came for {len(wanted)} ids."
            else:
                return
            raise CheckFailed(code, seen, answer.exchange)

    async def _single_records(self) -> None:
        items = self._first.items
        known = [each for each in items if self._is_valid(each) and each not in (".", "..")]
        odd_first = sorted(known, key=is_odd, reverse=True)[:SINGLE_RECORDS]
        for record_id in odd_first:
            answer = await self._service.record(self._results.subject, record_id)
            seen = answer.exchange.summary
            if answer.reply is not None and answer.reply.status == 200:
                seen = _difference(items[record_id], answer.reply.content, answer.exchange.content_type)
            if seen:
                self._results.failed("record-by-id", f"The record {record_id!r}: {seen}", answer.exchange)
        if odd_first:
            self._results.passed("record-by-id")
        else:
            self._results.not_checked("no record can be asked for by its id", "record-by-id")
        answer = await self._service.record(self._results.subject, UNKNOWN)
        if answer.exchange.status != 404:
            self._results.failed("unknown-id", answer.exchange.summary, answer.exchange)
        self._results.passed("unknown-id")


def _describe(ids: Sequence[str]) -> str:
    return f"{len(ids)} records from {ids[0]!r} on" if ids else "no records"


def _difference(listed: Any, content: bytes, content_type: str) -> str:
    """Describe how the record from its own URL differs from the listed one; "" if it does not."""
    try:
        single, _ = loads(content)
    except (NotJSON, UnicodeDecodeError):
        return f"the body {faults.why(content, content_type)}"
    if not isinstance(single, dict):
        return "the body is no record."
    names = [name for name in {**listed, **single} if listed.get(name) != single.get(name)]
    return f"{', '.join(names[:5])} differ from the list." if names else ""
