"""Handlers, one for each operationId of openapi/product-gateway.yaml."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import cast
from uuid import UUID

import orjson

from product_gateway.api.cursors import HISTORY, decoded, encoded, place
from product_gateway.api.long_poll import SyncWaiters
from product_gateway.db import catalog, syncs
from product_gateway.db.batch_reads import State, get_states, get_syncs
from product_gateway.db.batcher import Batcher
from product_gateway.db.database import THREADS, Database
from product_gateway.db.enqueue import enqueue_many
from product_gateway.db.merchants import for_active_merchant
from product_gateway.db.readiness import Readiness
from product_gateway.db.syncs import Key, Wanted
from product_gateway.docs_pages import pages
from product_gateway.docs_pages.pages import Pages
from product_gateway.errors import GatewayError, NeverSynced
from product_gateway.http.prefer import wait_seconds
from product_gateway.http.responses import DeferredResponse, Hurry, Response
from product_gateway.model.catalog import Record
from product_gateway.model.merchants import Merchant
from product_gateway.model.syncs import EntityType, Sync, SyncStatus
from product_gateway.openapi.bodies import rfc3339, sync_body
from product_gateway.openapi.types import (
    CatalogMeta,
    Collection,
    CollectionListResponse,
    CollectionResponse,
    CollectionSummary,
    HealthResponse,
    Product,
    ProductListResponse,
    ProductResponse,
    SyncListMeta,
    SyncListResponse,
    SyncProblemsResponse,
    SyncResponse,
    SyncStatusResponse,
)
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry import tracing
from product_gateway.telemetry.logs import bind
from product_gateway.telemetry.metrics import Metrics

SYNCS = "/product-gateway/v1/syncs/"


class Handlers:
    """The operations. Errors of the model become HTTP answers elsewhere."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        waiting: SyncWaiters,
        supervisor: Supervisor | None = None,
        *,
        docs: bool = True,
    ) -> None:
        self._database = database
        self._waiting = waiting
        self._enqueued = Batcher(self._enqueue_all)
        self._syncs = Batcher(self._read_syncs)
        self._states = Batcher(self._read_states)
        self._readiness = Readiness(database)
        self._metrics = metrics
        self._supervisor = supervisor or Supervisor(metrics)
        self._pages = Pages(shown=docs)
        # A page stays in memory from its read until its response is written, which needs no further await: so no
        # more than these are between the database and the connections.
        self._page_reads = asyncio.Semaphore(THREADS)

    async def enqueue_sync(
        self, merchant: str, entity_type: EntityType, idempotency_key: str | None
    ) -> Response[SyncResponse]:
        """Raises SyncAlreadyActive."""
        if idempotency_key is None:
            with tracing.db_span(syncs.enqueue):
                sync = await self._enqueued.ask((merchant, entity_type))
        else:
            _, sync = await self._database.write(
                for_active_merchant(syncs.enqueue), merchant, entity_type, idempotency_key
            )
        bind(sync_id=str(sync.id))
        headers = {"Location": f"{SYNCS}{sync.id}", "Retry-After": str(sync.seconds_left)}
        return Response({"data": sync_body(sync), "meta": {}}, 202, headers)

    async def cancel_sync(self, merchant: str, entity_type: EntityType) -> Response[SyncResponse]:
        """Raises NoActiveSync."""
        _, sync = await self._database.write(for_active_merchant(syncs.cancel), merchant, entity_type)
        bind(sync_id=str(sync.id))
        self._metrics.ended(entity_type, SyncStatus.CANCELLED)
        self._waiting.ended(sync)
        return Response({"data": sync_body(sync), "meta": {}}, 202, {"Location": f"{SYNCS}{sync.id}"})

    async def get_sync_status(self, merchant: str, entity_type: EntityType) -> Response[SyncStatusResponse]:
        """Raises NeverSynced."""
        with tracing.db_span(get_states):
            state, latest = await self._states.ask((merchant, entity_type))
        if state.updated_at is None or latest is None:
            raise NeverSynced(entity_type, latest)
        return Response(
            {
                "data": {
                    "entityType": entity_type.value,
                    "updatedAt": rfc3339(state.updated_at),
                    "numRecords": state.num_records,
                },
                "meta": {"sync": sync_body(latest)},
            }
        )

    async def list_syncs(
        self,
        merchant: str,
        entity_type: EntityType | None,
        status: SyncStatus | None,
        cursor: str | None,
        page_size: int,
    ) -> Response[SyncListResponse]:
        """Raises InvalidRequest for a cursor that is not ours."""
        before = None if cursor is None else place(cursor)
        _, (found, last) = await self._database.read(
            for_active_merchant(syncs.history), merchant, entity_type, status, before, page_size
        )
        meta: SyncListMeta = {}
        if last is not None:
            meta["nextCursor"] = encoded(HISTORY, f"{last[0].isoformat()}/{last[1]}")
        return Response({"data": [sync_body(each) for each in found], "meta": meta})

    async def get_sync(
        self, merchant: str, sync_id: UUID, prefer: str | None
    ) -> Response[SyncResponse] | DeferredResponse[SyncResponse]:
        """Raises SyncNotFound."""
        with tracing.db_span(get_syncs):
            sync = await self._syncs.ask((merchant, sync_id))
        seconds = wait_seconds(prefer)

        async def wait(hurry: Hurry) -> Response[SyncResponse]:
            now = await self._waiting.wait_until_ended(sync, seconds, hurry)
            return one_sync(now, 0 if now.is_active and hurry.done() else seconds)

        if not (seconds and sync.is_active):
            return one_sync(sync, seconds)
        return one_sync(sync) if self._waiting.is_full else DeferredResponse(wait)

    async def list_sync_problems(self, merchant: str, sync_id: UUID) -> Response[SyncProblemsResponse]:
        """Raises SyncNotFound."""
        _, groups = await self._database.read(for_active_merchant(syncs.problems), merchant, sync_id)
        return Response(
            {
                "data": [
                    {
                        "code": group.code,
                        "count": group.count,
                        "samples": [
                            {"recordId": each.record_id, "pointer": each.pointer, "message": each.message}
                            for each in group.samples
                        ],
                    }
                    for group in groups
                ],
                "meta": {},
            }
        )

    async def list_products(self, merchant: str, cursor: str | None, page_size: int) -> Response[ProductListResponse]:
        """Raises InvalidRequest for a cursor that is not ours."""
        records, meta = await self._page(merchant, EntityType.PRODUCT, cursor, page_size)
        return Response({"data": products(records), "meta": meta})

    async def get_product(self, merchant: str, product_id: str) -> Response[ProductResponse]:
        """Raises RecordNotFound."""
        admission, record = await self._database.read(
            for_active_merchant(catalog.get), merchant, EntityType.PRODUCT, product_id
        )
        return Response({"data": cast(Product, stored(record)), "meta": catalog_meta(admission)})

    async def list_collections(
        self, merchant: str, cursor: str | None, page_size: int
    ) -> Response[CollectionListResponse]:
        """Raises InvalidRequest for a cursor that is not ours."""
        records, meta = await self._page(merchant, EntityType.COLLECTION, cursor, page_size)
        collections = [cast(CollectionSummary, stored(each)) for each in records]
        return Response({"data": collections, "meta": meta})

    async def get_collection(
        self, merchant: str, collection_id: str, cursor: str | None, page_size: int
    ) -> Response[CollectionResponse]:
        """Raises RecordNotFound, or InvalidRequest for a cursor that is not ours."""
        products_of = f"{EntityType.COLLECTION} {collection_id}"
        after = "" if cursor is None else decoded(products_of, cursor)
        async with self._page_reads:
            admission, (record, held, next_after) = await self._database.read(
                for_active_merchant(catalog.collection), merchant, collection_id, after, page_size
            )
        more = orjson.dumps({"productIds": record.product_ids, "products": products(held)})
        collection = orjson.Fragment(record.document.encode()[:-1] + b"," + more[1:])
        meta = catalog_meta(admission, products_of, next_after)
        return Response({"data": cast(Collection, collection), "meta": meta})

    async def get_liveness(self) -> Response[HealthResponse]:
        """Needs nothing but the process."""
        return Response({"data": {"status": "ok"}, "meta": {}})

    async def get_readiness(self) -> Response[HealthResponse]:
        """Raises Unavailable."""
        await self._readiness.check()
        self._supervisor.check()
        return Response({"data": {"status": "ok"}, "meta": {}})

    async def get_spec(self) -> Response[bytes]:
        """The file as it was written (RFC 9512)."""
        return self._pages.spec

    async def get_index(self) -> Response[bytes]:
        """Raises PageNotFound."""
        return self._pages.page(pages.INDEX)

    async def get_docs(self) -> Response[bytes]:
        """Raises PageNotFound."""
        return self._pages.page(pages.DOCS)

    async def get_try_out(self) -> Response[bytes]:
        """Raises PageNotFound."""
        return self._pages.page(pages.TRY_OUT)

    async def get_docs_asset(self, name: str) -> Response[bytes]:
        """Raises PageNotFound."""
        return self._pages.asset(name)

    async def _enqueue_all(self, wanted: Sequence[Wanted]) -> list[Sync | GatewayError]:
        return await self._database.write_once(enqueue_many, wanted)

    async def _read_syncs(self, wanted: Sequence[Key]) -> list[Sync | GatewayError]:
        return await self._database.ask(get_syncs, wanted)

    async def _read_states(self, wanted: Sequence[Wanted]) -> list[State | GatewayError]:
        return await self._database.ask(get_states, wanted)

    async def _page(
        self, merchant: str, entity_type: EntityType, cursor: str | None, size: int
    ) -> tuple[tuple[Record, ...], CatalogMeta]:
        after = "" if cursor is None else decoded(entity_type, cursor)
        async with self._page_reads:
            admission, listing = await self._database.read(
                for_active_merchant(catalog.page), merchant, entity_type, after, size
            )
        return listing.records, catalog_meta(admission, entity_type, listing.next_after)


def one_sync(sync: Sync, waited: int = 0) -> Response[SyncResponse]:
    """A sync as it is; `waited` are the seconds that were waited for it, or would have been."""
    headers = {"Retry-After": str(sync.seconds_left)} if sync.is_active else {}
    if waited:
        headers["Preference-Applied"] = f"wait={waited}"
    return Response({"data": sync_body(sync), "meta": {}}, headers=headers)


def products(records: Iterable[Record]) -> list[Product]:
    """Products as the spec has them."""
    return [cast(Product, stored(each)) for each in records]


def stored(record: Record) -> orjson.Fragment:
    """Return the record's stored JSON as a part of a body. It is neither decoded nor encoded again."""
    return orjson.Fragment(record.document)


def catalog_meta(merchant: Merchant, listing: str = "", next_after: str | None = None) -> CatalogMeta:
    """The merchant's currency, and where the next page of the list starts, where there are such."""
    found: CatalogMeta = {}
    if merchant.currency is not None:
        found["currency"] = merchant.currency
    if next_after is not None:
        found["nextCursor"] = encoded(listing, next_after)
    return found
