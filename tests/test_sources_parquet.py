"""Parquet: what each type becomes, and what is not Parquet."""

import base64
import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.prompts import PromptSpec, Template
from pipeline.records import Row
from pipeline.sources import InputSpec, open_source
from pipeline.sources._footer import leaves


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(path: str = "data.parquet", **settings: Any) -> list[Row]:
    return [row for batch in open_source(InputSpec(path, **settings)).batches() for row in batch]


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pl.Series([dt.date(2026, 11, 23)]), "2026-11-23"),
        (pl.Series([utc(2026, 11, 23, 10).replace(tzinfo=None)]), "2026-11-23T10:00:00.000000"),
        (pl.Series([utc(2026, 11, 23, 10)]), "2026-11-23T10:00:00.000000+00:00"),
        (pl.Series([1], dtype=pl.Datetime("ns")), "1970-01-01T00:00:00.000000001"),
        (pl.Series([2**63 - 1], dtype=pl.Datetime("us")), "infinity"),
        (pl.Series([1 - 2**63], dtype=pl.Datetime("ms", "UTC")), "-infinity"),
        (pl.Series([2**31 - 1], dtype=pl.Date), "infinity"),
        (pl.Series([1 - 2**31], dtype=pl.Date), "-infinity"),
        (pl.Series([None], dtype=pl.Datetime("us")), None),
        (pl.Series([dt.timedelta(hours=26)]), "P1DT2H"),
        (pl.Series([dt.time(10, 30)]), "10:30:00"),
        (pl.Series([Decimal("1.50")]), Decimal("1.50")),
        (pl.Series([b"\xff\x00"]), "/wA="),
        (pl.Series([0.1], dtype=pl.Float32), 0.1),
        (pl.Series([1.0]), 1.0),
        (pl.Series([2**63], dtype=pl.UInt64), 2**63),
        (pl.Series([2**100], dtype=pl.Int128), 2**100),
        (pl.Series(["x"], dtype=pl.Categorical), "x"),
        (pl.Series(["x"], dtype=pl.Enum(["x", "y"])), "x"),
        (pl.Series([[1, None]]), [1, None]),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)), [1, 2]),
        (
            pl.Series([{"d": dt.date(2026, 1, 2), "b": [b"a"], "n": None}]),
            {"d": "2026-01-02", "b": ["YQ=="], "n": None},
        ),
        (pl.Series([{"t": dt.timedelta(seconds=1.5)}]), {"t": "PT1.5S"}),
        (pl.Series([None], dtype=pl.Date), None),
        (pl.Series([True]), True),
    ],
)
def test_each_type_becomes_what_json_has_or_an_exact_decimal(series, expected):
    pl.DataFrame({"v": series}).write_parquet("data.parquet")
    (row,) = read()
    assert row.values == {"v": expected}
    assert type(row.values["v"]) is type(expected)
    assert str(row.values["v"]) == str(expected)
    orjson.dumps(row.values, default=str, option=orjson.OPT_PASSTHROUGH_DATETIME) if expected != 2**100 else None


def written_by_duckdb(columns: str, name: str = "data.parquet") -> None:
    duckdb.execute(f"copy (select {columns}) to '{name}'")


SOME_UUID = "3f333df6-90a4-4fda-8dd3-9485d27cee36"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("""'{"a": "ä"}'::json""", '{"a": "ä"}'),
        ("null::json", None),
        (f"'{SOME_UUID}'::uuid", SOME_UUID),
        ("null::uuid", None),
        ("'x'::blob", "eA=="),
        ("['[1]'::json, null]", ["[1]", None]),
        (
            f"{{'u': '{SOME_UUID}'::uuid, 'b': 'x'::blob, 'm': map {{'k': ['1'::json]}}}}",
            {"u": SOME_UUID, "b": "eA==", "m": {"k": ["1"]}},
        ),
        ("map {date '2026-01-02': 1}", {"2026-01-02": 1}),
        ("0::decimal(18, 10)", Decimal("0E-10")),
        ("map {0::decimal(18, 10): 1}", {"0.0000000000": 1}),
    ],
)
def test_bytes_that_mean_text_are_text(column, expected):
    written_by_duckdb(f"'{SOME_UUID}'::uuid as before, {column} as v, '2'::json as \"after\", 'b'::blob as b")
    (row,) = read()
    assert row.values == {"before": SOME_UUID, "v": expected, "after": "2", "b": "Yg=="}


