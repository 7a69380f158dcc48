"""Fuzzing: Schemathesis generates requests and checks the answers. The recording client sends the requests.

Only this module imports Schemathesis, an optional dependency (`product-gateway[check]`).
"""

import asyncio
import math
import threading
from concurrent.futures import CancelledError
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData, Failure, FailureGroup
from schemathesis.openapi import checks

from product_gateway.check_service import problems
from product_gateway.check_service.recording_client import Answer, Exchange, Service
from product_gateway.check_service.results import ListResults
from product_gateway.check_service.traversal import ListTraversal
from product_gateway.openapi import documents
from product_gateway.sync.records import list_schema

RULE_OF_CHECK = {  # by name of Schemathesis' check
    "not_a_server_error": "fuzz-failures",
    "status_code_conformance": "fuzz-documented",
    "content_type_conformance": "fuzz-documented",
    "response_schema_conformance": "fuzz-shape",
    "positive_data_acceptance": "fuzz-accepts",
    "negative_data_rejection": "fuzz-refuses",
}
IDS = {"$ref": "#/components/parameters/Ids"}
BETWEEN_COMMAS = r"^[^\x00-\x1f\x7f,]+$"
KNOWN_EVERY = 3  # every third request for a record has a known id
MAX_TARGET = 60_000  # characters of path and query; HTTP clients and servers have their limits at 65,536
MAX_UNANSWERED = 3


class _StopFuzzing(BaseException):
    """Ends a run of Hypothesis."""


