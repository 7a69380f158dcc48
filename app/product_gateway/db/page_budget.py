"""The byte budget of a page: a limit for one response, besides the page size that the client asked for."""

from collections.abc import Iterable
from itertools import accumulate

MAX_PAGE_BYTES = 8 * 1024 * 1024


def fitting(sizes: Iterable[int], most_bytes: int = MAX_PAGE_BYTES) -> int:
    """Return how many of the first items fit into `most_bytes`; at least one, so that paging proceeds."""
    number = 0
    for total in accumulate(sizes):
        if number and total > most_bytes:
            break
        number += 1
    return number
