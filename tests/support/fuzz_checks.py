"""Hooks for Schemathesis (schemathesis.toml): exceptions from its checks, and one more check."""

import html
from typing import Any
from urllib.parse import urljoin

import requests
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

# What no schema can say: which cursors were given out, and what a key was used for before.
KNOWN_TO_THE_SERVER_ONLY = (
    "Query parameter cursor: not a cursor",
    "Header Idempotency-Key: this key stands for",
)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Return whether the failure counts; some known cases do not."""
    if isinstance(failure, RejectedPositiveData) and response.status_code == 400:
        return not any(known in html.unescape(response.text) for known in KNOWN_TO_THE_SERVER_ONLY)
    # Whether a sync has a result to publish, discard, show or revert, and whether the history still has a generation.
    if isinstance(failure, RejectedPositiveData) and response.status_code in (410, 412):
        return False
    # What cannot be read of a preference or entity tag is as good as absent, and never an error (RFC 7240 §2).
    lenient = ("parameter `Prefer` in header", "parameter `If-None-Match` in header")
    if isinstance(failure, AcceptedNegativeData) and any(each in failure.message for each in lenient):
        return False
    # DELETE ends the active sync; what GET tells at the same path, the state of the records, goes on.
    return not (isinstance(failure, UseAfterFree) and case.operation.definition.raw["operationId"] == "getSyncStatus")


@schemathesis.check
def location_leads_to_the_sync(ctx: Any, response: Any, case: Any) -> None:
    """Check that the sync of a 202 exists: ensure_resource_availability looks at POST only."""
    if response.status_code != 202:
        return
    url = urljoin(response.request.url, response.headers["location"][0])
    found = requests.get(url, headers={"Authorization": response.request.headers["Authorization"]}, timeout=10)
    assert found.status_code == 200, f"{url} answered {found.status_code}"
    assert found.json()["data"]["id"] == response.json()["data"]["id"]
