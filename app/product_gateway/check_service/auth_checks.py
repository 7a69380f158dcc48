"""Checks of authentication: requests without a token and with a wrong one, and answers that repeat the token."""

from product_gateway.check_service import problems
from product_gateway.check_service.id_checks import UNKNOWN
from product_gateway.check_service.recording_client import WRONG_TOKEN, Service
from product_gateway.check_service.results import CheckResults, ListResults
from product_gateway.sync.records import list_schema
from product_gateway.telemetry.logs import SHORTEST_SECRET


async def check(service: Service, results: ListResults) -> None:
    """Check the answers to requests without a token, with a wrong token and for an unknown id."""
    path = f"{list_schema(results.entity_type).path}?page_size=1"
    answers = {
        "token-required": await service.ask(path, anonymous=True),
        "token-checked": await service.ask(path, bearer=WRONG_TOKEN),
    }
    for code, answer in answers.items():
        if answer.status != 401:
            results.failed(code, answer.exchange.summary, answer.exchange)
        results.passed(code)
    unknown = await service.record(results.entity_type, UNKNOWN)
    for answer in (*answers.values(), unknown):
        if answer.reply is not None and answer.status in (401, 404):
            fault = problems.fault(answer.reply.content, answer.exchange.content_type)
            if fault:
                results.failed("problem-details", f"{answer.exchange.summary} {fault}", answer.exchange)
    results.passed("problem-details")


def check_exchanges(service: Service, results: CheckResults) -> None:
    """Check the exchanges of the whole run: repeated tokens, retries and whether the service ever answered."""
    exchanges = service.recorder.exchanges
    for exchange in exchanges:
        if exchange.echoed:
            results.failed("token-kept", None, "The answer has the token in its body or headers.", exchange.curl)
        if exchange.retried:
            results.failed("first-try", None, f"{exchange.summary} A retry succeeded.", exchange.curl)
    if len(service.token) < SHORTEST_SECRET:
        results.skipped(None, "the token is too short to be recognised in other text", "token-kept")
    if any(exchange.status is not None for exchange in exchanges):
        results.passed(None, "first-try", "reachable", "token-kept")
    elif exchanges:
        results.failed("reachable", None, exchanges[-1].summary, exchanges[-1].curl)
