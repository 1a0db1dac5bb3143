"""Token counts kept beside the journals, so that the next command does not count the same requests again.

A file of a job (`JOB.counts`) has fixed-size records in the order of a plan: a key's digest, tokens, bound, method. It
is read in step with the next scan, so that neither side holds more than two blocks of it. It is a cache: deleting it
is always safe, a damaged or foreign one is not believed, and one that can't be written is simply not there. Checksums
guard against damage, not against somebody who forges counts.
"""

import contextlib
import fcntl
import hashlib
import os
import struct
import zlib
from binascii import unhexlify
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, get_args

import orjson

from pipeline.files import open_own
from pipeline.records import CountMethod, TokenCount

SUFFIX = ".counts"
BLOCK_RECORDS = 4096
"""Records that share a checksum. A key is looked for in this block and the next one: 4,096 records ahead at least."""
_MAGIC = b"promptmill counts 1\n"
_IDENTITY_BYTES = 16
_RECORD = struct.Struct("<16sIIB")
_BLOCK = struct.Struct("<II")
_METHODS: tuple[CountMethod, ...] = get_args(CountMethod)
_CODES = {method: code for code, method in enumerate(_METHODS)}
_MOST = 2**32 - 1
_DIGEST = 2
"""Where a key's digest begins: behind `v1`."""


def header_of(facts: Mapping[str, Any]) -> bytes:
    """Return the header that says what counts depend on beside a request's key: other facts, other counts."""
    canonical = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    return _MAGIC + hashlib.blake2b(canonical, digest_size=_IDENTITY_BYTES).digest()


class KeptCounts:
    """The reader's side. Ask for the plan's keys in order, also for those that need no count: so it keeps step."""

    def __init__(self, path: Path, header: bytes) -> None:
        self._file: BinaryIO | None = None
        self._seed = zlib.crc32(header)
        self._block: dict[bytes, TokenCount] = {}
        self._next: dict[bytes, TokenCount] = {}
        self._at_end = self._sought = False
        with contextlib.suppress(OSError):
            file = path.open("rb")
            self._file = file
            if file.read(len(header)) != header:
                self.close()
        self._block, self._next = self._read(), self._read()

    @property
    def ended(self) -> bool:
        """Tell whether nothing can be found any more."""
        return not self._block and not self._next

    def find(self, key: str) -> TokenCount | None:
        """Return the count of a key, None if it is not kept near where the last one was."""
        digest = unhexlify(key[_DIGEST:])
        found = self._block.get(digest)
        if found is None:
            found = self._next.get(digest)
            if found is None and not self._sought:
                found = self._seek(digest)
            if found is None:
                return None
            self._block, self._next = self._next, self._read()
        return found

    def _seek(self, digest: bytes) -> TokenCount | None:
        """Search the whole file, once: a resumed run passes over what is answered, and begins far behind the start."""
        self._sought = True
        if self._file is None:
            return None
        before = self._block, self._next, self._file.tell()
        while self._next:
            found = self._next.get(digest)
            if found is not None:
                return found
            self._block, self._next = self._next, self._read()
        self._block, self._next = before[:2]
        self._file.seek(before[2])
        self._at_end = False
        return None

    def close(self) -> None:
        """Close the file; what was read ahead is still found."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> dict[bytes, TokenCount]:
        """Read a block; none at the end, and nothing behind a block that is damaged."""
        if self._file is None or self._at_end:
            return {}
        with contextlib.suppress(OSError, struct.error, IndexError):
            length, checksum = _BLOCK.unpack(self._file.read(_BLOCK.size))
            if length <= BLOCK_RECORDS:
                data = self._file.read(length * _RECORD.size)
                if zlib.crc32(data, self._seed) == checksum:
                    records = _RECORD.iter_unpack(data)
                    return {
                        digest: TokenCount(tokens, _METHODS[method], bound) for digest, tokens, bound, method in records
                    }
        self._at_end = True
        return {}


class CountKeeper:
    """The writer's side: a new file under another name, in place of the old one when it is whole."""

    def __init__(self, path: Path, header: bytes) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._seed = zlib.crc32(header)
        self._pending: list[bytes] = []
        self._size = len(header)
        self._file: FileIO | None = None
        self._open(header)

    def _open(self, header: bytes) -> None:
        """Open the part file and lock it, where that can be done and no other process is at it."""
        try:
            if not self._path.parent.parent.is_dir():
                return
            self._path.parent.mkdir(exist_ok=True)
            file = FileIO(open_own(self._part, os.O_RDWR | os.O_CREAT), "r+")
        except OSError:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _is_at(file, self._part)  # nobody has just put it in place
        except OSError:
            ours = False
        if not ours:
            file.close()
            return
        self._file, written = file, 0
        with contextlib.suppress(OSError):
            file.truncate()
            written = file.write(header)
        if written != len(header):
            self.drop()

    def add(self, key: str, count: TokenCount) -> None:
        """Keep a count, behind those before it."""
        tokens, method, bound = count
        if self._file is None or bound > _MOST:
            return
        self._pending.append(_RECORD.pack(unhexlify(key[_DIGEST:]), tokens, bound, _CODES[method]))
        if len(self._pending) == BLOCK_RECORDS:
            self._write()

    def finish(self, *, whole: bool) -> None:
        """Put the file in the old one's place; if it isn't the `whole` plan, only in that of a shorter one."""
        self._write()
        with contextlib.suppress(OSError):
            if self._file is not None and (whole or self._size > _size(self._path)):
                self._part.rename(self._path)
        self.drop()

    def drop(self) -> None:
        """End without a new file, if it is not in place yet."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if _is_at(self._file, self._part):
                self._part.unlink()
        self._file.close()
        self._file = None

    def _write(self) -> None:
        if self._file is None or not self._pending:
            return
        data = b"".join(self._pending)
        block = _BLOCK.pack(len(self._pending), zlib.crc32(data, self._seed)) + data
        self._pending = []
        self._size += len(block)
        written = 0
        with contextlib.suppress(OSError):
            written = self._file.write(block)
        if written != len(block):  # the disk is full: there is no cache, and that is all
            self.drop()


def _is_at(file: FileIO, path: Path) -> bool:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
