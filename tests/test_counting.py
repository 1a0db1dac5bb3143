"""Counting: in order, on several threads, in bounded memory, and never twice for the same request."""

import fcntl
import gzip
import io
import json
import os
import random
import re
import sys
import threading
from contextlib import closing

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import Project, texts

from pipeline import counting as counting_module
from pipeline.budget import ZERO
from pipeline.cli import _status_line, _ticker
from pipeline.counting import MOST_CHARACTERS, ROUND_STEPS, Counting, ToCount
from pipeline.counts import CountKeeper, KeptCounts, header_of
from pipeline.errors import InputError
from pipeline.estimating import Outlook, Scan, TooLong, ToSend
from pipeline.estimating._worst import ceiling_usd, worst_inputs
from pipeline.job import load_job
from pipeline.ledger import Known
from pipeline.planning import Meter, Plan, Selection
from pipeline.records import Request, TokenCount
from pipeline.sources import InputSpec, open_source
from pipeline.tokens import _fast
from pipeline.tokens._counter import Counter
from pipeline.tokens._tokenizer import tokenizer


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def meter(project):
    project.rows(texts(1))
    job = load_job(str(project.job()))
    return Meter(job, job.price)


@pytest.fixture
def counted(monkeypatch):
    """The texts that are counted, as they are counted."""
    heard = []
    original = Counter.count_all

    def listen(self, conversations, **more):
        heard.extend(messages[-1]["content"] for messages in conversations)
        return original(self, conversations, **more)

    monkeypatch.setattr(Counter, "count_all", listen)
    return heard


def request(number, text=None):
    return Request(f"v1{number:032x}", ({"role": "user", "content": f"row {number}" if text is None else text},))


def step(number, size=3):
    return ToCount(number, [request(number * 1000 + n, "word " * (n + number)) for n in range(size)], [])


# --- order, threads, bounds


def test_every_request_gets_its_own_count_in_order_whatever_the_threads_do(meter):
    chooser = random.Random(1)
    steps = [step(number, chooser.randrange(5)) for number in range(60)]
    found = list(Counting(meter).counted(steps))
    assert [each.carried for each in found] == list(range(60))
    for each, sent in zip(found, steps, strict=True):
        assert each.requests == sent.requests
        assert each.counts == [meter.count_all([one])[0] for one in sent.requests]


def test_several_threads_count_together(meter, monkeypatch):
    both = threading.Barrier(2, timeout=20)
    waited = set()
    original = Meter.count_all

    def meet(self, requests):
        name = threading.current_thread().name
        if name not in waited:
            waited.add(name)
            both.wait()  # breaks unless another thread counts at the same time
        return original(self, requests)

    monkeypatch.setattr(Meter, "count_all", meet)
    monkeypatch.setattr(counting_module, "threads", lambda: 2)
    monkeypatch.setattr(counting_module, "PIECE_CHARACTERS", 10)
    assert len(list(Counting(meter).counted([step(1, 40)]))) == 1
    assert len(waited) == 2


@pytest.mark.parametrize(("length", "alone"), [(1000, True), (3000, False)])
def test_beside_a_run_only_long_texts_are_counted_on_several_threads(meter, monkeypatch, length, alone):
    counted_on = set()

    def note(_, requests):
        counted_on.add(threading.current_thread())
        if not alone:
            both.wait()  # breaks unless another thread counts at the same time
        return [TokenCount(1, "exact", 1)] * len(requests)

    both = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(Meter, "count_all", note)
    monkeypatch.setattr(counting_module, "threads", lambda: 2)
    steps = [ToCount(None, [request(n, "x" * length) for n in range(2048)], [])]
    assert len(list(Counting(meter, sparing=True).counted(steps))) == 1
    assert (counted_on == {threading.current_thread()}) is alone


