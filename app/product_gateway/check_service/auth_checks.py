"""Checks of authentication: requests without a token and with a wrong one, and answers that repeat the token."""

from product_gateway.check_service import problems
from product_gateway.check_service.list_checks import UNKNOWN
from product_gateway.check_service.recording_client import WRONG_TOKEN, Service
from product_gateway.check_service.results import CheckResults, ListResults, SubjectResults
from product_gateway.sync.records import list_schema
from product_gateway.telemetry.logs import SHORTEST_SECRET


async def check(service: Service, results: ListResults) -> None:
    """Check the answers to requests without a token, with a wrong token and for an unknown id."""
    path = f"{list_schema(results.subject).path}?page_size=1"
    answers = []
    for code, bearer in (("token-required", None), ("token-checked", WRONG_TOKEN)):
        answer = await service.ask(path, bearer)
        answers.append(answer)
        if answer.exchange.status != 401:
            results.failed(code, answer.exchange.summary, answer.exchange)
        results.passed(code)
    answers.append(await service.record(results.subject, UNKNOWN))
    for answer in answers:
        if answer.reply is None or answer.reply.status not in (401, 404):
            continue
        fault = problems.fault(answer.reply.content, answer.exchange.content_type)
        if fault:
            results.failed("problem-details", f"{answer.exchange.summary} {fault}", answer.exchange)
    results.passed("problem-details")


def check_exchanges(service: Service, results: CheckResults) -> None:
    """Check the exchanges of the whole run: repeated tokens, retries and whether the service ever answered."""
    of_service = SubjectResults(results, None)
    exchanges = service.exchanges
    for exchange in exchanges:
        if exchange.echoed:
            of_service.failed("token-kept", "The answer has the token in its body or headers.", exchange)
        if exchange.retried:
            of_service.failed("first-try", f"{exchange.summary} A retry succeeded.", exchange)
    if len(service.token) < SHORTEST_SECRET:
        of_service.not_checked("the token is too short to be recognised in other text", "token-kept")
    if service.is_reachable:
        of_service.passed("first-try", "reachable", "token-kept")
    elif exchanges:
        of_service.failed("reachable", exchanges[-1].summary, exchanges[-1])