def test_a_condition_and_an_id_see_texts():
    written_by_duckdb(
        f"'{SOME_UUID}'::uuid as u, '[7]'::json as j, 0::decimal(18, 10) as d, {{'d': 0::decimal(9, 8)}} as s"
    )
    assert len(read(where=f"u = '{SOME_UUID}' and j like '%7%'")) == 1
    assert read(where="j = '8'") == []
    assert [read(id=name)[0].id for name in "ujds"] == [SOME_UUID, "[7]", "0.0000000000", '{"d": "0.00000000"}']


def test_a_small_decimal_prints_with_all_its_digits_in_every_way():
    written_by_duckdb("0.000000001::decimal(18, 10) as d, [0::decimal(9, 8)] as l")
    (row,) = read()
    for template in ("{{ d }}", "{{ d ~ '' }}", "{{ d | string }}", "{{ '%s' | format(d) }}", "{{ [d] | join }}"):
        (message,) = Template(PromptSpec(user=template)).render(row)
        assert message["content"] == "0.0000000010"
    for template in ("{{ d * 1 }}", "{{ d | abs }}", "{{ [d * 1] | tojson }}"):  # no longer what the column holds
        (message,) = Template(PromptSpec(user=template)).render(row)
        assert message["content"].strip('[]"') == "0.0000000010"
    (message,) = Template(PromptSpec(user="{{ l }}")).render(row)
    assert message["content"] == '["0.00000000"]'


def test_a_value_of_a_json_column_that_is_no_text_stays_base64():
    written_by_duckdb("""'{"qqq": 1}'::json as j, ['{"qqq": 2}'::json] as l, '[3]'::json as k""")
    duckdb.execute("copy (select * from 'data.parquet') to 'plain.parquet' (compression uncompressed)")
    content = Path("plain.parquet").read_bytes()
    Path("plain.parquet").write_bytes(content.replace(b"qqq", b"\xff\xfeq"))
    (row,) = read("plain.parquet")
    broken = [base64.b64encode(b'{"\xff\xfeq": %d}' % n).decode() for n in (1, 2)]
    assert row.values == {"j": broken[0], "l": [broken[1]], "k": "[3]"}


@pytest.mark.parametrize(("value", "kind"), [("interval '1 day'", "an INTERVAL"), ("'[1]'::variant", "a VARIANT")])
def test_a_type_that_polars_does_not_know_is_named_with_its_column_and_nothing_else_is_printed(value, kind, capfd):
    written_by_duckdb(f'1 as id, {value} as "the odd one"')
    with pytest.raises(
        InputError, match=f"its column 'the odd one' holds {kind}, .* write the file without it, or as text"
    ):
        read()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InputError, match='"the odd one"::varchar'):
        read()


@pytest.mark.parametrize("key", ["[1]", "{'a': 1}", "map {1: 2}"])
def test_a_map_whose_keys_are_no_plain_values_is_named(key):
    written_by_duckdb(f"1 as id, [{{'m': map {{{key}: 'x'}}}}] as odd")
    with pytest.raises(InputError, match="its column 'odd' holds maps whose keys are lists or objects"):
        read()


def test_a_footer_that_lies_is_never_more_than_an_input_error():
    written_by_duckdb(f"'{SOME_UUID}'::uuid as u, ['1'::json] as j, 'a' as t")
    content = Path("data.parquet").read_bytes()
    for at in range(len(content) - 8 - int.from_bytes(content[-8:-4], "little"), len(content)):
        for damage in (0, 0x19, 0x7F, 0xFF):
            Path("bad.parquet").write_bytes(content[:at] + bytes([damage]) + content[at + 1 :])
            leaves(Path("bad.parquet"))  # whatever it finds: Polars has the last word


def test_a_footer_with_an_endless_list_ends():
    footer = bytes([0x29, 0xF1]) + b"\xff" * 8 + b"\x7f"
    Path("bad.parquet").write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert leaves(Path("bad.parquet")) is None
    with pytest.raises(InputError, match="can't be read as Parquet"):
        read("bad.parquet")


def test_a_condition_sees_the_true_types():
    days = [dt.date(2026, 1, day) for day in range(1, 31)]
    pl.DataFrame({"d": days, "v": [Decimal(n) / 2 for n in range(30)]}).write_parquet("data.parquet", row_group_size=7)
    rows = read(where="d >= date '2026-01-10' and v < 6")
    assert [row.index for row in rows] == [9, 10, 11]
    assert rows[0].origin == "data.parquet#10"
    assert rows[0].values == {"d": "2026-01-10", "v": Decimal("4.5")}


