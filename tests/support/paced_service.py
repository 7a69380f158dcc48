"""A product service for many shops that sends a page only when the test allows it, so that a sync can be paused."""

import asyncio
import collections
import time

from starlette.types import Receive, Scope, Send

from product_gateway.sample import catalog_file
from product_gateway.sample.service import create_sample_app

LONGEST_WAIT = 60.0
RECORDS = 60
FREE = 10_000


class PacedService:
    """/{shop}/products and /{shop}/collections of `RECORDS` products, as ASGI."""

    def __init__(self) -> None:
        self._app = create_sample_app(catalog_file.GeneratedCatalog(RECORDS), token=None)
        self._pages: collections.Counter[str] = collections.Counter()

    def allow(self, shop: str, pages: int = FREE) -> None:
        """Allow this number of further pages for the shop."""
        self._pages[shop] += pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a page once it is allowed."""
        if scope["type"] == "http":
            _, shop, path = scope["path"].split("/", 2)
            deadline = time.monotonic() + LONGEST_WAIT
            while not self._pages[shop] and time.monotonic() < deadline:  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.02)
            self._pages[shop] -= 1
            scope = {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode()}
        await self._app(scope, receive, send)
