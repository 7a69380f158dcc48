"""How a sync ends, for every misbehaviour of the hostile product service: code, words, and what the catalog has."""

from dataclasses import dataclass

from tests.support.product_service_faults.misbehaviour import NEW, OLD, RECORDS

PAGE_SIZE = 5
OLD_CATALOG = {f"r{number:02}": OLD for number in range(RECORDS)}
NEW_CATALOG = dict.fromkeys(OLD_CATALOG, NEW)
SPOILT = "r07"


@dataclass(frozen=True)
class Ends:
    """How a sync ends: with `code`, None for success.

    `says` is part of the detail, `page` the one that it names, `tries` how often that one was asked for. A sync that
    fails leaves the old catalog. After one that succeeds all records are new, but for what `but` says (None: it is
    gone); `rejected` are the codes of the records left out.
    """

    code: str | None = None
    says: str = ""
    page: int = 2
    tries: int = 1
    but: tuple[tuple[str, str | None], ...] = ()
    rejected: tuple[str, ...] = ()

    @property
    def catalog(self) -> dict[str, str]:
        """Id and version of all records."""
        if self.code is not None:
            return OLD_CATALOG
        return {key: title for key, title in {**NEW_CATALOG, **dict(self.but)}.items() if title is not None}


def unreachable(says: str) -> Ends:
    """No whole answer, in all attempts."""
    return Ends("PRODUCT_SERVICE_UNREACHABLE", says, tries=2)


def invalid(says: str) -> Ends:
    """A page that is none: asked for once."""
    return Ends("INVALID_PAGE", says)


def left_out(code: str) -> Ends:
    """One record is rejected: its old version stays, with or without an id that we understand."""
    return Ends(but=((SPOILT, OLD),), rejected=(code,))


