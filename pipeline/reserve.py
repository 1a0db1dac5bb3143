"""Room on the disk that is kept for answers on their way home: a file beside the journal, given up on a full disk."""

import errno
import os
from pathlib import Path

SUFFIX = ".reserve"
PER_REQUEST_BYTES = 64 * 2**10
"""An answer of some 10,000 tokens with everything that is filed with it."""
LEAST_BYTES = 2**20
MOST_BYTES = 16 * 2**20
_BLOCK = 2**18
_NOT_SUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def reserve_bytes(concurrency: int) -> int:
    """Return how much to keep for the answers of so many requests in flight."""
    return min(max(concurrency * PER_REQUEST_BYTES, LEAST_BYTES), MOST_BYTES)


class Reserve:
    """A file of really allocated bytes. It means nothing to anybody: whoever finds one that is left over deletes it."""

    def __init__(self, path: Path, size: int) -> None:
        """Take the room. Raises OSError, and then nothing is left behind."""
        self.path = path
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(fd, size)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def give_back(self) -> bool:
        """Free the room; False if that is impossible, as on a file system that has gone read-only."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return False
        return True


def _allocate(fd: int, size: int) -> None:
    allocate = getattr(os, "posix_fallocate", None)  # macOS has none
    if allocate is not None:
        try:
            allocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
        else:
            return
    for start in range(0, size, _BLOCK):
        # Not zeros: a file system that compresses would keep no room for them.
        _write_whole(fd, os.urandom(min(_BLOCK, size - start)))
    os.fsync(fd)


def _write_whole(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def left_over(folder: Path) -> list[Path]:
    """Return the reserves in a folder, whosever they are."""
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
