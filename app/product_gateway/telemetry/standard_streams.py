"""Standard input, output and error of a process: closed, full, or without a reader."""

import errno
import os
import sys
from contextlib import suppress

# The opposite directions for input and output: what is lost there must be noticed (as in gnulib's stdopen).
_STREAMS = (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))
_FAILED_WRITE = (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EPIPE)


def open_missing() -> None:
    """Open the null device in place of each stream that is closed.

    Otherwise the next socket or file would get its number, and messages of libraries could be written into a database.
    """
    for number, (name, flags, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115


def say(text: str) -> None:
    """Write a line for people to standard error. A process goes on where it cannot."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def flush() -> None:
    """Write what is buffered, where it can be written."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def is_output_lost(error: OSError) -> bool:
    """Return whether the error is a failed write to standard output. What is still buffered for it is then dropped.

    Errors of files have a name, and the writes of files and connections are translated where they are made.
    """
    if error.filename is not None or error.errno not in _FAILED_WRITE:
        return False
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True
