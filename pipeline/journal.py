"""The append-only record of what was sent and received; the truth until the ledger has it.

A line is `crc32-hex SPACE json NEWLINE`, written by one `os.write`. A journal belongs to one run and one process,
which holds an `flock` on it for its life: locked means alive, free means dead. The rules that
comments name by number are in docs/journal.md.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from pipeline import reserve
from pipeline.errors import LedgerError, RunPaused
from pipeline.reserve import Reserve

FORMAT = 1
SUFFIX = ".jsonl"
PIECE_BYTES = 4 * 2**20
"""About how much is read, and loaded in one transaction, at a time (rule 7)."""
_HEADER_BYTES = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LINE_START = re.compile(rb'^[0-9a-f]{8} \{|[0-9a-f]{8} \{"type":"', re.MULTILINE)
"""In mid-line only what begins as `append` writes it: quotes in an answer are escaped, so it has nothing of the kind,
and not every look-alike in it costs a checksum of all that follows."""
_CHECK = 9
"""Bytes of a line before its JSON."""
_TYPE_FIRST = b'{"type":"'
"""How every line begins that `append` writes."""
_KINDS = {b'{"type":"sent","k': "sent", b'{"type":"attempt"': "attempt", b'{"type":"outcome"': "outcome"}
"""The types that nearly all lines have, by how their JSON begins."""
_HEAD = 17
"""Bytes of each of those beginnings."""


UNBORN_SUFFIX = ".new"
"""Of a journal that is not locked or has no header yet."""


class JournalFull(RunPaused):
    """The journal could not be written (full or failing disk); the file ends with its last whole line."""

    def __init__(self, path: Path, reason: str, *, cure: str = "make room") -> None:
        """Say which file, why, and what to do."""
        super().__init__(f"the journal {path} can't be written: {reason}; {cure}, then run the same command again")
        self.reason = reason


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Return the bytes of one line: checksum, space, JSON, newline."""
    body = orjson.dumps(fields)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def checksum_of(body: bytes) -> str:
    """Return the checksum that a line with this JSON carries."""
    return f"{zlib.crc32(body):08x}"


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line without its newline, or None if it is damaged."""
    body = _body_of(line)
    try:
        return None if body is None else orjson.loads(body)
    except ValueError:  # it begins as our lines do and has its checksum, and all the same it is none
        return None


def _body_of(line: bytes) -> bytes | None:
    """Return the JSON of a line without its newline, or None if it is damaged."""
    body = line[_CHECK:]
    try:
        if line[_CHECK - 1 : _CHECK] != b" " or int(line[: _CHECK - 1], 16) != zlib.crc32(body):
            return None
        # What begins as our lines do and has its checksum is one. A look at all else is rare, and costs ten times more.
        return body if body.startswith(_TYPE_FIRST) or isinstance(orjson.loads(body), dict) else None
    except ValueError:
        return None


class Journal:
    """The writer's side: one new file per run and process, never reopened."""

    def __init__(self, folder: Path, ledger_id: str, *, reserve_bytes: int = 0) -> None:
        """Make the file and lock it. Raises JournalFull or OSError, and then nothing is left behind.

        `reserve_bytes` of room are kept for lines that say what came back (rule 16).
        """
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.path = folder / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self.uuid = secrets.token_hex(16)
        self._size = 0
        self._torn = False
        self._reserve: Reserve | None = None
        self._tight: JournalFull | None = None
        # Under another name until it is locked, has its header, and both are on the disk: nobody sees half a journal.
        unborn = self.path.with_suffix(UNBORN_SUFFIX)
        self._fd = _new_file(unborn)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.append("header", {"format": FORMAT, "uuid": self.uuid, "ledger": ledger_id})
            if reserve_bytes:
                self._reserve = Reserve(self.path.with_suffix(reserve.SUFFIX), reserve_bytes)
            self.sync()
            unborn.rename(self.path)
        except BaseException:
            os.close(self._fd)
            unborn.unlink(missing_ok=True)
            if self._reserve is not None:
                self._reserve.give_back()
            raise
        _sync_folder(folder)

    @property
    def size(self) -> int:
        """Bytes of whole lines: what is being written just now may yet be cut back."""
        return self._size

    @property
    def journal_id(self) -> str:
        """The file's stem: what the ledger calls this journal."""
        return self.path.stem

    @property
    def deleted(self) -> bool:
        """Tell whether somebody deleted the file: what is written to it goes with this process."""
        return os.fstat(self._fd).st_nlink == 0

    @property
    def tight(self) -> bool:
        """Tell whether the disk has filled up, so that what is left of the reserve is for lines that come back."""
        return self._tight is not None

    def append(self, kind: str, fields: Mapping[str, Any], *, came_back: bool = False) -> None:
        """Write one line of this kind. Raises JournalFull after cutting back to the last whole line."""
        self.append_all([{"type": kind, **fields}], came_back=came_back)

    def append_all(self, lines: Sequence[Mapping[str, Any]], *, came_back: bool = False) -> None:
        """Write lines that belong together, in one write. Raises JournalFull, and then none of them is there.

        The first field of each is its `type`: lines that begin with it are read faster.

        Lines that say what `came_back` may use the reserve (rule 16): it is given back to the disk when they don't fit,
        and from then on no other line is taken, so that nothing more goes out.
        """
        if self._tight is not None and not came_back:
            raise self._tight
        data = b"".join([encode_line(fields) for fields in lines])
        try:
            self._write(data)
        except JournalFull as full:
            if not (came_back and self._give_back_reserve(full)):
                raise
            self._write(data)
        self._size += len(data)

    def _write(self, data: bytes) -> None:
        try:
            if self._torn:  # rule 3: never behind a torn line, both would be lost
                self._cut_back()
            written = os.write(self._fd, data)
        except OSError as error:
            self._cut_back_if_possible()
            raise self._full(error) from error
        if written != len(data):  # rule 2: seen on a full disk
            self._cut_back_if_possible()
            raise self._full()

    def _give_back_reserve(self, full: JournalFull) -> bool:
        if self._reserve is None or not self._reserve.give_back():
            return False
        self._reserve = None
        self._tight = full
        return True

    def _cut_back_if_possible(self) -> None:
        """On a failing disk the cut may fail too; then the next line tries it first."""
        self._torn = True
        with contextlib.suppress(OSError):
            self._cut_back()

    def _cut_back(self) -> None:
        os.ftruncate(self._fd, self._size)
        self._torn = False

    def _full(self, error: OSError | None = None) -> JournalFull:
        if error is None or error.errno in _FULL:
            return JournalFull(self.path, "the disk is full")
        if error.errno == errno.EROFS:
            return JournalFull(self.path, "its file system is read-only", cure="make it writable")
        return JournalFull(self.path, error.strerror or str(error), cure="see to the disk")

    def read(self, offset: int, limit: int = PIECE_BYTES) -> "Piece":
        """Read back whole lines from `offset`, at most about `limit` bytes; safe from another thread.

        Never what is being written: a short write is cut back (rule 3). A file that was deleted can be read, too.
        """
        size = self._size
        while True:
            data = os.pread(self._fd, min(limit, size - offset), offset)
            end = data.rfind(b"\n") + 1
            if end or len(data) < limit:
                break
            limit *= 2  # one line is longer
        lines, damages = _split(data, end, offset)
        return Piece(lines, damages, offset + end)

    def restore(self) -> None:
        """Write a file that was deleted anew, and keep that one from now on. Raises OSError if it can't be.

        It has its name only when it is whole (rule 1): a kill meanwhile leaves no journal that is short of lines.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():  # somebody put another one there, and it is not ours to replace
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
        unborn = self.path.with_suffix(UNBORN_SUFFIX)
        anew = _new_file(unborn)
        try:
            fcntl.flock(anew, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(anew, "wb", buffering=0, closefd=False) as file:
                for offset in range(0, self._size, PIECE_BYTES):
                    piece = memoryview(os.pread(self._fd, min(PIECE_BYTES, self._size - offset), offset))
                    while piece:
                        piece = piece[file.write(piece) :]
            _flush(anew, os.fsync)
            unborn.rename(self.path)
        except BaseException:
            os.close(anew)
            unborn.unlink(missing_ok=True)
            raise
        _sync_folder(self.path.parent)
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = anew

    def sync(self) -> None:
        """Push the file to the disk; safe from another thread. Raises JournalFull if the disk refuses."""
        try:
            _data_sync(self._fd)
        except OSError as error:
            raise self._full(error) from error

    def close(self) -> None:
        """Sync and release the lock: from now on the journal is dead and anybody may load its rest.

        Raises JournalFull if the disk refuses the last lines.
        """
        if self._fd < 0:
            return
        if self._reserve is not None:
            self._reserve.give_back()
        try:
            self.sync()
        finally:
            # Not only closed: a process that was forked meanwhile has the same lock, and would keep it.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)


def _data_sync(fd: int) -> None:
    _flush(fd, getattr(os, "fdatasync", os.fsync))


def _flush(fd: int, sync: Callable[[int], None]) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS has no fdatasync, and its fsync leaves data in the drive's cache
        with contextlib.suppress(OSError):  # a file system that doesn't know it
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    sync(fd)


def _sync_folder(folder: Path) -> None:
    """Put a new name on the disk, where the file system has a way to."""
    with contextlib.suppress(OSError):
        sync_file(folder)


def sync_file(path: Path) -> None:
    """Push what others wrote to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _flush(fd, os.fsync)
    finally:
        os.close(fd)


