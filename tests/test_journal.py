"""The journal file, rules 1 to 4 of docs/journal.md: real files, real locks, real children that are killed."""

import errno
import fcntl
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import read_all

from pipeline import journal
from pipeline.errors import LedgerError, RunPaused
from pipeline.journal import Journal, JournalFull, decode_line, encode_line

OUTPUT = 'He said "x" \\ 12345678 {\n'


def write(folder, count=20, *, end=True):
    """Write a journal of this many `note` lines; its process is gone."""
    started = Journal(folder, "ledger-1")
    for n in range(count):
        started.append("note", {"n": n, "text": OUTPUT * (n % 3)})
    if end:
        started.append("end", {"exit_code": 0})
    started.close()
    return started.path


def notes(piece):
    return [line.fields["n"] for line in piece.lines if line.fields["type"] == "note"]


def child(code, *arguments):
    """Run Python code in a process of its own; it says `ready` when it is to be looked at."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "ready\n"
    return started


def kill(started):
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    started.stdout.close()
    started.stdin.close()


WRITER = """
import sys
from pathlib import Path
from pipeline.journal import Journal
started = Journal(Path(sys.argv[1]), "ledger-1")
n = 0
while True:
    started.append("note", {"n": n, "text": "x" * (n % 900)})
    n += 1
    if n == 50:
        print("ready", flush=True)
