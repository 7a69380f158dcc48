"""The sandbox's product service: the sample service, under one path per merchant, following the scenarios."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import InitVar, dataclass
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.http.responses import Response
from product_gateway.model.syncs import EntityType
from product_gateway.sample.catalog_file import Catalog, ListedCatalog, Record
from product_gateway.sample.service import create_sample_app
from product_gateway.sandbox.scenarios import Run, Scenario, Scenarios

PATHS = {"products": EntityType.PRODUCT, "collections": EntityType.COLLECTION}
RECORDS_AFTER_MASS_DELETION = 2
INVALID_FIELDS: dict[int, Record] = {1: {"title": 7}, 3: {"description": ["not", "a", "text"]}}  # by index
FAILURE = {
    "type": "about:blank",
    "title": "Internal Server Error",
    "status": 500,
    "errors": [{"title": "Failure", "detail": "This service fails because the sync was asked for with sync=failing."}],
}

_scenario: ContextVar[Scenario] = ContextVar("scenario", default=Scenario.ORDINARY)


class ScenarioCatalog(ListedCatalog):
    """A catalog that depends on the scenario of the current request.

    It has an extra collection per product, so that a mass deletion of collections is large enough to be refused.
    """

    def __init__(self, catalog: Catalog) -> None:
        of = {each: [catalog.record(each, n) for n in range(catalog.count(each))] for each in EntityType}
        of[EntityType.COLLECTION] += [
            {"id": f"all-about-{each['id']}", "title": f"All about {each['title']}", "products": [each]}
            for each in of[EntityType.PRODUCT]
        ]
        super().__init__(_by_id(of))
        self._changed = ListedCatalog(_by_id({each: _changed(of[each]) for each in of}))

    def count(self, entity_type: EntityType) -> int:
        if _scenario.get() is Scenario.MASS_DELETION:
            return RECORDS_AFTER_MASS_DELETION
        return super().count(entity_type)

    def record(self, entity_type: EntityType, index: int) -> Record:
        if _scenario.get() is Scenario.CHANGING:
            return self._changed.record(entity_type, index)
        record = super().record(entity_type, index)
        return {**record, **INVALID_FIELDS.get(index, {})} if _scenario.get() is Scenario.REJECTING else record

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        if _scenario.get() is Scenario.CHANGING:
            return self._changed.index(entity_type, record_id)
        index = super().index(entity_type, record_id)
        return None if index is None or index >= self.count(entity_type) else index


def _by_id(records: dict[EntityType, list[Record]]) -> dict[EntityType, dict[str, Record]]:
    return {each: {record["id"]: record for record in records[each]} for each in records}


def _changed(records: list[Record]) -> list[Record]:
    """Return the records with another title of the first, and another record in place of the last."""
    first, *others, last = records
    return [
        {**first, "title": f"{first['title']} (changed)"},
        *others,
        {**last, "id": f"{last['id']}-new", "title": f"{last['title']} (new)"},
    ]


@dataclass(eq=False)
class ScenarioService:
    """An ASGI app that serves the sample service under /{merchant}.

    `expire_lease` takes a sync from its worker. Syncs take `seconds`, slow ones `slow_seconds`, if the worker reads
    pages of `page_size` records.
    """

    catalog: InitVar[Catalog]
    scenarios: Scenarios
    expire_lease: Callable[[Run], Awaitable[None]]
    token: InitVar[str]
    page_size: int
    seconds: float
    slow_seconds: float

    def __post_init__(self, catalog: Catalog, token: str) -> None:
        self._catalog = ScenarioCatalog(catalog)
        self._app: ASGIApp = create_sample_app(self._catalog, token=token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        merchant, _, rest = scope["path"].removeprefix("/").partition("/")
        raw = scope.get("raw_path") or scope["path"].encode()
        scope = {**scope, "path": f"/{rest}", "raw_path": raw[raw.find(b"/", 1) :]}
        kind = PATHS.get(rest.partition("/")[0])
        if kind is not None:
            run = await self.scenarios.current(merchant, kind)
            _scenario.set(run.scenario)
            if run.scenario is Scenario.FAILING:
                await Response(FAILURE, 500, media_type="application/problem+json").send(scope, send)
                return
            if rest in PATHS:
                await self._delay(run, parse_qs(scope["query_string"].decode("latin-1")))
        await self._app(scope, receive, send)

    async def _delay(self, run: Run, query: dict[str, list[str]]) -> None:
        if "ids" in query or run.hurried:
            return
        if run.scenario is Scenario.LOST_WORKER and "cursor" in query and not run.lost:
            run.lost = True
            await self.expire_lease(run)
        pages = math.ceil(self._catalog.count(run.entity_type) / self.page_size)
        await asyncio.sleep((self.slow_seconds if run.scenario is Scenario.SLOW else self.seconds) / pages)
