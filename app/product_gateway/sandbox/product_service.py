"""The sandbox's product service: the sample service, each merchant's under a path of its own, following the script."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.http.responses import Response
from product_gateway.model.syncs import EntityType
from product_gateway.sample.catalog_file import Catalog, Record
from product_gateway.sample.service import create_sample_app
from product_gateway.sandbox.scenarios import Run, Scenario, Scenarios

PATHS = {"products": EntityType.PRODUCT, "collections": EntityType.COLLECTION}
RECORDS_LEFT = 2  # by a mass deletion
# Which records of a rejecting service, and how.
SPOILED: dict[int, Record] = {1: {"title": 7}, 3: {"description": ["not", "a", "text"]}}

_script: ContextVar[Scenario] = ContextVar("script", default=Scenario.ORDINARY)


class ScriptedCatalog(Catalog):
    """A catalog as the script of the running request wants it seen.

    There is a collection more for each product: a sync that removes much is told only where there is much.
    """

    def __init__(self, catalog: Catalog) -> None:
        of = {each: [catalog.record(each, n) for n in range(catalog.count(each))] for each in EntityType}
        of[EntityType.COLLECTION] += [_all_about(product) for product in of[EntityType.PRODUCT]]
        self._records = of
        self._indices = {each: {record["id"]: n for n, record in enumerate(of[each])} for each in of}

    def count(self, entity_type: EntityType) -> int:
        """How many the script leaves."""
        return RECORDS_LEFT if _script.get() is Scenario.MASS_DELETION else len(self._records[entity_type])

    def record(self, entity_type: EntityType, index: int) -> Record:
        """A record, or what a faulty service makes of it."""
        record = self._records[entity_type][index]
        return {**record, **SPOILED.get(index, {})} if _script.get() is Scenario.REJECTING else record

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        """Where it is, if the script leaves it."""
        index = self._indices[entity_type].get(record_id)
        return None if index is None or index >= self.count(entity_type) else index


def _all_about(product: Record) -> Record:
    title = f"All about {product['title']}"
    return {"id": f"all-about-{product['id']}", "title": title, "products": [product]}


class ScriptedService:
    """In front of the sample service: /{merchant}/products and all the others.

    `lose` takes a sync away from its worker. Syncs take `seconds`, and slow ones `slow_seconds`, in pages of
    `page_size` records.
    """

    def __init__(
        self,
        catalog: Catalog,
        scripts: Scenarios,
        lose: Callable[[Run], Awaitable[None]],
        *,
        token: str,
        page_size: int,
        seconds: float,
        slow_seconds: float,
    ) -> None:
        self._catalog = ScriptedCatalog(catalog)
        self._app: ASGIApp = create_sample_app(self._catalog, token=token)
        self._scripts = scripts
        self._lose = lose
        self._page_size = page_size
        self._seconds = seconds
        self._slow_seconds = slow_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the sync's script says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        merchant, _, rest = scope["path"].removeprefix("/").partition("/")
        raw = scope.get("raw_path") or scope["path"].encode()
        scope = {**scope, "path": f"/{rest}", "raw_path": raw[raw.find(b"/", 1) :]}
        kind = PATHS.get(rest.partition("/")[0])
        if kind is not None:
            run = await self._scripts.current(merchant, kind)
            _script.set(run.script)
            if run.script is Scenario.FAILING:
                await _failure().send(scope, send)
                return
            if rest in PATHS:
                await self._be_slow(run, parse_qs(scope["query_string"].decode("latin-1")))
        await self._app(scope, receive, send)

    async def _be_slow(self, run: Run, query: dict[str, list[str]]) -> None:
        if "ids" in query or run.hurried:
            return
        if run.script is Scenario.LOST_WORKER and "cursor" in query and not run.lost:
            run.lost = True
            await self._lose(run)
        pages = math.ceil(self._catalog.count(run.entity_type) / self._page_size)
        await asyncio.sleep((self._slow_seconds if run.script is Scenario.SLOW else self._seconds) / pages)


def _failure() -> Response[dict[str, Any]]:
    errors = [{"title": "Failure", "detail": "This service fails because the sync was asked for with sync=failing."}]
    problem = {"type": "about:blank", "title": "Internal Server Error", "status": 500, "errors": errors}
    return Response(problem, 500, media_type="application/problem+json")
