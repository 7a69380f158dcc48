"""An HTTP client that records its exchanges, so that each finding can show how to repeat its request."""

import asyncio
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from product_gateway.errors import (
    AddressNotAllowed,
    AnswerTooLarge,
    AnswerUnreadable,
    OutboundError,
    PullFailed,
    Unreachable,
)
from product_gateway.http_client.backoff import Backoff
from product_gateway.http_client.client import HttpClient, Response, product_service_limits, retry_after
from product_gateway.http_client.content_coding import coding_of
from product_gateway.http_client.status_advice import status_advice
from product_gateway.json_tools import faults
from product_gateway.json_tools.tolerant import NotJSON, loads
from product_gateway.model.catalog import Page
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings
from product_gateway.sync import records
from product_gateway.sync.product_service import RETRIED_4XX
from product_gateway.telemetry.logs import SHORTEST_SECRET

WRONG_TOKEN = "not-the-token-of-this-service"  # noqa: S105 - no secret
MAX_ATTEMPTS = 3  # per request; a user waits for the report
JSON = "application/json"
ALLOW_PRIVATE_ADDRESSES = "--allow-private-addresses (or PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES=true)"
BROKEN_BY_ERROR = {AnswerTooLarge: "answer-size", AnswerUnreadable: "compression", Unreachable: "answers-whole"}


@dataclass(slots=True)
class Exchange:
    """A request and its answer.

    `bearer` is the token or `$TOKEN`. `answered`: the service sent an answer, even if it could not be read. `echoed`:
    the answer repeats the token. `retried`: a later attempt succeeded.
    """

    url: str
    bearer: str | None
    status: int | None = None
    seconds: float = 0.0
    size: int = 0
    failure: str = ""
    answered: bool = False
    echoed: bool = False
    content_type: str = ""
    compressed: bool = False
    retried: bool = False

    @property
    def curl(self) -> str:
        """A shell command that repeats the request, with the token in the variable TOKEN."""
        header = "" if self.bearer is None else f'-H "Authorization: Bearer {self.bearer}" '
        return f"curl -sS -i --compressed {header}{shlex.quote(self.url)}"

    @property
    def summary(self) -> str:
        return self.failure or f"The service answered {self.status}."


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a request: a reply or an error."""

    exchange: Exchange
    reply: Response | None
    error: OutboundError | None


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """A page as a sync decodes it, and its items as they were sent."""

    exchange: Exchange
    page: Page
    items: list[Any]
    pagination: dict[str, Any]


class CheckFailed(OutboundError):
    """An answer that breaks the rule `code`, so that it has no page."""

    def __init__(self, code: str, seen: str, exchange: Exchange) -> None:
        super().__init__(seen)
        self.code = code
        self.exchange = exchange


class Service(HttpClient):
    """The product service at `url`: the gateway's HTTP client, with a record of all exchanges."""

    def __init__(self, settings: Settings, url: str, token: str) -> None:
        super().__init__(**product_service_limits(settings))
        self.settings = settings
        self.url = url.rstrip("/")
        self.token = token
        self.exchanges: list[Exchange] = []
        self._backoff = Backoff(min(settings.request_attempts, MAX_ATTEMPTS), settings.retry_wait_seconds)

    @property
    def is_reachable(self) -> bool:
        """Whether the service has answered at least one request."""
        return any(each.answered for each in self.exchanges)

    async def get(self, url: str, *, params: Mapping[str, str] | None = None, bearer: str | None = None) -> Response:
        answer = await self._answer(url, params, bearer)
        if answer.reply is None:
            raise answer.error or Unreachable("There was no answer.")
        return answer.reply

    async def _answer(self, url: str, params: Mapping[str, str] | None, bearer: str | None) -> Answer:
        """Send and record a request. An error of the client is part of the answer."""
        exchange = Exchange(
            url=f"{url}?{urlencode(params, safe='/')}" if params else url,
            bearer="$TOKEN" if bearer == self.token else bearer,
        )
        reply, error = None, None
        started = time.perf_counter()
        try:
            reply = await super().get(url, params=params, bearer=bearer)
        except OutboundError as failed:
            error, exchange.failure = failed, failed.detail
            if isinstance(failed, AddressNotAllowed):
                exchange.failure += f" Allow it with {ALLOW_PRIVATE_ADDRESSES}."
        exchange.answered = reply is not None or isinstance(error, AnswerTooLarge | AnswerUnreadable)
        exchange.seconds = time.perf_counter() - started
        if reply is not None:
            exchange.status, exchange.size = reply.status, len(reply.content)
            exchange.content_type = reply.header("Content-Type")
            exchange.compressed = coding_of(reply.headers.getall("Content-Encoding", ())) != "identity"
            exchange.echoed = bearer == self.token and self._repeats_token(reply)
        self.exchanges.append(exchange)
        return Answer(exchange, reply, error)

    def _repeats_token(self, reply: Response) -> bool:
        if len(self.token) < SHORTEST_SECRET:
            return False
        return self.token.encode() in reply.content or any(self.token in value for value in reply.headers.values())

    async def ask(self, path: str, bearer: str | None, params: Mapping[str, str] | None = None) -> Answer:
        """Send a GET request with this token, or without one.

        Retries as the gateway does: after 429, 5xx and broken connections.
        """
        waited = 0.0
        before: list[Exchange] = []
        while True:
            answer = await self._answer(self.url + path, params, bearer)
            asked = retry_after(answer.reply) if answer.reply else None
            wait = self._backoff.wait(len(before) + 1, asked, waited) if _is_transient(answer) else None
            if wait is None:
                break
            before.append(answer.exchange)
            waited += wait
            await asyncio.sleep(wait)
        for exchange in before:
            exchange.retried = not _is_transient(answer)
        return answer

    async def page(self, entity_type: EntityType, params: Mapping[str, object], query: str = "") -> PageAnswer:
        """Request a page with the parameters that are not None, or with a ready query string.

        Raises CheckFailed for an answer that is no page.
        """
        contract = records.list_schema(entity_type)
        given = {name: str(value) for name, value in params.items() if value is not None}
        answer = await self.ask(contract.path + query, self.token, given)
        reply, exchange = _require_200(answer), answer.exchange
        try:
            body, _ = loads(reply.content)
            page = contract.page(reply.content, "The answer", self.settings.max_record_bytes, exchange.content_type)
        except (NotJSON, UnicodeDecodeError):
            seen = f"The body {faults.why(reply.content, exchange.content_type)}"
            raise CheckFailed("json", seen, exchange) from None
        except PullFailed as failed:
            code = "next-cursor" if failed.code == "INVALID_PAGING" else "page-shape"
            raise CheckFailed(code, failed.detail.removesuffix(" Send what the spec describes."), exchange) from None
        return PageAnswer(exchange, page, body["items"], body["pagination"])

    async def record(self, entity_type: EntityType, record_id: str) -> Answer:
        """Request the record's own URL."""
        path = f"{records.list_schema(entity_type).path}/{quote(record_id, safe='')}"
        return await self.ask(path, self.token)