"""


@pytest.fixture
def flushed(tmp_path, monkeypatch):
    """What is pushed to the disk, how long it is by then, and what the folder holds."""
    seen, real = [], journal._flush

    def look(fd, sync):
        facts = os.fstat(fd)
        names = sorted(path.suffix for path in tmp_path.iterdir())
        seen.append(("folder", None, names) if stat.S_ISDIR(facts.st_mode) else ("file", facts.st_size, names))
        real(fd, sync)

    monkeypatch.setattr(journal, "_flush", look)
    return seen


def refuse_to_flush(monkeypatch):
    def fails(fd, sync):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal, "_flush", fails)


def open_files():
    return len(list(Path("/dev/fd").iterdir()))


# -- rule 1: one file per run and process -----------------------------------------------------------


def test_each_journal_is_a_new_file_that_starts_with_its_header(tmp_path):
    paths = [write(tmp_path / "j", 1) for _ in range(3)]
    assert len(set(paths)) == 3
    assert journal.files_in(tmp_path / "j") == sorted(paths)
    headers = [journal.header_of(path) for path in paths]
    assert len({header["uuid"] for header in headers}) == 3
    assert all(header["format"] == journal.FORMAT and header["ledger"] == "ledger-1" for header in headers)
    assert str(os.getpid()) in paths[0].name


def test_a_journal_is_alive_while_its_process_lives_and_dead_once_it_is_killed(tmp_path):
    started = child(WRITER, tmp_path)
    (path,) = journal.files_in(tmp_path)
    assert journal.is_alive(path)
    kill(started)
    assert not journal.is_alive(path)


def test_asking_whether_a_journal_lives_does_not_end_its_life(tmp_path):
    started = Journal(tmp_path, "l")
    assert [journal.is_alive(started.path) for _ in range(3)] == [True, True, True]
    started.close()
    assert not journal.is_alive(started.path)


def test_a_new_journal_is_on_the_disk_before_it_has_its_name_and_then_its_name_is_too(tmp_path, flushed):
    before = open_files()
    started = Journal(tmp_path, "l")
    assert flushed == [("file", started.size, [".new"]), ("folder", None, [".jsonl"])]
    started.close()
    assert flushed[2:] == [("file", started.size, [".jsonl"])]
    assert open_files() == before


def test_a_journal_is_dead_once_it_is_closed_though_a_process_that_was_forked_meanwhile_has_it_open(tmp_path):
    started = Journal(tmp_path, "l")
    forked = os.dup(started._fd)  # the same open file, and with it the same lock
    started.close()
    assert not journal.is_alive(started.path)
    os.close(forked)


def test_a_journal_whose_last_lines_the_disk_refuses_is_dead_all_the_same(tmp_path, monkeypatch):
    before = open_files()
    started = Journal(tmp_path, "l", reserve_bytes=4096)
    refuse_to_flush(monkeypatch)
    with pytest.raises(JournalFull, match="Input/output error; see to the disk, then run the same command again"):
        started.close()
    assert not journal.is_alive(started.path)
    assert list(tmp_path.iterdir()) == [started.path], "the reserve is given back"
    assert open_files() == before
    started.close()


def test_a_journal_that_does_not_reach_the_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    before = open_files()
    refuse_to_flush(monkeypatch)
    with pytest.raises(JournalFull, match="Input/output error"):
        Journal(tmp_path, "l", reserve_bytes=4096)
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before


@pytest.mark.parametrize("known", [True, False])
def test_where_a_sync_leaves_data_in_the_drives_cache_the_drive_itself_is_told(tmp_path, monkeypatch, known):
    """On macOS: but a file system that does not know the command is synced as elsewhere."""
    told, synced = [], []

    def tell(fd, command):
        told.append(command)
        if not known:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", tell)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, synced.append, raising=False)
    started = Journal(tmp_path, "l")
    started.path.unlink()
    started.restore()
    journal.sync_file(started.path)
    started.close()
    assert told == [51] * 6, "two files and their names, what others wrote, and the last lines"
    assert len(synced) == (0 if known else 6)


def test_only_what_no_living_process_has_is_swept_away(tmp_path):
    live = Journal(tmp_path, "l", reserve_bytes=4096)
    dead = Journal(tmp_path, "l")
    dead.close()
    kept = {*tmp_path.iterdir(), tmp_path / "job.counts"}
    (tmp_path / "job.counts").touch()
    for left in (dead.path, tmp_path / "20260101T000000-1-aa"):
        left.with_suffix(".reserve").touch()
        left.with_suffix(".new").touch()
    journal.sweep(tmp_path)
    assert {*tmp_path.iterdir()} == kept
    live.close()
    journal.sweep(tmp_path / "nowhere")


def test_closing_twice_is_closing_once(tmp_path):
    started = Journal(tmp_path, "l")
    started.close()
    started.close()


def test_a_folder_without_journals_has_none(tmp_path):
    assert journal.files_in(tmp_path / "nowhere") == []
    (tmp_path / "job.lock").touch()
    (tmp_path / "20260101T000000-1-aa.new").touch()
    assert journal.files_in(tmp_path) == []


@pytest.mark.parametrize("content", [b"", bytes(5000), b'{"text": "a dataset"}\n'])
def test_a_file_that_does_not_start_as_a_journal_has_no_header(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    assert journal.header_of(path) is None


def test_a_journal_of_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(encode_line({"type": "header", "format": 2, "uuid": "u", "ledger": "l"}))
    with pytest.raises(LedgerError, match="format 2; this version reads format 1"):
        journal.header_of(path)


# -- rule 2: lines and short writes -----------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(-(2**53), 2**53) | st.none()))
def test_whatever_is_written_reads_back(fields):
    line = encode_line(fields)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_line(line[:-1]) == fields
    assert line[:8].decode() == journal.checksum_of(line[9:-1])


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_line_with_any_flipped_bit_is_not_taken_for_another(position, bit):
    fields = {"type": "attempt", "key": "v1abc", "output": OUTPUT, "computed_usd": "0.000123"}
    line = bytearray(encode_line(fields)[:-1])
    line[position % len(line)] ^= 1 << bit
    assert decode_line(bytes(line)) in (None, fields)  # `a` and `A` are the same checksum


@pytest.mark.parametrize("line", [b"", b"00000000 {}", b"zzzzzzzz {}", b"12345678{}", b"\x00" * 30, b"00000000 "])
def test_what_is_not_a_line_is_damage(line):
    assert decode_line(line) is None


@pytest.mark.parametrize("body", [b"[1]", b'{"type":"sent"', b'{"type":"attempt",}'])
def test_a_line_with_its_checksum_that_is_no_json_object_is_damage(body):
    assert decode_line(b"%08x %b" % (zlib.crc32(body), body)) is None


FULL = """
import os, resource, signal, sys
from pathlib import Path
from pipeline import journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
started = journal.Journal(Path(sys.argv[1]), "l")
for n in range(10):
    started.append("note", {"n": n})
