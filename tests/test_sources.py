"""Inputs: which files a path stands for, and the promises that every format keeps."""

import gzip
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.records import BrokenRow, Row
from pipeline.sources import InputSpec, Source, open_source
from pipeline.sources._formats import find_format, format_names

ROWS = [
    {
        "id": f"r{n}",
        "n": n,
        "score": n / 4,
        "lang": "en" if n % 3 else None,
        "tags": [{"b": "é\u2028"}],
        "ok": n > 1,
    }
    for n in range(2500)
]


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def as_zstd(data: bytes, file: Path) -> None:
    """Polars compresses: a CSV of one column without quotes is the text itself."""
    frame = pl.DataFrame({"line": data.decode().split("\n")[:-1]})
    frame.lazy().sink_csv(file, include_header=False, quote_style="never", compression="zstd", check_extension=False)


WRITERS: dict[str, Callable[[list[dict[str, Any]], Path], object]] = {
    ".jsonl": lambda rows, file: file.write_bytes(as_lines(rows)),
    ".ndjson": lambda rows, file: file.write_bytes(as_lines(rows)),
    ".jsonl.gz": lambda rows, file: file.write_bytes(gzip.compress(as_lines(rows))),
    ".ndjson.gz": lambda rows, file: file.write_bytes(gzip.compress(as_lines(rows))),
    ".jsonl.zst": lambda rows, file: as_zstd(as_lines(rows), file),
    ".ndjson.zst": lambda rows, file: as_zstd(as_lines(rows), file),
    ".parquet": lambda rows, file: pl.DataFrame(rows).write_parquet(file, row_group_size=300),
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=sorted(WRITERS))
def ending(request: pytest.FixtureRequest) -> str:
    return request.param


def write(name: str, rows: list[dict[str, Any]] = ROWS, ending: str = ".jsonl") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    WRITERS[ending](rows, Path(name + ending))
    return name + ending


def read(path: str, **settings: Any) -> list[Row | BrokenRow]:
    return [row for batch in open_source(InputSpec(path, **settings)).batches() for row in batch]


def test_every_ending_of_every_format_is_tested_here():
    assert sorted(WRITERS) == sorted(ending for name in format_names() for ending in find_format(name).ENDINGS)


# The same promises over every format


def test_rows_come_in_order_with_values_as_they_stand(ending):
    rows = read(write("data", ending=ending))
    assert [row.values for row in rows] == ROWS
    assert [type(row.values["score"]) for row in rows[:5]] == [float] * 5
    assert [row.index for row in rows] == list(range(2500))
    assert [row.id for row in rows[:2]] == ["1", "2"]
    mark = "#" if ending == ".parquet" else ":"
    assert rows[1200].origin == f"data{ending}{mark}1201"


def test_the_id_column_names_the_rows(ending):
    assert [row.id for row in read(write("data", ending=ending), id="id")][-1] == "r2499"


def test_where_selects_and_rows_keep_their_true_index(ending):
    rows = read(write("data", ending=ending), where="lang = 'en' and n > 1000")
    assert [row.index for row in rows] == [n for n in range(1001, 2500) if n % 3]
    assert all(row.values == ROWS[row.index] for row in rows)
    assert rows[0].id == "1002"


def test_limit_takes_the_first_rows_after_where(ending):
    path = write("data", ending=ending)
    assert [row.index for row in read(path, limit=3)] == [0, 1, 2]
    assert [row.index for row in read(path, where="n >= 1999", limit=2)] == [1999, 2000]


def test_a_row_whose_condition_is_null_is_not_selected(ending):
    path = write("data", ending=ending)
    assert len(read(path, where="lang <> 'de'")) == len(read(path, where="lang = 'en'")) == 1666
    assert len(read(path, where="lang is null")) == 834


@pytest.mark.parametrize("size", [1, 999, 1000, 2500, 10_000])
def test_batches_have_the_size_that_was_asked_for(ending, size):
    batches = list(open_source(InputSpec(write("data", ending=ending))).batches(size))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert [row.index for batch in batches for row in batch] == list(range(2500))


