"""Handlers of the catalog: products and collections."""

import asyncio
from collections.abc import Iterable
from typing import cast

import orjson

from product_gateway.api.cursors import decoded, encoded
from product_gateway.db import catalog
from product_gateway.db.admission import for_active_merchant
from product_gateway.db.database import THREADS, Database
from product_gateway.http.responses import Response
from product_gateway.model.catalog import Record
from product_gateway.model.merchants import Merchant
from product_gateway.model.syncs import EntityType
from product_gateway.openapi.types import (
    CatalogMeta,
    Collection,
    CollectionListResponse,
    CollectionResponse,
    CollectionSummary,
    Product,
    ProductListResponse,
    ProductResponse,
)


class CatalogHandlers:
    """Handlers that read the catalog."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Bounds memory: a page is held from its read until it is written, which happens without another await.
        self._page_reads = asyncio.Semaphore(THREADS)

    async def list_products(self, merchant: str, cursor: str | None, page_size: int) -> Response[ProductListResponse]:
        """Raise InvalidRequest for a malformed cursor."""
        records, meta = await self._page(merchant, EntityType.PRODUCT, cursor, page_size)
        return Response({"data": _products(records), "meta": meta})

    async def get_product(self, merchant: str, product_id: str) -> Response[ProductResponse]:
        """Raise RecordNotFound."""
        owner, record = await self._database.read(
            for_active_merchant(catalog.get), merchant, EntityType.PRODUCT, product_id
        )
        return Response({"data": cast(Product, _stored(record)), "meta": _meta(owner)})

    async def list_collections(
        self, merchant: str, cursor: str | None, page_size: int
    ) -> Response[CollectionListResponse]:
        """Raise InvalidRequest for a malformed cursor."""
        records, meta = await self._page(merchant, EntityType.COLLECTION, cursor, page_size)
        collections = [cast(CollectionSummary, _stored(each)) for each in records]
        return Response({"data": collections, "meta": meta})

    async def get_collection(
        self, merchant: str, collection_id: str, cursor: str | None, page_size: int
    ) -> Response[CollectionResponse]:
        """Raise RecordNotFound, or InvalidRequest for a malformed cursor."""
        products_of = f"{EntityType.COLLECTION} {collection_id}"
        after = decoded(products_of, cursor)
        async with self._page_reads:
            owner, (record, held, next_after) = await self._database.read(
                for_active_merchant(catalog.collection), merchant, collection_id, after, page_size
            )
        more = orjson.dumps({"productIds": record.product_ids, "products": _products(held)})
        collection = orjson.Fragment(record.document.encode()[:-1] + b"," + more[1:])
        meta = _meta(owner, products_of, next_after)
        return Response({"data": cast(Collection, collection), "meta": meta})

    async def _page(
        self, merchant: str, entity_type: EntityType, cursor: str | None, size: int
    ) -> tuple[tuple[Record, ...], CatalogMeta]:
        after = decoded(entity_type, cursor)
        async with self._page_reads:
            owner, listing = await self._database.read(
                for_active_merchant(catalog.page), merchant, entity_type, after, size
            )
        return listing.records, _meta(owner, entity_type, listing.next_after)


def _products(records: Iterable[Record]) -> list[Product]:
    return [cast(Product, _stored(each)) for each in records]


def _stored(record: Record) -> orjson.Fragment:
    """Return the record's stored JSON as a part of a body. It is neither decoded nor encoded again."""
    return orjson.Fragment(record.document)


def _meta(merchant: Merchant, listing: str = "", next_after: str | None = None) -> CatalogMeta:
    """Return the merchant's currency and the cursor of the next page, each only if there is one."""
    meta: CatalogMeta = {}
    if merchant.currency is not None:
        meta["currency"] = merchant.currency
    if next_after is not None:
        meta["nextCursor"] = encoded(listing, next_after)
    return meta
