"""JSON Lines: values exactly as they stand, and broken lines named by file and line."""

import gzip
import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.records import BrokenRow, Row
from pipeline.sources import InputSpec, open_source


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def zstd_raw(data: bytes) -> bytes:
    """Zstandard without compression: a frame of raw blocks, as the format's specification (RFC 8878) has it."""
    blocks = [data[at : at + 100_000] for at in range(0, len(data), 100_000)] or [b""]
    frame = b"\x28\xb5\x2f\xfd" + b"\x80\x58" + len(data).to_bytes(4, "little")
    for number, block in enumerate(blocks, 1):
        frame += (len(block) << 3 | (number == len(blocks))).to_bytes(3, "little") + block
    return frame


FILES: dict[str, Callable[[bytes], bytes]] = {
    "data.jsonl": lambda data: data,
    "data.jsonl.gz": gzip.compress,
    "data.jsonl.zst": zstd_raw,
}


@pytest.fixture(params=sorted(FILES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def read(name: str, data: bytes, **settings: Any) -> list[Row | BrokenRow]:
    Path(name).write_bytes(FILES[name](data))
    return [row for batch in open_source(InputSpec(name, **settings)).batches() for row in batch]


def values(line: bytes) -> Any:
    (row,) = read("data.jsonl", line)
    return row.values


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a":1.0}', 1.0),
        (b'{"a":1}', 1),
        (b'{"a":"007"}', "007"),
        (b'{"a":null}', None),
        (b'{"a":true}', True),
        (b'{"a":{"b":[1,{"c":null}]}}', {"b": [1, {"c": None}]}),
        (b'{"a":18446744073709551615}', 18446744073709551615),
        (b'{"a":18446744073709551616}', 18446744073709551616),
        (b'{"a":-9223372036854775809}', -9223372036854775809),
        (b'{"a":[{"b":123456789012345678901234567890}]}', [{"b": 123456789012345678901234567890}]),
        (b'{"a":0.1234567890123456789012}', 0.1234567890123456789012),
        (b'{"a":1e300}', 1e300),
        ('{"a":"é😀\u2028\u0085"}'.encode(), "é😀\u2028\u0085"),
        (rb'{"a":"\ud83d\ude00"}', "😀"),
        (b'{"a":1,"a":2}', 2),
        (b'{"a":"\xef\xbf\xbd"}', "\ufffd"),
    ],
)
def test_values_are_exactly_what_the_line_says(line, expected):
    value = values(line)["a"]
    assert value == expected
    assert type(value) is type(expected)


def test_a_key_that_first_appears_late_is_there(name):
    rows = read(name, b'{"a":1}\n' * 5000 + b'{"a":2,"late":"x"}\n')
    assert rows[5000].values == {"a": 2, "late": "x"}
    assert "late" not in rows[0].values


def test_blank_lines_are_not_rows_but_count_as_lines(name):
    rows = read(name, b'\n{"a":1}\n\n  \t\r\n{"a":2}\n\n')
    assert [(row.index, row.id, row.origin) for row in rows] == [(0, "1", f"{name}:2"), (1, "2", f"{name}:5")]


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1}\r\n{"a":2}\r\n',
        b'{"a":1}\n{"a":2}',
        b'\xef\xbb\xbf{"a":1}\n{"a":2}\n',
        b'\xef\xbb\xbf\r\n {"a":1} \n\t{"a":2}\n',
    ],
)
def test_windows_line_ends_a_byte_order_mark_and_a_missing_last_line_end_are_fine(name, data):
    assert [row.values for row in read(name, data)] == [{"a": 1}, {"a": 2}]


def test_only_a_newline_ends_a_line(name):
    rows = read(name, '{"a":"x\u2028y\u0085z"}\n{"b":\r1}\n'.encode())
    assert [row.values for row in rows] == [{"a": "x\u2028y\u0085z"}, {"b": 1}]


def test_lines_longer_than_a_block_are_whole(name):
    texts = [random.Random(n).choice("ab") * n for n in (3_000_000, 5, 1_048_576, 0, 2_097_152)]
    rows = read(name, b"".join(b'{"a":"%s"}\n' % text.encode() for text in texts))
    assert [row.values["a"] for row in rows] == texts


def test_a_file_is_decompressed_by_its_content_whatever_its_name():
    Path("a.jsonl").write_bytes(gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}\n'))
    Path("b.jsonl.gz").write_bytes(b'{"a":3}\n')
    rows = [
        row for path in ("a.jsonl", "b.jsonl.gz") for batch in open_source(InputSpec(path)).batches() for row in batch
    ]
    assert [row.values["a"] for row in rows] == [1, 2, 3]


# Ids