def sweep(folder: Path) -> None:
    """Delete what killed runs left that is no journal: reserves, and files that never became one.

    Only for whoever holds the ledger open for writing: journals are born under that lock, so no birth is disturbed. One
    that is just written anew is locked.
    """
    for path in (*reserve.left_over(folder), *folder.glob(f"*{UNBORN_SUFFIX}")):
        with contextlib.suppress(OSError):  # a read-only file system: it has to stay
            born = path.with_suffix(SUFFIX)
            if not any(each.exists() and is_alive(each) for each in (born, path)):
                path.unlink(missing_ok=True)


class Line(NamedTuple):
    """One whole line read back. Its JSON becomes Python values only when somebody asks for them."""

    offset: int
    kind: str
    """Its type, empty if it has none."""
    body: bytes
    """The JSON."""

    @property
    def fields(self) -> dict[str, Any]:
        """What it says."""
        fields: dict[str, Any] = orjson.loads(self.body)
        return fields


def _kind_of(body: bytes) -> str:
    if body.startswith(_TYPE_FIRST):
        return body[len(_TYPE_FIRST) : body.index(b'"', len(_TYPE_FIRST))].decode()
    return str(orjson.loads(body).get("type", ""))


@dataclass(frozen=True, slots=True)
class Damage:
    """A piece of a journal that is not a line: its position and length in bytes."""

    offset: int
    length: int
    torn: bool
    """True for the unfinished last line of a dead journal (a kill), False for damage inside or zeros at the end."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What `read` found between two offsets."""

    lines: list[Line]
    damages: list[Damage]
    end: int
    """Read on from here."""


