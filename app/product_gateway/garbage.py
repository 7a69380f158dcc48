"""How often a process of ours looks for garbage that only a search finds: cycles, of which it makes next to none.

At Python's own pace the search takes a fifth of a start and a third of the time of a PUT that is refused, and the
slowest of a hundred answers take five times as long.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS_BEFORE_A_SEARCH = 50_000


@contextmanager
def let_lie() -> Iterator[None]:
    """Nobody looks for any: while a command starts, it makes what stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_what_is_there() -> None:
    """What has been imported and built stays to the end; from now on garbage is looked for, among what comes then.

    To be called by every command that goes on for long.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_BEFORE_A_SEARCH)
    gc.enable()
