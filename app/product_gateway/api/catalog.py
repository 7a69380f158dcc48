"""Handlers of the catalog: products, collections and their changes."""

import asyncio
import hashlib
from http import HTTPStatus
from typing import Any, TypedDict
from uuid import UUID

import orjson
from orjson import Fragment

from product_gateway.api.cursors import change, decoded, encoded, next_change
from product_gateway.api.long_poll import GenerationWaiters
from product_gateway.db import catalog, changes
from product_gateway.db.admission import for_active_merchant
from product_gateway.db.database import THREADS, Database
from product_gateway.http.conditional import matches
from product_gateway.http.prefer import wait_seconds
from product_gateway.http.responses import DeferredResponse, Response
from product_gateway.model.catalog import ChangePosition, Record
from product_gateway.model.merchants import Merchant
from product_gateway.model.syncs import EntityType
from product_gateway.openapi.types import CatalogMeta, ChangeMeta
from product_gateway.telemetry.version import version


class CatalogBody(TypedDict):
    """A body with one or more records: their stored JSON, which is neither decoded nor encoded again."""

    data: Fragment | list[Fragment]
    meta: CatalogMeta


class ChangesBody(TypedDict):
    """A page of the feed of changes."""

    data: list[Fragment]
    meta: ChangeMeta


class CatalogHandlers:
    """Handlers that read the catalog and the feed of its changes."""

    def __init__(self, database: Database, waiters: GenerationWaiters) -> None:
        self._database = database
        self._waiters = waiters
        # Bounds memory: a page is held from its read until it is written, which happens without another await.
        self._page_reads = asyncio.Semaphore(THREADS)

    async def list_products(
        self, merchant: str, cursor: str | None, page_size: int, if_none_match: str | None
    ) -> Response[Any]:
        """Raise InvalidRequest for a malformed cursor, GenerationGone for an old one."""
        return await self._page(merchant, EntityType.PRODUCT, cursor, page_size, if_none_match)

    async def get_product(self, merchant: str, product_id: str, if_none_match: str | None) -> Response[Any]:
        """Raise RecordNotFound."""
        owner, (record, generation) = await self._database.read(
            for_active_merchant(catalog.get), merchant, EntityType.PRODUCT, product_id
        )
        body: CatalogBody = {"data": Fragment(record.document), "meta": _meta(owner, generation)}
        return _conditional(body, owner, if_none_match, generation)

    async def list_collections(
        self, merchant: str, cursor: str | None, page_size: int, if_none_match: str | None
    ) -> Response[Any]:
        """Raise InvalidRequest for a malformed cursor, GenerationGone for an old one."""
        return await self._page(merchant, EntityType.COLLECTION, cursor, page_size, if_none_match)

    async def get_collection(
        self, merchant: str, collection_id: str, cursor: str | None, page_size: int, if_none_match: str | None
    ) -> Response[Any]:
        """Raise RecordNotFound, InvalidRequest for a malformed cursor, or GenerationGone for an old one."""
        products_of = f"{EntityType.COLLECTION} {collection_id}"
        after, of_cursor = ("", None) if cursor is None else decoded(products_of, cursor, 2)
        async with self._page_reads:
            owner, (record, held, next_after, of_both) = await self._database.read(
                for_active_merchant(catalog.collection), merchant, collection_id, after, page_size, of_cursor
            )
        products = [Fragment(each.document) for each in held]
        more = {"productIds": record.product_ids, "products": products}
        meta = _meta(owner, of_both[0], next_after and encoded(products_of, next_after, *of_both))
        return _conditional({"data": _with(record, more), "meta": meta}, owner, if_none_match, *of_both)

    async def list_changes(
        self, merchant: str, entity_type: EntityType, cursor: str | None, page_size: int, prefer: str | None
    ) -> Response[ChangesBody] | DeferredResponse[ChangesBody]:
        """Raise InvalidRequest for a malformed cursor, GenerationGone for an old one."""
        listing = f"changes {entity_type}"
        place = change(listing, cursor) or ChangePosition(0)

        async def read() -> tuple[ChangesBody, changes.ChangePage]:
            async with self._page_reads:
                owner, page = await self._database.read(
                    for_active_merchant(changes.since), merchant, entity_type, place, page_size
                )
            meta: ChangeMeta = {
                **_meta(owner, page.until),
                "generation": page.until,
                "nextCursor": next_change(listing, page.place),
                "hasMore": not (page.is_last and page.is_newest),
            }
            return {"data": _changes(entity_type, page), "meta": meta}, page

        body, page = await read()
        seconds = wait_seconds(prefer)
        applied = {"Preference-Applied": f"wait={seconds}"} if seconds else {}
        if not seconds or page.changes or body["meta"]["hasMore"]:
            return Response(body, headers=applied)
        if self._waiters.is_full:
            return Response(body)

        async def wait(disconnected: asyncio.Future[bool]) -> Response[ChangesBody]:
            await self._waiters.wait((merchant, entity_type, page.until), page.until, seconds, disconnected)
            self._database.start_deadline()
            return Response((await read())[0], headers=applied)

        return DeferredResponse(wait)

    async def list_sync_changes(
        self, merchant: str, sync_id: UUID, cursor: str | None, page_size: int
    ) -> Response[CatalogBody]:
        """Raise SyncNotFound, NotPublishable, GenerationGone, or InvalidRequest for a malformed cursor."""
        listing = f"changes of {sync_id}"
        async with self._page_reads:
            owner, (entity_type, page) = await self._database.read(
                for_active_merchant(changes.of_sync), merchant, sync_id, change(listing, cursor), page_size
            )
        meta = _meta(owner, page.until, None if page.is_last else next_change(listing, page.place))
        return Response({"data": _changes(entity_type, page), "meta": meta})

    async def _page(
        self, merchant: str, entity_type: EntityType, cursor: str | None, size: int, if_none_match: str | None
    ) -> Response[Any]:
        after, generation = "", None
        if cursor is not None:
            after, [generation] = decoded(entity_type, cursor, 1)
        if if_none_match is not None:  # a list that the client has is not read
            owner, sees = await self._database.read(
                for_active_merchant(catalog.view), merchant, entity_type, generation
            )
            headers = _validators(owner, sees.generation)
            if matches(headers["ETag"], if_none_match):
                return _not_modified(headers)
        async with self._page_reads:
            owner, listing = await self._database.read(
                for_active_merchant(catalog.page), merchant, entity_type, after, size, generation
            )
        data = [Fragment(each.document) for each in listing.records]
        more = listing.next_after and encoded(entity_type, listing.next_after, listing.generation)
        body: CatalogBody = {"data": data, "meta": _meta(owner, listing.generation, more)}
        return _conditional(body, owner, if_none_match, listing.generation)