@pytest.mark.parametrize(
    ("where", "advice"),
    [
        ("d > '2026-01-01'", "write date '2026-01-31', timestamp"),
        ("zoned > timestamp '2026-01-01 00:00:00'", r"write cast\(NAME as timestamp\)"),
        ("date(plain) = d", "x::date for date"),
        ('"^x$" > 1', r"a column whose name looks like \^...\$ can't be named here"),
    ],
)
def test_a_condition_that_can_not_be_used_comes_with_what_helps(where, advice):
    times = {"plain": [utc(2026, 1, 1).replace(tzinfo=None)], "zoned": [utc(2026, 1, 1)]}
    pl.DataFrame({"d": [dt.date(2026, 1, 1)], "^x$": [1], **times}).write_parquet("data.parquet")
    with pytest.raises(InputError, match=f"can't be used: .*{advice}"):
        read(where=where)


@pytest.mark.parametrize("group", [700, 100_000])
@pytest.mark.parametrize("long", [0, 20_000])
def test_every_row_comes_once_and_in_order_however_the_file_is_cut(group, long):
    """`long` rows need smaller parts; the filter leaves some parts without a row."""
    rows = 40_000
    wanted = [n for n in range(rows) if not 5_000 < n < 30_000 and n % 3 == 0]
    text = [("x" * long if n % 100 == 0 else "") + str(n) for n in range(rows)]
    pl.DataFrame({"n": range(rows), "t": text}).write_parquet("data.parquet", row_group_size=group)
    assert [(row.index, row.values["t"]) for row in read()] == list(enumerate(text))
    found = read(where="not (n > 5000 and n < 30000) and n % 3 = 0")
    assert [(row.index, row.values["n"]) for row in found] == [(n, n) for n in wanted]


def test_a_column_that_a_later_file_lacks_is_null_there():
    Path("d").mkdir()
    pl.DataFrame({"a": [1, 2], "lang": ["en", "de"]}).write_parquet("d/1.parquet")
    pl.DataFrame({"a": [3]}).write_parquet("d/2.parquet")
    pl.DataFrame({"a": [4], "lang": ["en"]}).write_parquet("d/3.parquet")
    rows = read("d", where="lang = 'en'")
    assert [(row.index, row.values) for row in rows] == [(0, {"a": 1, "lang": "en"}), (3, {"a": 4, "lang": "en"})]
    assert [row.values for row in read("d", where="lang is null")] == [{"a": 3}]


def test_a_folder_named_like_a_partition_adds_no_column():
    Path("year=2026").mkdir()
    pl.DataFrame({"a": [1]}).write_parquet("year=2026/x.parquet")
    assert [row.values for row in read("year=2026/x.parquet")] == [{"a": 1}]


def test_columns_may_have_any_names():
    frame = pl.DataFrame({"_": [1], "_a": [2], "first name": [3], "": [4], "index": [5]})
    frame.write_parquet("data.parquet")
    assert [row.values for row in read()] == [frame.to_dicts()[0]]


@pytest.mark.parametrize("name", ["^d$", "*", "d"])
def test_a_column_may_have_a_name_that_looks_like_a_pattern(name):
    pl.DataFrame({name: [dt.date(2026, 1, 2)], "other": [dt.date(2026, 1, 3)]}).write_parquet("data.parquet")
    assert [row.values for row in read()] == [{name: "2026-01-02", "other": "2026-01-03"}]


@pytest.mark.parametrize("content", [b"", b"not parquet at all, but long enough", b"PAR1" + b"x" * 50 + b"PAR1"])
def test_what_is_not_parquet_is_named(content):
    Path("data.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"^data\.parquet can't be read as Parquet: "):
        read()


def test_damage_inside_a_file_is_an_error_and_shifts_no_row():
    pl.DataFrame({"n": range(50_000), "t": [f"{n:x}" * 9 for n in range(50_000)]}).write_parquet(
        "data.parquet", row_group_size=2000
    )
    content = bytearray(Path("data.parquet").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = b"\xff" * 20_000
    Path("data.parquet").write_bytes(content)
    seen = []
    with pytest.raises(InputError, match=r"^data\.parquet can't be read as Parquet: "):
        seen.extend(row for batch in open_source(InputSpec("data.parquet")).batches() for row in batch)
    assert all(row.values["n"] == row.index for row in seen)
