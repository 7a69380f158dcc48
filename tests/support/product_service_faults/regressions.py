"""Which check of the conformance kit finds which misbehaviour, and a service that is honest but for one of them."""

from urllib.parse import unquote

from tests.support.hostile_service import HONEST, MISBEHAVIOURS, Hostile
from tests.support.product_service_faults.misbehaviour import Call, page_of, records

TOKEN = "the-merchants-t0ken"
PROBLEM = {"type": "about:blank", "title": "Not Found", "status": 404}
ANSWERS_IDS_ITSELF = ("record-removed-while-paging", "record-removed-while-paging-and-no-ids")

# The check that is there for it comes first; then those that the same service does not pass either.
FOUND = {
    # the connection
    "slow-first-byte": "answers-whole",
    "slow-drip": "answers-whole",
    "cut-body": "answers-whole",
    "reset-in-mid-body": "answers-whole",
    "closed-at-once": "answers-whole",
    "reset-at-once": "answers-whole",
    "tls-garbage": "answers-whole",
    "not-http": "answers-whole",
    "header-flood": "answers-whole",
    "interim-answers-for-ever": "answers-whole",
    "two-lengths": "answers-whole",
    "broken-chunks": "answers-whole",
    "old-http-without-length": "content-type",  # which its answers lack too; HTTP/1.0 itself is allowed
    "old-http-cut": "json dry-run",
    # its size
    "endless-body": "answer-size dry-run",
    "gzip-bomb": "answer-size dry-run",
    "giant-page": "answer-size dry-run",
    "giant-page-until-a-smaller-one-is-asked-for": "largest-page default-page-size",
    "gzip-in-gzip": "compression dry-run",
    "broken-gzip": "compression dry-run",
    "cut-gzip": "compression dry-run",
    "compression-not-asked-for": "compression dry-run",
    # statuses
    "error-500-always": "no-failures dry-run",
    "error-503-once": "first-try",
    "rate-limited-once": "first-try",
    "rate-limited-for-ever": "rate-limit dry-run",
    "rate-limited-until-tomorrow": "rate-limit dry-run",
    "nonsense-for-a-wait": "first-try",
    "unauthorized": "token-accepted",
    "unauthorized-from-page-2-on": "token-accepted dry-run",
    "forbidden": "token-accepted",
    "not-found": "status-200",
    "bad-request-always": "status-200",
    "too-large-until-a-smaller-page-is-asked-for": "largest-page default-page-size",
    "moved-to-another-host": "no-redirects",
    "moved-to-the-metadata-address": "no-redirects dry-run",
    "no-content": "status-200 dry-run",
    "empty-body": "json dry-run",
    "html-with-200": "json dry-run",
    "error-with-200": "page-shape dry-run",
    "wrong-content-type": "content-type page-size",
    "token-echoed": "token-kept token-accepted",
    "token-echoed-in-records": "token-kept page-shape",
    # documents
    "invalid-json": "json dry-run",
    "trailing-garbage": "json dry-run",
    "deep-nesting": "records-fit pages-complete",
    "huge-integer": "records-fit pages-complete record-by-id",
    "not-a-number": "json dry-run",
    "invalid-utf8": "json dry-run",
    "lone-surrogate": "records-fit pages-complete record-by-id",
    "utf-16": "json dry-run",
    "json-array": "page-shape dry-run",
    "items-missing": "page-shape dry-run",
    "items-not-a-list": "page-shape dry-run",
    "pagination-missing": "page-shape dry-run",
    "too-many-items": "page-shape dry-run",
    "more-than-was-asked-for": "page-size",
    # paging
    "cursor-loop-of-1": "cursor-leads-on dry-run",
    "cursor-loop-of-3": "cursor-leads-on dry-run pages-disjoint",
    "cursor-missing": "next-cursor dry-run",
    "cursor-with-control-characters": "page-shape dry-run",
    "cursor-that-is-a-number": "page-shape dry-run",
    "own-cursor-that-is-a-number": "page-shape",
    "own-cursor-with-half-a-character": "page-shape",
    "last-cursor-that-is-false": "page-shape",
    "endless-empty-pages": "paging-ends dry-run empty-pages",
    "some-empty-pages": "empty-pages page-size",
    "endless-full-pages": "paging-ends dry-run pages-disjoint",
    "endless-pages-without-ids": "paging-ends dry-run records-fit",
    "some-repeated-pages": "pages-disjoint page-size",
    "empty-first-page": "not-empty",
    "total-too-small": "total-number",
    "total-too-large": "total-number",
    "total-negative": "total-number",
    "total-that-is-text": "total-number",
    "same-records-on-two-pages": "pages-disjoint page-size record-by-id",
    "record-removed-while-paging": "pages-complete ids-many ids-several",
    "record-removed-while-paging-and-no-ids": (
        "pages-complete ids-duplicates ids-known ids-many ids-several ids-unknown"
    ),
    "another-shape-on-page-2": "records-fit pages-complete",
    # records
    "id-that-is-a-number": "records-fit",
    "one-record-twice-and-once-invalid": "records-fit pages-disjoint record-by-id",
    "id-empty": "records-fit",
    "id-too-long": "records-fit",
    "id-with-nul": "records-fit",
    "record-too-large": "records-fit record-by-id",
    "record-nested-too-deeply": "records-fit page-size",
    "nul-in-a-title": "plain-text record-by-id",
    "record-that-is-null": "records-fit",
}


class HonestButForOne(Hostile):
    """Keeps the contract wherever its misbehaviour has no say: tokens, records by id. "honest" has no misbehaviour."""

    async def answer(self, name: str, call: Call) -> None:
        """What the misbehaviour says, or what the contract wants."""
        known = {each["id"]: each for each in records()}
        if call.token != TOKEN:
            await call.answer({**PROBLEM, "status": 401}, 401, Content_Type="application/problem+json")
        elif call.path not in ("/products", "/collections"):
            record = known.get(unquote(call.path[1:]))
            if record is None:
                await call.answer(PROBLEM, 404, Content_Type="application/problem+json")
            else:
                await call.answer(record)
        elif "ids" in call.query and name not in ANSWERS_IDS_ITSELF:
            wanted = set(call.query["ids"].split(","))
            await call.answer(page_of([record for each, record in known.items() if each in wanted]))
        else:
            await (call.page() if name == HONEST else MISBEHAVIOURS[name].behave(call))
