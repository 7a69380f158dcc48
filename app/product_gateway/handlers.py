"""One handler per operationId of openapi/product-gateway.yaml: typed arguments in, one call, body and status out."""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import orjson

from product_gateway import db, pages, preferences, tracing
from product_gateway.answers import Answer, Hurry, Later
from product_gateway.api_bodies import rfc3339, sync_body
from product_gateway.api_types import (
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
from product_gateway.db import Database, catalog, syncs
from product_gateway.db.enqueuing import enqueue_all
from product_gateway.db.merchants import admitted
from product_gateway.db.readiness import Readiness
from product_gateway.db.reading import State, read_states, read_syncs
from product_gateway.db.syncs import Key, Wanted
from product_gateway.db.together import Together
from product_gateway.errors import GatewayError, InvalidRequest, NeverSynced
from product_gateway.logs import about
from product_gateway.metrics import Metrics
from product_gateway.model import EntityType, Merchant, Record, Sync, SyncStatus
from product_gateway.pages import Pages
from product_gateway.supervisor import Supervisor
from product_gateway.waiting import Waiting

SYNCS = "/product-gateway/v1/syncs/"
HISTORY = "syncs"
NOT_A_CURSOR = "Query parameter cursor: this is not a cursor that an earlier page of this list gave as meta.nextCursor."


class Handlers:
    """The operations. Errors of the model become HTTP answers elsewhere."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        waiting: Waiting,
        supervisor: Supervisor | None = None,
        *,
        docs: bool = True,
    ) -> None:
        self._database = database
        self._waiting = waiting
        self._enqueued = Together(self._enqueue_all)
        self._syncs = Together(self._read_syncs)
        self._states = Together(self._read_states)
        self._readiness = Readiness(database)
        self._metrics = metrics
        self._supervisor = supervisor or Supervisor(metrics)
        self._pages = Pages(shown=docs)
        # A page stays in memory from its read until its response is written, which needs no further await: so no
        # more than these are between the database and the connections.
        self._page_reads = asyncio.Semaphore(db.THREADS)

    async def enqueue_sync(
        self, merchant: str, entity_type: EntityType, idempotency_key: str | None
    ) -> Answer[SyncResponse]:
        """Raises SyncAlreadyActive."""
        if idempotency_key is None:
            with tracing.work(syncs.enqueue):
                sync = await self._enqueued.ask((merchant, entity_type))
        else:
            _, sync = await self._database.write(admitted(syncs.enqueue), merchant, entity_type, idempotency_key)
        about(sync_id=str(sync.id))
        headers = {"Location": f"{SYNCS}{sync.id}", "Retry-After": str(sync.seconds_left)}
        return Answer({"data": sync_body(sync), "meta": {}}, 202, headers)

    async def cancel_sync(self, merchant: str, entity_type: EntityType) -> Answer[SyncResponse]:
        """Raises NoActiveSync."""
        _, sync = await self._database.write(admitted(syncs.cancel), merchant, entity_type)
        about(sync_id=str(sync.id))
        self._metrics.ended(entity_type, SyncStatus.CANCELLED)
        self._waiting.ended(sync)
        return Answer({"data": sync_body(sync), "meta": {}}, 202, {"Location": f"{SYNCS}{sync.id}"})

    async def get_sync_status(self, merchant: str, entity_type: EntityType) -> Answer[SyncStatusResponse]:
        """Raises NeverSynced."""
        with tracing.work(read_states):
            state, latest = await self._states.ask((merchant, entity_type))
        if state.updated_at is None or latest is None:
            raise NeverSynced(entity_type, latest)
        return Answer(
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
    ) -> Answer[SyncListResponse]:
        """Raises InvalidRequest for a cursor that is not ours."""
        before = None if cursor is None else place(cursor)
        _, (found, last) = await self._database.read(
            admitted(syncs.history), merchant, entity_type, status, before, page_size
        )
        meta: SyncListMeta = {}
        if last is not None:
            meta["nextCursor"] = encoded(HISTORY, f"{last[0].isoformat()}/{last[1]}")
        return Answer({"data": [sync_body(each) for each in found], "meta": meta})

    async def get_sync(
        self, merchant: str, sync_id: UUID, prefer: str | None
    ) -> Answer[SyncResponse] | Later[SyncResponse]:
        """Raises SyncNotFound."""
        with tracing.work(read_syncs):
            sync = await self._syncs.ask((merchant, sync_id))
        seconds = preferences.wait(prefer)

        async def wait(hurry: Hurry) -> Answer[SyncResponse]:
            now = await self._waiting.until_ended(sync, seconds, hurry)
            return one_sync(now, 0 if now.is_active and hurry.done() else seconds)

        if not (seconds and sync.is_active):
            return one_sync(sync, seconds)
        return one_sync(sync) if self._waiting.is_full else Later(wait)

    async def list_sync_problems(self, merchant: str, sync_id: UUID) -> Answer[SyncProblemsResponse]:
        """Raises SyncNotFound."""
        _, groups = await self._database.read(admitted(syncs.problems), merchant, sync_id)
        return Answer(
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

    async def list_products(self, merchant: str, cursor: str | None, page_size: int) -> Answer[ProductListResponse]:
        """Raises InvalidRequest for a cursor that is not ours."""
        records, meta = await self._page(merchant, EntityType.PRODUCT, cursor, page_size)
        return Answer({"data": products(records), "meta": meta})

    async def get_product(self, merchant: str, product_id: str) -> Answer[ProductResponse]:
        """Raises RecordNotFound."""
        admission, record = await self._database.read(admitted(catalog.get), merchant, EntityType.PRODUCT, product_id)
        return Answer({"data": cast(Product, stored(record)), "meta": catalog_meta(admission)})

    async def list_collections(
        self, merchant: str, cursor: str | None, page_size: int
    ) -> Answer[CollectionListResponse]:
        """Raises InvalidRequest for a cursor that is not ours."""
        records, meta = await self._page(merchant, EntityType.COLLECTION, cursor, page_size)
        collections = [cast(CollectionSummary, stored(each)) for each in records]
        return Answer({"data": collections, "meta": meta})

    async def get_collection(
        self, merchant: str, collection_id: str, cursor: str | None, page_size: int
    ) -> Answer[CollectionResponse]:
        """Raises RecordNotFound, or InvalidRequest for a cursor that is not ours."""
        products_of = f"{EntityType.COLLECTION} {collection_id}"
        after = "" if cursor is None else decoded(products_of, cursor)
        async with self._page_reads:
            admission, (record, held, next_after) = await self._database.read(
                admitted(catalog.collection), merchant, collection_id, after, page_size
            )
        more = orjson.dumps({"productIds": record.product_ids, "products": products(held)})
        collection = orjson.Fragment(record.document.encode()[:-1] + b"," + more[1:])
        meta = catalog_meta(admission, products_of, next_after)
        return Answer({"data": cast(Collection, collection), "meta": meta})

    async def get_liveness(self) -> Answer[HealthResponse]:
        """Needs nothing but the process."""
        return Answer({"data": {"status": "ok"}, "meta": {}})

    async def get_readiness(self) -> Answer[HealthResponse]:
        """Raises Unavailable."""
        await self._readiness.check()
        self._supervisor.check()
        return Answer({"data": {"status": "ok"}, "meta": {}})

    async def get_spec(self) -> Answer[bytes]:
        """The file as it was written (RFC 9512)."""
        return self._pages.spec

    async def get_index(self) -> Answer[bytes]:
        """Raises PageNotFound."""
        return self._pages.page(pages.INDEX)

    async def get_docs(self) -> Answer[bytes]:
        """Raises PageNotFound."""
        return self._pages.page(pages.DOCS)

    async def get_try_out(self) -> Answer[bytes]:
        """Raises PageNotFound."""
        return self._pages.page(pages.TRY_OUT)

    async def get_docs_asset(self, name: str) -> Answer[bytes]:
        """Raises PageNotFound."""
        return self._pages.asset(name)

    async def _enqueue_all(self, wanted: Sequence[Wanted]) -> list[Sync | GatewayError]:
        return await self._database.write_once(enqueue_all, wanted)

    async def _read_syncs(self, wanted: Sequence[Key]) -> list[Sync | GatewayError]:
        return await self._database.ask(read_syncs, wanted)

    async def _read_states(self, wanted: Sequence[Wanted]) -> list[State | GatewayError]:
        return await self._database.ask(read_states, wanted)

    async def _page(
        self, merchant: str, entity_type: EntityType, cursor: str | None, size: int
    ) -> tuple[tuple[Record, ...], CatalogMeta]:
        after = "" if cursor is None else decoded(entity_type, cursor)
        async with self._page_reads:
            admission, listing = await self._database.read(admitted(catalog.page), merchant, entity_type, after, size)
        return listing.records, catalog_meta(admission, entity_type, listing.next_after)


def one_sync(sync: Sync, waited: int = 0) -> Answer[SyncResponse]:
    """A sync as it is; `waited` are the seconds that were waited for it, or would have been."""
    headers = {"Retry-After": str(sync.seconds_left)} if sync.is_active else {}
    if waited:
        headers["Preference-Applied"] = f"wait={waited}"
    return Answer({"data": sync_body(sync), "meta": {}}, headers=headers)


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


def encoded(listing: str, after: str) -> str:
    """A cursor: the last id of the page before, so that it stays valid whatever a sync writes meanwhile.

    In front of it stands a mark of the list, so that a cursor of another list is told from one of this.
    """
    return base64.urlsafe_b64encode(_mark(listing) + after.encode()).decode().rstrip("=")


def decoded(listing: str, cursor: str) -> str:
    """The id that a cursor stands for. Raises InvalidRequest."""
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        after = content.removeprefix(_mark(listing)).decode()
    except (binascii.Error, UnicodeDecodeError):
        after = ""
    if not after or "\0" in after or encoded(listing, after) != cursor:
        raise InvalidRequest(NOT_A_CURSOR)
    return after


def _mark(listing: str) -> bytes:
    return hashlib.blake2b(listing.encode(), digest_size=3).digest()


def place(cursor: str) -> syncs.Place:
    """The place in the history that a cursor stands for. Raises InvalidRequest."""
    instant, _, sync_id = decoded(HISTORY, cursor).partition("/")
    try:
        return datetime.fromisoformat(instant).astimezone(UTC), UUID(sync_id)
    except (ValueError, OverflowError):  # somebody made it up
        raise InvalidRequest(NOT_A_CURSOR) from None
