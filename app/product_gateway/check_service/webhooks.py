"""Checks of a webhook receiver: valid messages, which it must accept, and forged ones, which it must refuse."""

import asyncio
import base64
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from product_gateway.check_service.recording_client import ALLOW_PRIVATE_ADDRESSES
from product_gateway.check_service.reports import console, files
from product_gateway.check_service.results import CheckResults, Result, SubjectResults
from product_gateway.check_service.webhook_rules import RECEIVERS, RULES
from product_gateway.errors import AddressNotAllowed, OutboundError
from product_gateway.http_client.client import HttpClient
from product_gateway.merchants import administration
from product_gateway.openapi import documents
from product_gateway.services.worker import webhook_client
from product_gateway.settings import Settings
from product_gateway.webhooks.signing import signature_headers, test_payload

TEN_MINUTES = timedelta(minutes=10)
OTHER_SECRET = "whsec_" + base64.b64encode(b"not the secret of this receiver").decode()
UNKNOWN_TYPE = "gateway.something_new"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message, and how the receiver answered. `failure` is empty if it did."""

    headers: Mapping[str, str]
    body: bytes
    status: int | None
    seconds: float
    failure: str

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def summary(self) -> str:
        return self.failure or f"The receiver answered {self.status}."

    @property
    def curl(self) -> str:
        """A shell command that repeats the message. The URL, which may hold a key, is in the variable URL."""
        headers = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in self.headers.items())
        return f'curl -sS -i {headers} --data-binary {shlex.quote(self.body.decode())} "$URL"'


@dataclass(eq=False)
class ReceiverChecks:
    """The checks of one receiver, with messages about `merchant`."""

    client: HttpClient
    url: str
    secret: str
    merchant: str
    timeout: float
    results: SubjectResults[None]

    def __post_init__(self) -> None:
        self.exchanges: list[Exchange] = []

    async def run(self) -> None:
        """Send all messages. Stop after the first valid one if it is not accepted: the others would prove nothing."""
        first = await self._send(self._headers(body := self._body()), body)
        if not first.accepted:
            if first.status is not None:
                code = "no-redirects" if 300 <= first.status < 400 and first.status != 304 else "accepts"
                gone = " The gateway turns the webhook off then" if first.status == 410 else ""
                self.results.failed(code, f"{first.summary}{gone}", first)
            elif first.seconds < self.timeout:
                self.results.failed("reachable", first.summary, first)
            self.results.not_checked("a valid message is not accepted", *RULES, result=Result.NOT_REACHED)
            return
        await self._check_valid()
        await self._check_forged()
        self.results.passed(*RULES)

    async def _check_valid(self) -> None:
        for kind, example in _examples().items():
            await self._accepted("all-types", f"a message of the type {kind}", self._body(example))
        await self._accepted("unknown-type", f"the type {UNKNOWN_TYPE}", self._body({"type": UNKNOWN_TYPE, "data": {}}))
        more = {**orjson.loads(self._body()), "somethingNew": {"a": [1]}}
        more["data"] = {**more["data"], "somethingNew": None}
        await self._accepted("unknown-members", "unknown members", orjson.dumps(more))
        spaced = (
            b'{ "data" : {"merchant": %s, "note":"\\u00fc", "n": 1.0},\n "type":"webhook.test", "timestamp":"%s"}\n'
        )
        written = spaced % (orjson.dumps(self.merchant), datetime.now(UTC).isoformat().encode())
        await self._accepted("raw-body", "a body with spaces and escapes", written)
        repeated = self.exchanges[0]
        for what, at in (("the same message again", None), ("it once more, as a retry", datetime.now(UTC))):
            headers = signature_headers(repeated.headers["webhook-id"], [self.secret], repeated.body, at)
            await self._judge("repeated", what, repeated.headers if at is None else headers, repeated.body)
        for what, keys in (
            ("the signature of a new secret before the valid one", (OTHER_SECRET, self.secret)),
            ("the signature of an old secret after the valid one", (self.secret, OTHER_SECRET)),
        ):
            await self._accepted("rotation", what, keys=keys)
        valid = self._headers(body := self._body())
        await self._judge(
            "other-versions",
            "signatures of the versions v1a and v2 besides a valid one",
            {**valid, "webhook-signature": f"v1a,c2lnbmF0dXJl v2,x {valid['webhook-signature']}"},
            body,
        )

    async def _check_forged(self) -> None:
        now = datetime.now(UTC)
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            await self._refused("unsigned", f"a message without {name}", without=name)
        await self._refused("unsigned", "a message without any of these headers", without="webhook-")
        await self._refused("wrong-secret", "a message with the signature of another secret", keys=(OTHER_SECRET,))
        await self._refused("changed", "a changed body", sent=self._body())
        await self._refused("changed", "another webhook-id", changed={"webhook-id": str(uuid4())})
        later = str(int(now.timestamp()) + 1)
        await self._refused("changed", "another webhook-timestamp", at=now, changed={"webhook-timestamp": later})
        await self._refused("old", "a message that is ten minutes old", at=now - TEN_MINUTES)
        await self._refused("future", "a message from ten minutes in the future", at=now + TEN_MINUTES)
        # Not invalid Base64: the Python library of Standard Webhooks raises another error for it.
        for signature in ("v1,", "v2,c2lnbmF0dXJl"):
            changed = {"webhook-signature": signature}
            await self._refused("malformed", f"the signature {signature!r}", changed=changed)
        for text in ("yesterday", "", "1e999", "-1"):
            await self._refused("malformed", f"the timestamp {text!r}", changed={"webhook-timestamp": text})

    def _body(self, event: Mapping[str, Any] | None = None) -> bytes:
        """Return the event, by default a test message, as a new one about the merchant."""
        plain: dict[str, Any] = orjson.loads(test_payload(str(uuid4()), self.merchant))
        event = event or plain
        renewed = {name: plain[name] for name in ("id", "time", "timestamp")}
        return orjson.dumps({**plain, **event, **renewed, "data": {**event["data"], "merchant": self.merchant}})

    def _headers(self, body: bytes, keys: Sequence[str] = (), at: datetime | None = None) -> dict[str, str]:
        message_id = str(orjson.loads(body).get("id") or uuid4())
        return signature_headers(message_id, keys or (self.secret,), body, at)

    async def _accepted(self, code: str, what: str, body: bytes | None = None, keys: Sequence[str] = ()) -> None:
        body = body or self._body()
        await self._judge(code, what, self._headers(body, keys), body)

    async def _judge(self, code: str, what: str, headers: Mapping[str, str], body: bytes) -> None:
        exchange = await self._send(headers, body)
        if not exchange.accepted:
            self.results.failed(code, f"{exchange.summary.rstrip('.')}, to {what}.", exchange)

    async def _refused(
        self,
        code: str,
        what: str,
        *,
        keys: Sequence[str] = (),
        at: datetime | None = None,
        without: str = "",
        changed: Mapping[str, str] | None = None,
        sent: bytes | None = None,
    ) -> None:
        """Send a message that was forged in one way: `without` headers, with `changed` ones, or another body."""
        body = self._body()
        headers = {**self._headers(body, keys, at), **(changed or {})}
        kept = {name: value for name, value in headers.items() if not (without and name.startswith(without))}
        exchange = await self._send(kept, sent or body)
        if exchange.accepted:
            self.results.failed(code, f"The receiver answered {exchange.status}, to {what}.", exchange)
        elif exchange.status is None or not 400 <= exchange.status < 500:
            self.results.failed("clean-refusals", f"{exchange.summary.rstrip('.')}, to {what}.", exchange)

    async def _send(self, headers: Mapping[str, str], body: bytes) -> Exchange:
        status, failure = None, ""
        started = time.perf_counter()
        try:
            status = (await self.client.send("POST", self.url, headers=headers, content=body)).status
        except OutboundError as error:
            failure = error.detail
            if isinstance(error, AddressNotAllowed):
                failure += f" Allow it with {ALLOW_PRIVATE_ADDRESSES}."
        exchange = Exchange(headers, body, status, time.perf_counter() - started, failure)
        self.exchanges.append(exchange)
        if exchange.seconds >= self.timeout / 2:
            code = "in-time" if status is None and exchange.seconds >= self.timeout else "quick"
            self.results.failed(code, f"It took {exchange.seconds:.1f} s of {self.timeout:g} s.", exchange)
        return exchange


def _examples() -> dict[str, dict[str, Any]]:
    """Return the spec's example of each message, by type."""
    hooks = documents.load(documents.GATEWAY)["x-webhooks"]
    return {kind: each["post"]["requestBody"]["content"]["application/json"]["example"] for kind, each in hooks.items()}


