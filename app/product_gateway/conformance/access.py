"""Who may read: no token, a wrong one, and the token that must not come back."""

import jsonschema_rs
import orjson

from product_gateway import spec
from product_gateway.conformance.by_id import UNKNOWN
from product_gateway.conformance.client import WRONG_TOKEN, Answer, Service
from product_gateway.conformance.sheet import Sheet
from product_gateway.logs import SHORTEST_SECRET
from product_gateway.model import EntityType
from product_gateway.records import contract

PROBLEM_JSON = "application/problem+json"


async def check(service: Service, sheet: Sheet, entity_type: EntityType) -> None:
    """Asks without a token, with another one, and for what is not there."""
    path = f"{contract(entity_type).path}?page_size=1"
    answers = {
        "token-required": await service.ask(path, anonymous=True),
        "token-checked": await service.ask(path, bearer=WRONG_TOKEN),
    }
    for code, answer in answers.items():
        if answer.status != 401:
            sheet.failed(code, entity_type, answer.exchange.said, answer.exchange.curl)
        sheet.passed(entity_type, code)
    unknown = await service.record(entity_type, UNKNOWN)
    for answer in (*answers.values(), unknown):
        fault = _fault(answer) if answer.status in (401, 404) else ""
        if fault:
            sheet.failed("problem-details", entity_type, f"{answer.exchange.said} {fault}", answer.exchange.curl)
    sheet.passed(entity_type, "problem-details")


def look_back(service: Service, sheet: Sheet) -> None:
    """What only all requests together tell."""
    for exchange in service.recorder.exchanges:
        if exchange.echoed:
            sheet.failed("token-kept", None, "The answer has the token in its body or headers.", exchange.curl)
        if exchange.again:
            sheet.failed("first-try", None, f"{exchange.said} The request was then made again.", exchange.curl)
    if len(service.token) < SHORTEST_SECRET:
        sheet.skipped(None, "the token is so short that it is part of many a word", "token-kept")
    if any(exchange.status is not None for exchange in service.recorder.exchanges):
        sheet.passed(None, "first-try", "reachable", "token-kept")
    elif service.recorder.exchanges:
        last = service.recorder.exchanges[-1]
        sheet.failed("reachable", None, last.said, last.curl)


def _fault(answer: Answer) -> str:
    """What keeps an answer from being problem details."""
    content_type = answer.exchange.content_type.partition(";")[0].strip().lower()
    if content_type != PROBLEM_JSON:
        return f"The Content-Type is {content_type!r}." if content_type else "There is no Content-Type."
    schema = spec.json_schema(spec.load(spec.PRODUCT_SERVICE), "Problem")
    try:
        body = orjson.loads(answer.reply.content if answer.reply else b"")
    except orjson.JSONDecodeError:
        return "The body is not JSON."
    fits = jsonschema_rs.Draft4Validator(schema).is_valid(body)
    return "" if fits else "The body is not a problem as the schema has it: type, title and status."
