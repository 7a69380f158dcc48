"""Discovery of the token issuer: protected resource metadata (RFC 9728), and the challenges that lead to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import Scope, Send

from product_gateway.docs_pages.pages import REVALIDATE, as_file
from product_gateway.errors import InvalidRequest
from product_gateway.http.public_url import RESOURCE_METADATA, public_url
from product_gateway.http.responses import Response
from product_gateway.openapi import documents
from product_gateway.openapi.types import ErrorResponse
from product_gateway.settings import Settings, is_http_address

CHALLENGE = "WWW-Authenticate"

Describe = Callable[[Exception], Response[ErrorResponse]]


@dataclass(frozen=True, slots=True)
class Metadata(Response[dict[str, Any]]):
    """The metadata. The members with this server's URLs are added for each request."""

    docs: bool = True

    async def send(self, scope: Scope, send: Send) -> None:
        """Raise InvalidRequest if the request does not say which host it is for."""
        url = public_url(scope)
        if url is None:
            raise InvalidRequest("Host is missing, or is not a host name or an address with an optional port.")
        pages = {"resource_documentation": f"{url}/docs"} if self.docs else {}
        content = orjson.dumps({"resource": url, **self.body, **pages})
        await as_file(content, "metadata.json", REVALIDATE).send(scope, send)


class DiscoveryHandlers:
    """The handler of the well-known path."""

    def __init__(self, settings: Settings, document: documents.Document) -> None:
        issuer = settings.jwt_issuer
        scopes = {each.get("x-required-scope") for _, _, each in documents.operations(document)}
        self._metadata = Metadata(
            {
                **({"authorization_servers": [issuer]} if is_http_address(issuer, "?#@ ") else {}),
                "bearer_methods_supported": ["header"],
                "scopes_supported": sorted(scopes - {None}),
                "resource_name": "Product gateway",
            },
            docs=settings.docs,
        )

    async def get_resource_metadata(self) -> Response[Any]:
        """Return the metadata for the URL that the client uses."""
        return self._metadata


@dataclass(frozen=True, slots=True)
class Challenge(Response[ErrorResponse]):
    """An error response with a challenge, which gets `resource_metadata` (RFC 9728 §5.1)."""

    async def send(self, scope: Scope, send: Send) -> None:
        """Send the challenge. Without a usable Host, it names no metadata."""
        url = public_url(scope)
        named = "" if url is None else f', resource_metadata="{url}{RESOURCE_METADATA}"'
        headers = {**self.headers, CHALLENGE: self.headers[CHALLENGE] + named}
        await Response(self.body, self.status, headers, self.media_type).send(scope, send)


def with_metadata(describe: Describe) -> Describe:
    """Return `describe`, whose responses with a challenge name the metadata."""

    def described(error: Exception) -> Response[ErrorResponse]:
        response = describe(error)
        return (
            Challenge(response.body, response.status, response.headers) if CHALLENGE in response.headers else response
        )

    return described
