"""Middleware that adds the sandbox's preferences, latency and faults in front of an unchanged gateway."""

import asyncio
import random
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import jwt
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_gateway.api.error_responses import error_answer
from product_gateway.api.syncs import SYNCS
from product_gateway.errors import InvalidRequest
from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.http.prefer import preferences
from product_gateway.http.responses import Response
from product_gateway.model.syncs import MIN_SAMPLE, EntityType
from product_gateway.openapi import documents
from product_gateway.sandbox.database_control import DatabaseControl
from product_gateway.sandbox.examples import Operation, by_path
from product_gateway.sandbox.scenarios import NAMES, Run, Scenario, Scenarios

API = "/product-gateway/v1/"
FAULTS = (500, 503)


@dataclass(eq=False)
class SandboxMiddleware:
    """ASGI middleware for `Prefer: code=`, `Prefer: sync=`, latency in seconds and faults."""

    app: ASGIApp
    scenarios: Scenarios
    database_control: DatabaseControl
    merchant_claim: str
    latency: float
    fault_percent: float
    access_log: bool

    def __post_init__(self) -> None:
        self._document = documents.load(documents.GATEWAY)
        self._operations = by_path(self._document)
        self._random = random.Random(0)  # noqa: S311 - the same sequence of requests gets the same faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Apply the request's preferences, or pass the request on to the gateway."""
        found = self._operations.find(scope["path"]) if scope["type"] == "http" else None
        operation = found and found[0].get("GET" if scope["method"] == "HEAD" else scope["method"])
        if operation is None:
            await self.app(scope, receive, send)
            return
        preferred = preferences(",".join(Headers(scope=scope).getlist("prefer")))
        try:
            response = await self._short_circuit(operation, preferred, scope["path"].startswith(API))
            scenario = _scenario(preferred) if operation.operation_id == "enqueueSync" else None
        except InvalidRequest as error:
            response, scenario = error_answer(HTTPStatus.BAD_REQUEST, error.detail, {}), None
        if response is not None:
            await self._respond(response, scope, receive, send)
        elif scenario is not None:
            await self._enqueue(scope, receive, send, scenario)
        else:
            await self.app(scope, receive, send)

    async def _respond(self, response: Response[Any], scope: Scope, receive: Receive, send: Send) -> None:
        app = RequestContextMiddleware(
            lambda scope, _, send: response.send(scope, send), answered=lambda *_: None, access_log=self.access_log
        )
        await app(scope, receive, send)

    async def _short_circuit(
        self, operation: Operation, preferred: dict[str, str], is_api: bool
    ) -> Response[Any] | None:
        if is_api:
            await asyncio.sleep(self.latency)
        if "code" in preferred:
            return self._example(operation, preferred["code"])
        if is_api and self._random.random() * 100 < self.fault_percent:
            return operation.example(self._document, self._random.choice(FAULTS))
        return None

    def _example(self, operation: Operation, code: str) -> Response[Any]:
        if not code.isascii() or not code.isdigit() or int(code[:4]) not in operation.responses:
            raise InvalidRequest(
                f"Prefer: code={code[:80]} has no example: {operation.operation_id} documents "
                f"{', '.join(str(each) for each in operation.responses)}."
            )
        answer = operation.example(self._document, int(code))
        return replace(answer, headers={**answer.headers, "Preference-Applied": f"code={code}"})

    async def _enqueue(
        self, scope: Scope, receive: Receive, send: Send, scenario: Scenario, *, hurried: bool = False
    ) -> Run | None:
        """Pass a PUT on to the gateway. If it enqueues a sync, store and return the sync's scenario."""
        merchant, entity_type = self._merchant(scope), scope["path"].rsplit("/", 1)[1]
        if scenario is Scenario.MASS_DELETION and entity_type in set(EntityType):
            await self._fill(scope, merchant, EntityType(entity_type))
        run: Run | None = None

        async def send_and_begin(message: Message) -> None:
            nonlocal run
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.ACCEPTED:
                sync_id = Headers(raw=message["headers"])["location"].removeprefix(SYNCS)
                run = Run(merchant, EntityType(entity_type), sync_id, scenario, hurried)
                self.scenarios.begin(run)
                if scenario is not Scenario.ORDINARY:
                    applied = (b"preference-applied", f"sync={scenario}".encode())
                    message = {**message, "headers": [*message["headers"], applied]}
            await send(message)

        with self.scenarios.pending((merchant, entity_type)):
            await self.app(scope, receive, send_and_begin)
        return run

    async def _fill(self, scope: Scope, merchant: str, entity_type: EntityType) -> None:
        """Run an ordinary sync first if the catalog is too small for a mass deletion.

        The gateway gets it as a request of the client, and so checks the token.
        """
        if await self.database_control.count_records(merchant, entity_type) >= MIN_SAMPLE:
            return
        headers = [each for each in scope["headers"] if each[0] not in (b"prefer", b"idempotency-key")]

        async def no_body() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def discard(message: Message) -> None:
            """A refusal need not be sent: the client's own request gets the same one."""

        ordinary = {**scope, "headers": headers, "query_string": b""}  # publish=manual would not fill the catalog
        run = await self._enqueue(ordinary, no_body, discard, Scenario.ORDINARY, hurried=True)
        if run is not None:
            await self.database_control.wait_until_ended(run)

    def _merchant(self, scope: Scope) -> str:
        """Return the merchant that the token names. The gateway verifies the token."""
        token = Headers(scope=scope).get("authorization", "").partition(" ")[2].strip()
        try:
            return str(jwt.decode(token, options={"verify_signature": False}).get(self.merchant_claim))
        except jwt.PyJWTError:
            return ""


def _scenario(preferred: dict[str, str]) -> Scenario:
    name = preferred.get("sync") or Scenario.ORDINARY
    if name not in set(Scenario):
        raise InvalidRequest(f"Prefer: sync={name[:80]} does not exist. Use one of {NAMES}.")
    return Scenario(name)
