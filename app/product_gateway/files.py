"""Files that a person names: what is wrong with a path, in words."""

import errno
import stat
from pathlib import Path


def status_fault(path: Path, error: OSError) -> str:
    """Return why the system does not say what is at a path. A text that is too long for one may be a secret."""
    if error.errno == errno.ENAMETOOLONG:
        return "it is too long for the path of a file"
    return f"{path} cannot be read: {error.strerror}"


def fault(path: Path, *, must_be_ordinary: bool = False) -> str | None:
    """Return why there is no file to read at the path, None if there may be one.

    `must_be_ordinary`: it is read more than once, so it cannot be a pipe.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no file {path}"
    except OSError as error:
        return status_fault(path, error)
    if stat.S_ISDIR(mode):
        return f"{path} is a directory"
    if must_be_ordinary and not stat.S_ISREG(mode):
        return f"{path} is not an ordinary file, which can be read more than once"
    return None
