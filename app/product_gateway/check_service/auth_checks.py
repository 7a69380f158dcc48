"""Who may read: no token, a wrong one, and the token that must not come back."""

from product_gateway.check_service import problems
from product_gateway.check_service.id_checks import UNKNOWN
from product_gateway.check_service.recording_client import WRONG_TOKEN, Service
from product_gateway.check_service.results import CheckResults
from product_gateway.model.syncs import EntityType
from product_gateway.sync.records import list_schema
from product_gateway.telemetry.logs import SHORTEST_SECRET


async def check(service: Service, results: CheckResults, entity_type: EntityType) -> None:
    """Asks without a token, with another one, and for what is not there."""
    path = f"{list_schema(entity_type).path}?page_size=1"
    answers = {
        "token-required": await service.ask(path, anonymous=True),
        "token-checked": await service.ask(path, bearer=WRONG_TOKEN),
    }
    for code, answer in answers.items():
        if answer.status != 401:
            results.failed(code, entity_type, answer.exchange.summary, answer.exchange.curl)
        results.passed(entity_type, code)
    unknown = await service.record(entity_type, UNKNOWN)
    for answer in (*answers.values(), unknown):
        fault = ""
        if answer.reply is not None and answer.status in (401, 404):
            fault = problems.fault(answer.reply.content, answer.exchange.content_type)
        if fault:
            results.failed("problem-details", entity_type, f"{answer.exchange.summary} {fault}", answer.exchange.curl)
    results.passed(entity_type, "problem-details")


def check_exchanges(service: Service, results: CheckResults) -> None:
    """What only all requests together tell."""
    for exchange in service.recorder.exchanges:
        if exchange.echoed:
            results.failed("token-kept", None, "The answer has the token in its body or headers.", exchange.curl)
        if exchange.again:
            results.failed("first-try", None, f"{exchange.summary} The request was then made again.", exchange.curl)
    if len(service.token) < SHORTEST_SECRET:
        results.skipped(None, "the token is so short that it is part of many a word", "token-kept")
    if any(exchange.status is not None for exchange in service.recorder.exchanges):
        results.passed(None, "first-try", "reachable", "token-kept")
    elif service.recorder.exchanges:
        last = service.recorder.exchanges[-1]
        results.failed("reachable", None, last.summary, last.curl)