@pytest.mark.parametrize(
    ("value", "row_id"),
    [
        (b'"x"', "x"),
        (b'""', ""),
        (b"7", "7"),
        (b"1.0", "1.0"),
        (b"true", "true"),
        (b"null", "2"),
        (b"12345678901234567890123", "12345678901234567890123"),
        ('["é",1]'.encode(), '["é", 1]'),
    ],
)
def test_an_id_is_the_text_of_its_value_and_null_is_the_row_number(value, row_id):
    rows = read("data.jsonl", b'{"k":"first"}\n{"k":%s}\n{"other":1}\n' % value, id="k")
    assert [row.id for row in rows] == ["first", row_id, "3"]


# Broken lines


BROKEN = [
    (b'{"a":1', "is not JSON: unexpected end of data at column "),
    (b'{"a":1}x', "is not JSON: unexpected content after document at column 8"),
    (b'{"a":NaN}', "is not JSON"),
    (b'{"a":-Infinity}', "is not JSON"),
    (b'{"a":1e999}', "is not JSON"),
    (b"{'a':1}", "is not JSON"),
    (b"[1]", "is JSON but not an object (it is a list)"),
    (b'"secret"', "is JSON but not an object (it is a string)"),
    (b"5", "is JSON but not an object (it is a number)"),
    (b"true", "is JSON but not an object (it is true or false)"),
    (b"null", "is JSON but not an object (it is null)"),
    (rb'{"a":"secret \ud800"}', "half of a surrogate pair"),
    (rb'{"a":"secret \udc00x"}', "half of a surrogate pair"),
    (b'{"a":"secret \xff"}', "is not UTF-8 at byte 14 of the line"),
    (b'{"a":"\xed\xa0\x80"}', "is not UTF-8"),
    (b'{"a":%s}' % (b"1" * 5000), "number is infinity"),
    *[
        (b'{"a":' + b"[" * 1020 + b"1" * 20 + b"]" * 1020 + b"}", "nested too deeply")
        for _ in range(sys.version_info < (3, 12))  # later Pythons read it
    ],
    (b"[" * 2000 + b"]" * 2000, "depth limit exceeded"),
    (b'\x00{"a":1}', "is not JSON"),
]


@pytest.mark.parametrize(("line", "problem"), BROKEN)
def test_a_broken_line_is_named_with_file_and_line_number(name, line, problem):
    with pytest.raises(InputError) as caught:
        read(name, b'{"a":1}\n\n%s\n{"a":2}\n' % line)
    message = str(caught.value)
    assert message.startswith(f"{name}:3: the line ")
    assert problem in message
    assert 'bad_rows = "reject"' in message
    assert "secret" not in message


@pytest.mark.parametrize(("line", "problem"), BROKEN)
def test_with_reject_a_broken_line_is_a_broken_row_among_the_others(name, line, problem):
    before, broken, after = read(name, b'{"a":1}\n\n%s\r\n{"a":2}\n' % line, bad_rows="reject")
    assert (before.values, after.values) == ({"a": 1}, {"a": 2})
    assert (before.index, broken.index, after.index) == (0, 1, 2)
    assert isinstance(broken, BrokenRow)
    assert (broken.id, broken.origin) == ("2", f"{name}:3")
    assert problem in broken.problem
    assert "secret" not in broken.problem
    if b"\xff" in line or b"\xed" not in line:
        assert broken.digest == hashlib.blake2b(line, digest_size=16).hexdigest()


def test_bytes_that_are_not_utf8_shift_no_row_however_late_they_come(name):
    lines = [b'{"n":%d,"text":"%s"}' % (n, b"x" * 200) for n in range(20_000)]
    lines[15_000] = b'{"n":15000,"text":"\xff"}'
    rows = read(name, b"\n".join(lines), bad_rows="reject")
    assert len(rows) == 20_000
    assert all(row.values["n"] == row.index for row in rows if isinstance(row, Row))
    assert [row.index for row in rows if isinstance(row, BrokenRow)] == [15_000]


def test_a_replacement_character_of_the_file_itself_is_a_character_like_others(name):
    rows = read(name, '{"a":"\ufffd"}\n{"a":"\ufffd\ufffd"}\n'.encode() * 3000)
    assert {row.values["a"] for row in rows} == {"\ufffd", "\ufffd\ufffd"}


def test_where_hides_no_broken_line_and_limit_counts_it(name):
    rows = read(name, b'{"a":1}\n[]\n{"a":2}\n{"a":2}\n', bad_rows="reject", where="a = 2", limit=2)
    assert [(type(row), row.index) for row in rows] == [(BrokenRow, 1), (Row, 2)]


def test_a_broken_line_behind_the_limit_stops_nothing(name):
    assert [row.index for row in read(name, b'{"a":1}\n{"a":2}\n[]\n', limit=2, id="a", where="a > 0")] == [0, 1]
    with pytest.raises(InputError, match=":3: the line"):
        read(name, b'{"a":1}\n{"a":2}\n[]\n', limit=3)


