"""Release the memory that exceptions keep alive."""

import json
import traceback


def release_locals(error: BaseException) -> None:
    """Clear the local variables of all finished frames of an exception, and of the exceptions behind it.

    An exception is often part of a reference cycle, for example with a stream that stores it. Its frames then keep
    response bodies alive until the garbage collector runs, which is rare in these processes.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        if each.__suppress_context__:  # no log shows it, and it may hold a large value
            each.__context__ = None
        if isinstance(each, json.JSONDecodeError):
            each.doc = ""
        if isinstance(each, UnicodeDecodeError):
            each.object = b""
        pending += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions
