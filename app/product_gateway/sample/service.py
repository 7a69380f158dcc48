"""A product service that implements openapi/product-service.yaml over a catalog, for demos and tests."""

import asyncio
import base64
import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from product_gateway.errors import InvalidRequest, NotAuthenticated, NotFound, RecordNotFound
from product_gateway.http.responses import Response
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.openapi.binding import bind
from product_gateway.openapi.security import by_bearer_token
from product_gateway.sample.catalog_file import Catalog, Record

logger = logging.getLogger(__name__)

Ids = list[str] | None
PROBLEMS: dict[type[Exception], tuple[int, str]] = {
    InvalidRequest: (400, "Invalid parameter"),
    NotAuthenticated: (401, "Not authenticated"),
    NotFound: (404, "Unknown id"),
}


def create_sample_app(catalog: Catalog, *, token: str | None, delay: float = 0.0) -> ASGIApp:
    """Return the service as an ASGI application.

    Requests need `token` as bearer token, or any token if it is None. Each page is delayed by `delay` seconds.
    """

    async def authenticate(presented: str, operation: documents.Document) -> None:
        if token is not None and not hmac.compare_digest(presented.encode(), token.encode()):
            raise NotAuthenticated("The bearer token is not the one that this service expects.")

    handlers = ProductService(catalog, delay)
    document = documents.load(documents.PRODUCT_SERVICE)
    return bind(document, handlers, authenticate=by_bearer_token(authenticate), describe_error=describe_error)


@dataclass(frozen=True)
class ProductService:
    """The handlers of openapi/product-service.yaml. `caller` is always None, because all callers see the same data."""

    catalog: Catalog
    delay: float

    async def list_products(self, caller: None, ids: Ids, cursor: str | None, page_size: int) -> Response[Record]:
        return await self._list(EntityType.PRODUCT, ids, cursor, page_size)

    async def get_product(self, caller: None, id_: str) -> Response[Record]:
        return self._get(EntityType.PRODUCT, id_)

    async def list_collections(self, caller: None, ids: Ids, cursor: str | None, page_size: int) -> Response[Record]:
        return await self._list(EntityType.COLLECTION, ids, cursor, page_size)

    async def get_collection(self, caller: None, id_: str) -> Response[Record]:
        return self._get(EntityType.COLLECTION, id_)

    async def _list(self, entity_type: EntityType, ids: Ids, cursor: str | None, page_size: int) -> Response[Record]:
        start = 0 if cursor is None else _offset(cursor)
        await asyncio.sleep(self.delay)
        wanted: Sequence[int] = range(self.catalog.count(entity_type))
        if ids is not None:
            found = {self.catalog.index(entity_type, record_id) for record_id in ids}
            wanted = sorted(index for index in found if index is not None)
        page = wanted[start : start + page_size]
        end = start + len(page)
        pagination = {"moreResults": end < len(wanted), "totalNumber": len(wanted), "cursor": _cursor(start)}
        if pagination["moreResults"]:
            pagination["nextCursor"] = _cursor(end)
        items = [self.catalog.record(entity_type, index) for index in page]
        return Response({"items": items, "pagination": pagination})

    def _get(self, entity_type: EntityType, record_id: str) -> Response[Record]:
        record = self.catalog.find(entity_type, record_id)
        if record is None:
            raise RecordNotFound(entity_type, record_id)
        return Response(record)


def _cursor(offset: int) -> str:
    """Return the cursor of an offset, in the form of the spec's examples."""
    return base64.urlsafe_b64encode(b"%d:0" % offset).decode().rstrip("=")


def _offset(cursor: str) -> int:
    try:
        offset = int(base64.urlsafe_b64decode(f"{cursor}==").removesuffix(b":0"))
    except ValueError:  # wrong encoding, padding or number
        offset = -1
    if offset < 0 or _cursor(offset) != cursor:
        raise InvalidRequest(
            f"Query parameter cursor: {cursor[:80]!r} is not a cursor of this service. Omit it to start at the "
            "first page."
        )
    return offset


def describe_error(error: Exception) -> Response[dict[str, Any]]:
    """Return problem details (RFC 9457) for an error. Log an unexpected error and hide its text."""
    for kind, (status, title) in PROBLEMS.items():
        if isinstance(error, kind):
            headers = {}
            if isinstance(error, NotAuthenticated):
                headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if error.presented else "Bearer"
            return _problem(status, title, str(error), headers)
    if isinstance(error, HTTPException):
        return _problem(error.status_code, "Not served", error.detail, dict(error.headers or {}))
    logger.error("unexpected error", exc_info=error)
    return _problem(500, "Failure", "The service failed. See its log.", {})


def _problem(status: int, title: str, detail: str, headers: dict[str, str]) -> Response[dict[str, Any]]:
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "errors": [{"title": title, "detail": detail}],
    }
    return Response(problem, status, headers, media_type="application/problem+json")