@pytest.mark.parametrize("sparing", [False, True])
def test_what_is_wrong_with_the_fast_tokenizer_is_told_with_the_first_round(meter, monkeypatch, sparing):
    def fail(self, requests):
        problems.append("toktok is broken")
        return [TokenCount(1, "exact", 1)] * len(requests)

    problems, told = [], []
    monkeypatch.setattr(Meter, "count_all", fail)
    monkeypatch.setattr(Counter, "problem", property(lambda _: problems[0] if problems else None))
    list(Counting(meter, sparing=sparing, notify=told.append).counted([step(1)]))
    assert told == ["toktok is broken"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which processors a process may use")
def test_a_process_pinned_to_one_processor_counts_on_its_own_thread_alone(meter, monkeypatch):
    counted_on = set()
    original = Meter.count_all

    def note(self, requests):
        counted_on.add(threading.current_thread())
        return original(self, requests)

    monkeypatch.setattr(Meter, "count_all", note)
    monkeypatch.setattr(counting_module, "PIECE_CHARACTERS", 10)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        (counted,) = Counting(meter).counted([step(1, 40)])
    finally:
        os.sched_setaffinity(0, allowed)
    assert counted.counts == [meter.count_all([one])[0] for one in counted.requests]
    assert counted_on == {threading.current_thread()}


def test_the_scan_is_never_more_than_a_round_ahead_and_the_first_round_is_one_step(meter):
    read = []

    def steps():
        for number in range(40):
            read.append(number)
            yield step(number)

    ahead = [read[-1] - each.carried for each in Counting(meter).counted(steps())]
    assert ahead[0] == 0
    assert max(ahead) == ROUND_STEPS - 1


def test_a_round_of_large_texts_has_fewer_steps(meter, monkeypatch):
    monkeypatch.setattr(Meter, "count_all", lambda _, requests: [TokenCount(1, "exact", 1)] * len(requests))
    text, read = "x" * (MOST_CHARACTERS // 2 + 1), []

    def steps():
        for number in range(12):
            read.append(number)
            yield ToCount(number, [request(number, text)], [])

    assert max(read[-1] - each.carried for each in Counting(meter).counted(steps())) == 1


def test_a_broken_row_is_told_behind_the_rows_before_it(meter):
    def steps():
        yield from (step(number) for number in range(6))
        raise InputError("rows.jsonl:7 is broken")

    seen = []
    with pytest.raises(InputError, match=r"rows\.jsonl:7"):
        seen.extend(each.carried for each in Counting(meter).counted(steps()))
    scan = Counting(meter).counted(steps())
    assert [next(scan).carried for _ in range(6)] == list(range(6))


class PanicException(BaseException):
    """Named as PyO3 names a Rust panic."""


@pytest.mark.parametrize("error", [PanicException("no"), MemoryError("no"), RuntimeError("no")], ids=repr)
@pytest.mark.parametrize("on_threads", [1, 4])
def test_what_a_counting_thread_raises_is_raised(meter, monkeypatch, error, on_threads):
    original = Meter.count_all

    def fail(self, requests):
        if any("00013" in one.key for one in requests):
            raise error
        return original(self, requests)

    monkeypatch.setattr(Meter, "count_all", fail)
    monkeypatch.setattr(counting_module, "threads", lambda: on_threads)
    steps = [ToCount(n, [request(n * 10 + m) for m in range(10)], []) for n in range(60)]
    assert f"{request(0x13).key}".endswith("00013")
    with pytest.raises(type(error)):
        list(Counting(meter).counted(steps))


def test_no_thread_is_left_when_a_scan_is_abandoned(meter, monkeypatch):
    monkeypatch.setattr(counting_module, "threads", lambda: 2)
    before = set(threading.enumerate())  # a failed test's traceback may hold a scan of its own
    scan = Counting(meter).counted(step(number) for number in range(100))
    next(scan)
    started = set(threading.enumerate()) - before
    assert started
    scan.close()
    for thread in started:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_sums_over_sizes_are_the_sums_over_requests_to_the_last_digit(project):
    project.rows({"id": n, "text": "word " * (n % 7)} for n in range(300))
    path = project.job()
    path.write_text(path.read_text().replace('input = "0.25"', 'input = "0.000000000007"\nper_request = "0.0001"'))
    job = load_job(str(path))
    meter, to_send = Meter(job, job.price), ToSend(Meter(job, job.price))
    requests = [row.request for batch in Plan(job).batches() for row in batch]
    counts = meter.count_all(requests)
    to_send.add(counts[:100])
    to_send.add(counts[100:])
    assert to_send.requests == 300
    assert to_send.input_tokens == sum(count.tokens for count in counts)
    charged = sum(to_send.limit_tokens(size) * number for size, number in to_send.sizes.items())
    assert charged == sum(meter.ticket(one).tokens for one in requests)
    outlook = Outlook(max_tokens=job.model.max_tokens)
    most = ceiling_usd(worst_inputs(to_send, outlook), meter, outlook, None)
    assert most == sum(meter.ticket(one).reserve_usd for one in requests)
    assert len(to_send.sizes) < 10
    assert to_send.longest == max(count.tokens for count in counts)


# --- kept counts, as a user meets them


def test_a_run_after_an_estimate_counts_nothing_again_and_neither_does_a_second_estimate(project, stub, counted):
    project.base_url = stub.base_url
    project.rows(texts(700))
    job = str(project.job())
    first = project.run("estimate", job).stdout
    assert len(counted) == 700
    counted.clear()
    again = project.run("estimate", job).stdout
    assert re.sub(r"\(.*?, counts kept from before\)", "()", again) == re.sub(
        r"\(.*?, counted by toktok\)", "()", first
    )
    project.run("run", job, "--yes")
    assert counted == []
    assert project.value("select count(*) from attempts where result = 'ok'") == 700


def test_a_run_that_asks_first_counts_once(project, stub, counted):
    project.base_url = stub.base_url
    project.rows(texts(300))
    path = project.job()
    path.write_text(path.read_text().replace('"0.25"', '"0"').replace('"2.00"', '"0"'))  # free: nobody is asked
    project.run("run", str(path))
    assert len(counted) == 300


def test_repeated_and_answered_rows_are_not_counted_and_shown_as_savings(project, stub, counted):
    project.base_url = stub.base_url
    project.rows([*texts(20), *texts(20)])
    job = str(project.job())
    project.run("run", job, "--yes", "--limit", "5")
    assert len(counted) == 5
    counted.clear()
    shown = project.run("estimate", job).stdout
    assert len(counted) == 15
    assert "15 requests (15 repeated, 10 with their outcome already: saves about $0.0" in shown


def estimated(project, **more):
    return project.run("estimate", str(project.job(**more))).stdout


def test_rows_appended_or_put_in_between_are_counted_and_no_others(project, counted):
    old = [{"id": n, "text": f"old {n}"} for n in range(1000)]
    project.rows(old)
    estimated(project)
    counted.clear()
    new = [{"id": n, "text": f"new {n}"} for n in range(30)]
    project.rows([*new[:10], *old[:400], *new[10:20], *old[450:], *new[20:]])
    estimated(project)
    assert sorted(counted) == sorted(row["text"] for row in new)
    counted.clear()
    estimated(project)
    assert counted == []


def test_counts_of_a_plan_half_answered_are_found_for_the_rest(project, stub, counted, monkeypatch):
    monkeypatch.setattr("pipeline.counts.BLOCK_RECORDS", 50)
    project.base_url = stub.base_url
    project.rows(texts(800))
    estimated(project)
    counted.clear()
    job = str(project.job())
    project.run("run", job, "--yes", "--limit", "600")
    project.run("run", job, "--yes")
    assert counted == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model": "max_tokens = 50\nseed = 3"}, id="parameters"),
        pytest.param({"more": '[output]\nschema = { type = "object" }'}, id="schema"),
        pytest.param({"model": "max_tokens = 50\nextra = { tools = [] , x = 1 }"}, id="extra"),
    ],
)
def test_another_request_is_counted_anew(project, counted, change):
    project.rows(texts(10))
    estimated(project)
    counted.clear()
    estimated(project, **change)
    assert len(counted) == 10


