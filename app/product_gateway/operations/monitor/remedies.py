"""Advice for operators on each failure code, and on what the product service answered.

The page, the API and docs/operations/runbook.md give the same advice.
"""

import re
import shlex
from dataclasses import dataclass

from product_gateway.model.catalog import StaleCatalog
from product_gateway.model.syncs import EntityType, Publication, Sync, SyncStatus

ANSWERED = re.compile(r"the product service answered (\d{3})")


@dataclass(frozen=True, slots=True)
class Advice:
    """What a failure code means, and what helps. The command may hold {merchant} and {entity_type}."""

    words: str
    what_to_do: str
    command: str | None = None


_UPDATE = "product-gateway merchant update {merchant}"
_CHECK = "product-gateway check-service URL --token-file FILE"
_CONTRACT = "The product service breaks its contract: show the merchant the detail and the findings of check-service."

ADVICE = {
    "PRODUCT_SERVICE_UNREACHABLE": Advice(
        "the product service cannot be reached",
        "Ask the merchant whether it runs; then run the sync again. If it has moved, register its new address.",
        f"{_UPDATE} --product-service-url URL",
    ),
    "PRODUCT_SERVICE_ERROR": Advice(
        "the product service answers with an error",
        "Ask the merchant to look into its log; then run the sync again.",
    ),
    "PRODUCT_SERVICE_RATE_LIMITED": Advice(
        "the product service allows us too few requests",
        "Ask the merchant to allow the gateway more; then run the sync again.",
    ),
    "PRODUCT_SERVICE_UNAUTHORIZED": Advice(
        "the product service refuses our token",
        "Ask the merchant for a token that may read products and collections, and set it.",
        f"{_UPDATE} --product-service-token-file FILE",
    ),
    "TOKEN_UNREADABLE": Advice(
        "the merchant's stored token cannot be decrypted",
        "All processes need the key that it was encrypted with (SECRET_KEY_FILE); or set the token again.",
        f"{_UPDATE} --product-service-token-file FILE",
    ),
    "ADDRESS_NOT_ALLOWED": Advice(
        "the product service's address is not one that we may call",
        "Register an https address on the public internet; for a private network, set ALLOW_PRIVATE_ADDRESSES.",
        f"{_UPDATE} --product-service-url URL",
    ),
    "INVALID_PAGE": Advice("the product service sends pages that cannot be read", _CONTRACT, _CHECK),
    "INVALID_PAGING": Advice("the product service's paging never ends", _CONTRACT, _CHECK),
    "TOO_MANY_PAGES": Advice(
        "the product service has more pages than a sync may read",
        "Ask the merchant for larger pages, or raise MAX_PAGES.",
    ),
    "CATALOG_FULL": Advice(
        "the merchant's catalog has reached its limit",
        "Ask the merchant whether it needs all these records. If so, raise MAX_CATALOG_RECORDS or MAX_CATALOG_BYTES.",
        "product-gateway merchant show {merchant}",
    ),
    "HISTORY_GONE": Advice(
        "the generation that a revert restores is no longer kept",
        "Nothing can be done for this revert. To keep generations longer, raise CATALOG_HISTORY_DAYS.",
    ),
    "SYNC_TOO_LONG": Advice(
        "the product service is too slow for a whole sync",
        "Ask the merchant for faster answers or larger pages, or raise MAX_SYNC_SECONDS.",
    ),
    "ANSWER_TOO_LARGE": Advice(
        "the product service sends a page that is too large",
        "Ask the merchant to send no more records than page_size asks for, or raise MAX_PAGE_BYTES.",
    ),
    "TOO_MANY_REJECTED": Advice(
        "too many records do not fit the contract",
        "The sync's page says which and why: show it to the merchant. Until then, more may be let through.",
        f"{_UPDATE} --max-rejected-percent PERCENT",
    ),
    "MASS_DELETION": Advice(
        "it would have removed much of the catalog",
        "Ask the merchant whether these records are really gone. If so, allow it once and run the sync again.",
        "product-gateway merchant allow-mass-deletion {merchant} {entity_type}",
    ),
    "NOT_BRING_YOUR_OWN_PLATFORM": Advice(
        "the merchant no longer brings its own platform",
        "Nothing to mend if that is meant; otherwise change it back.",
        f"{_UPDATE} --platform BYOP",
    ),
    "MERCHANT_DISABLED": Advice(
        "the merchant was disabled before the sync ran",
        "Nothing to mend if that is meant; otherwise enable it.",
        f"{_UPDATE} --enable",
    ),
    "WORKER_LOST": Advice(
        "one worker after the other was lost while it ran this sync",
        "Look into the workers' logs and memory: did the system kill them? Then run the sync again.",
    ),
    "INTERNAL_ERROR": Advice(
        "a fault of the gateway's own",
        "Look for the sync's id in the worker's log: the traceback is there. Then run the sync again.",
    ),
}
# Advice that fits better than the code's, by a pattern of the failure's detail. The first match counts.
BY_DETAIL = (
    (
        re.compile(r"answered 401, and no token is registered"),
        Advice(
            "the product service asks for a token, and none is registered",
            "Ask the merchant for a token that may read products and collections, and set it.",
            f"{_UPDATE} --product-service-token-file FILE",
        ),
    ),
    (
        re.compile(r"answered 403 with an HTML page"),
        Advice(
            "a firewall in front of the product service refuses us",
            "Ask the merchant to let requests through whose User-Agent starts with product-gateway/.",
        ),
    ),
    (
        re.compile(r"answered 304"),
        Advice(
            "a cache in front of the product service answers that nothing has changed",
            "Ask the merchant to answer 200 with the page, even if its caches already hold the page.",
        ),
    ),
    (
        re.compile(r"answered 3\d\d.*(the slash: the gateway adds|no Location|back to the same address)"),
        Advice(
            "the product service redirects its own list",
            "Ask the merchant to answer 200 at the address that the detail names, without a redirect.",
        ),
    ),
    (
        re.compile(r"answered 3\d\d.*a log-in page"),
        Advice(
            "the product service redirects to a log-in page",
            "Ask the merchant for the address of its API, which takes a bearer token, and register it.",
            f"{_UPDATE} --product-service-url URL",
        ),
    ),
    (
        re.compile(r"answered 3\d\d"),
        Advice(
            "the product service redirects to another address",
            "Register the address that the detail names, after asking the merchant whether it is theirs.",
            f"{_UPDATE} --product-service-url URL",
        ),
    ),
    (
        re.compile(r"answered 2\d\d"),
        Advice(
            "the product service answers without a page",
            "Ask the merchant to answer 200 with a page, also where the list is empty.",
        ),
    ),
    (
        re.compile(r"answered (405|406|411|415)"),
        Advice(
            "the product service refuses a plain GET",
            "Ask the merchant to allow a GET that has no body and accepts application/json.",
        ),
    ),
    (
        re.compile(r"answered (402|407|414|421|426|431|451)"),
        Advice(
            "the product service, or a proxy in front of it, refuses the request",
            "The detail names the reason: show it to the merchant; then run the sync again.",
        ),
    ),
    (
        re.compile(r"answered (400|413|408|425)"),
        Advice(
            "the product service refuses the request",
            "Ask the merchant to look into its log; then run the sync again.",
        ),
    ),
    (
        re.compile(r"answered 4(?!01|03|29)\d\d"),
        Advice(
            "the product service has no list at the registered address",
            "Check the address with the merchant: /products and /collections must be right beneath it.",
            f"{_UPDATE} --product-service-url URL",
        ),
    ),
    (
        re.compile(r"answered 5\d\d with an HTML page"),
        Advice(
            "a proxy or CDN does not reach the product service behind it",
            "Ask the merchant whether the service runs, and what its proxy has logged; then run the sync again.",
        ),
    ),
)
UNKNOWN = Advice("an unknown failure", "Read the detail on the sync's page. A newer worker may have written it.")