whole = started.size
for room in (400, 1, 0):  # a part of the line fits, one byte does, nothing does
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + room, resource.RLIM_INFINITY))
    try:
        started.append("note", {"n": -1, "text": "x" * 600})
    except journal.JournalFull as full:
        assert "can't be written" in str(full) and "run the same command again" in str(full), full
    else:
        raise SystemExit("the line was taken")
    assert started.path.stat().st_size == whole == started.size
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
started.append("note", {"n": 10})
started.close()
print("ready", flush=True)
"""


def test_a_short_write_is_cut_back_to_the_last_whole_line_and_later_lines_are_good(tmp_path):
    done = child(FULL, tmp_path)
    assert done.wait() == 0
    done.stdout.close()
    done.stdin.close()
    piece = journal.read(journal.files_in(tmp_path)[0], dead=True)
    assert notes(piece) == list(range(11))
    assert piece.damages == []


def test_a_full_journal_pauses_the_run():
    assert issubclass(JournalFull, RunPaused)


def test_nothing_is_written_behind_a_line_that_could_not_be_cut_back(tmp_path):
    """A failing disk refuses the cut too: the next line tries it first, and is refused as long as it fails."""
    started = Journal(tmp_path, "l")
    started.append("note", {"n": 0})
    real, whole = started._fd, started.size
    started._fd = os.open(started.path, os.O_RDONLY)  # writes and cuts fail, as on a disk that went read-only
    for _ in range(2):
        with pytest.raises(JournalFull):
            started.append("note", {"n": 1})
    os.close(started._fd)
    started._fd = real
    os.write(real, b"half a li")  # what a failing disk may leave
    started.append("note", {"n": 2})
    started.close()
    piece = journal.read(started.path, dead=True)
    assert started.path.stat().st_size > whole
    assert notes(piece) == [0, 2]
    assert piece.damages == []


def test_the_run_itself_never_reads_what_may_yet_be_cut_back(tmp_path):
    """While a write is under way its first lines are in the file, whole: but if the rest does not fit, all go."""
    started = Journal(tmp_path, "l")
    started.append("note", {"n": 0})
    size = started.size
    os.write(started._fd, encode_line({"type": "note", "n": 1}) + b"half a li")
    piece = started.read(0)
    assert notes(piece) == [0]
    assert piece.end == size
    started._cut_back()
    started.append("note", {"n": 2})
    assert notes(started.read(size)) == [2]
    started.close()


@pytest.mark.parametrize("limit", [1, 100, 1000, 10**6])
def test_a_run_reads_its_own_journal_as_others_do_and_also_when_it_was_deleted(tmp_path, limit):
    started = Journal(tmp_path, "l")
    for n in range(60):
        started.append("note", {"n": n, "text": OUTPUT * (n % 3)})
    whole = journal.read(started.path, dead=False).lines
    assert not started.deleted
    started.path.unlink()
    assert started.deleted
    lines, offset = [], 0
    while (piece := started.read(offset, limit)).end > offset:
        lines, offset = lines + piece.lines, piece.end
    assert lines == whole
    started.close()


def test_a_journal_that_was_deleted_can_be_written_anew_and_lives_on(tmp_path):
    started = Journal(tmp_path / "some" / "folder", "l")
    started.append("note", {"n": 0})
    shutil.rmtree(tmp_path / "some")
    before = open_files()
    started.restore()
    assert open_files() == before
    assert not started.deleted
    assert journal.is_alive(started.path)
    started.append("note", {"n": 1})
    started.close()
    assert notes(journal.read(started.path, dead=True)) == [0, 1]


@pytest.mark.parametrize("piece", [journal.PIECE_BYTES, 100])
def test_a_journal_that_is_written_anew_is_the_same_to_the_last_byte_of_its_whole_lines(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("pipeline.journal.PIECE_BYTES", piece)
    started = Journal(tmp_path, "l")
    for n in range(20):
        started.append("note", {"n": n, "text": OUTPUT})
    whole = started.path.read_bytes()
    started.path.unlink()
    os.write(started._fd, b"half a li")  # what a failing disk may leave
    started.restore()
    assert started.path.read_bytes() == whole
    started.close()


def test_the_name_of_a_journal_that_is_written_anew_is_on_the_disk_behind_its_lines(tmp_path, flushed):
    started = Journal(tmp_path, "l")
    started.path.unlink()
    flushed.clear()
    started.restore()
    assert flushed == [("file", started.size, [".new"]), ("folder", None, [".jsonl"])]
    started.close()


def test_a_journal_that_is_written_anew_has_its_name_only_when_it_is_whole_and_nobody_sweeps_it_away(
    tmp_path, monkeypatch
):
    started = Journal(tmp_path, "l")
    started.append("note", {"n": 0})
    started.path.unlink()
    named = []

    def look(fd, sync):
        named.append(started.path.exists())
        journal.sweep(tmp_path)

    monkeypatch.setattr(journal, "_flush", look)
    started.restore()
    assert named[0] is False
    started.close()
    assert [path.name for path in tmp_path.iterdir()] == [started.path.name]
    assert notes(journal.read(started.path, dead=True)) == [0]


def test_a_journal_that_can_t_be_written_anew_leaves_nothing_behind_and_replaces_nothing(tmp_path, monkeypatch):
    started = Journal(tmp_path, "l")
    started.path.unlink()
    with monkeypatch.context() as broken:
        refuse_to_flush(broken)
        before = open_files()
        with pytest.raises(OSError, match="Input/output error"):
            started.restore()
        assert open_files() == before
    assert list(tmp_path.iterdir()) == []
    started.path.write_text("somebody's copy")
    with pytest.raises(FileExistsError):
        started.restore()
    assert started.path.read_text() == "somebody's copy"
    started.close()


UNBORN = """
import resource, signal, sys
from pathlib import Path
from pipeline import journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    journal.Journal(Path(sys.argv[1]), "l")
except journal.JournalFull:
    sys.stdout.write("ready\\n")