def test_other_answer_limits_need_no_new_counts(project, counted):
    project.rows(texts(10))
    estimated(project)
    counted.clear()
    estimated(project, model="max_tokens = 900")
    assert counted == []


def test_a_look_at_the_first_rows_does_not_replace_the_counts_of_all(project, counted):
    project.rows(texts(600))
    job = str(project.job())
    project.run("estimate", job)
    path = project.folder / "promptmill.journal" / "job.counts"
    whole = path.read_bytes()
    project.rows([{"id": 0, "text": "changed"}, *texts(600)])
    project.run("estimate", job, "--limit", "3")
    assert path.read_bytes() == whole
    counted.clear()
    project.run("estimate", job)
    assert counted == ["changed"]
    assert path.read_bytes() != whole


def test_deleting_the_kept_counts_changes_nothing_but_the_work(project, counted):
    project.rows(texts(10))
    first = estimated(project)
    (project.folder / "promptmill.journal" / "job.counts").unlink()
    assert estimated(project) == first
    assert len(counted) == 20


@pytest.mark.parametrize("place", ["no folder", "a file", "read-only"])
def test_where_counts_cannot_be_kept_an_estimate_works_all_the_same(project, counted, place):
    project.rows(texts(5))
    ledger = project.folder / "place" / "x.duckdb"
    if place != "no folder":
        ledger.parent.mkdir()
    if place == "a file":
        (ledger.parent / "x.journal").write_text("not a folder")
    if place == "read-only":
        (ledger.parent / "x.journal").mkdir()
        (ledger.parent / "x.journal" / "job.counts.part").mkdir()  # as good as read-only, for root too
    for _ in range(2):
        done = project.run("estimate", str(project.job()), "--ledger", str(ledger))
        assert "5 requests" in done.stdout
        assert done.stderr == ""
    assert len(counted) == 10


