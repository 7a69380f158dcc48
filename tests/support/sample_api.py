"""A small API for tests: its spec has every kind of parameter, and its handlers return their arguments."""

import http.client
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from starlette.types import ASGIApp

from product_gateway.api.error_responses import describe_error
from product_gateway.errors import NotAuthenticated
from product_gateway.http.responses import Response
from product_gateway.openapi import documents
from product_gateway.openapi.binding import bind
from product_gateway.openapi.security import by_bearer_token

OK = {"200": {"description": "What arrived", "content": {"application/json": {"schema": {"type": "object"}}}}}


def parameter(name: str, place: str, required: bool = False, **schema: Any) -> dict[str, Any]:
    """A parameter object."""
    extra = {"style": "form", "explode": False} if schema["type"] == "array" else {}
    return {"name": name, "in": place, "required": required or place == "path", "schema": schema, **extra}


def document() -> documents.Document:
    """A new copy of the spec."""
    return {
        "openapi": "3.0.3",
        "info": {"title": "Tiny", "version": "1"},
        "components": {
            "schemas": {"Colour": {"type": "string", "enum": ["RED", "BLUE"]}},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "paths": {
            "/things/{thingId}": {
                "parameters": [parameter("thingId", "path", type="string", maxLength=50)],
                "get": {
                    "operationId": "getThing",
                    "summary": "Get a thing",
                    "description": "By its id:\n\n- any \"text\", \\d or '''\"\"\"''', with `/` encoded",
                    "responses": OK,
                },
                "delete": {"operationId": "deleteThing", "summary": "Delete a thing", "responses": OK},
                "put": {"operationId": "putThing", "responses": {"204": {"description": "Done"}}},
            },
            "/things/{thingId}/part/{part}": {
                "get": {
                    "operationId": "getPart",
                    "parameters": [
                        parameter("thingId", "path", type="string"),
                        parameter("part", "path", type="string", format="uuid"),
                    ],
                    "responses": OK,
                },
            },
            "/search": {
                "get": {
                    "operationId": "search",
                    "parameters": [
                        parameter("size", "query", type="integer", maximum=10**17, default=10),
                        parameter("ratio", "query", type="number"),
                        parameter("flag", "query", type="boolean"),
                        {"name": "colour", "in": "query", "schema": {"$ref": "#/components/schemas/Colour"}},
                        parameter("ids", "query", type="array", items={"type": "integer"}, maxItems=3),
                        parameter("ref", "query", type="string", format="uuid"),
                        parameter("text", "query", type="string", maxLength=20),
                        parameter("X-Trace", "header", type="string", pattern="^[a-z]+$"),
                    ],
                    "responses": OK,
                },
            },
            "/must": {
                "get": {
                    "operationId": "must",
                    "parameters": [
                        parameter("page-size", "query", True, type="integer"),
                        parameter("Key", "header", True, type="string"),
                    ],
                    "responses": OK,
                },
            },
            "/boom": {"get": {"operationId": "boom", "responses": OK}},
            "/secret": {
                "get": {
                    "operationId": "secret",
                    "security": [{"bearer": []}],
                    "parameters": [parameter("size", "query", type="integer")],
                    "responses": OK,
                }
            },
        },
    }


class Colour(StrEnum):
    """The type of the parameter `colour`."""

    RED = "RED"
    BLUE = "BLUE"


class Handlers:
    """Handlers that return their arguments and the types of these."""

    async def get_thing(self, thing_id: str) -> Response[Any]:
        """The id."""
        return arrived(thing_id=thing_id)

    async def delete_thing(self, thing_id: str) -> Response[Any]:
        """The id."""
        return arrived(thing_id=thing_id)

    async def put_thing(self, thing_id: str) -> Response[None]:
        """Nothing."""
        return Response(None, 204)

    async def get_part(self, thing_id: str, part: UUID) -> Response[Any]:
        """Both."""
        return arrived(thing_id=thing_id, part=part)

    async def search(
        self,
        size: int,
        ratio: float | None,
        flag: bool | None,
        colour: Colour | None,
        ids: list[int] | None,
        ref: UUID | None,
        text: str | None,
        x_trace: str | None,
    ) -> Response[Any]:
        """All that is not None."""
        return arrived(size=size, ratio=ratio, flag=flag, colour=colour, ids=ids, ref=ref, text=text, x_trace=x_trace)

    async def must(self, page_size: int, key: str) -> Response[Any]:
        """Both."""
        return arrived(page_size=page_size, key=key)

    async def boom(self) -> Response[Any]:
        """Fails."""
        raise RuntimeError("the password is hunter2")

    async def secret(self, caller: str, size: int | None) -> Response[Any]:
        """Who asks."""
        return arrived(caller=caller, size=size)


def arrived(**arguments: Any) -> Response[Any]:
    """Return the arguments as Python literals."""
    return Response({name: repr(value) for name, value in arguments.items() if value is not None})


async def authenticate(token: str, operation: documents.Document) -> str:
    """Accept the token `please`."""
    if token != "please":
        raise NotAuthenticated("Say please.")
    return "polite caller"


def app(described: documents.Document | None = None, handlers: object = None) -> ASGIApp:
    """Return the API, with the gateway's error responses."""
    return bind(
        described or document(),
        handlers or Handlers(),
        authenticate=by_bearer_token(authenticate),
        describe_error=describe_error,
    )


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """As data."""
        return json.loads(self.content)

    @property
    def detail(self) -> str:
        """Return the detail of a body in the contract's error form."""
        (error,) = self.body["error"]
        assert set(error) == {"status", "title", "detail"}
        assert error["status"] == str(self.status)
        return str(error["detail"])


def ask(
    base: str, target: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> Reply:
    """Send the target unchanged; other clients normalise it."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=10)
    try:
        connection.putrequest(method, target)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()