def of(code: str, detail: str) -> Advice:
    """Return the advice that fits the failure's detail, or else its code. The command still has its placeholders."""
    found = ADVICE.get(code, UNKNOWN)
    answered = ANSWERED.search(detail)
    if not answered:
        return found
    found = next((better for pattern, better in BY_DETAIL if pattern.search(detail)), found)
    return Advice(f"{found.words} ({answered[1]})", found.what_to_do, found.command)


def about(sync: Sync) -> Advice:
    """What the failure of this sync means, with the merchant's name in the command."""
    return _named(of(sync.failure_code or "", sync.failure_detail or ""), sync.merchant, sync.entity_type)


def _named(found: Advice, merchant: str, entity_type: EntityType) -> Advice:
    names = {"merchant": shlex.quote(merchant), "entity_type": entity_type.value}
    return Advice(found.words, found.what_to_do, found.command and found.command.format(**names))


# Advice on a stale catalog, by the status of its latest sync, or by what became of its result.
STALE: dict[SyncStatus | Publication | None, Advice] = {
    SyncStatus.QUEUED: Advice(
        "its sync waits for a worker", "Start a worker, or another one.", "product-gateway worker"
    ),
    SyncStatus.IN_PROGRESS: Advice(
        "its sync is not complete yet", "Wait for it. Its page shows how fast it is, and when it ends."
    ),
    Publication.STAGED: Advice(
        "the result of its sync waits for a review", "Ask the merchant to review it. Its page publishes or discards it."
    ),
    None: Advice(
        "no sync was requested in time",
        "Ask the merchant why its client requests none, or run the sync again. The max age can be changed.",
        f"{_UPDATE} --max-age {{entity_type}}=AGE",
    ),
}


def of_stale(catalog: StaleCatalog) -> Advice:
    """Return the advice on a stale catalog. After a failure, it is that of the failure."""
    latest = catalog.latest
    status = None if latest is None else latest.status
    if latest is not None and status is SyncStatus.FAILED:
        found = about(latest)
        return Advice(f"its last sync failed: {found.words}", found.what_to_do, found.command)
    is_staged = latest is not None and latest.publication is Publication.STAGED
    found = STALE.get(Publication.STAGED if is_staged else status, STALE[None])
    return _named(found, catalog.merchant, catalog.entity_type)
