"""Handlers of the catalog: products and collections."""

import asyncio
from typing import TypedDict

import orjson
from orjson import Fragment

from product_gateway.api.cursors import decoded, encoded
from product_gateway.db import catalog
from product_gateway.db.admission import for_active_merchant
from product_gateway.db.database import THREADS, Database
from product_gateway.http.responses import Response
from product_gateway.model.merchants import Merchant
from product_gateway.model.syncs import EntityType
from product_gateway.openapi.types import CatalogMeta


class CatalogBody(TypedDict):
    """A body with one or more records: their stored JSON, which is neither decoded nor encoded again."""

    data: Fragment | list[Fragment]
    meta: CatalogMeta


class CatalogHandlers:
    """Handlers that read the catalog."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Bounds memory: a page is held from its read until it is written, which happens without another await.
        self._page_reads = asyncio.Semaphore(THREADS)

    async def list_products(self, merchant: str, cursor: str | None, page_size: int) -> Response[CatalogBody]:
        """Raise InvalidRequest for a malformed cursor."""
        return await self._page(merchant, EntityType.PRODUCT, cursor, page_size)

    async def get_product(self, merchant: str, product_id: str) -> Response[CatalogBody]:
        """Raise RecordNotFound."""
        owner, record = await self._database.read(
            for_active_merchant(catalog.get), merchant, EntityType.PRODUCT, product_id
        )
        return Response({"data": Fragment(record.document), "meta": _meta(owner)})

    async def list_collections(self, merchant: str, cursor: str | None, page_size: int) -> Response[CatalogBody]:
        """Raise InvalidRequest for a malformed cursor."""
        return await self._page(merchant, EntityType.COLLECTION, cursor, page_size)

    async def get_collection(
        self, merchant: str, collection_id: str, cursor: str | None, page_size: int
    ) -> Response[CatalogBody]:
        """Raise RecordNotFound, or InvalidRequest for a malformed cursor."""
        products_of = f"{EntityType.COLLECTION} {collection_id}"
        after = decoded(products_of, cursor)
        async with self._page_reads:
            owner, (record, held, next_after) = await self._database.read(
                for_active_merchant(catalog.collection), merchant, collection_id, after, page_size
            )
        products = [Fragment(each.document) for each in held]
        more = orjson.dumps({"productIds": record.product_ids, "products": products})
        collection = Fragment(record.document.encode()[:-1] + b"," + more[1:])
        return Response({"data": collection, "meta": _meta(owner, products_of, next_after)})

    async def _page(
        self, merchant: str, entity_type: EntityType, cursor: str | None, size: int
    ) -> Response[CatalogBody]:
        after = decoded(entity_type, cursor)
        async with self._page_reads:
            owner, listing = await self._database.read(
                for_active_merchant(catalog.page), merchant, entity_type, after, size
            )
        data = [Fragment(each.document) for each in listing.records]
        return Response({"data": data, "meta": _meta(owner, entity_type, listing.next_after)})


def _meta(merchant: Merchant, listing: str = "", next_after: str | None = None) -> CatalogMeta:
    """Return the merchant's currency and the cursor of the next page, each only if there is one."""
    meta: CatalogMeta = {}
    if merchant.currency is not None:
        meta["currency"] = merchant.currency
    if next_after is not None:
        meta["nextCursor"] = encoded(listing, next_after)
    return meta
