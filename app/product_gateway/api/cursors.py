"""Cursors of lists: opaque to clients, each valid for one list only."""

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from uuid import UUID

from product_gateway.db import syncs
from product_gateway.errors import InvalidRequest
from product_gateway.openapi.types import SyncListMeta

HISTORY = "syncs"
NOT_A_CURSOR = "Query parameter cursor: not a cursor of this list. Use meta.nextCursor of an earlier page."


def encoded(listing: str, after: str) -> str:
    """Return the cursor of the page after the id `after`. It stays valid while syncs change the list.

    The cursor starts with a mark of the list, so that a cursor of another list is refused.
    """
    return base64.urlsafe_b64encode(_mark(listing) + after.encode()).decode().rstrip("=")


def decoded(listing: str, cursor: str | None) -> str:
    """Return the id that the cursor encodes; "" without a cursor. Raise InvalidRequest."""
    if cursor is None:
        return ""
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        after = content.removeprefix(_mark(listing)).decode()
    except (binascii.Error, UnicodeDecodeError):
        after = ""
    if not after or "\0" in after or encoded(listing, after) != cursor:
        raise InvalidRequest(NOT_A_CURSOR)
    return after


def _mark(listing: str) -> bytes:
    return hashlib.blake2b(listing.encode(), digest_size=3).digest()


def next_in_history(last: syncs.Place | None) -> SyncListMeta:
    """Return the `meta` of a page of the history that ends at `last`; None: it is the last page."""
    return {} if last is None else {"nextCursor": encoded(HISTORY, f"{last[0].isoformat()}/{last[1]}")}


def place(cursor: str | None) -> syncs.Place | None:
    """Return the place in the history that the cursor encodes. Raise InvalidRequest."""
    if cursor is None:
        return None
    instant, _, sync_id = decoded(HISTORY, cursor).partition("/")
    try:
        return datetime.fromisoformat(instant).astimezone(UTC), UUID(sync_id)
    except (ValueError, OverflowError):  # a forged cursor
        raise InvalidRequest(NOT_A_CURSOR) from None
