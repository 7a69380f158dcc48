"""Cursors of lists: opaque to clients, each valid for one list only."""

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from uuid import UUID

from product_gateway.db import syncs
from product_gateway.errors import InvalidRequest
from product_gateway.model.catalog import ChangePosition
from product_gateway.openapi.types import SyncListMeta

HISTORY = "syncs"
NUMBER_BYTES = 6
NOT_A_CURSOR = "Query parameter cursor: not a cursor of this list. Use meta.nextCursor of an earlier page."


def encoded(listing: str, after: str, *numbers: int) -> str:
    """Return the cursor of the page after the id `after`, with numbers such as generations.

    The cursor starts with a mark of the list, so that a cursor of another list is refused.
    """
    content = _mark(listing, len(numbers)) + b"".join(number.to_bytes(NUMBER_BYTES) for number in numbers)
    return base64.urlsafe_b64encode(content + after.encode()).decode().rstrip("=")


def decoded(listing: str, cursor: str, count: int = 0) -> tuple[str, list[int]]:
    """Return the id and the `count` numbers that the cursor encodes. Raise InvalidRequest."""
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        content = content.removeprefix(_mark(listing, count))
        numbers = [
            int.from_bytes(content[at : at + NUMBER_BYTES]) for at in range(0, count * NUMBER_BYTES, NUMBER_BYTES)
        ]
        after = content[count * NUMBER_BYTES :].decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequest(NOT_A_CURSOR) from None
    if "\0" in after or encoded(listing, after, *numbers) != cursor:
        raise InvalidRequest(NOT_A_CURSOR)
    return after, numbers


def next_change(listing: str, place: ChangePosition) -> str:
    """Return the cursor of a place in a feed of changes."""
    return encoded(listing, place.record_id, place.since, place.until or 0, place.generation)


def change(listing: str, cursor: str | None) -> ChangePosition | None:
    """Return the place in a feed of changes that the cursor encodes. Raise InvalidRequest."""
    if cursor is None:
        return None
    record_id, (since, until, generation) = decoded(listing, cursor, 3)
    return ChangePosition(since, until or None, generation, record_id)


def _mark(listing: str, count: int) -> bytes:
    return hashlib.blake2b(f"{listing}/{count}".encode(), digest_size=3).digest()


def next_in_history(last: syncs.Place | None) -> SyncListMeta:
    """Return the `meta` of a page of the history that ends at `last`; None: it is the last page."""
    return {} if last is None else {"nextCursor": encoded(HISTORY, f"{last[0].isoformat()}/{last[1]}")}


def place(cursor: str | None) -> syncs.Place | None:
    """Return the place in the history that the cursor encodes. Raise InvalidRequest."""
    if cursor is None:
        return None
    instant, _, sync_id = decoded(HISTORY, cursor)[0].partition("/")
    try:
        return datetime.fromisoformat(instant).astimezone(UTC), UUID(sync_id)
    except (ValueError, OverflowError):  # a forged cursor
        raise InvalidRequest(NOT_A_CURSOR) from None
