"""The queue of planned rows before a locked ledger: in order, whole, and in bounded memory."""

import errno
import os
import random

import pytest
from disks import MIB, fill, memory_disk

from pipeline.errors import RunPaused
from pipeline.runners import _backlog
from pipeline.runners._backlog import Backlog


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_backlog, "MOST_ROWS", 50)
    monkeypatch.setattr(_backlog, "PIECE_ROWS", 10)


def rows(count, first=0):
    return [(1, n, f"r{n} \u00e9\n", f"k{n}", n % 2 == 0) for n in range(first, first + count)]


@pytest.mark.parametrize("seed", range(20))
def test_rows_leave_in_the_order_in_which_they_came(tmp_path, seed):
    chance = random.Random(seed)
    backlog, given, taken = Backlog(tmp_path), 0, []
    while given < 2000:
        if chance.random() < 0.6:
            count = chance.randrange(40)
            backlog.add(rows(count, given))
            given += count
        else:
            first, _ = backlog.first()
            part = first[: chance.randrange(len(first) + 1)]
            backlog.drop(len(part))
            taken += part
        assert len(backlog) == given - len(taken)
    while backlog:
        first, _ = backlog.first()
        backlog.drop(len(first))
        taken += first
    assert taken == rows(given)
    backlog.close()


def test_memory_holds_few_rows_however_many_wait_and_nothing_stays_on_the_disk(tmp_path):
    backlog = Backlog(tmp_path)
    for n in range(100):
        backlog.add(rows(10, 10 * n))
        first, all_of_them = backlog.first()
        assert len(first) + len(backlog._last) <= 60
        assert all_of_them == (n < 5)
    assert backlog.long
    assert list(tmp_path.iterdir()) == []
    backlog.close()
    assert not backlog.long


def test_rows_that_do_not_fit_on_the_disk_pause_the_run_and_are_kept(tmp_path):
    with memory_disk(tmp_path / "disk", MIB) as disk:
        backlog = Backlog(disk)
        backlog.add(rows(60))
        fill(disk)
        with pytest.raises(RunPaused, match="No space left on device; make room, then run the same command again"):
            backlog.add(rows(10, 60))
        kept, taken = len(backlog), []
        while backlog:
            first, _ = backlog.first()
            backlog.drop(len(first))
            taken += first
        assert taken == rows(kept)


def test_rows_that_can_not_be_read_now_are_read_later(tmp_path, monkeypatch):
    backlog, real = Backlog(tmp_path), os.pread
    for n in range(10):
        backlog.add(rows(10, 10 * n))
    first, _ = backlog.first()
    backlog.drop(len(first))

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(OSError, match="Input/output error"):
        backlog.first()
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, 100), at))  # a bit at a time is no error
    taken = []
    while backlog:
        more, _ = backlog.first()
        backlog.drop(len(more))
        taken += more
    assert first + taken == rows(100)


def test_a_file_that_became_shorter_is_an_error(tmp_path):
    backlog = Backlog(tmp_path)
    for n in range(10):
        backlog.add(rows(10, 10 * n))
    first, _ = backlog.first()
    backlog.drop(len(first))
    os.ftruncate(backlog._file.fileno(), 10)
    with pytest.raises(OSError, match="Input/output error"):
        backlog.first()
    backlog.close()