def test_a_full_disk_means_no_kept_counts_and_no_error(project, counted):
    project.rows(texts(5))
    (project.folder / "promptmill.journal").mkdir()
    (project.folder / "promptmill.journal" / "job.counts.part").symlink_to("/dev/full")
    done = project.run("estimate", str(project.job()))
    assert (done.stderr, len(counted)) == ("", 5)


def test_an_estimate_that_fails_keeps_the_old_counts_and_leaves_no_part_of_new_ones(project, counted):
    project.rows(texts(2000))
    job = str(project.job())
    project.run("estimate", job)
    folder = project.folder / "promptmill.journal"
    before = (folder / "job.counts").read_bytes()
    with (project.folder / "rows.jsonl").open("a") as file:
        file.write('{"id": "new", "text": "new"}\nnot json\n')
    project.run("estimate", job, code=2)
    assert [path.name for path in folder.iterdir()] == ["job.counts"]
    assert (folder / "job.counts").read_bytes() == before


def test_a_warning_says_once_that_the_fast_library_is_not_used(project, monkeypatch):
    def broken(_):
        raise ImportError("wrong ELF class")

    monkeypatch.setattr(_fast, "load", broken)
    tokenizer.cache_clear()
    project.rows(texts(3000))
    job = str(project.job())
    try:
        done = project.run("estimate", job)
        checked = project.run("check", job)
    finally:
        tokenizer.cache_clear()
    assert done.stderr.count("toktok-rs") == done.stderr.count("is not used for o200k_base") * 2 == 2
    assert "counted by tiktoken" in done.stdout
    assert "wrong ELF class" in checked.stderr
    assert "counted by tiktoken" in checked.stdout


# --- the file

HEADER = header_of({"counter": "a"})
KEYS = [request(n).key for n in range(200)]


def count_of(number):
    return TokenCount(number, ("exact", "formula", "approximate")[number % 3], 10 * number)


def kept(path, numbers=range(200), header=HEADER, *, whole=True):
    keeper = CountKeeper(path, header)
    for number in numbers:
        keeper.add(KEYS[number], count_of(number))
    keeper.finish(whole=whole)
    return path


@pytest.fixture
def path(tmp_path):
    (tmp_path / "x.journal").mkdir()
    return tmp_path / "x.journal" / "job.counts"


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("pipeline.counts.BLOCK_RECORDS", 16)


def found_in(path, keys=KEYS, header=HEADER):
    with closing(KeptCounts(path, header)) as counts:
        return [counts.find(key) for key in keys]


def test_what_was_kept_is_found_with_its_bound_and_method(path):
    assert found_in(kept(path)) == [count_of(n) for n in range(200)]


@pytest.mark.usefixtures("small_blocks")
def test_a_key_is_found_within_a_block_ahead_and_once_anywhere_ahead(path):
    kept(path)
    assert found_in(path, [KEYS[0], KEYS[31], KEYS[47], KEYS[40]]) == [count_of(n) for n in (0, 31, 47, 40)]
    assert found_in(path, [KEYS[20], KEYS[100]]) == [count_of(20), count_of(100)], "the first was no search"
    assert found_in(path, [KEYS[32], KEYS[33]]) == [count_of(32), count_of(33)]
    strange = "v1" + "f0" * 16
    assert found_in(path, [strange, KEYS[32], KEYS[31]]) == [None, None, count_of(31)]
    assert found_in(path, [strange, *KEYS]) == [None, *(count_of(n) for n in range(200))], "it goes on where it was"


