"""Handlers of syncs."""

import asyncio
from collections.abc import Callable
from uuid import UUID

from product_gateway.api.cursors import next_in_history, place
from product_gateway.api.long_poll import SyncWaiters
from product_gateway.db import catalog, generations, reverts, syncs
from product_gateway.db.admission import for_active_merchant
from product_gateway.db.batcher import Batcher
from product_gateway.db.database import Database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.db.syncs import Key
from product_gateway.errors import NeverSynced
from product_gateway.http.prefer import wait_seconds
from product_gateway.http.responses import DeferredResponse, Response
from product_gateway.model.syncs import EntityType, Sync, SyncStatus
from product_gateway.openapi.bodies import problem_group, rfc3339, sync_body
from product_gateway.openapi.types import (
    EntitySyncStatus,
    SyncListResponse,
    SyncProblemsResponse,
    SyncResponse,
    SyncStatusMeta,
    SyncStatusResponse,
)
from product_gateway.telemetry import tracing
from product_gateway.telemetry.logs import bind
from product_gateway.telemetry.metrics import Metrics

SYNCS = "/product-gateway/v1/syncs/"


class SyncHandlers:
    """Handlers that request, cancel and show syncs. `queued` is called after a sync was queued."""

    def __init__(
        self, database: Database, metrics: Metrics, waiters: SyncWaiters, queued: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._queued = queued
        self._metrics = metrics
        self._waiters = waiters
        self._enqueue: Batcher[EnqueueRequest, Sync] = Batcher(lambda requests: database.write(enqueue_many, requests))
        self._syncs: Batcher[Key, Sync] = Batcher(lambda keys: database.read(syncs.get_many, keys))
        self._states: Batcher[tuple[str, EntityType], catalog.StateAndLatest] = Batcher(
            lambda keys: database.read(catalog.states, keys)
        )

    async def enqueue_sync(
        self, merchant: str, entity_type: EntityType, idempotency_key: str | None, publish: str
    ) -> Response[SyncResponse]:
        """Raise SyncAlreadyActive."""
        request = EnqueueRequest(merchant, entity_type, idempotency_key, tracing.traceparent(), publish.upper())
        with tracing.db_span(enqueue):
            sync = await self._enqueue.submit(request)
        self._queued()
        return _enqueued(sync)

    async def cancel_sync(self, merchant: str, entity_type: EntityType) -> Response[SyncResponse]:
        """Raise NoActiveSync."""
        _, sync = await self._database.write(for_active_merchant(syncs.cancel), merchant, entity_type)
        bind(sync_id=str(sync.id))
        self._metrics.ended(entity_type, SyncStatus.CANCELLED)
        self._waiters.ended(sync)
        return Response({"data": sync_body(sync), "meta": {}}, 202, {"Location": f"{SYNCS}{sync.id}"})

    async def get_sync_status(self, merchant: str, entity_type: EntityType) -> Response[SyncStatusResponse]:
        """Raise NeverSynced."""
        with tracing.db_span(catalog.states):
            state, latest = await self._states.submit((merchant, entity_type))
        if state.updated_at is None or latest is None:
            raise NeverSynced(entity_type, latest)
        status: EntitySyncStatus = {
            "entityType": entity_type.value,
            "updatedAt": rfc3339(state.updated_at),
            "numRecords": state.num_records,
        }
        meta: SyncStatusMeta = {"sync": sync_body(latest), "generation": state.generation}
        if state.stale_after is not None:
            meta |= {"fresh": latest.as_of < state.stale_after, "staleAfter": rfc3339(state.stale_after)}
        return Response({"data": status, "meta": meta})

    async def list_syncs(
        self,
        merchant: str,
        entity_type: EntityType | None,
        status: SyncStatus | None,
        cursor: str | None,
        page_size: int,
    ) -> Response[SyncListResponse]:
        """Raise InvalidRequest for a malformed cursor."""
        _, (found, last) = await self._database.read(
            for_active_merchant(syncs.history), merchant, entity_type, status, place(cursor), page_size
        )
        return Response({"data": [sync_body(each) for each in found], "meta": next_in_history(last)})

    async def get_sync(
        self, merchant: str, sync_id: UUID, prefer: str | None
    ) -> Response[SyncResponse] | DeferredResponse[SyncResponse]:
        """Raise SyncNotFound."""
        with tracing.db_span(syncs.get):
            sync = await self._syncs.submit((merchant, sync_id))
        seconds = wait_seconds(prefer)

        async def wait(disconnected: asyncio.Future[bool]) -> Response[SyncResponse]:
            now = await self._waiters.wait_until_ended(sync, seconds, disconnected)
            return one_sync(now, 0 if now.is_active and disconnected.done() else seconds)

        if not (seconds and sync.is_active):
            return one_sync(sync, seconds)
        return one_sync(sync) if self._waiters.is_full else DeferredResponse(wait)

    async def list_sync_problems(self, merchant: str, sync_id: UUID) -> Response[SyncProblemsResponse]:
        """Raise SyncNotFound."""
        _, groups = await self._database.read(for_active_merchant(syncs.problems), merchant, sync_id)
        return Response({"data": [problem_group(each) for each in groups], "meta": {}})

    async def revert_sync(self, merchant: str, sync_id: UUID) -> Response[SyncResponse]:
        """Raise SyncNotFound, SyncAlreadyActive, NotPublishable or GenerationGone."""
        _, revert = await self._database.write(for_active_merchant(reverts.request), merchant, sync_id)
        self._queued()
        return _enqueued(revert)

    async def publish_sync(self, merchant: str, sync_id: UUID) -> Response[SyncResponse]:
        """Raise SyncNotFound or NotPublishable."""
        _, sync = await self._database.write(for_active_merchant(generations.publish), merchant, sync_id)
        return one_sync(sync)

    async def discard_sync(self, merchant: str, sync_id: UUID) -> Response[SyncResponse]:
        """Raise SyncNotFound or NotPublishable."""
        _, sync = await self._database.write(for_active_merchant(generations.discard), merchant, sync_id)
        return one_sync(sync)


def _enqueued(sync: Sync) -> Response[SyncResponse]:
    bind(sync_id=str(sync.id))
    headers = {"Location": f"{SYNCS}{sync.id}", "Retry-After": str(sync.seconds_left)}
    return Response({"data": sync_body(sync), "meta": {}}, 202, headers)


def one_sync(sync: Sync, waited: int = 0) -> Response[SyncResponse]:
    """Return the sync as a response. `waited`: the seconds that the client's `wait` preference was honoured with."""
    headers = {"Retry-After": str(sync.seconds_left)} if sync.is_active else {}
    if waited:
        headers["Preference-Applied"] = f"wait={waited}"
    return Response({"data": sync_body(sync), "meta": {}}, headers=headers)