def test_a_scan_can_be_abandoned_and_repeated(ending):
    source = open_source(InputSpec(write("data", ending=ending)))
    for _ in range(2):
        batches = source.batches(10)
        assert len(next(batches)) == 10
        batches.close()
    assert sum(map(len, source.batches())) == 2500


def bits(indexes):
    passed = bytearray(max(indexes, default=0) // 8 + 1)
    for index in indexes:
        passed[index >> 3] |= 1 << (index & 7)
    return bytes(passed)


@pytest.mark.parametrize(
    "done",
    [{0}, {2499}, set(range(2500)), set(range(1003)), set(range(0, 2500, 2)), set(range(700)) | {705, 1000, 2000}],
    ids=["the first", "the last", "all", "a prefix", "every other", "a prefix with holes behind"],
)
def test_rows_that_are_passed_over_are_counted_and_not_read(ending, done):
    write("parts/a", ROWS[:901], ending)
    write("parts/b", ROWS[901:], ending)
    for settings in ({}, {"where": "n >= 9", "id": "id"}):
        source = open_source(InputSpec("parts", **settings))
        whole = [row for batch in source.batches() for row in batch]
        rest = [row for batch in source.batches(passed=bits(done)) for row in batch]
        assert rest == [row for row in whole if row.index not in done]


def test_several_files_count_as_one_input(ending):
    write("parts/a", ROWS[:10], ending)
    write("parts/b", ROWS[10:30], ending)
    rows = read("parts", where="n >= 9", id="id")
    assert [row.index for row in rows] == list(range(9, 30))
    assert rows[1].origin.startswith(f"{Path('parts') / 'b'}{ending}")
    assert rows[1].origin[-2:] in {":1", "#1"}


def test_columns_are_listed_in_order_of_appearance(ending):
    assert open_source(InputSpec(write("data", ending=ending))).first_columns() == tuple(ROWS[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "idd"}, r"\[input\] id: .* no column 'idd'; did you mean 'id'\?"),
        ({"where": "langg = 'en'"}, r"\[input\] where: .* no column 'langg'; did you mean 'lang'\?"),
        ({"where": "zzzzz = 1"}, r"\[input\] where: .* columns: id, n, score"),
    ],
)
def test_a_missing_column_is_named_with_the_nearest(ending, settings, message):
    with pytest.raises(InputError, match=message):
        read(write("data", ending=ending), **settings)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lang =", "unable to parse"),
        ("", "unable to parse"),
        ("n > avg(n)", "more than one row"),
        ("row_number() over (order by n) < 3", "more than one row"),
        ("n in (select 1)", "sub"),
        ("lang > 5", "cannot compare"),
        ("n", "must be true or false for each row"),
        ("nosuch(n) = 1", "nosuch"),
        ("cast(id as int) > 5", "conversion"),
    ],
)
def test_a_condition_that_can_not_be_used_is_shown_with_the_reason(ending, where, message):
    with pytest.raises(InputError, match=message) as caught:
        read(write("data", ending=ending), where=where)
    assert str(caught.value).startswith("[input] where = ")
    assert "\n" not in str(caught.value)


def test_a_condition_on_a_field_of_an_object_says_how_to_ask_for_it():
    Path("data.jsonl").write_text('{"p": {"sku": "a"}}\n{"p": {"sku": "b"}}\n')
    with pytest.raises(InputError, match="objects are texts here, as JSON, and have no field 'sku'"):
        read("data.jsonl", where="p.sku = 'a'")
    assert len(read("data.jsonl", where="""p like '%"sku":"a"%'""")) == 1


def test_a_condition_without_columns_holds_for_all_rows_or_none(ending):
    path = write("data", ending=ending)
    assert len(read(path, where="1 = 1")) == 2500
    assert read(path, where="1 = 2") == []