def execute(
    url: str, secret_file: Path, merchant: str, settings: Settings, junit: Path | None, json: Path | None
) -> int:
    """Check the receiver, write the reports and return the exit status. Raise SettingsError for wrong options."""
    secret = administration.webhook_secret_in(secret_file)
    results = check(
        administration.checked_webhook_url(settings, url, ALLOW_PRIVATE_ADDRESSES), secret, merchant, settings
    )
    if junit is not None:
        files.write_junit(results, junit)
    if json is not None:
        files.write_json(results, json)
    console.show(results, results.plain(administration.without_query(url)), None)
    return console.status(results)


def check(url: str, secret: str, merchant: str, settings: Settings) -> CheckResults:
    """Run the checks in an event loop. Ctrl-C stops them and adds a note to the results."""
    results = CheckResults(secret, (), RECEIVERS)
    try:
        asyncio.run(_run(url, secret, merchant, settings, results))
    except KeyboardInterrupt:
        results.note("The run was stopped early. These are the results so far.")
        results.stopped = True
    return results


async def _run(url: str, secret: str, merchant: str, settings: Settings, results: CheckResults) -> None:
    of_receiver = SubjectResults(results, None)
    async with webhook_client(settings) as client:
        checks = ReceiverChecks(client, url, secret, merchant, settings.webhook_timeout_seconds, of_receiver)
        try:
            await checks.run()
        finally:
            results.note(f"Messages sent: {len(checks.exchanges)}.")
            of_receiver.not_checked("the run was stopped before", *RULES, result=Result.NOT_REACHED)
