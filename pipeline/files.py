"""Files that are what they should be: those that a job names, read whole, and our own at names that anybody can guess.

A job may be a stranger's, and so may a folder. A device never ends, a pipe keeps its reader waiting, a link leads to
somebody's own file, and what the system shows of a process as files holds its keys.
"""

import errno
import io
import os
import stat
from functools import cache
from pathlib import Path

MOST_BYTES = 16 << 20
"""A prompt, a schema and a price list are far smaller."""
OF_THE_SYSTEM = "it is what the system shows of running programs, their keys among it, and no file of yours"


def read_bytes(file: Path) -> bytes:
    """Return what a file of at most MOST_BYTES holds. Raises OSError, in words for people where it is no such file."""
    try:
        status = file.stat()  # before it is opened: that alone makes some devices do something
    except ValueError:
        raise OSError("no file has a NUL in its name") from None
    if stat.S_ISDIR(status.st_mode):
        raise OSError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a pipe or a device; write its content into a file, and name that")
    if is_of_the_system(status):
        raise OSError(OF_THE_SYSTEM)
    with file.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES >> 20} MiB, which is the most for such a file")
    return data


def read_text(file: Path, encoding: str = "utf-8-sig") -> str:
    r"""Return the same as text, with `\n` for every kind of line end. Raises OSError, UnicodeDecodeError."""
    return io.TextIOWrapper(io.BytesIO(read_bytes(file)), encoding=encoding).read()


def is_of_the_system(status: os.stat_result) -> bool:
    """Tell whether a file is one of those below /proc, by whatever name and links it was found."""
    return status.st_dev == _proc()


class Planted(OSError):
    """What lies at the name of one of our own files is none of ours."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is a link, a pipe or a device, and no file of promptmill's; look at it and remove it")


def open_own(path: Path, flags: int) -> int:
    """Open one of our own files without following a link or waiting for anybody. Raises OSError, Planted among them."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link; a pipe that nobody reads, or a socket
            raise Planted(path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Planted(path)
    return fd


@cache
def _proc() -> int | None:
    return os.stat("/proc").st_dev if os.path.ismount("/proc") else None  # noqa: PTH116 -- None: no Linux
