"""Made-up requests: Schemathesis thinks of them and judges the answers, and the one HTTP client sends them.

The only place that knows Schemathesis, which is not installed where nobody asks for it (`product-gateway[check]`).
"""

import asyncio
import math
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

from product_gateway.check_service import problems
from product_gateway.check_service.recording_client import Answer, Service
from product_gateway.check_service.results import CheckResults
from product_gateway.check_service.traversal import ListTraversal
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sync.records import list_schema

# Each check of Schemathesis, and the rule that it looks after.
CHECKED = {
    "not_a_server_error": "fuzz-failures",
    "status_code_conformance": "fuzz-documented",
    "content_type_conformance": "fuzz-documented",
    "response_schema_conformance": "fuzz-shape",
    "positive_data_acceptance": "fuzz-accepts",
    "negative_data_rejection": "fuzz-refuses",
}
IDS = {"$ref": "#/components/parameters/Ids"}
BETWEEN_COMMAS = r"^[^\x00-\x1f\x7f,]+$"
KNOWN_EVERY = 3  # of so many requests for a record, one is for a record that there is
LONGEST_ADDRESS = 60_000  # characters; HTTP clients and servers have their limits at 65,536
UNANSWERED_AT_MOST = 3
Sender = Callable[[str], Answer]


class _EnoughError(BaseException):
    """Ends Hypothesis's run, which would take an Exception for a failure of the test."""


class Fuzzing:
    """The made-up requests for one list: its page, and its records by id. `examples` are those of each operation: half
    of them keep the contract, and each of the others breaks it by one parameter."""

    def __init__(
        self, service: Service, results: CheckResults, first: ListTraversal, entity_type: EntityType, examples: int
    ) -> None:
        self._service = service
        self._results = results
        self._entity_type = entity_type
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
                self._results.failed(code, self._entity_type, seen, curl)
        self._results.passed(self._entity_type, *dict.fromkeys(CHECKED.values()))

    def _all_operations(self, send: Sender, seed: int) -> None:
        load_all_checks()
        half = self._examples / len(GenerationMode)
        for path, _, operation in documents.operations(documents.load(documents.PRODUCT_SERVICE)):
            if path.startswith(list_schema(self._entity_type).path):
                self._operation(_right(path), GenerationMode.POSITIVE, half, send, seed)
                for parameter in operation["parameters"]:
                    share = half / len(operation["parameters"])
                    self._operation(_wrong(path, parameter), GenerationMode.NEGATIVE, share, send, seed)

    def _operation(
        self, document: documents.Document, mode: GenerationMode, examples: float, send: Sender, seed: int
    ) -> None:
        """So many requests for the one operation of the document."""

        def one(case: Any) -> None:
            self._try(case, mode, send)

        ((_, _, described),) = documents.operations(document)
        # A parameter that nobody knows makes nothing wrong: they come with ids, which may be anything.
        generation = {"allow-extra-parameters": IDS in described["parameters"]}
        config = SchemathesisConfig.from_dict({"seed": seed, "generation": generation})
        (found,) = schemathesis.openapi.from_dict(document, config=config).get_all_operations()
        operation: Any = found.ok()  # type: ignore[union-attr]  # our own contract has no fault
        settings = hypothesis.settings(
            max_examples=math.ceil(examples),
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
        hypothesis.assume(len(path) <= LONGEST_ADDRESS)
        answer = send(path)
        if answer.reply is None:
            self._unanswered += 1
            self._found.append(("fuzz-failures", answer.exchange.summary, answer.exchange.curl))
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
                    words = f"{answer.exchange.summary} {_in_words(failure)}"
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


def _right(path: str) -> documents.Document:
    """The contract's operation at the path. Not with its tokens, which have checks of their own: every request here has
    the right one. Nor with its examples, which are tried anyway, nor ids with a comma, which would be taken for two."""
    document = problems.contract()
    del document["security"], document["components"]["securitySchemes"]
    document["paths"] = {path: document["paths"][path]}
    for each in document["components"]["parameters"].values():
        del each["example"]
    record_id = document["components"]["schemas"]["RecordId"]
    document["components"]["parameters"]["Ids"]["schema"]["items"] = {**record_id, "pattern": BETWEEN_COMMAS}
    return document


def _wrong(path: str, parameter: documents.Document) -> documents.Document:
    """The same with one parameter alone: a request that others make wrong as well says nothing of this one.

    Ids are any text: five hundred and more that fit a pattern take seconds to make up.
    """
    document = _right(path)
    document["paths"][path]["get"]["parameters"] = [parameter]
    del document["components"]["parameters"]["Ids"]["schema"]["items"]["pattern"]
    return document
