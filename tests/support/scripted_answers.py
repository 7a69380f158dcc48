"""A product service that follows a script, and pulls from it, for the tests of product_service."""

from typing import Any

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response

from product_gateway.errors import PullFailed
from product_gateway.model.catalog import Page
from product_gateway.model.syncs import EntityType
from product_gateway.sync.product_service import ProductService

TOKEN = "s3cret-t0ken"


class Merchant:
    """A product service that sends scripted responses and records requests."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Response] = []
        self.asked: list[Request] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI: the answers in their order, the last one for ever."""
        if scope["type"] == "http":
            self.asked.append(Request(scope))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await answer(scope, receive, send)

    def says(self, *answers: Any) -> None:
        """Set the responses: JSON bodies, raw bytes, or statuses with an empty body."""
        self.asked.clear()
        self.answers = [
            Response(status_code=answer) if isinstance(answer, int) else Response(as_bytes(answer))
            for answer in answers
        ]


def as_bytes(body: Any) -> bytes:
    """The body as JSON, unless it is bytes already."""
    return body if isinstance(body, bytes) else orjson.dumps(body)


def page_of(*items: Any, next_cursor: str | None = None, **pagination: Any) -> dict[str, Any]:
    """Return a page in the form of the contract."""
    more = {"moreResults": next_cursor is not None, "nextCursor": next_cursor}
    return {"items": list(items), "pagination": {**more, **pagination}}


def item(record_id: Any = "hat", **fields: Any) -> dict[str, Any]:
    """Return a minimal record with more members."""
    return {"id": record_id, "title": "Hat", **fields}


async def pull(
    service: ProductService, entity_type: EntityType = EntityType.PRODUCT, cursor: str | None = None
) -> list[Page]:
    """Read all pages."""
    return [page async for page in service.pages(entity_type, cursor) if isinstance(page, Page)]


async def failure(service: ProductService, entity_type: EntityType = EntityType.PRODUCT) -> PullFailed:
    """Return the failure of a pull."""
    with pytest.raises(PullFailed) as caught:
        await pull(service, entity_type)
    assert TOKEN not in repr(caught.value)
    return caught.value