"""


def test_a_journal_that_could_not_get_its_header_leaves_nothing_behind(tmp_path):
    done = child(UNBORN, tmp_path)
    assert done.wait() == 0
    done.stdout.close()
    done.stdin.close()
    assert list(tmp_path.iterdir()) == []


# -- rule 3: ends -----------------------------------------------------------------------------------


def test_readers_stop_at_the_last_newline_of_a_live_journal(tmp_path):
    path = write(tmp_path, 5, end=False)
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(encode_line({"type": "note", "n": 5})[:-7])
    piece = journal.read(path, dead=False)
    assert (notes(piece), piece.end, piece.damages) == ([0, 1, 2, 3, 4], whole, [])
    with path.open("ab") as file:
        file.write(encode_line({"type": "note", "n": 5})[-7:])
    later = journal.read(path, piece.end, dead=False)
    assert notes(later) == [5]
    assert later.lines[0].offset == whole


KINDS = ("sent", "attempt", "outcome", "sen", "sent2", "attempts", "outcome_of", "note", "")


NO_OBJECT = b"%08x [1]\n" % zlib.crc32(b"[1]")


@pytest.mark.parametrize("foreign", [b"", encode_line({"key": "v1", "type": "sent"}), b"no line\n", NO_OBJECT])
def test_a_line_keeps_its_kind_and_its_place_whatever_stands_around_it(tmp_path, foreign):
    started = Journal(tmp_path, "ledger-1")
    for kind in KINDS:
        started.append(kind, {"key": "v1", "n": 1})
        started.append(kind, {})
    started.close()
    with started.path.open("ab") as file:
        file.write(foreign)
    piece = journal.read(started.path, dead=True)
    wrote = ["header", *(kind for kind in KINDS for _ in range(2)), *["sent"] * (b"type" in foreign)]
    assert [line.kind for line in piece.lines] == wrote
    data = started.path.read_bytes()
    assert all(data[line.offset + 9 :].startswith(line.body + b"\n") for line in piece.lines)
    assert [damage.offset for damage in piece.damages] == [started.size] * (foreign in {b"no line\n", NO_OBJECT})


def test_the_torn_tail_of_a_dead_journal_is_reported_with_its_place(tmp_path):
    path = write(tmp_path, 5, end=False)
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'1234abcd {"type":"att')
    piece = journal.read(path, dead=True)
    assert notes(piece) == [0, 1, 2, 3, 4]
    assert piece.damages == [journal.Damage(whole, 21, torn=True)]
    assert piece.end == path.stat().st_size


def test_a_last_line_that_lost_nothing_but_its_newline_is_kept(tmp_path):
    path = write(tmp_path, 5, end=False)
    os.truncate(path, path.stat().st_size - 1)
    piece = journal.read(path, dead=True)
    assert (notes(piece), piece.damages, piece.end) == ([0, 1, 2, 3, 4], [], path.stat().st_size)
    assert notes(journal.read(path, dead=False)) == [0, 1, 2, 3]


def test_a_child_killed_while_writing_leaves_whole_lines_in_order(tmp_path):
    started = child(WRITER, tmp_path)
    (path,) = journal.files_in(tmp_path)
    piece = journal.read(path, dead=False)  # while it writes
    assert notes(piece) == list(range(len(notes(piece))))
    kill(started)
    piece = journal.read(path, dead=True)
    assert notes(piece) == list(range(len(notes(piece))))
    assert len(notes(piece)) >= 50
    assert len(piece.damages) <= 1
    assert all(damage.torn for damage in piece.damages)


def test_wherever_a_file_is_cut_every_line_before_the_cut_is_there(tmp_path):
    path = write(tmp_path, 4)
    data = path.read_bytes()
    whole = journal.read(path, dead=True).lines
    for length in range(len(data)):
        path.write_bytes(data[:length])
        piece = journal.read(path, dead=True)
        ends = [(line, line.offset + len(encode_line(line.fields)) - 1) for line in whole]
        assert piece.lines == [line for line, end in ends if end <= length]
        kept = sum(len(encode_line(line.fields)) for line in piece.lines)
        assert sum(damage.length for damage in piece.damages) == max(length - kept, 0)


# -- rule 4: damage inside --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_byte_costs_at_most_its_own_line_and_is_reported_with_its_place(tmp_path, seed):
    path = write(tmp_path, 40)
    data = path.read_bytes()
    whole = journal.read(path, dead=True).lines
    chance = random.Random(seed)
    for _ in range(150):
        position = chance.randrange(len(data))
        damaged = bytearray(data)
        damaged[position] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        piece = journal.read(path, dead=True)
        lost = [line for line in whole if line not in piece.lines]
        assert len(lost) <= 1
        assert all(line in whole for line in piece.lines), "no line is made up"
        if piece.damages:
            (first, *more) = piece.damages
            assert all(damage.length for damage in piece.damages)
            end = (more or [first])[-1]
            assert first.offset <= position < end.offset + end.length
        else:
            assert not lost
        for line in lost:
            length = len(encode_line(line.fields))
            assert sum(damage.length for damage in piece.damages) == length


def test_a_flipped_newline_costs_no_line(tmp_path):
    path = write(tmp_path, 10)
    data = bytearray(path.read_bytes())
    newlines = [n for n, byte in enumerate(data) if byte == ord("\n")]
    for at in newlines:
        data[at] = ord("?")
        path.write_bytes(data)
        piece = journal.read(path, dead=True)
        assert notes(piece) == list(range(10))
        assert piece.damages == [journal.Damage(at, 1, torn=False)]
        data[at] = ord("\n")


def test_a_newline_that_is_gone_costs_no_line(tmp_path):
    path = write(tmp_path, 20)
    data = path.read_bytes()
    newlines = [n for n, byte in enumerate(data) if byte == ord("\n")]
    for at in newlines[1:]:
        path.write_bytes(data[:at] + data[at + 1 :])
        piece = journal.read(path, dead=True)
        assert (notes(piece), piece.damages) == (list(range(20)), [])


def test_a_block_of_zeros_costs_only_the_lines_it_covers(tmp_path):
    path = write(tmp_path, 300)
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)
    piece = journal.read(path, dead=True)
    whole = [line.offset for line in journal.read(write(tmp_path, 300), dead=True).lines]
    assert len(piece.damages) == 1
    damage = piece.damages[0]
    assert damage.offset <= 4096
    assert damage.offset + damage.length >= 8192
    touched = [n for n, start in enumerate(whole[:-1]) if start < 8192 and whole[n + 1] > 4096]
    assert len(piece.lines) == len(whole) - len(touched)


def test_an_answer_that_looks_like_a_line_is_not_taken_for_one_when_its_line_is_damaged(tmp_path):
    started = Journal(tmp_path, "l")
    forged = encode_line({"type": "attempt", "key": "forged"}).decode()
    started.append("attempt", {"key": "honest", "output": f"{forged}{forged}"})
    started.append("note", {"n": 1})
    started.close()
    data = bytearray(started.path.read_bytes())
    data[data.index(b"honest")] ^= 1
    started.path.write_bytes(data)
    piece = journal.read(started.path, dead=True)
    assert [line.fields["type"] for line in piece.lines] == ["header", "note"]
    assert len(piece.damages) == 1


@pytest.mark.parametrize("look_alike", ["deadbeef {", 'deadbeef {"type":"'])
def test_a_damaged_answer_full_of_what_looks_like_lines_costs_no_checksum_for_each(tmp_path, monkeypatch, look_alike):
    started = Journal(tmp_path, "l")
    started.append("attempt", {"key": "k", "output": look_alike * 1000})
    started.append("note", {"n": 1})
    started.close()
    data = bytearray(started.path.read_bytes())
    data[data.index(b"output")] ^= 1
    started.path.write_bytes(data)
    looked, real = [], journal._body_of
    monkeypatch.setattr(journal, "_body_of", lambda line: looked.append(len(line)) or real(line))
    assert [line.kind for line in journal.read(started.path, dead=True).lines] == ["header", "note"]
    assert len(looked) < 10


# -- reading in pieces ------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 100, 1000, 10**6])
def test_a_journal_reads_the_same_in_pieces_of_any_size(tmp_path, limit):
    path = write(tmp_path, 60)
    with path.open("ab") as file:
        file.write(b"torn")
    lines, damages, offset = [], [], 0
    while offset < path.stat().st_size:
        piece = journal.read(path, offset, dead=True, limit=limit)
        assert piece.end > offset
        assert piece.end - offset <= limit + 200
        lines, damages, offset = lines + piece.lines, damages + piece.damages, piece.end
    whole = journal.read(path, dead=True)
    assert (lines, damages) == (whole.lines, whole.damages)
    assert [line.fields for line in lines] == [orjson.loads(raw[9:]) for raw in path.read_bytes().split(b"\n")[:-1]]


def test_a_damaged_last_line_of_a_piece_hides_nothing_of_the_next(tmp_path):
    path = write(tmp_path, 30)
    whole = journal.read(path, dead=True)
    data = bytearray(path.read_bytes())
    data[whole.lines[10].offset + 12] ^= 255
    path.write_bytes(data)
    for limit in range(whole.lines[10].offset - 5, whole.lines[11].offset + 5):
        first = journal.read(path, 0, dead=True, limit=limit)
        second = journal.read(path, first.end, dead=True)
        assert len(first.lines) + len(second.lines) == len(whole.lines) - 1
        assert len(first.damages) + len(second.damages) == 1


def test_read_all_yields_every_line_once(tmp_path):
    path = write(tmp_path, 25)
    assert [line.fields.get("n") for line in read_all(path, dead=True)] == [None, *range(25), None]
