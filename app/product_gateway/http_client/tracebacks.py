"""What an exception keeps in memory: the local variables of the frames that it passed through."""

import json
import traceback


def release_locals(error: BaseException) -> None:
    """Clear the local variables of all finished frames of an exception, and of the exceptions behind it.

    An exception is often part of a reference cycle (asyncio.TaskGroup makes one, and so does a stream that keeps its
    exception). Its frames then keep response bodies alive until the garbage collector runs, which is seldom here.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        if each.__suppress_context__:  # no log shows it, and it may hold the value that did not fit a schema
            each.__context__ = None
        if isinstance(each, json.JSONDecodeError):
            each.doc = ""
        if isinstance(each, UnicodeDecodeError):
            each.object = b""
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