def test_an_input_without_rows_is_an_error(ending):
    pl.DataFrame(schema={"id": pl.String}).write_parquet("none.parquet")
    if ending != ".parquet":
        WRITERS[ending]([], Path("none" + ending))
    with pytest.raises(InputError, match=rf"none{re.escape(ending)} has no rows"):
        read("none" + ending)
    with pytest.raises(InputError, match="has no rows"):
        read("none" + ending, id="id")


def test_a_damaged_file_is_named(ending):
    if ending in {".jsonl", ".ndjson"}:
        pytest.skip("a plain file has no frame that could be damaged; broken lines have their own tests")
    path = Path(write("data", ending=ending))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"^data{re.escape(ending)} can't be read"):
        read(str(path))


# Which files


@pytest.mark.parametrize("path", ["d", "d/", "d/*.jsonl", "**/[ab].jsonl"])
def test_a_folder_or_a_glob_stands_for_its_files_in_order(path):
    for name in ("d/b", "d/a", "d/.hidden", "d/deeper/c"):
        write(name, ROWS[:1])
    Path("d/README.md").write_text("not data")
    assert open_source(InputSpec(path)).files == (Path("d/a.jsonl"), Path("d/b.jsonl"))


def test_endings_are_known_in_capitals_too():
    Path("DATA.JSONL").write_bytes(as_lines(ROWS[:2]))
    assert len(read("DATA.JSONL")) == 2


def test_a_named_format_reads_files_with_any_ending():
    Path("data.txt").write_bytes(as_lines(ROWS[:2]))
    assert len(read("data.txt", format="jsonl")) == 2


@pytest.mark.parametrize("path", ["data", "data/*.jsonl", "data/b.jsonl"])
def test_a_link_that_leads_nowhere_is_a_missing_part_of_the_data(path):
    Path("data").mkdir()
    write("data/a")
    Path("data/b.jsonl").symlink_to("/nowhere/b.jsonl")
    with pytest.raises(InputError, match=r"data/b\.jsonl is a link to /nowhere/b\.jsonl, which is not there"):
        read(path)


def test_a_loop_of_links_shows_no_file_twice():
    Path("data").mkdir()
    write("data/a")
    Path("data/loop").symlink_to(".")
    Path("data/b.jsonl").symlink_to("a.jsonl")
    assert [str(file) for file in open_source(InputSpec("data/**/*.jsonl")).files] == ["data/a.jsonl", "data/b.jsonl"]


def test_a_named_format_chooses_its_files_in_a_mixed_folder():
    write("d/a", ROWS[:1])
    write("d/b", ROWS[:1], ".parquet")
    assert open_source(InputSpec("d", format="parquet")).files == (Path("d/b.parquet"),)


def test_a_file_whose_name_looks_like_a_glob_is_that_file():
    assert open_source(InputSpec(write("a[1]", ROWS[:1]))).files == (Path("a[1].jsonl"),)


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("d/dta.jsonl", {}, r"no file d/dta\.jsonl .seen from .*; did you mean 'data\.jsonl'\?"),
        ("nowhere/a.jsonl", {}, "the folder nowhere does not exist"),
        ("empty/a.jsonl", {}, "the folder empty is empty"),
        ("empty", {}, r"the folder empty itself holds no file with a known ending \(\.jsonl, .*\.parquet\)"),
        ("d/*.parquet", {}, r"no file matches d/\*\.parquet"),
        ("table.csv", {}, r"table\.csv has an ending .* does not read; it reads \.jsonl, .*\.parquet \(not csv\)"),
        ("s3://bucket/a.jsonl", {}, "is an address; this version reads local files only"),
        ("mixed", {}, r"mixes formats: jsonl \(a\.jsonl\), parquet \(b\.parquet\)"),
        ("d/data.jsonl", {"format": "jsonll"}, r"unknown name 'jsonll'; did you mean 'jsonl'\?; known: jsonl, parquet"),
        ("d/data.jsonl", {"format": "_lines"}, "unknown name '_lines'"),
        (os.devnull, {"format": "jsonl"}, "not a regular file"),
    ],
)
def test_what_can_not_be_an_input_is_said_before_anything_is_read(path, settings, message):
    write("d/data", ROWS[:1])
    write("mixed/a", ROWS[:1])
    write("mixed/b", ROWS[:1], ".parquet")
    Path("empty").mkdir()
    Path("table.csv").write_text("a,b\n")
    with pytest.raises(InputError, match=message) as caught:
        open_source(InputSpec(path, **settings))
    assert str(caught.value).startswith("[input] ")


