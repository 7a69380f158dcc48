"""FastAPI over the gateway's own storage and token checks: only the framework is another."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Depends, FastAPI, Path, Request, responses
from fastapi.exceptions import RequestValidationError

from peers import words
from peers.words import API, Refused
from product_gateway import settings
from product_gateway.api.app import SECONDS_FOR_THE_DATABASE, _authorization
from product_gateway.api.error_responses import describe_error
from product_gateway.api.long_poll import SyncWaiters
from product_gateway.api.syncs import SyncHandlers
from product_gateway.auth.keys import verification_key
from product_gateway.auth.tokens import Caller, TokenVerifier, static_key
from product_gateway.db.database import connect
from product_gateway.errors import GatewayError, InvalidRequest
from product_gateway.http.responses import Response
from product_gateway.model.syncs import EntityType
from product_gateway.telemetry.metrics import Metrics

loaded = settings.load()
database = connect(loaded.database, deadline=SECONDS_FOR_THE_DATABASE)
tokens = TokenVerifier(loaded, static_key(verification_key(loaded)))
handlers = SyncHandlers(database, Metrics(), SyncWaiters(database))
authorize = _authorization(database, lambda _: None)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the database at the end."""
    yield
    database.close()


app = FastAPI(openapi_url=None, lifespan=lifespan)


def response(answer: Response[Any]) -> responses.Response:
    """Without FastAPI's own encoder, which takes longer."""
    return responses.Response(orjson.dumps(answer.body), answer.status, dict(answer.headers), "application/json")


def caller(scope: str) -> Any:
    """Who asks, where the token is good for it."""

    async def authenticated(request: Request) -> Caller:
        token = words.bearer(request.headers.get("authorization"))
        return await tokens.authenticate(token, {"x-required-scope": scope})

    return Depends(authenticated)


Type = Annotated[EntityType, Path(alias="entityType")]


@app.put(f"{API}/sync/{{entityType}}")
async def enqueue(entity_type: Type, asking: Annotated[Caller, caller("sync:write")]) -> responses.Response:
    """As the gateway does it."""
    return response(await handlers.enqueue_sync(await authorize(asking), entity_type, None, "automatic"))


@app.get(f"{API}/sync/{{entityType}}")
async def status(entity_type: Type, asking: Annotated[Caller, caller("sync:read")]) -> responses.Response:
    """As the gateway does it."""
    return response(await handlers.get_sync_status(await authorize(asking), entity_type))


@app.get(f"{API}/syncs/{{syncId}}")
async def get(
    sync_id: Annotated[UUID, Path(alias="syncId")], asking: Annotated[Caller, caller("sync:read")]
) -> responses.Response:
    """As the gateway does it."""
    return response(await handlers.get_sync(await authorize(asking), sync_id, None))


@app.exception_handler(GatewayError)
async def failed(_: Request, error: GatewayError) -> responses.Response:
    """As the gateway answers it."""
    return response(describe_error(error))


@app.exception_handler(Refused)
async def refused(_: Request, error: Refused) -> responses.Response:
    """No bearer token."""
    return responses.Response(orjson.dumps(error.body), error.status, error.headers, "application/json")


@app.exception_handler(RequestValidationError)
async def invalid(_: Request, error: RequestValidationError) -> responses.Response:
    """FastAPI's words."""
    return response(describe_error(InvalidRequest(str(error.errors()[0]["msg"]))))
