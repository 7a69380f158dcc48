"""Cursors of lists: opaque to clients, and valid for one list only."""

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from uuid import UUID

from product_gateway.db import syncs
from product_gateway.errors import InvalidRequest

HISTORY = "syncs"
NOT_A_CURSOR = "Query parameter cursor: this is not a cursor that an earlier page of this list gave as meta.nextCursor."


def encoded(listing: str, after: str) -> str:
    """A cursor: the last id of the page before, so that it stays valid whatever a sync writes meanwhile.

    In front of it stands a mark of the list, so that a cursor of another list is told from one of this.
    """
    return base64.urlsafe_b64encode(_mark(listing) + after.encode()).decode().rstrip("=")


def decoded(listing: str, cursor: str) -> str:
    """The id that a cursor stands for. Raises InvalidRequest."""
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
    """The place in the history that a cursor stands for. Raises InvalidRequest."""
    instant, _, sync_id = decoded(HISTORY, cursor).partition("/")
    try:
        return datetime.fromisoformat(instant).astimezone(UTC), UUID(sync_id)
    except (ValueError, OverflowError):  # somebody made it up
        raise InvalidRequest(NOT_A_CURSOR) from None