@pytest.mark.usefixtures("small_blocks")
def test_a_reader_holds_two_blocks_whatever_the_files_length(path):
    with closing(KeptCounts(kept(path), HEADER)) as counts:
        for key in KEYS:
            assert counts.find(key) is not None
            assert len(counts._block) + len(counts._next) <= 32


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_never_gives_a_wrong_count(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("counts") / "x.journal"
    folder.mkdir()
    path = kept(folder / "job.counts")
    content = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["flip", "cut", "insert", "swap"])):
        case "flip":
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[data.draw(st.integers(0, len(content))) :]
        case "insert":
            content.insert(data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 255)))
        case "swap":
            at = data.draw(st.integers(0, len(content) - 50))
            content[at : at + 50] = content[at + 25 : at + 50] + content[at : at + 25]
    path.write_bytes(content)
    assert all(count in (None, count_of(n)) for n, count in enumerate(found_in(path)))


def test_counts_of_another_counter_are_not_believed(path):
    kept(path)
    other = header_of({"counter": "b"})
    assert found_in(path, header=other) == [None] * 200
    content = path.read_bytes()
    path.write_bytes(other + content[len(HEADER) :])  # another header before the same blocks
    assert found_in(path, header=other) == [None] * 200


@pytest.mark.parametrize("content", [b"", b"promptmill counts 1\n", b"{}\n" * 100, bytes(10_000)])
def test_a_file_of_something_else_is_ignored(path, content):
    path.write_bytes(content)
    assert found_in(path) == [None] * 200


def test_a_part_of_a_plan_replaces_only_a_shorter_file(path):
    kept(path, range(3), whole=False)
    assert found_in(path)[:4] == [*(count_of(n) for n in range(3)), None]
    kept(path, range(10))
    kept(path, range(5), whole=False)
    assert found_in(path)[:10] == [count_of(n) for n in range(10)]
    kept(path, range(20), whole=False)
    assert found_in(path)[19] == count_of(19)
    kept(path, range(5))
    assert found_in(path)[5:20] == [None] * 15


def test_of_two_writers_at_once_one_keeps_its_counts(path):
    first, second = CountKeeper(path, HEADER), CountKeeper(path, HEADER)
    for keeper, number in ((first, 1), (second, 2)):
        keeper.add(KEYS[number], count_of(number))
    second.finish(whole=True)
    first.finish(whole=True)
    assert found_in(path, KEYS[:3]) == [None, count_of(1), None]
    assert [each.name for each in path.parent.iterdir()] == ["job.counts"]


def test_a_part_that_is_somebody_elses_by_now_is_left_to_him(path):
    first = CountKeeper(path, HEADER)
    path.with_name("job.counts.part").unlink()
    second = CountKeeper(path, HEADER)
    second.add(KEYS[2], count_of(2))
    first.drop()
    second.finish(whole=True)
    assert found_in(path, KEYS[:3]) == [None, None, count_of(2)]


def test_a_part_that_was_put_in_its_place_while_another_writer_opened_it_is_not_touched(path, monkeypatch):
    first, real = CountKeeper(path, HEADER), fcntl.flock
    first.add(KEYS[1], count_of(1))

    def late(file, how):
        first.finish(whole=True)  # and so its lock is free
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second = CountKeeper(path, HEADER)
    second.add(KEYS[2], count_of(2))
    second.finish(whole=True)
    assert found_in(path, KEYS[:3]) == [None, count_of(1), None]


def test_what_a_link_in_the_place_of_the_part_points_to_is_not_overwritten(path):
    other = path.with_name("other")
    other.write_text("somebody's")
    path.with_name("job.counts.part").symlink_to(other)
    kept(path)
    assert other.read_text() == "somebody's"
    assert not path.exists()


def test_what_a_killed_writer_left_is_overwritten(path):
    path.with_name("job.counts.part").write_bytes(b"rubbish" * 10_000)
    assert found_in(kept(path)) == [count_of(n) for n in range(200)]
    assert b"rubbish" not in path.read_bytes()


def test_a_disk_that_fills_up_in_the_middle_leaves_the_old_file(path, monkeypatch):
    kept(path, range(10))
    keeper = CountKeeper(path, HEADER)
    descriptor = keeper._file.fileno()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    os.close(full)
    for number in range(100):
        keeper.add(KEYS[number], count_of(number))
    keeper.finish(whole=True)
    assert found_in(path)[:11] == [*(count_of(n) for n in range(10)), None]


