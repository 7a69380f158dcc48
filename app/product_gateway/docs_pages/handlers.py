"""Handlers of the documentation pages."""

from product_gateway.docs_pages import pages
from product_gateway.http.responses import Response


class PageHandlers:
    """Handlers that serve the pages and the spec. With `shown` False there are no pages, only the spec."""

    def __init__(self, *, shown: bool) -> None:
        self._pages = pages.Pages(shown=shown)

    async def get_spec(self) -> Response[bytes]:
        """Return the spec as YAML (RFC 9512)."""
        return self._pages.spec

    async def get_index(self) -> Response[bytes]:
        """Raise PageNotFound."""
        return self._pages.page(pages.INDEX)

    async def get_docs(self) -> Response[bytes]:
        """Raise PageNotFound."""
        return self._pages.page(pages.DOCS)

    async def get_try_out(self) -> Response[bytes]:
        """Raise PageNotFound."""
        return self._pages.page(pages.TRY_OUT)

    async def get_docs_asset(self, name: str) -> Response[bytes]:
        """Raise PageNotFound."""
        return self._pages.asset(name)
