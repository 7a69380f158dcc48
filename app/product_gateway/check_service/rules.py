"""The rules for product services, by code. Codes never change."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """The severity of a broken rule. Error: a sync fails or loses data, or the contract is broken."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Rule:
    """A requirement. `source` is its place in the contract, `advice` how to meet it."""

    code: str
    severity: Severity
    must: str
    source: str
    advice: str


@dataclass(frozen=True, slots=True)
class Kit:
    """What a command checks: its rules, and how reports name the whole that has no subject, and the rules' source."""

    command: str
    title: str
    whole: str
    source: str
    rules: Mapping[str, Rule]


E, W, A = Severity.ERROR, Severity.WARNING, Severity.ADVICE
_ANSWER, _PAGING, _IDS = "responses, 200", "info, Paging", "parameters, Ids"
_SYNC = "how the gateway reads"

# In the order of the report.
RULES = {
    rule.code: rule
    for rule in (
        # Transport and bodies
        Rule("reachable", E, "The service answers at its URL.", "servers",
             "Check the URL, and that the service runs and is reachable from this machine."),
        Rule("answers-whole", E, "Every answer arrives completely, as valid HTTP, and before the timeout.", _SYNC,
             "Read the logs of the service and of the proxies in front of it."),
        Rule("first-try", W, "No request needs a retry.", _SYNC,
             "Find out why the first attempt failed. The gateway retries such requests, which makes syncs slower."),
        Rule("rate-limit", E, "The service has no rate limit that stops sequential requests.", _SYNC,
             "Allow the gateway more requests, and send Retry-After with at most 300 seconds."),
        Rule("token-accepted", E, "The gateway's token may read the list.", "security",
             "Issue a token that may read products and collections and does not expire during a sync."),
        Rule("no-redirects", E, "A list is served at its URL, without redirects.", _SYNC,
             "Register the URL that the redirect leads to. The gateway does not follow redirects."),
        Rule("no-failures", E, "A valid request is not answered with 5xx.", "responses, 500",
             "Read the log of the service."),
        Rule("status-200", E, "A valid request is answered with 200.", _ANSWER,
             "Check the URL: /products and /collections must be directly below it."),
        Rule("answer-size", E, "An answer does not exceed the gateway's limit (MAX_PAGE_BYTES).", _SYNC,
             "Send at most page_size records in a page."),
        Rule("page-bytes", W, "A page has less than half of the bytes that the gateway allows.", _SYNC,
             "Send smaller records, or fewer in a page. A page above the limit ends a sync."),
        Rule("largest-page", W, "A large page_size is not refused.", "parameters, PageSize",
             "Send a smaller page instead, which the contract allows."),
        Rule("compression", E, "An answer is uncompressed, or compressed with gzip only.", _SYNC,
             "Send plain JSON, or gzip if the request's Accept-Encoding names it."),
        Rule("compressed", A, "Answers of more than 1 MiB are compressed.", _SYNC,
             "Compress them with gzip if the request's Accept-Encoding names it. Syncs become faster."),
        Rule("json", E, "The body is JSON in UTF-8 (RFC 8259), and nothing else.", _ANSWER,
             "Write the body with a JSON library, encode it as UTF-8, and send errors with an error status."),
        Rule("content-type", W, "A page has the Content-Type application/json.", _ANSWER,
             "Send Content-Type: application/json."),
        Rule("page-shape", E, "The body matches the schema of a page: items and pagination.", "schemas, ProductPage",
             "Send a body that matches the schema."),
        # Authentication
        Rule("token-required", E, "A request without a token gets 401.", "responses, 401",
             "Refuse requests without a bearer token. Otherwise the list is public."),
        Rule("token-checked", E, "A request with a wrong token gets 401.", "responses, 401",
             "Compare the bearer token with the issued one. Otherwise the list is public."),
        Rule("token-kept", E, "No answer repeats the token.", "security",
             "Remove the token from bodies and headers, which end up in logs."),
        Rule("problem-details", W, "401 and 404 have problem details (RFC 9457) as body.", "schemas, Problem",
             "Send application/problem+json with type, title and status."),
        # Paging
        Rule("not-empty", W, "The list has at least one record.", _PAGING,
             "Add a record and run this again. Most checks need records."),
        Rule("next-cursor", E, "If moreResults is true, there is a nextCursor.", "schemas, Pagination",
             "Send the cursor of the next page, or moreResults false on the last page."),
        Rule("no-next-after-last", W, "If moreResults is false, there is no nextCursor.", "schemas, Pagination",
             "Remove nextCursor from the last page. Readers may follow it."),
        Rule("cursor-leads-on", E, "Each nextCursor is new, so that paging never loops.", _PAGING,
             "Let each nextCursor lead to the records after the page."),
        Rule("paging-ends", E, "The pages come to an end, and keep bringing new records until then.", _PAGING,
             "Send moreResults false once all records have been sent."),
        Rule("empty-pages", A, "Every page before the last one has records.", _PAGING,
             "Fill the pages. An empty page costs a request, and ten in a row end a sync."),
        Rule("pages-disjoint", E, "No record appears twice in a list.", "paths, listProducts",
             "Sort by a fixed order, preferably the id, and start each page after the last record of the page before."),
        Rule("pages-complete", E, "The list has the same records with every page size.", "paths, listProducts",
             "Start each page directly after the page before. A sync deletes records that the pages lack."),
        Rule("stable-order", E, "The order of the records is stable.", "paths, listProducts",
             "Sort by a field that is unique and does not change, such as the id."),
        Rule("cursor-stable", E, "A nextCursor that is requested twice leads to the same page.", _PAGING,
             "Let a cursor represent a position in the list, so that an interrupted sync can continue there."),
        Rule("cursor-replays", E, "A page's own cursor leads to the same page.", "schemas, Pagination",
             "Send the position where the page starts as its cursor, or omit the cursor."),
        Rule("page-sizes", E, "Page sizes from 1 to 1000 work, and all start at the first record.",
             "parameters, PageSize", "Accept every page_size from 1 to 1000."),
        Rule("page-size", W, "No page has more than page_size records.", "parameters, PageSize",
             "Send at most page_size records in a page."),
        Rule("default-page-size", W, "Without page_size, a page has at most 100 records.", "parameters, PageSize",
             "Use a default page_size of 100."),
        Rule("total-number", W, "totalNumber is the number of records of the page or of the whole list.",
             "schemas, Pagination", "Correct totalNumber or omit it. It is shown as progress."),
        Rule("at-once", E, "Concurrent requests get the same answers as sequential ones.", _SYNC,
             "Keep no state that requests share."),
        Rule("unknown-parameter", W, "An unknown parameter is ignored or refused with 400.",
             "responses, 400", "Ignore it, or answer 400."),
        Rule("speed", W, "A page takes less than half of the gateway's timeout.", _SYNC,
             "Make pages faster or smaller. A page that exceeds the timeout ends a sync."),
        Rule("best-page-size", A, "The gateway's page size is not much slower than others.", _SYNC,
             "Set the gateway's PAGE_SIZE to the faster one."),
        # Records by id
        Rule("ids-known", E, "ids with one known id returns only that record.", _IDS,
             "Filter by ids. The gateway uses this before it deletes a record that the list lacks."),
        Rule("ids-several", E, "ids with several known ids returns exactly those records.", _IDS,
             "Split ids at commas, percent-encoded (%2C) or not."),
        Rule("ids-many", E, "ids works with 100 ids, the gateway's maximum.", _IDS,
             "Return up to 500 ids in one page if page_size allows it. The URL has up to 4,000 characters."),
        Rule("ids-unknown", E, "Unknown ids in ids are ignored.", _IDS,
             "Answer 200 with the records that exist, even if none do."),
        Rule("ids-duplicates", W, "A repeated id in ids returns its record once.", _IDS, "Treat ids as a set."),
        Rule("ids-encoded", E, "Percent-encoded ids with reserved characters are found.", _IDS,
             "Decode the query once, as UTF-8 percent-encoding (RFC 3986)."),
        Rule("record-by-id", E, "A record by id is the same as in the list.", "paths, getProduct",
             "Answer /{list}/{id} with the record of the list. Decode the path once, as UTF-8."),
        Rule("unknown-id", E, "The URL of an unknown id answers 404.", "responses, 404",
             "Answer 404 with problem details."),
        # Records
        Rule("records-fit", E, "Every record matches the schema. A sync rejects the others.",
             "info, Records", "Correct the records according to the schema."),
        Rule("plain-ids", W, "No id has a comma, or a space at its start or end.", _IDS,
             "Change such ids. The parameter ids splits at commas, and outer spaces get lost."),
        Rule("plain-text", W, "Texts have no control characters except tabs and line ends.", "schemas, Product",
             "Remove them. They cause errors in programs that read the catalog."),
        Rule("times", A, "Times follow RFC 3339 with an offset, and no record was updated before it was created.",
             "info, Times", "Send times like 2021-01-01T00:00:00Z. A time without an offset is read as UTC."),
        Rule("prices", A, "Prices look like minor units: not all of them are below 1.00.", "schemas, Product",
             "Send 5000 for 50.00. Ignore this if prices really are that low."),
        Rule("members-known", W, "The products of collections are in the list of products.", "schemas, Collection",
             "Remove unavailable products from collections, or list them. The gateway only shows listed products."),
        # Generated requests and the dry run
        Rule("fuzz-failures", E, "All generated requests are answered, and none with 5xx.", "paths",
             "Read the log of the service."),
        Rule("fuzz-documented", E, "Generated requests get a documented status and content type.",
             "responses", "Use the statuses and content types of product-service.yaml."),
        Rule("fuzz-shape", E, "The answers to generated requests match their schema.", "responses",
             "Send a body that matches the schema of that status."),
        Rule("fuzz-accepts", E, "Valid generated requests are accepted.", "parameters",
             "Accept every value that the parameter's schema allows."),
        Rule("fuzz-refuses", W, "Invalid generated requests are refused with 4xx.", "responses, 400",
             "Answer 400 and name the invalid parameter. Ignored mistakes are found late."),
        Rule("dry-run", E, "A sync would succeed.", _SYNC, "Correct what the sync stops at, and run this again."),
    )
}  # fmt: skip
SERVICES = Kit("check-service", "Product service", "service", "Contract", RULES)