def test_a_disk_that_has_no_room_for_the_first_bytes_leaves_the_old_file_and_no_part(path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            return super().write(data[:5])

    kept(path, range(10))
    monkeypatch.setattr("pipeline.counts.FileIO", Full)
    keeper = CountKeeper(path, HEADER)
    assert [each.name for each in path.parent.iterdir()] == ["job.counts"]
    keeper.add(KEYS[11], count_of(11))
    keeper.finish(whole=True)
    assert found_in(path)[:11] == [*(count_of(n) for n in range(10)), None]


def test_a_bound_too_large_for_the_file_is_counted_again(path):
    keeper = CountKeeper(path, HEADER)
    keeper.add(KEYS[0], TokenCount(1, "formula", 2**32))
    keeper.add(KEYS[1], TokenCount(1, "formula", 2**32 - 1))
    keeper.finish(whole=True)
    assert found_in(path, KEYS[:2]) == [None, TokenCount(1, "formula", 2**32 - 1)]


def test_kept_counts_reserve_what_fresh_ones_do(project):
    project.rows({"id": n, "text": "wörd " * n} for n in range(50))
    job = load_job(str(project.job()))
    meter, path = Meter(job, job.price), project.folder / "x.counts"

    def ceiling(counting):
        plan, scan = Plan(job), Scan(Known(), Selection(), job.limits, meter, TooLong(job.model, None))
        scan.run(plan, counting, None)
        found = scan.answer(plan, Outlook(), ZERO, None).forecast
        return found.ceiling_usd, found.low_usd, found.count_method

    first = ceiling(Counting(meter, path, writes=True))
    kept_only = Counting(meter, path)
    assert ceiling(kept_only) == first
    assert kept_only.made == 0


# --- how far it is


class Terminal:
    def __init__(self, *, is_terminal):
        self.isatty = lambda: is_terminal


@pytest.fixture
def shown(monkeypatch):
    """A clock to turn by hand, and what the ticker prints."""
    lines = []
    monkeypatch.setattr(_status_line.click, "echo", lambda text, **_: lines.append(text))
    clock = {"now": 100.0}
    monkeypatch.setattr(_ticker.time, "monotonic", lambda: clock["now"])

    def at(*, terminal, quiet=False):
        monkeypatch.setattr(_status_line.sys, "stderr", Terminal(is_terminal=terminal))
        return _ticker.Ticker(quiet=quiet)

    return at, clock, lines


def test_a_terminal_shows_a_bar_with_rows_rate_and_time_left(shown):
    at, clock, lines = shown
    ticker = at(terminal=True)
    ticker(256, 0.001)
    assert lines == []
    clock["now"] += 10
    ticker(250_000, 0.25)
    assert lines[-1] == "\r[#####...............] 25%  counted 250,000 rows  25,000 rows/s  30 s left"
    clock["now"] += 0.1
    ticker(250_256, 0.25)
    assert len(lines) == 1
    ticker.clear()
    ticker.clear()
    assert lines[-2:] == ["\r" + " " * (len(lines[0]) - 1), "\r"]


def test_elsewhere_there_is_a_plain_line_every_few_seconds(shown):
    at, clock, lines = shown
    ticker = at(terminal=False)
    for _ in range(12):
        clock["now"] += 1
        ticker(1000, None)
    assert lines == ["counted 1,000 rows  200 rows/s\n", "counted 1,000 rows  100 rows/s\n"]
    ticker.clear()
    assert len(lines) == 2


def test_quiet_is_quiet(shown):
    at, clock, lines = shown
    ticker = at(terminal=True, quiet=True)
    clock["now"] += 100
    ticker(1000, 0.5)
    ticker.clear()
    assert lines == []


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "jsonl.gz"])
def test_a_source_tells_which_share_of_all_its_files_is_read(project, ending):
    for name in ("a", "b"):
        rows = [{"text": "x" * 2000} for _ in range(3000)]
        path = project.folder / f"{name}.{ending}"
        if ending == "parquet":
            pl.DataFrame(rows).write_parquet(path)
        else:
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
            path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    source = open_source(InputSpec(f"*.{ending}"))
    shares = [source.share for _ in source.batches(1000)]
    if ending == "jsonl.gz":
        assert set(shares) == {None}
    else:
        assert shares == sorted(shares)
        assert 0 < shares[0] < 0.5 < shares[-2] < shares[-1] == 1.0