def _meta(merchant: Merchant, generation: int, next_cursor: str | None = None) -> CatalogMeta:
    """Return the generation, and the merchant's currency and the cursor of the next page, each only if there is one."""
    meta: CatalogMeta = {"generation": generation}
    if merchant.currency is not None:
        meta["currency"] = merchant.currency
    if next_cursor is not None:
        meta["nextCursor"] = next_cursor
    return meta


def _with(record: Record, members: dict[str, Any]) -> Fragment:
    """Return the record's JSON with further members."""
    return Fragment(record.document.encode()[:-1] + b"," + orjson.dumps(members)[1:])


def _changes(entity_type: EntityType, page: changes.ChangePage) -> list[Fragment]:
    member = entity_type.lower()
    data = []
    for each in page.changes:
        record = each.record and Fragment(each.record.document)
        if each.record and entity_type is EntityType.COLLECTION:
            record = _with(each.record, {"productIds": each.record.product_ids})
        item = {"change": each.kind, "id": each.record_id, "generation": each.generation, member: record}
        data.append(Fragment(orjson.dumps(item)))
    return data


def _conditional(body: CatalogBody, merchant: Merchant, if_none_match: str | None, *generations: int) -> Response[Any]:
    """Return the body with its entity tag, or 304 if the client has it (RFC 9110 §13.1.2)."""
    headers = _validators(merchant, *generations)
    if if_none_match is not None and matches(headers["ETag"], if_none_match):
        return _not_modified(headers)
    return Response(body, headers=headers)


def _validators(merchant: Merchant, *generations: int) -> dict[str, str]:
    """Return the entity tag with its cache control. The tag names what a body depends on besides the URL.

    A merchant that was removed and added again starts with generation 1 again.
    """
    about = f"{merchant.name}/{merchant.created_at.isoformat()}/{merchant.currency}/{version()}"
    digest = hashlib.blake2b(about.encode(), digest_size=6).hexdigest()
    return {
        "ETag": f'"{"-".join(map(str, generations))}-{digest}"',
        "Cache-Control": "private, no-cache",
    }


def _not_modified(headers: dict[str, str]) -> Response[Any]:
    return Response(b"", HTTPStatus.NOT_MODIFIED, headers)
