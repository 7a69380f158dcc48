"""A product service whose lists a test can change between syncs. It records its requests."""

import asyncio
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tests.support.product_service_faults.misbehaviour import page_of


def items(number: int, title: str = "new", start: int = 0) -> list[dict[str, Any]]:
    """Return this number of records."""
    return [{"id": f"r{each:03}", "title": title} for each in range(start, start + number)]


def unfit(number: int, start: int = 0) -> list[dict[str, Any]]:
    """Return this number of records with ids that do not fit the contract."""
    return [{"id": each["id"], "title": 7} for each in items(number, start=start)]


class FakeListService:
    """An ASGI application. `delays` are the seconds that each of the next pages takes; after that, none.

    `wait` is what it says in `Retry-After`, `total` in totalNumber (None: the truth). `by_id` is what it has for those
    who ask by id: None where it does not know `ids`, a status where it refuses them. It finds `most_ids` at once, and
    answers `beyond` where more are asked for; None: with the first ones that it has.
    """

    def __init__(self) -> None:
        self.lists: dict[str, list[Any]] = {"/products": [], "/collections": []}
        self.status = 200
        self.wait = 0
        self.total: int | None = None
        self.delays: Iterator[float] = iter(())
        self.asked: list[str | None] = []
        self.by_id: list[Any] | int | None = None
        self.ids: list[set[str]] = []
        self.most_ids = 1000
        self.beyond: int | None = None
        self.at_once = 0
        self.most_at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page of the list."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        query = request.query_params
        self.asked.append(query.get("cursor"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(next(self.delays, 0))
        self.at_once -= 1
        wanted = self.lists[request.url.path]
        if "ids" in query:
            self.ids.append(set(query["ids"].split(",")))
            refused = self.by_id if isinstance(self.by_id, int) else None
            refused = self.beyond if len(self.ids[-1]) > self.most_ids else refused
            if refused is not None:
                await JSONResponse({}, refused)(scope, receive, send)
                return
            if isinstance(self.by_id, list):
                wanted = [each for each in self.by_id if each["id"] in self.ids[-1]][: self.most_ids]
        start = int(query.get("cursor", 0))
        end = start + int(query["page_size"])
        page = page_of(
            wanted[start:end], str(end) if end < len(wanted) else None, totalNumber=self.total or len(wanted)
        )
        await JSONResponse(page, self.status, {"Retry-After": str(self.wait)})(scope, receive, send)

    def products(self, *records: list[Any]) -> None:
        """Replace the records of the service."""
        self.lists["/products"] = [each for part in records for each in part]
