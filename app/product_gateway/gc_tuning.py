"""How often a process of ours looks for garbage that only a search finds: cycles, of which it makes next to none.

At Python's own pace the search takes a fifth of a start and a third of the time of a PUT that is refused, and the
slowest of a hundred answers take five times as long.
"""

import gc

NEW_OBJECTS_BEFORE_A_SEARCH = 50_000


def freeze_startup_objects() -> None:
    """What has been imported and built stays to the end; from now on garbage is looked for, among what comes then.

    To be called by every command that goes on for long.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_BEFORE_A_SEARCH)
    gc.enable()
