"""Around the gateway: what clients wish of a sandbox by `Prefer`, latency, faults. The gateway knows nothing of it."""

import asyncio
import random
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import jwt
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_gateway.api.error_responses import error_answer
from product_gateway.api.syncs import SYNCS
from product_gateway.errors import GatewayError
from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.http.prefer import preferences
from product_gateway.http.responses import Response
from product_gateway.model.syncs import MIN_SAMPLE, EntityType
from product_gateway.openapi import documents
from product_gateway.sandbox.database_control import DatabaseControl
from product_gateway.sandbox.examples import Operation, Operations
from product_gateway.sandbox.scenarios import NAMES, Run, Scenario, Scenarios

API = "/product-gateway/v1/"
FAULTS = (500, 503)
ANSWER = "product_gateway.sandbox.answer"  # in the scope: what we answer ourselves


class UnsupportedPreference(GatewayError):
    """What a client wishes cannot be had; answered 400."""


@dataclass(frozen=True)
class FaultInjection:
    """What every request to the API has to expect."""

    latency: float = 0.0
    fault_percent: float = 0.0


class SandboxMiddleware:
    """The gateway, with all that is only a sandbox's in front of it."""

    def __init__(
        self,
        app: ASGIApp,
        scripts: Scenarios,
        backstage: DatabaseControl,
        *,
        merchant_claim: str,
        weather: FaultInjection,
        access_log: bool,
    ) -> None:
        self._app = app
        self._scripts = scripts
        self._backstage = backstage
        self._merchant_claim = merchant_claim
        self._weather = weather
        self._document = documents.load(documents.GATEWAY)
        self._operations = Operations(self._document)
        self._dice = random.Random(0)  # noqa: S311 - the same requests meet the same faults
        self._own = RequestContextMiddleware(_answer, answered=lambda *_: None, access_log=access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on to the gateway what asks for nothing of a sandbox's."""
        operation = self._operations.find(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if operation is None:
            await self._app(scope, receive, send)
            return
        wishes = preferences(",".join(_headers(scope["headers"], b"prefer")))
        try:
            answer = await self._instead(operation, wishes, scope["path"].startswith(API))
            script = _script(wishes) if operation.operation_id == "enqueueSync" else None
        except UnsupportedPreference as error:
            answer, script = error_answer(HTTPStatus.BAD_REQUEST, error.detail, {}), None
        if answer is not None:
            await self._own({**scope, ANSWER: answer}, receive, send)
        elif script is not None:
            await self._enqueue(scope, receive, send, script)
        else:
            await self._app(scope, receive, send)

    async def _instead(self, operation: Operation, wishes: dict[str, str], is_api: bool) -> Response[Any] | None:
        if is_api:
            await asyncio.sleep(self._weather.latency)
        if "code" in wishes:
            return self._example(operation, wishes["code"])
        if is_api and self._dice.random() * 100 < self._weather.fault_percent:
            return operation.example(self._document, self._dice.choice(FAULTS))
        return None

    def _example(self, operation: Operation, code: str) -> Response[Any]:
        if not code.isascii() or not code.isdigit() or int(code[:4]) not in operation.responses:
            raise UnsupportedPreference(
                f"Prefer: code={code[:80]} cannot be had: {operation.operation_id} documents "
                f"{', '.join(str(each) for each in operation.responses)}."
            )
        answer = operation.example(self._document, int(code))
        return replace(answer, headers={**answer.headers, "Preference-Applied": f"code={code}"})

    async def _enqueue(self, scope: Scope, receive: Receive, send: Send, script: Scenario) -> None:
        merchant, entity_type = self._merchant(scope), scope["path"].rsplit("/", 1)[1]
        if script is Scenario.MASS_DELETION and entity_type in set(EntityType):
            await self._fill(scope, merchant, EntityType(entity_type))

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.ACCEPTED:
                self._begin(message, merchant, entity_type, script)
                if script is not Scenario.ORDINARY:
                    applied = (b"preference-applied", f"sync={script}".encode())
                    message = {**message, "headers": [*message["headers"], applied]}
            await send(message)

        with self._scripts.asking((merchant, entity_type)):
            await self._app(scope, receive, watched)

    def _begin(
        self, accepted: Message, merchant: str, entity_type: str, script: Scenario, *, hurried: bool = False
    ) -> Run:
        sync_id = _header(accepted["headers"], b"location").removeprefix(SYNCS)
        run = Run(merchant, EntityType(entity_type), sync_id, script, hurried)
        self._scripts.begin(run)
        return run

    async def _fill(self, scope: Scope, merchant: str, entity_type: EntityType) -> None:
        """An ordinary sync runs first where the catalog has too little for a mass deletion to be noticed."""
        if await self._backstage.records(merchant, entity_type) >= MIN_SAMPLE:
            return
        headers = [each for each in scope["headers"] if each[0] not in (b"prefer", b"idempotency-key")]
        answers: list[Message] = []

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def kept(message: Message) -> None:
            answers.append(message)

        with self._scripts.asking((merchant, entity_type)):
            await self._app({**scope, "headers": headers}, nothing, kept)
            if answers[0]["status"] != HTTPStatus.ACCEPTED:
                return  # the client will be told the same
            run = self._begin(answers[0], merchant, entity_type, Scenario.ORDINARY, hurried=True)
        await self._backstage.end(run)

    def _merchant(self, scope: Scope) -> str:
        """Whom the token names; the gateway checks it, and nothing is done before it has."""
        token = _header(scope["headers"], b"authorization").partition(" ")[2].strip()
        try:
            return str(jwt.decode(token, options={"verify_signature": False}).get(self._merchant_claim))
        except jwt.PyJWTError:
            return ""


def _script(wishes: dict[str, str]) -> Scenario:
    wish = wishes.get("sync", "")
    if wish == "":
        return Scenario.ORDINARY
    if wish not in set(Scenario):
        raise UnsupportedPreference(f"Prefer: sync={wish[:80]} cannot be had. There are: {NAMES}.")
    return Scenario(wish)


def _headers(headers: list[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next(iter(_headers(headers, wanted)), "")


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await scope[ANSWER].send(scope, send)