def _is_transient(answer: Answer) -> bool:
    if answer.reply is None:
        return isinstance(answer.error, Unreachable)
    return answer.reply.status in RETRIED_4XX or answer.reply.status >= 500


def _require_200(answer: Answer) -> Response:
    """Return the reply if its status is 200. Raises CheckFailed with the rule that the answer breaks."""
    reply, exchange = answer.reply, answer.exchange
    if reply is None:
        raise CheckFailed(BROKEN_BY_ERROR.get(type(answer.error), "reachable"), exchange.summary, exchange)
    if reply.status == 200:
        return reply
    advice = status_advice(
        reply.status,
        reply.header("Location"),
        reply.header("Content-Type"),
        url=exchange.url.partition("?")[0],
        has_token=exchange.bearer is not None,
    )
    seen = f"{exchange.summary.rstrip('.')}{advice.meaning}. {advice.what_to_do.rstrip(',.')}."
    if 300 <= reply.status < 400:
        code = "no-redirects" if reply.status != 304 else "status-200"
    elif reply.status in (401, 403):
        code = "token-accepted"
    elif reply.status == 429:
        asked = retry_after(reply)
        wait = f"It does not say for how long: its Retry-After is {reply.header('Retry-After')!r}."
        code = "rate-limit"
        seen = f"{exchange.summary} {wait if asked is None else f'It asks to wait {asked:g} s.'}"
    else:
        code = "no-failures" if reply.status >= 500 else "status-200"
    raise CheckFailed(code, seen, exchange)
