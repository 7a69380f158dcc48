"""How often a process of ours looks for garbage that only a search finds: cycles, of which it makes next to none.

To be imported first of all by what is a process of its own. At Python's own pace the search takes a tenth of a start
and a third of the time of a PUT that is refused, and the slowest of a hundred answers take five times as long.
"""

import gc

NEW_OBJECTS_BEFORE_A_SEARCH = 50_000

gc.set_threshold(NEW_OBJECTS_BEFORE_A_SEARCH)


def keep_what_is_there() -> None:
    """What has been imported and built by now stays to the end: no search looks at it again."""
    gc.freeze()