def test_nothing_but_broken_lines_is_an_input_too(name):
    rows = read(name, b"[]\n" * 3, bad_rows="reject", id="k", where="a = 1")
    assert [type(row) for row in rows] == [BrokenRow] * 3


def test_only_blank_lines_are_no_rows(name):
    with pytest.raises(InputError, match="has no rows"):
        read(name, b"\n \r\n\n")


def test_a_file_that_can_not_be_opened_is_named():
    Path("data.jsonl").write_bytes(b"{}\n")
    source = open_source(InputSpec("data.jsonl"))
    Path("data.jsonl").unlink()
    with pytest.raises(InputError, match=r"^data\.jsonl can't be read: No such file"):
        list(source.batches())


# Where, on columns without types


@pytest.mark.parametrize(
    ("cells", "where", "selected"),
    [
        ([b"1", b"2.5", b"null"], "x > 1", [1]),
        ([b"1", b'"a"', b"null"], "x = 'a'", [1]),
        ([b"1", b'"a"', b"1.0"], "x = '1.0'", [2]),
        ([b"true", b"false", b"null"], "x", [0]),
        ([b"true", b"false", b"null"], "not x", [1]),
        ([b'{"k": 1}', b"[1]"], """x = '{"k":1}'""", [0]),
        ([b'"a"', b'"B"'], "x like 'a%'", [0]),
        ([b'"a"', b'"B"'], "lower(x) in ('b', 'c')", [1]),
        ([b"9007199254740993", b"9007199254740992"], "x = 9007199254740993", [0]),
        ([b"1" + b"0" * 30, b"5"], "x > 6", [0]),
        ([b"null", b"null"], "x is null", [0, 1]),
        ([b"null", b"null"], "length(x) > 1", []),
    ],
)
def test_a_condition_reads_a_column_as_what_its_values_are(cells, where, selected):
    rows = read("data.jsonl", b"".join(b'{"x":%s}\n' % cell for cell in cells), where=where)
    assert [row.index for row in rows] == selected


def test_a_column_that_is_missing_for_long_is_null_there():
    data = b'{"x":"a"}\n' + b'{"y":1}\n' * 3000 + b'{"x":"a"}\n'
    assert [row.index for row in read("data.jsonl", data, where="x = 'a'")] == [0, 3001]


def test_a_condition_that_stops_fitting_names_the_lines():
    data = b'{"x":1}\n' * 2500 + b'{"x":"a"}\n'
    with pytest.raises(InputError, match=r"cannot compare .*\(data\.jsonl, lines 2\d\d\d to 2501\)"):
        read("data.jsonl", data, where="x = 1")


def test_zstandard_written_by_polars_reads_the_same(tmp_path):
    pl.LazyFrame({"line": ['{"a":1}', '{"a":2}']}).sink_csv(
        tmp_path / "p.jsonl.zst", include_header=False, quote_style="never", compression="zstd", check_extension=False
    )
    rows = [row for batch in open_source(InputSpec("p.jsonl.zst")).batches() for row in batch]
    assert [row.values["a"] for row in rows] == [1, 2]


def test_a_file_that_begins_with_a_frame_to_be_skipped_is_told_as_such(tmp_path):
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x01\x02\x03\x04"
    (tmp_path / "p.jsonl.zst").write_bytes(skipped + zstd_raw(b'{"a":1}\n'))
    with pytest.raises(
        InputError, match=r"p\.jsonl\.zst begins with a frame that is to be skipped, as pzstd writes it"
    ):
        list(open_source(InputSpec("p.jsonl.zst")).batches())


def test_blank_lines_are_no_rows_where_rows_are_passed_over_either():
    Path("rows.jsonl").write_bytes(b'{"n":0}\n\n  \n{"n":1}\nbroken\n\n{"n":3}\n')
    source = open_source(InputSpec("rows.jsonl", bad_rows="reject"))
    rest = [row for batch in source.batches(passed=bytes([0b0101])) for row in batch]
    assert [(row.index, row.origin) for row in rest] == [(1, "rows.jsonl:4"), (3, "rows.jsonl:7")]


@pytest.mark.parametrize("where", ["x <> 'zz'", "x in ('a', '5', '7')", "x > '2'"])
@pytest.mark.parametrize("done", [{0}, {0, 1, 2, 7}, set(range(2000))], ids=["the first", "some", "whole chunks"])
def test_a_row_that_is_passed_over_still_says_what_its_column_is(name, where, done):
    Path(name).write_bytes(FILES[name](b'{"x":"a"}\n' + b"".join(b'{"x":%d}\n' % n for n in range(5000))))
    source = open_source(InputSpec(name, where=where))
    passed = bytearray(max(done) // 8 + 1)
    for index in done:
        passed[index >> 3] |= 1 << (index & 7)
    whole = [row for batch in source.batches() for row in batch]
    rest = [row for batch in source.batches(passed=bytes(passed)) for row in batch]
    assert rest == [row for row in whole if row.index not in done]