OVERLAP = tuple((key, f"from {number // 3 * 3}") for number, key in enumerate(OLD_CATALOG))
# Asked for the seven records that its list lacks, and for one that it has, such a service sends its first eight.
NOT_REACHED = tuple((key, OLD) for key in list(OLD_CATALOG)[8:])
SPOILT_AND_LAST = (("r05", OLD), *((key, None) for key in list(OLD_CATALOG)[PAGE_SIZE + 1 :]))
NOT_HTTP = "closed the connection too early, or what it sent was not valid HTTP. Check that"
ENDS = {
    # the connection
    "slow-first-byte": unreachable("sent nothing for 0.5 s. Check that"),
    "slow-drip": unreachable("was not complete after 1 s. Check that"),
    "cut-body": unreachable(NOT_HTTP),
    "reset-in-mid-body": unreachable(NOT_HTTP),
    "closed-at-once": unreachable(NOT_HTTP),
    "reset-at-once": unreachable("broke off before the answer was complete. Check that"),
    "tls-garbage": unreachable(NOT_HTTP),
    "not-http": unreachable(NOT_HTTP),
    "header-flood": unreachable(NOT_HTTP),
    "interim-answers-for-ever": unreachable("was not complete after 1 s. Check that"),
    "two-lengths": unreachable(NOT_HTTP),
    "broken-chunks": unreachable(NOT_HTTP),
    "old-http-without-length": Ends(),
    "old-http-cut": invalid("it ends too early. There is no Content-Type, and the body begins with `{"),
    # its size
    "endless-body": Ends("ANSWER_TOO_LARGE", "0.25 MiB (decompressed). Send no more", tries=3),
    "gzip-bomb": Ends("ANSWER_TOO_LARGE", "0.25 MiB (decompressed). Send no more", tries=2),
    "giant-page": Ends("ANSWER_TOO_LARGE", "0.25 MiB (decompressed). Send no more", tries=2),
    "giant-page-until-a-smaller-one-is-asked-for": Ends(),
    "gzip-in-gzip": invalid("that was not asked for: gzip, gzip. Send it as plain JSON"),
    "broken-gzip": invalid("could not be decompressed: it is not gzip, or it is cut off. Send it as plain JSON"),
    "cut-gzip": invalid("it is cut off. Send it as plain JSON"),
    "compression-not-asked-for": invalid("that was not asked for: br. Send it as plain JSON"),
    # statuses
    "error-500-always": Ends("PRODUCT_SERVICE_ERROR", "2 attempts: the product service answered 500. Look", tries=2),
    "error-503-once": Ends(),
    "rate-limited-once": Ends(),
    "rate-limited-for-ever": Ends("PRODUCT_SERVICE_RATE_LIMITED", "answered 429. Allow the gateway more", tries=2),
    "rate-limited-until-tomorrow": Ends("PRODUCT_SERVICE_RATE_LIMITED", "to come back in 86400 s"),
    "nonsense-for-a-wait": Ends(),
    "unauthorized": Ends("PRODUCT_SERVICE_UNAUTHORIZED", "answered 401, so it does not accept", page=1),
    "unauthorized-from-page-2-on": Ends("PRODUCT_SERVICE_UNAUTHORIZED", "Register a token that may read products"),
    "forbidden": Ends("PRODUCT_SERVICE_UNAUTHORIZED", "answered 403, so it does not accept", page=1),
    "not-found": Ends("PRODUCT_SERVICE_ERROR", "answered 404 instead of 200. Check the registered", page=1),
    "bad-request-always": Ends("PRODUCT_SERVICE_ERROR", "answered 400, even when asked for a single", page=1, tries=3),
    "too-large-until-a-smaller-page-is-asked-for": Ends(),
    "moved-to-another-host": Ends(
        "PRODUCT_SERVICE_ERROR",
        "leads to another host, https://elsewhere.example/products. Register the address that it leads to: https://else",
        page=1,
    ),
    "moved-to-the-metadata-address": Ends(
        "PRODUCT_SERVICE_ERROR", "leads to another host, http://169.254.169.254/latest/meta-data/. Register"
    ),
    "no-content": Ends("PRODUCT_SERVICE_ERROR", "answered 204 instead of 200. Check"),
    "empty-body": invalid("is empty. The Content-Type is `application/json`. Send a page as JSON"),
    "html-with-200": invalid(
        "is HTML or XML, not JSON. The Content-Type is `text/html`, and the body begins with `<!D"
    ),
    "error-with-200": invalid("at /items: "),
    "wrong-content-type": Ends(),
    "token-echoed": Ends("PRODUCT_SERVICE_UNAUTHORIZED", "answered 403", page=1),
    "token-echoed-in-records": Ends("INVALID_PAGE", "at /pagination: ", page=1),
    # documents
    "invalid-json": invalid("a text is in single quotes."),
    "trailing-garbage": invalid("`<` follows its end."),
    "deep-nesting": Ends(but=NOT_REACHED, rejected=("WRONG_TYPE",)),
    "huge-integer": Ends(but=SPOILT_AND_LAST, rejected=("OUT_OF_RANGE",)),
    "not-a-number": invalid("at /items/0: it has NaN, which JSON does not have."),
    "invalid-utf8": invalid('at /items/0: byte 39 is 0xE9 (in Windows-1252 it is "é"), which is not UTF-8.'),
    "lone-surrogate": Ends(but=SPOILT_AND_LAST, rejected=("INVALID_VALUE",)),
    "utf-16": invalid("is text in UTF-16, not in UTF-8."),
    "json-array": invalid("at its top: "),
    "items-missing": invalid("at /items: "),
    "items-not-a-list": invalid("at /items: "),
    "pagination-missing": invalid("at /pagination: "),
    "too-many-items": invalid("at /items: "),
    "more-than-was-asked-for": Ends(),
    # paging
    "cursor-loop-of-1": Ends("INVALID_PAGING", "has a nextCursor that this sync has already asked for"),
    "cursor-loop-of-3": Ends("INVALID_PAGING", "Each nextCursor must lead on", page=4),
    "cursor-missing": Ends("INVALID_PAGING", "has no nextCursor. Send the cursor of the next page"),
    "cursor-with-control-characters": invalid("at /pagination/nextCursor: "),
    "cursor-that-is-a-number": invalid("at /pagination/nextCursor: "),
    "own-cursor-that-is-a-number": Ends(),
    "own-cursor-with-half-a-character": Ends(),
    "last-cursor-that-is-false": Ends(),
    "endless-empty-pages": Ends("INVALID_PAGING", "is the 10th in a row without a record", page=11),
    "some-empty-pages": Ends(),
    "endless-full-pages": Ends("INVALID_PAGING", "the 10th in a row without a record that is new", page=11),
    "endless-pages-without-ids": Ends(
        "INVALID_PAGING", "the 10th in a row without", page=11, rejected=("MISSING_FIELD",)
    ),
    "some-repeated-pages": Ends(),
    "empty-first-page": Ends(but=tuple((key, None) for key in NEW_CATALOG)),
    "total-too-small": Ends(),
    "total-too-large": Ends(),
    "total-negative": Ends(),
    "total-that-is-text": Ends(),
    "same-records-on-two-pages": Ends(but=OVERLAP),
    "record-removed-while-paging": Ends(),
    "record-removed-while-paging-and-no-ids": Ends(but=(("r05", None),)),
    "another-shape-on-page-2": Ends(but=NOT_REACHED, rejected=("MISSING_FIELD",)),
    # records
    "id-that-is-a-number": left_out("WRONG_TYPE"),
    "one-record-twice-and-once-invalid": Ends(rejected=("WRONG_TYPE",)),
    "id-empty": left_out("TOO_SHORT"),
    "id-too-long": left_out("TOO_LONG"),
    "id-with-nul": left_out("INVALID_VALUE"),
    "record-too-large": left_out("TOO_LARGE"),
    "record-nested-too-deeply": left_out("INVALID_VALUE"),
    "nul-in-a-title": Ends(but=((SPOILT, "new\0"),)),
    "record-that-is-null": left_out("WRONG_TYPE"),
}