def test_an_empty_file_among_others_is_fine():
    write("d/a", [])
    write("d/b", ROWS[:2])
    assert [row.index for row in read("d", id="id")] == [0, 1]


def test_nothing_but_empty_files_is_an_error():
    write("d/a", [])
    write("d/b", [])
    with pytest.raises(InputError, match="the 2 files have no rows"):
        read("d")


# Fingerprints


def fingerprint(path: str, **settings: Any) -> str:
    return open_source(InputSpec(path, **settings)).fingerprint()


def test_an_input_that_did_not_change_keeps_its_fingerprint():
    path = write("data")
    assert fingerprint(path) == fingerprint(path) == fingerprint(path, bad_rows="reject")


@pytest.mark.parametrize("settings", [{"id": "id"}, {"where": "n > 1"}, {"limit": 5}])
def test_another_selection_has_another_fingerprint(settings):
    path = write("data")
    assert fingerprint(path, **settings) != fingerprint(path)


@pytest.mark.parametrize("place", [0, 100_000, -1])
def test_a_changed_byte_changes_the_fingerprint_even_under_an_old_date(place):
    path = Path(write("data"))
    before, status = fingerprint(str(path)), path.stat()
    change_byte(path, place)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(str(path)) != before


def test_a_file_that_was_only_touched_is_the_same_input_so_its_budget_holds():
    path = write("data")
    before = fingerprint(path)
    os.utime(path, ns=(1, 1))
    assert fingerprint(path) == before


def test_another_file_is_another_input():
    seen = {fingerprint(write("d/a", ROWS[:5])), fingerprint("d")}
    write("d/b", ROWS[:5])
    seen.add(fingerprint("d"))
    assert len(seen) == 2  # a folder of one file is that file


@pytest.mark.parametrize("place", [0, -1])
def test_of_a_huge_input_the_ends_and_the_date_stand_for_the_content(place, monkeypatch):
    monkeypatch.setattr("pipeline.sources._source._HASHED_BYTES", 1000)
    path = Path(write("data"))
    before, status = fingerprint(str(path)), path.stat()
    change_byte(path, place)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = fingerprint(str(path))
    os.utime(path, ns=(1, 1))
    assert len({before, changed, fingerprint(str(path))}) == 3


def change_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    assert len(content) > 2 * 65536
    content[place] ^= 1
    path.write_bytes(content)


# What a scan leaves behind


def test_an_abandoned_scan_leaves_no_open_file():
    path = write("data")
    descriptors = Path("/dev/fd")
    if not descriptors.exists():
        pytest.skip("no list of open files here")
    before = len(list(descriptors.iterdir()))
    batches = Source.batches(open_source(InputSpec(path)), 1)
    next(batches)
    del batches
    assert len(list(descriptors.iterdir())) == before


def test_only_the_rows_that_are_needed_are_read(monkeypatch):
    write("data", [{"text": "x" * 1000}] * 20_000)
    read_bytes = 0
    original = io.FileIO.read

    class Counting(io.FileIO):
        def read(self, size: int = -1) -> bytes | None:
            nonlocal read_bytes
            block = original(self, size)
            read_bytes += len(block or b"")
            return block

    monkeypatch.setattr(Path, "open", lambda self, *_, **__: Counting(self))
    assert len(read("data.jsonl", limit=5)) == 5
    assert 0 < read_bytes < 3_000_000


def test_what_was_read_before_the_fingerprint_must_be_what_it_is_of(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "good"}\n')
    source = open_source(InputSpec(path=str(path)))
    assert len(next(source.batches())) == 1
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="was changed while it was read"):
        source.fingerprint()
    assert open_source(InputSpec(path=str(path))).fingerprint()
