"""Cursors of lists: opaque to clients, each valid for one list only."""

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from uuid import UUID

from product_gateway.db import syncs
from product_gateway.errors import InvalidRequest

HISTORY = "syncs"
NOT_A_CURSOR = "Query parameter cursor: not a cursor of this list. Use meta.nextCursor of an earlier page."


def encoded(listing: str, after: str) -> str:
    """Return the cursor of the page after the id `after`. It stays valid while syncs change the list.

    The cursor starts with a mark of the list, so that a cursor of another list is refused.
    """
    return base64.urlsafe_b64encode(_mark(listing) + after.encode()).decode().rstrip("=")


def decoded(listing: str, cursor: str) -> str:
    """Return the id that the cursor encodes. Raise InvalidRequest."""
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


def place(cursor: str) -> syncs.Place:
    """Return the place in the history that the cursor encodes. Raise InvalidRequest."""
    instant, _, sync_id = decoded(HISTORY, cursor).partition("/")
    try:
        return datetime.fromisoformat(instant).astimezone(UTC), UUID(sync_id)
    except (ValueError, OverflowError):  # a forged cursor
        raise InvalidRequest(NOT_A_CURSOR) from None
