"""What must hold of a product service: every rule by its code, which stays the same from version to version."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is where a rule does not hold. An error: a sync fails or loses data, or the contract is broken."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Rule:
    """`must` is what holds of a service that passes, `source` where the contract says so, `advice` what to do."""

    code: str
    severity: Severity
    must: str
    source: str
    advice: str


E, W, A = Severity.ERROR, Severity.WARNING, Severity.ADVICE
_ANSWER, _PAGING, _IDS = "responses, 200", "info, Paging", "parameters, Ids"
_SYNC = "how the gateway reads"

# The whole of the service, or of one list; the order is that of the report.
RULES = {
    rule.code: rule
    for rule in (
        # the way there and back
        Rule("reachable", E, "The service answers at its address.", "servers",
             "Check the address, and that the service runs and can be reached from here."),
        Rule("answers-whole", E, "Every answer arrives whole, as valid HTTP, and in time.", _SYNC,
             "Look into the log of the service, and of the proxies in front of it."),
        Rule("first-try", W, "No request has to be made a second time.", _SYNC,
             "Find out why it did not go through at once; the gateway tries again, which takes its time."),
        Rule("rate-limit", E, "The service lets the gateway read at its pace, one request after the other.", _SYNC,
             "Allow the gateway more requests, and say in Retry-After how long to wait: seconds, 300 at the most."),
        Rule("token-accepted", E, "The token that the gateway was given may read the list.", "security",
             "Give out a token that may read products and collections, and that does not run out during a sync."),
        Rule("no-redirects", E, "A list is at its address, and not elsewhere: no redirects.", _SYNC,
             "Register the address that the redirect leads to; the gateway does not follow it."),
        Rule("no-failures", E, "A request that keeps the contract is not answered with 5xx.", "responses, 500",
             "Look into the log of the service for what failed."),
        Rule("status-200", E, "A request that keeps the contract is answered with 200.", _ANSWER,
             "Check the address: /products and /collections must be right beneath it."),
        Rule("answer-size", E, "An answer is no larger than the gateway reads (MAX_PAGE_BYTES).", _SYNC,
             "Send no more records in a page than page_size asks for."),
        Rule("page-bytes", W, "A page has less than half of the bytes that the gateway reads.", _SYNC,
             "Send smaller records, or fewer in a page: a page that grows past the limit ends a sync."),
        Rule("largest-page", W, "A page of as many records as are asked for can be had.", "parameters, PageSize",
             "Send fewer records in a page than asked for, instead of refusing: a service may do so."),
        Rule("compression", E, "An answer is plain, or compressed with gzip alone.", _SYNC,
             "Send plain JSON, or gzip where the request's Accept-Encoding names it."),
        Rule("compressed", A, "Answers of more than 1 MiB are compressed.", _SYNC,
             "Compress them with gzip where the request's Accept-Encoding names it: syncs get quicker."),
        Rule("json", E, "The body is JSON in UTF-8 (RFC 8259), with nothing in front or behind.", _ANSWER,
             "Write the body with a JSON library, encode it as UTF-8, and send errors with an error's status."),
        Rule("content-type", W, "A page says that it is application/json.", _ANSWER,
             "Send Content-Type: application/json."),
        Rule("page-shape", E, "The body is a page: items and pagination, as the schema says.", "schemas, ProductPage",
             "Send what the schema describes."),
        # who may read
        Rule("token-required", E, "Who brings no token gets 401.", "responses, 401",
             "Refuse requests without a bearer token, or anybody can read the list."),
        Rule("token-checked", E, "Who brings another token gets 401.", "responses, 401",
             "Compare the bearer token with the one that was given out, or anybody can read the list."),
        Rule("token-kept", E, "No answer repeats the token.", "security",
             "Leave the token out of bodies and headers: they end in logs."),
        Rule("problem-details", W, "401 and 404 come with problem details (RFC 9457).", "schemas, Problem",
             "Send application/problem+json with type, title and status."),
        # paging
        Rule("not-empty", W, "The list has a record.", _PAGING,
             "Have at least one record, and run this again: little can be said about an empty list."),
        Rule("next-cursor", E, "Where moreResults is true, there is a nextCursor.", "schemas, Pagination",
             "Send the cursor of the next page, or moreResults false with the last page."),
        Rule("no-next-after-last", W, "Where moreResults is false, there is no nextCursor.", "schemas, Pagination",
             "Leave nextCursor out of the last page: readers may follow it."),
        Rule("cursor-leads-on", E, "Each nextCursor is one that this reading has not met yet.", _PAGING,
             "Make each nextCursor lead to the records behind the page."),
        Rule("paging-ends", E, "The pages come to an end: each has records that were not sent yet.", _PAGING,
             "End the list with moreResults false when all records have been sent."),
        Rule("empty-pages", A, "Every page before the last one has a record.", _PAGING,
             "Fill the pages: each empty one costs a sync a request, and ten in a row end it."),
        Rule("pages-disjoint", E, "No record comes twice in one reading.", "paths, listProducts",
             "Page through an order that does not change, at best by id; skip what the pages before had."),
        Rule("pages-complete", E, "Whatever the page size, the pages have the same records.", "paths, listProducts",
             "Start each page at the record right behind the one before: what the pages lack is deleted."),
        Rule("stable-order", E, "Two readings have the records in the same order.", "paths, listProducts",
             "Sort by something that is different for each record and does not change, such as the id."),
        Rule("cursor-stable", E, "A nextCursor that is asked for twice leads to the same page twice.", _PAGING,
             "Let a cursor stand for a place in the list, so that an interrupted sync can go on there."),
        Rule("cursor-replays", E, "A page's own cursor leads to the page again.", "schemas, Pagination",
             "Send as cursor the place where the page starts, or leave it out."),
        Rule("page-sizes", E, "Page sizes from 1 to 500 are served, all from the list's first record on.",
             "parameters, PageSize", "Serve every page_size from 1 to 500."),
        Rule("page-size", W, "No page has more records than page_size asks for.", "parameters, PageSize",
             "Send at most page_size records in a page."),
        Rule("default-page-size", W, "Without page_size, a page has 100 records at the most.", "parameters, PageSize",
             "Take a page_size of 100 where there is none."),
        Rule("total-number", W, "totalNumber is the number of records: of the page, or of the whole list.",
             "schemas, Pagination", "Count what is sent, or leave totalNumber out; it is shown as progress."),
        Rule("at-once", E, "Two requests at once get what each gets alone.", _SYNC,
             "Keep nothing between requests that another one can change."),
        Rule("unknown-parameter", W, "A parameter that the contract lacks is ignored, or refused with 400.",
             "responses, 400", "Ignore it, or answer 400."),
        Rule("speed", W, "A page takes less than half of the time that the gateway waits for it.", _SYNC,
             "Make pages quicker, or smaller: a page that takes too long ends a sync."),
        Rule("best-page-size", A, "The page size that was asked for is not far slower than others.", _SYNC,
             "Set the gateway's PAGE_SIZE to the quicker one."),
        # records by id
        Rule("ids-known", E, "ids with one known id brings that record alone.", _IDS,
             "Filter by ids: the gateway asks so before it deletes a record that a list lacked."),
        Rule("ids-several", E, "ids with several known ids brings them all, and nothing else.", _IDS,
             "Read ids as a list with commas between, whether they are percent-encoded (%2C) or not."),
        Rule("ids-many", E, "ids brings as many records as the gateway asks for at once: 100.", _IDS,
             "Serve up to 500 ids in one page when page_size is as large; the address has up to 4,000 characters."),
        Rule("ids-unknown", E, "An id in ids that does not exist is left out.", _IDS,
             "Answer 200 with the records that there are, none where there are none."),
        Rule("ids-duplicates", W, "An id that is named twice in ids brings its record once.", _IDS,
             "Take ids as a set."),
        Rule("ids-encoded", E, "Ids with reserved characters are found when they are percent-encoded.", _IDS,
             "Decode the query as UTF-8 percent-encoding (RFC 3986), once."),
        Rule("record-by-id", E, "A record by its id is the same as in the list.", "paths, getProduct",
             "Answer /{list}/{id} with the record as it stands in the list; decode the path as UTF-8, once."),
        Rule("unknown-id", E, "The address of an id that does not exist answers 404.", "responses, 404",
             "Answer 404 with problem details."),
        # records
        Rule("records-fit", E, "Every record fits the contract; one that does not is left out by a sync.",
             "info, Records", "Correct the records; the schema says what fits."),
        Rule("plain-ids", W, "No id has a comma, or a space at an end.", _IDS,
             "Give other ids: ids cannot name one with a comma, and spaces at an end get lost."),
        Rule("plain-text", W, "Texts have no control characters, but for tabs and line ends.", "schemas, Product",
             "Take them out: readers of the catalog stumble over them."),
        Rule("times", A, "Times are of RFC 3339 with an offset, and no record was updated before it was created.",
             "info, Times", "Send 2021-01-01T00:00:00Z; without an offset, a time is taken as UTC."),
        Rule("prices", A, "Prices look like minor units: not all of them are below 1.00.", "schemas, Product",
             "Send 5000 for 50.00; where prices are really that low, never mind."),
        Rule("members-known", W, "The products of collections are in the list of products.", "schemas, Collection",
             "Take out products that cannot be had, or list them: the gateway shows those alone that it has."),
        # made-up requests, and the whole of a sync
        Rule("fuzz-failures", E, "Made-up requests are all answered, and not with 5xx.", "paths",
             "Look into the log of the service for what failed."),
        Rule("fuzz-documented", E, "Made-up requests get a status and a content type that the contract has.",
             "responses", "Answer with what product-service.yaml has for the operation."),
        Rule("fuzz-shape", E, "The answers to made-up requests fit their schema.", "responses",
             "Send what the schema of that status describes."),
        Rule("fuzz-accepts", E, "Made-up requests that keep the contract are not refused.", "parameters",
             "Accept what the parameter's schema allows."),
        Rule("fuzz-refuses", W, "Made-up requests that break the contract are refused with 4xx.", "responses, 400",
             "Answer 400 with what is wrong: a reader's mistake that is ignored is found late."),
        Rule("dry-run", E, "A sync would succeed.", _SYNC, "Correct what the sync stops at, and run this again."),
    )
}  # fmt: skip
