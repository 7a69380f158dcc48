"""The monitor's handlers (openapi/operations.yaml)."""

import logging
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID

from product_gateway.api.cursors import next_in_history, place
from product_gateway.db import monitor as queries
from product_gateway.db.database import Database
from product_gateway.db.single_flight import SingleFlight
from product_gateway.errors import Unavailable
from product_gateway.http.responses import EventStream, Response
from product_gateway.model.syncs import CatalogSize, EntityType, Sync, SyncStatus
from product_gateway.openapi.bodies import rfc3339
from product_gateway.operations.monitor.auth import Access, Operator, Session
from product_gateway.operations.monitor.bodies import Body, detail_body, overview_body, sync_body
from product_gateway.operations.monitor.broadcast import Broadcaster, Parts
from product_gateway.operations.monitor.rendering import BASES, Filters, PageRenderer
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry import logs
from product_gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

SYNCS_ON_THE_PAGE = 25
EVERYTHING: Filters = (None, None, None, None)

# Successful requests of these are not logged: an open page polls.
LOOKING = ("getMonitor", "getMonitorSync", "getMonitorAsset", "streamMonitor")


@dataclass(eq=False)
class Monitor:
    """One handler per operationId. Viewers share database reads; every action is logged."""

    database: Database
    metrics: Metrics
    access: Access
    catalog_limit: CatalogSize
    supervisor: InitVar[Supervisor]

    def __post_init__(self, supervisor: Supervisor) -> None:
        self._pages = PageRenderer()
        self._views = SingleFlight()
        self._live = Broadcaster(self._parts, supervisor)

    async def get_monitor(
        self,
        operator: Operator,
        merchant: str | None,
        entity_type: EntityType | None,
        status: SyncStatus | None,
        cursor: str | None,
    ) -> Response[bytes]:
        """Raises InvalidRequest for a cursor that is not ours."""
        filters = (merchant, entity_type, status, cursor)
        recent = await self._recent(filters, SYNCS_ON_THE_PAGE)
        overview, as_of = await self._overview()
        return self._pages.monitor(overview, recent, filters, as_of, operator)

    async def get_monitor_sync(self, operator: Operator, merchant: str, sync_id: UUID) -> Response[bytes]:
        """Raises SyncNotFound."""
        return self._pages.sync(*await self._detail(merchant, sync_id), operator)

    async def get_operations_index(self) -> Response[bytes]:
        """Return the page that links to the monitor, metrics and health."""
        return self._pages.index()

    async def get_monitor_asset(self, name: str) -> Response[bytes]:
        """Raises PageNotFound."""
        return self._pages.asset(name)

    async def sign_in(self, operator: Operator) -> Response[Body]:
        """Raises PageNotFound where there is no token to sign in with."""
        cookie = self.access.session(operator)
        return Response({"data": {"signedIn": True}, "meta": {}}, headers={"Set-Cookie": cookie})

    async def sign_out(self, operator: Operator) -> Response[Body]:
        """End the session for every process, also for a copy of its cookie. Raises Unavailable."""
        cookie = await self.access.end_session(operator)
        return Response({"data": {"signedIn": False}, "meta": {}}, headers={"Set-Cookie": cookie})

    async def get_overview(self, _: Operator) -> Response[Body]:
        """Return alerts, the queue and the active syncs."""
        overview, as_of = await self._overview()
        return Response({"data": overview, "meta": {"asOf": rfc3339(as_of)}})

    async def stream_monitor(self, operator: Operator) -> EventStream:
        """Raises Overloaded."""
        return EventStream(self._live.stream(partial(self._is_over, operator.session)))

    async def list_monitored_syncs(
        self,
        _: Operator,
        merchant: str | None,
        entity_type: EntityType | None,
        status: SyncStatus | None,
        cursor: str | None,
        page_size: int,
    ) -> Response[Body]:
        """Raises InvalidRequest for a cursor that is not ours."""
        return Response(await self._recent((merchant, entity_type, status, cursor), page_size))

    async def get_monitored_sync(self, _: Operator, merchant: str, sync_id: UUID) -> Response[Body]:
        """Raises SyncNotFound."""
        detail, as_of = await self._detail(merchant, sync_id)
        return Response({"data": detail, "meta": {"asOf": rfc3339(as_of)}})

    async def cancel_monitored_sync(self, operator: Operator, merchant: str, sync_id: UUID) -> Response[Body]:
        """Raises SyncNotFound, NoActiveSync."""
        answer = await self._act(operator, "cancelled", queries.cancel, merchant, sync_id, operator.address)
        self.metrics.ended(EntityType(answer.body["data"]["entityType"]), SyncStatus.CANCELLED)
        return answer

    async def run_sync_again(self, operator: Operator, merchant: str, sync_id: UUID) -> Response[Body]:
        """Raises SyncNotFound, NotAllowed, SyncAlreadyActive."""
        return _created(await self._act(operator, "asked again for", queries.run_again, merchant, sync_id), merchant)

    async def revert_monitored_sync(self, operator: Operator, merchant: str, sync_id: UUID) -> Response[Body]:
        """Raises SyncNotFound, NotAllowed, SyncAlreadyActive, NotPublishable, GenerationGone."""
        what, work = "asked for a revert of", queries.revert
        return _created(await self._act(operator, what, work, merchant, sync_id, operator.address), merchant)

    async def publish_monitored_sync(self, operator: Operator, merchant: str, sync_id: UUID) -> Response[Body]:
        """Raises SyncNotFound, NotPublishable."""
        what, work = "published the result of", queries.publish
        return await self._act(operator, what, work, merchant, sync_id, operator.address)

    async def discard_monitored_sync(self, operator: Operator, merchant: str, sync_id: UUID) -> Response[Body]:
        """Raises SyncNotFound, NotPublishable."""
        what, work = "discarded the result of", queries.discard
        return await self._act(operator, what, work, merchant, sync_id, operator.address)

    async def allow_mass_deletion(self, operator: Operator, merchant: str, sync_id: UUID) -> Response[Body]:
        """Raises SyncNotFound, NotAllowed."""
        what, work = "allowed one mass deletion after", queries.allow_mass_deletion
        return await self._act(operator, what, work, merchant, sync_id, operator.address)

    def as_page(self, answer: Response[Any], operation: str) -> Response[Any]:
        """Return an error as a page if the operation is a page."""
        return self._pages.error(answer, operation) if operation in BASES else answer

    def close_streams(self) -> None:
        """Close all streams before a stop. May be called from any thread."""
        self._live.end()

    async def _is_over(self, session: Session | None) -> bool:
        try:
            return session is not None and await self.access.has_ended(session)
        except Unavailable:  # the stream shows nothing new meanwhile
            return False

    async def _act(
        self, operator: Operator, what: str, work: Callable[..., Sync], merchant: str, sync_id: UUID, *more: str
    ) -> Response[Body]:
        logs.bind(merchant=merchant, sync_id=str(sync_id))
        self.database.start_deadline()
        sync = await self.database.write(work, merchant, sync_id, *more)
        new = "" if sync.id == sync_id else f" It is {sync.id}."
        logger.info("An operator has %s the sync.%s", what, new, extra={"client": operator.address})
        self._views.clear()
        return Response({"data": sync_body(queries.SyncRow(sync, None, None, None, 0)), "meta": {}})

    async def _overview(self) -> tuple[Body, datetime]:
        found = await self._views.get("overview", lambda: self._read(queries.overview))
        return overview_body(found), found.as_of

    async def _detail(self, merchant: str, sync_id: UUID) -> tuple[Body, datetime]:
        found = await self._views.get((merchant, sync_id), lambda: self._read(queries.sync_detail, merchant, sync_id))
        return detail_body(found, self.catalog_limit), found.run.sync.as_of

    async def _recent(self, filters: Filters, size: int) -> Body:
        merchant, entity_type, status, cursor = filters
        before = place(cursor)
        runs, last = await self._views.get(
            (filters, size), lambda: self._read(queries.recent, merchant, entity_type, status, before, size)
        )
        return {"data": [sync_body(each) for each in runs], "meta": next_in_history(last)}

    async def _read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self.database.start_deadline()
        return await self.database.read(work, *arguments)

    async def _parts(self) -> Parts:
        """Render the changing parts of the unfiltered page. Raises Unavailable."""
        overview, as_of = await self._overview()
        recent = await self._recent(EVERYTHING, SYNCS_ON_THE_PAGE)
        return self._pages.parts(overview, recent, as_of)


def _created(done: Response[Body], merchant: str) -> Response[Body]:
    """Return the response with the address of the new sync."""
    location = f"/monitor/api/syncs/{quote(merchant)}/{done.body['data']['id']}"
    return Response(done.body, 201, {"Location": location})