class Fuzzing:
    """The generated requests for one list and its single records.

    Each operation gets `examples` requests. Half of them are valid, the others have one invalid parameter.
    """

    def __init__(self, service: Service, results: ListResults, first: ListTraversal, examples: int) -> None:
        self._service = service
        self._results = results
        self._examples = examples
        self._ids = [each for each in first.items if each not in (".", "..")]
        self._cursors = [page.requested_cursor for page in first.pages if page.requested_cursor is not None]
        self._stopped = threading.Event()
        self._valid_requests = 0
        self._unanswered = 0
        self._found: list[tuple[str, str, Exchange]] = []

    async def run(self, seed: int) -> None:
        """Generate requests in a thread and send them from this event loop."""
        self._loop, self._seed = asyncio.get_running_loop(), seed
        working = asyncio.create_task(asyncio.to_thread(self._all_operations))
        try:
            await asyncio.shield(working)
        finally:
            self._stopped.set()
            for found in sorted(self._found, key=lambda each: len(each[2].url)):  # the simplest first
                self._results.failed(*found)
        self._results.passed(*RULE_OF_CHECK.values())

    def _all_operations(self) -> None:
        load_all_checks()
        half = self._examples / len(GenerationMode)
        for path, _, operation in documents.operations(documents.load(documents.PRODUCT_SERVICE)):
            if path.startswith(list_schema(self._results.subject).path):
                self._fuzz_operation(_valid(path), GenerationMode.POSITIVE, half)
                for parameter in operation["parameters"]:
                    share = half / len(operation["parameters"])
                    self._fuzz_operation(_one_parameter(path, parameter), GenerationMode.NEGATIVE, share)

    def _fuzz_operation(self, document: documents.Document, mode: GenerationMode, examples: float) -> None:
        """Send generated requests for the only operation of the document."""

        def send_case(case: Any) -> None:
            if mode is GenerationMode.POSITIVE:
                self._use_known_values(case)
            self._try(case)

        ((_, _, described),) = documents.operations(document)
        # Any text is a valid `ids`, so only unknown parameters can make that operation's requests invalid.
        generation = {"allow-extra-parameters": IDS in described["parameters"]}
        config = SchemathesisConfig.from_dict({"seed": self._seed, "generation": generation})
        (found,) = schemathesis.openapi.from_dict(document, config=config).get_all_operations()
        operation: Any = found.ok()  # type: ignore[union-attr]  # the contract is valid
        settings = hypothesis.settings(
            max_examples=math.ceil(examples),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        test = settings(hypothesis.given(case=operation.as_strategy(generation_mode=mode))(send_case))
        try:
            hypothesis.seed(self._seed)(test)()
        except _StopFuzzing:
            self._stopped.set()

    def _send(self, path: str) -> Answer:
        if self._stopped.is_set():
            raise _StopFuzzing
        try:
            asked = self._service.ask(path, self._service.token)
            return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except CancelledError:  # Ctrl-C
            raise _StopFuzzing from None

    def _try(self, case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://service.invalid")
        prepared = requests.Request(method="GET", url=sent["url"], params=sent.get("params")).prepare()
        path = str(prepared.url).removeprefix("http://service.invalid")
        hypothesis.assume(len(path) <= MAX_TARGET)
        answer = self._send(path)
        if answer.reply is None:
            self._unanswered += 1
            self._found.append(("fuzz-failures", answer.exchange.summary, answer.exchange))
            if self._unanswered == MAX_UNANSWERED:  # each further request would end in a time-out
                raise _StopFuzzing
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
        for name, code in RULE_OF_CHECK.items():
            any_ids = isinstance((case.query or {}).get("ids"), str)  # any text is a valid list of ids
            if name == "negative_data_rejection" and (any_ids or 400 <= answer.reply.status < 500):
                continue
            try:
                case.validate_response(response, checks=[CHECKS.get_one(name)])
            except FailureGroup as group:
                for failure in group.exceptions:
                    seen = f"{answer.exchange.summary} {_in_plain_words(failure, answer.exchange, case)}".rstrip()
                    self._found.append((code, seen, answer.exchange))
                if name == "not_a_server_error":  # its body is of no interest
                    break

    def _use_known_values(self, case: Any) -> None:
        """Insert known ids and cursors: random ids do not exist, and a service may refuse random cursors."""
        self._valid_requests += 1
        if "cursor" in (case.query or {}):
            if self._cursors:
                case.query["cursor"] = self._cursors[self._valid_requests % len(self._cursors)]
            else:
                del case.query["cursor"]
        if case.path_parameters and self._ids and self._valid_requests % KNOWN_EVERY == 0:
            case.path_parameters["id"] = self._ids[self._valid_requests // KNOWN_EVERY % len(self._ids)]


def _in_plain_words(failure: Failure, exchange: Exchange, case: Any) -> str:
    """Describe what is wrong with an answer, without the terms of Schemathesis and without its dumps of schemas."""
    match failure:
        case checks.UndefinedStatusCode():
            return f"The contract has {', '.join(failure.defined_status_codes)} only."
        case checks.MissingContentType() | checks.MalformedMediaType() | checks.UndefinedContentType():
            return (
                f"Its Content-Type is {exchange.content_type!r}."
                if exchange.content_type
                else "It has no Content-Type."
            )
        case checks.JsonSchemaError():
            place = "/".join(["", *map(str, failure.instance_path)])
            return f"Its body does not match the schema{f' at {place}' if place else ''}: {failure.validation_message}."
        case checks.ContentDeserializationError():
            return "Its body is not JSON."
        case checks.RejectedPositiveData():
            return "The request is valid."
        case AcceptedNegativeData():
            (parameter,) = case.operation.definition.raw["parameters"]
            name = documents.resolve(documents.load(documents.PRODUCT_SERVICE), parameter)["name"]
            return f"The request is invalid: see its parameter {name}."
    return ""


def _valid(path: str) -> documents.Document:
    """Return a document with only the contract's operation at the path, without security and examples.

    Ids have no comma, which would separate two ids.
    """
    document = problems.contract()
    del document["security"], document["components"]["securitySchemes"]
    document["paths"] = {path: document["paths"][path]}
    for each in document["components"]["parameters"].values():
        del each["example"]
    record_id = document["components"]["schemas"]["RecordId"]
    document["components"]["parameters"]["Ids"]["schema"]["items"] = {**record_id, "pattern": BETWEEN_COMMAS}
    return document


def _one_parameter(path: str, parameter: documents.Document) -> documents.Document:
    """Return the same document with this parameter only, so that no other one can make a request invalid.

    Ids are any text, because generating 500 ids by a pattern takes seconds.
    """
    document = _valid(path)
    document["paths"][path]["get"]["parameters"] = [parameter]
    del document["components"]["parameters"]["Ids"]["schema"]["items"]["pattern"]
    return document
