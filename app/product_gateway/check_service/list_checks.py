"""What must hold of a list beyond its schema: its pages, its cursors, its page sizes, its order."""

import asyncio
from collections.abc import Sequence
from typing import Any

from product_gateway.check_service.recording_client import CheckFailed, Service
from product_gateway.check_service.results import CheckResults, Measurement
from product_gateway.check_service.traversal import ListTraversal, Seen, ids_of, traverse, wants_a_smaller_page
from product_gateway.model.syncs import EntityType

LARGEST_PAGE, DEFAULT_PAGE = 500, 100  # as the contract has them
SMALL_PAGES = 20
CURSORS_TRIED = 3
SIZES_MEASURED = (50, 250, 500)
FAR_SLOWER = 2.0
SLOW_ENOUGH_TO_MATTER = 0.5  # seconds for a page
PAGING_RULES = ("pages-complete", "stable-order", "cursor-stable", "cursor-replays")
PAGE_SIZE_RULES = ("page-sizes", "default-page-size", "at-once", "unknown-parameter", "best-page-size")


class ListChecks:
    """The checks of one list, of which `first` is the reading that was made already."""

    def __init__(self, service: Service, results: CheckResults, entity_type: EntityType, first: ListTraversal) -> None:
        self._service = service
        self._results = results
        self._entity_type = entity_type
        self._first = first
        self._ids = first.ids

    async def run(self) -> None:
        """All of them."""
        self._total_number()
        small = await self._smaller_pages()
        await self._cursors(small if small is not None and len(small.pages) > 1 else self._first)
        await self._page_sizes()
        await self._without_page_size()
        await self._at_once()
        await self._unknown_parameter()
        await self._measure()

    def same_order(self, other: Sequence[str], words: str, curl: str | None = None) -> None:
        """Compares the ids of another reading, as far as it came, with those of the first."""
        ours, theirs = set(self._ids), set(other)
        once = dict.fromkeys(other)
        pairs = zip((e for e in self._ids if e in theirs), (e for e in once if e in ours), strict=False)
        for number, (one, another) in enumerate(pairs, 1):
            if one != another:
                seen = f"Record {number} was {one!r} at first; {words} it is {another!r}."
                self._results.failed("stable-order", self._entity_type, seen, curl)
                return
        self._results.passed(self._entity_type, "stable-order")

    def _total_number(self) -> None:
        """Of the page, or of the whole: the contract's words allow both, but not one here and the other there."""
        results, pages = self._results, [page for page in self._first.pages if page.total is not None]
        whole = self._first.size
        if not pages:
            results.skipped(self._entity_type, "no page has a totalNumber, which the contract allows", "total-number")
            return
        for page in pages:
            if type(page.total) is not int or page.total < 0:
                results.failed("total-number", self._entity_type, f"totalNumber is {page.total!r}.", page.exchange.curl)
                return
        of_pages = all(page.total == page.size for page in pages)
        of_whole = len({page.total for page in pages}) == 1 and (
            pages[0].total == whole if self._first.ended else pages[0].total >= whole
        )
        if self._first.broken is None and not of_pages and not of_whole:
            read_so_far = f"{whole} records" if self._first.ended else f"the first {whole} records"
            seen = (
                f"totalNumber is {pages[0].total}, the page has {pages[0].size} records, and {read_so_far} were read."
            )
            results.failed("total-number", self._entity_type, seen, pages[0].exchange.curl)
        results.passed(self._entity_type, "total-number")

    async def _smaller_pages(self) -> ListTraversal | None:
        """A second reading with smaller pages, of the first records: what the page size changes is not complete."""
        on_first = len(self._first.pages[0].ids)
        if on_first < 2:
            reason = "the first page has fewer than two records"
            self._results.skipped(self._entity_type, reason, "pages-complete", "stable-order")
            return None
        aside = CheckResults(
            self._service.token, self._results.subjects
        )  # what a reading says was said of the first one
        page_size = max(1, min(on_first, self._first.page_size) // 3)
        small = await traverse(self._service, aside, self._entity_type, page_size, SMALL_PAGES, lambda *_: None)
        if small.broken is not None:
            seen = f"With page_size={page_size}, page {len(small.pages) + 1}: {small.broken.detail}"
            self._results.failed("pages-complete", self._entity_type, seen, small.broken.exchange.curl)
            return None
        ids = small.ids
        expected = self._ids if small.ended and self._first.ended else self._ids[: len(ids)]
        curl = small.pages[-1].exchange.curl
        for one, other, words in (
            (expected, ids, f"page_size={self._first.page_size} brings it, and page_size={page_size} does not"),
            (ids, self._ids, f"page_size={page_size} brings it, and page_size={self._first.page_size} does not"),
        ):
            known = set(other)
            lacking = [each for each in one if each not in known]
            if lacking and (self._first.ended or one is expected):
                seen = f"{len(lacking)} records are missing, such as {lacking[0]!r}: {words}."
                self._results.failed("pages-complete", self._entity_type, seen, curl)
        self._results.passed(self._entity_type, "pages-complete")
        self.same_order(ids, f"with page_size={page_size}", curl)
        return small

    async def _cursors(self, reading: ListTraversal) -> None:
        behind = [page for page in reading.pages if page.asked is not None]
        if behind:
            for page in _some(behind):
                await self._again("cursor-stable", reading, page, page.asked)
        else:
            self._results.skipped(self._entity_type, "the list has one page", "cursor-stable")
        own = [page for page in reading.pages if page.cursor is not None]
        if own:
            for page in _some(own):
                await self._again("cursor-replays", reading, page, page.cursor)
        else:
            self._results.skipped(self._entity_type, "no page has a cursor of its own, which the contract allows",
                                "cursor-replays")  # fmt: skip

    async def _again(self, code: str, reading: ListTraversal, page: Seen, cursor: str | None) -> None:
        params = {"page_size": str(reading.page_size), "cursor": str(cursor)}
        await self._same_ids(code, params, page.ids, f"Asked for {cursor!r}, the page had {_first(page.ids)} at first")

    async def _same_ids(self, code: str, params: dict[str, str], ids: Sequence[str], words: str) -> None:
        try:
            answer = await self._service.page(self._entity_type, params)
        except CheckFailed as broken:
            self._results.failed(code, self._entity_type, broken.detail, broken.exchange.curl)
            return
        found = ids_of(answer.items)
        if found != list(ids):
            self._results.failed(
                code, self._entity_type, f"{words}, and now has {_first(found)}.", answer.exchange.curl
            )
        self._results.passed(self._entity_type, code)

    async def _page_sizes(self) -> None:
        for page_size in (1, 2, LARGEST_PAGE):
            try:
                answer = await self._service.page(self._entity_type, {"page_size": str(page_size)})
            except CheckFailed as broken:
                code = "largest-page" if page_size > 2 and wants_a_smaller_page(broken) else "page-sizes"
                self._results.failed(code, self._entity_type, broken.detail, broken.exchange.curl)
                continue
            if len(answer.items) > page_size:
                seen = f"The page has {len(answer.items)} records, and page_size is {page_size}."
                self._results.failed("page-size", self._entity_type, seen, answer.exchange.curl)
            if ids_of(answer.items)[:1] != self._ids[:1]:
                found = _first(ids_of(answer.items))
                seen = f"With page_size={page_size} the list starts with {found}, else with {_first(self._ids)}."
                self._results.failed("page-sizes", self._entity_type, seen, answer.exchange.curl)
        self._results.passed(self._entity_type, "page-sizes")

    async def _without_page_size(self) -> None:
        try:
            answer = await self._service.page(self._entity_type, {})
        except CheckFailed as broken:
            self._results.failed("default-page-size", self._entity_type, broken.detail, broken.exchange.curl)
            return
        if len(answer.items) > DEFAULT_PAGE:
            seen = f"Without page_size, the page has {len(answer.items)} records."
            self._results.failed("default-page-size", self._entity_type, seen, answer.exchange.curl)
        self._results.passed(self._entity_type, "default-page-size")

    async def _at_once(self) -> None:
        """The first page and the second: a worker may read both lists of a merchant at the same time."""
        pages = self._first.pages[:2] if len(self._first.pages) > 1 else self._first.pages * 2
        size = {"page_size": str(self._first.page_size)}
        async with asyncio.TaskGroup() as group:
            for page in pages:
                params = size | ({} if page.asked is None else {"cursor": page.asked})
                words = f"Alone, the page had {_first(page.ids)}"
                group.create_task(self._same_ids("at-once", params, page.ids, words))

    async def _unknown_parameter(self) -> None:
        params = {"page_size": "1", "x_check_service": "1"}
        try:
            answer = await self._service.page(self._entity_type, params)
        except CheckFailed as broken:
            if broken.exchange.status != 400:
                self._results.failed("unknown-parameter", self._entity_type, broken.detail, broken.exchange.curl)
        else:
            if ids_of(answer.items)[:1] != self._ids[:1]:
                seen = f"With it the list starts with {_first(ids_of(answer.items))}, else with {_first(self._ids)}."
                self._results.failed("unknown-parameter", self._entity_type, seen, answer.exchange.curl)
        self._results.passed(self._entity_type, "unknown-parameter")

    async def _measure(self) -> None:
        """How quick which page size is. A page that cannot be had says nothing here; other rules name it."""
        sizes = [each for each in SIZES_MEASURED if each <= len(self._ids)]
        if len(sizes) < 2:
            reason = f"fewer than {SIZES_MEASURED[1]} records say nothing about it"
            self._results.skipped(self._entity_type, reason, "best-page-size")
            return
        speeds: dict[int, tuple[float, Any]] = {}
        for page_size in sizes:
            try:
                answer = await self._service.page(self._entity_type, {"page_size": str(page_size)})
            except CheckFailed:
                continue
            exchange = answer.exchange
            measured = Measurement(self._entity_type, page_size, len(answer.items), exchange.seconds, exchange.size)
            self._results.measurements.append(measured)
            speeds[page_size] = (len(answer.items) / exchange.seconds, exchange)
        used = min(speeds, key=lambda size: abs(size - self._first.page_size), default=None)
        best = max(speeds, key=lambda size: speeds[size][0], default=None)
        if used is not None and best is not None:
            quick, slow = speeds[best][0], speeds[used][0]
            if quick > FAR_SLOWER * slow and speeds[used][1].seconds > SLOW_ENOUGH_TO_MATTER:
                seen = f"page_size={best} brings {quick:.0f} records a second, page_size={used} {slow:.0f}."
                self._results.failed("best-page-size", self._entity_type, seen, speeds[used][1].curl)
        self._results.passed(self._entity_type, "best-page-size")


def _some(pages: Sequence[Seen]) -> list[Seen]:
    """The first, one in the middle, and the last."""
    return list({pages[n].exchange.url: pages[n] for n in (0, len(pages) // 2, -1)}.values())[:CURSORS_TRIED]


def _first(ids: Sequence[str]) -> str:
    return f"{len(ids)} records from {ids[0]!r} on" if ids else "no records"
