"""Made-up requests: Schemathesis thinks of them and judges the answers, and the one HTTP client sends them.

The only place that knows Schemathesis, which is not installed where nobody asks for it (`product-gateway[check]`).
"""

import asyncio
import copy
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup

from product_gateway import spec
from product_gateway.conformance.client import Answer, Service
from product_gateway.conformance.reading import Reading
from product_gateway.conformance.sheet import Sheet
from product_gateway.model import EntityType
from product_gateway.records import contract

# Each check of Schemathesis, and the rule that it looks after.
CHECKED = {
    "not_a_server_error": "fuzz-failures",
    "status_code_conformance": "fuzz-documented",
    "content_type_conformance": "fuzz-documented",
    "response_schema_conformance": "fuzz-shape",
    "positive_data_acceptance": "fuzz-accepts",
    "negative_data_rejection": "fuzz-refuses",
}
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
KNOWN_EVERY = 3  # of so many requests for a record, one is for a record that there is
UNANSWERED_AT_MOST = 3
Sender = Callable[[str], Answer]


class _EnoughError(BaseException):
    """Ends Hypothesis's run, which would take an Exception for a failure of the test."""


class Fuzzing:
    """The made-up requests for one list: its page, and its records by id. `examples` are those of each operation,
    half of which keep the contract."""

    def __init__(self, service: Service, sheet: Sheet, first: Reading, entity_type: EntityType, examples: int) -> None:
        self._service = service
        self._sheet = sheet
        self._of = entity_type
        self._examples = examples
        self._ids = [each for each in first.items if each not in (".", "..")]
        self._cursors = [page.asked for page in first.pages if page.asked is not None]
        self._stopped = threading.Event()
        self._sent = 0
        self._unanswered = 0
        self._found: list[tuple[str, str, str]] = []

    async def run(self, seed: int) -> None:
        """All of them, on a thread of their own, whose requests are sent from here."""
        loop = asyncio.get_running_loop()

        def send(url: str) -> Answer:
            if self._stopped.is_set():
                raise _EnoughError
            try:
                return asyncio.run_coroutine_threadsafe(self._service.ask(url), loop).result()
            except CancelledError:  # Ctrl-C
                raise _EnoughError from None

        working = asyncio.create_task(asyncio.to_thread(self._all_operations, send, seed))
        try:
            await asyncio.shield(working)
        finally:
            self._stopped.set()
            for code, seen, curl in sorted(self._found, key=lambda each: len(each[2])):  # the simplest come first
                self._sheet.failed(code, self._of, seen, curl)
        self._sheet.passed(self._of, *dict.fromkeys(CHECKED.values()))

    def _all_operations(self, send: Sender, seed: int) -> None:
        load_all_checks()
        schema = schemathesis.openapi.from_dict(
            _without_security(), config=SchemathesisConfig.from_dict({"seed": seed})
        )
        for found in schema.get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]  # our own contract has no fault
            if operation.path.startswith(contract(self._of).path):
                for mode in MODES:
                    self._operation(operation, mode, send, seed)

    def _operation(self, operation: Any, mode: GenerationMode, send: Sender, seed: int) -> None:
        def one(case: Any) -> None:
            self._try(case, mode, send)

        settings = hypothesis.settings(
            max_examples=max(1, self._examples // len(MODES)),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        test = settings(hypothesis.given(case=operation.as_strategy(generation_mode=mode))(one))
        try:
            hypothesis.seed(seed)(test)()
        except _EnoughError:
            self._stopped.set()

    def _try(self, case: Any, mode: GenerationMode, send: Sender) -> None:
        self._sent += 1
        if mode is GenerationMode.POSITIVE:
            self._use_what_is_known(case)
        sent = case.as_transport_kwargs(base_url="http://service.invalid")
        prepared = requests.Request(method="GET", url=sent["url"], params=sent.get("params")).prepare()
        path = str(prepared.url).removeprefix("http://service.invalid")
        answer = send(path)
        if answer.reply is None:
            self._unanswered += 1
            self._found.append(("fuzz-failures", answer.exchange.said, answer.exchange.curl))
            if self._unanswered == UNANSWERED_AT_MOST:  # a service that is gone would cost a time-out for each
                raise _EnoughError
            return
        prepared.url = self._service.url + path
        response = schemathesis.Response(
            status_code=answer.reply.status,
            headers={name: [value] for name, value in answer.reply.headers.items()},
            content=answer.reply.content,
            request=prepared,
            elapsed=answer.exchange.seconds,
            verify=True,
        )
        for name, code in CHECKED.items():
            if name == "negative_data_rejection" and isinstance((case.query or {}).get("ids"), str):
                continue  # between commas in a query, all text is a list of ids
            try:
                case.validate_response(response, checks=[CHECKS.get_one(name)])
            except FailureGroup as group:
                for failure in group.exceptions:
                    words = f"{answer.exchange.said} {_in_words(failure)}"
                    self._found.append((code, words, answer.exchange.curl))

    def _use_what_is_known(self, case: Any) -> None:
        """Random ids are never known, and random cursors were never given out: a service may refuse those."""
        if "cursor" in (case.query or {}):
            if self._cursors:
                case.query["cursor"] = self._cursors[self._sent % len(self._cursors)]
            else:
                del case.query["cursor"]
        if case.path_parameters and self._ids and self._sent % KNOWN_EVERY == 0:
            case.path_parameters["id"] = self._ids[self._sent // KNOWN_EVERY % len(self._ids)]


def _in_words(failure: Any) -> str:
    """What Schemathesis says of a failure, in one line."""
    lines = [line.strip().rstrip(".") for line in (failure.title, *str(failure.message).splitlines()) if line.strip()]
    return ": ".join(lines[:4])


def _without_security() -> spec.Document:
    """The contract, but for its tokens: those have checks of their own, and every request here has the right one."""
    document = copy.deepcopy(spec.load(spec.PRODUCT_SERVICE))
    del document["security"], document["components"]["securitySchemes"]
    return document