def read(path: Path, offset: int = 0, *, dead: bool, limit: int = PIECE_BYTES) -> Piece:
    """Read whole lines from `offset`, at most about `limit` bytes.

    Of a live journal the tail behind the last newline is left alone (rule 3); of a dead one it is reported, unless
    nothing but its newline is missing.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(limit)
        end = data.rfind(b"\n") + 1
        if len(data) == limit and not end:  # one line is longer than the limit
            data += file.readline()
            end = data.rfind(b"\n") + 1
        whole_file = len(data) < limit or not file.read(1)
    lines, damages = _split(data, end, offset)
    if dead and whole_file and end < len(data):
        tail = data[end:]
        zeros = b"\0" in tail  # blocks that a power cut left unwritten: more than the last line may be gone
        line, damage = _mend(tail, offset + end, torn=not zeros)
        lines += [line] if line else []
        damages += [damage] if damage else []
        end = len(data)
    return Piece(lines, damages, offset + end)


def _split(data: bytes, end: int, base: int) -> tuple[list[Line], list[Damage]]:
    """Take apart what ends before `end`: in one go where every line is as `append` writes it, as nearly always."""
    lines = _split_sound(data, base)
    return _split_with_care(data[:end], base) if lines is None else (lines, [])


def _split_sound(data: bytes, base: int) -> list[Line] | None:
    """Return all whole lines at half the cost of a careful look; None if one of them wants that."""
    lines = data.split(b"\n")
    lines.pop()  # what follows the last newline
    bodies = [line[_CHECK:] for line in lines]
    said = b"".join([line[:_CHECK] for line in lines])
    found = struct.pack(f">{len(bodies)}I", *map(zlib.crc32, bodies)).hex(" ", 4).encode() + b" "
    if said != found or not all(map(bytes.startswith, bodies, repeat(_TYPE_FIRST))):
        return None
    kinds = [_KINDS.get(body[:_HEAD]) or _kind_of(body) for body in bodies]
    offsets = accumulate(map(len, lines), lambda offset, length: offset + length + 1, initial=base)
    whole = zip(offsets, kinds, bodies, strict=False)  # the last offset is that of the next line
    return list(map(tuple.__new__, repeat(Line), whole))  # a third of what `Line(...)` takes


def _split_with_care(data: bytes, base: int) -> tuple[list[Line], list[Damage]]:
    lines: list[Line] = []
    damages: list[Damage] = []
    at = 0
    while at < len(data):
        stop = data.index(b"\n", at)
        body = _body_of(data[at:stop])
        if body is not None:
            lines.append(Line(base + at, _kind_of(body), body))
            at = stop + 1
            continue
        next_at = _resynchronise(data, at + 1)
        line, damage = _mend(data[at:next_at], base + at, torn=False)
        lines += [line] if line else []
        damages += [damage] if damage else []
        at = next_at
    return lines, damages


def _mend(data: bytes, at: int, *, torn: bool) -> tuple[Line | None, Damage | None]:
    """Tell what a piece that is not a line holds: all of a line but its newline (lost or flipped), or only damage."""
    body = _body_of(data)
    if body is not None:
        return Line(at, _kind_of(body), body), None
    body = _body_of(data[:-1])
    if body is not None:
        return Line(at, _kind_of(body), body), Damage(at + len(data) - 1, 1, torn=False)
    return None, Damage(at, len(data), torn)


def _resynchronise(data: bytes, start: int) -> int:
    """Rule 4: the next place where a line starts whose checksum holds, or the end of the data."""
    for match in _LINE_START.finditer(data, start):
        stop = data.index(b"\n", match.start())
        if _body_of(data[match.start() : stop]) is not None:
            return match.start()
    return len(data)


def header_of(path: Path) -> dict[str, Any] | None:
    """Return the first line's fields, None if they are damaged. Raises LedgerError for a format of another version."""
    with path.open("rb") as file:
        fields = decode_line(file.readline(_HEADER_BYTES).rstrip(b"\n"))
    if fields is None or fields.get("type") != "header":
        return None
    if fields.get("format") != FORMAT:
        raise LedgerError(f"{path} has journal format {fields.get('format')}; this version reads format {FORMAT}")
    return fields


def is_alive(path: Path) -> bool:
    """Tell whether the process that writes this journal still lives (holds its lock)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nothing can be locked there, so nobody does
        return False
    else:
        return False
    finally:
        os.close(fd)


def files_in(folder: Path) -> list[Path]:
    """Return the journals of a ledger, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
