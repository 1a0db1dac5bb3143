"""Files of `promptmill reconcile`: which shapes are known, how they are read, and what is refused."""

import json

import pytest
from project import Project
from usage_pages import (
    DAY,
    SNAPSHOT,
    TWO_DAYS,
    anthropic_page,
    book,
    compared,
    costs,
    count,
    last_day,
    page,
    save,
    usage,
)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_costs_that_are_not_grouped_are_compared_by_day(project):
    book(project, *TWO_DAYS)
    assert compared(project, page([costs(0.75, None)], [costs(0.9, None)]), code=3) == [
        ("2026-11-21", None, "usd", "0.100000000000", "0.9", "differs")
    ]


@pytest.mark.parametrize(
    ("item", "model"),
    [
        ("priority | gpt-5.6-sol, output, long context", "gpt-5.6-sol"),
        ("gpt-audio-mini-2025-12-15 audio, input", "gpt-audio-mini-2025-12-15"),
        ("web search tool calls", "web search tool calls"),
    ],
)
def test_a_line_item_names_its_model(project, item, model):
    book(project, *TWO_DAYS)
    assert ("2026-11-20", model, "usd", "0", "5", "only provider") in compared(project, page([costs(5, item)]), code=3)


def test_usage_and_costs_in_several_files_are_one_export(project):
    book(project, *TWO_DAYS)
    files = [save(project, page([usage()], [last_day()]), "usage.json"), save(project, page([costs(0.75)]), "costs")]
    found = json.loads(project.run("reconcile", *files, "--json").stdout)
    assert [line["figure"] for line in found["totals"]] == [
        "requests", "input_tokens", "cached_input_tokens", "output_tokens", "usd",
    ]  # fmt: skip
    assert (found["first_day"], found["last_day"]) == ("2026-11-20", "2026-11-21")


@pytest.mark.parametrize("join", [json.dumps, lambda pages: "\n".join(map(json.dumps, pages))])
def test_pages_may_stand_in_a_list_or_one_after_the_other(project, join):
    book(project, *TWO_DAYS)
    second = page([], [last_day()])
    pages = [page([usage()], has_more=True, next_page="x"), {**second, "data": second["data"][1:]}]
    assert count(project, join(pages)) == 8


def test_results_of_other_kinds_are_left_out_and_counted(project):
    book(project, *TWO_DAYS)
    other = {"object": "organization.usage.embeddings.result", "input_tokens": 5, "num_model_requests": 1}
    done = project.run("reconcile", save(project, page([usage(), other])))
    assert "1 results of other kinds are left out" in done.stderr


CSV_USAGE = f"""start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,input_tokens,\
output_tokens,input_cached_tokens
1763596800,1763683200,2025-11-20T00:00:00+00:00,,,,,,,
1795132800,1795219200,2026-11-20T00:00:00+00:00,,p,1.0,{SNAPSHOT},1000,200,400
1795132800,1795219200,2026-11-20T00:00:00+00:00,,q,1.0,{SNAPSHOT},500,100,0
"""
CSV_COSTS = f"""start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item
1795132800,,,,0.500000000000000000000000,usd,"{SNAPSHOT}, input"
1795132800,,,,2.5e-1,usd,"{SNAPSHOT}, output"
1795219200,,,,,,
"""


def test_openai_s_csv_exports_are_read(project):
    book(project, *TWO_DAYS)
    assert compared(project, CSV_USAGE, "--tolerance", "0") == []
    lines = compared(project, CSV_COSTS, "--tolerance", "0", code=3)
    assert lines == [("2026-11-21", SNAPSHOT, "usd", "0.100000000000", "0", "only ledger")]


def test_anthropic_s_reports_are_read_cache_tokens_added_and_cents_made_dollars(project):
    book(project, (DAY, 1627, 1000, 97, "1.235"), provider="anthropic", model="claude-opus-4-5")
    said = {"uncached_input_tokens": 504, "cache_read_input_tokens": 1000, "output_tokens": 97,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 23},
            "model": "claude-opus-4-5-20251101"}  # fmt: skip
    assert count(project, anthropic_page(said), "--tolerance", "0") == 3
    money = {"amount": "123.45", "currency": "USD", "description": "Opus - Input", "model": "claude-opus-4-5"}
    assert count(project, anthropic_page(money)) == 1
    assert compared(project, anthropic_page({**money, "amount": "1.2345"}), code=3)


def test_anthropic_s_csv_exports_are_read(project):
    book(project, (DAY, 1627, 1000, 97, "1.23"), provider="anthropic", model="claude-opus-4-5")
    tokens = (
        "usage_date_utc,model_version,api_key,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n"
        "2026-11-20,claude-opus-4-5-20251101,key,504,100,23,1000,97\n"
    )
    assert count(project, tokens, "--tolerance", "0") == 3
    money = (
        "usage_date_utc,model,token_type,cost_usd\n2026-11-20,Claude Opus 4.5,input_no_cache,1.20\n"
        "2026-11-20,Claude Opus 4.5,output,0.03\n"
    )
    assert count(project, money, "--tolerance", "0") == 1


@pytest.mark.parametrize(
    "content",
    [
        f"date,name,prompt,cost\n2026-11-20,{SNAPSHOT},1500,0.75\n2026/11/21,{SNAPSHOT},300,$0.10\n",
        f"\ufeffdate;name;prompt;cost\n2026-11-20T23:30:00-00:00;{SNAPSHOT};1,500;0.75\n1795219200;{SNAPSHOT};300;.1\n",
        f'date\tname\tprompt\tcost\n2026-11-21T01:00:00+02:00\t{SNAPSHOT}\t"1500"\t0.75\n2026-11-21\t{SNAPSHOT}\t300\t0.1',
    ],
)
def test_any_csv_can_be_read_when_its_columns_are_named(project, content):
    book(project, *TWO_DAYS)
    columns = "day=date,model=name,input_tokens=prompt,usd=cost"
    assert count(project, content, "--columns", columns, "--tolerance", "0") == 4


@pytest.mark.parametrize(
    "content",
    [
        'day,usd\n2026-11-20,"1,500"\n',  # here a comma has to be quoted, and nobody quotes a decimal one
        "day;usd\n2026-11-20;1,500.00\n",
        "day\tusd\tinput_tokens\n2026-11-20\t1500.0\t1,500\n",  # a count has no decimals
    ],
)
def test_thousands_may_be_separated_where_a_comma_can_be_nothing_else(project, content):
    book(project, (DAY, 1500, 0, 10, "1500"))
    assert compared(project, content, "--tolerance", "0") == []


def test_a_csv_with_our_own_names_needs_none_and_all_providers_are_compared(project):
    book(project, *TWO_DAYS)
    book(project, (DAY, 10, 0, 10, "1"), provider="groq")
    assert count(project, "day,usd\n2026-11-20,1.75\n") == 1


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        (
            "when,what\n1,2\n",
            (),
            "Found: the columns when, what. Known:\n  Anthropic's usage and costs (JSON): buckets",
        ),
        ("when,what\n1,2\n", ("--columns", "day=date,usd=what"), "there is no column 'date'; found: when, what"),
        ("day,usd\n11/20/2026,1\n", (), ", line 2: '11/20/2026' is no day"),
        ("day,usd\n2026-11-20,1\n\n2026-11-20,much\n", (), ", line 4: 'much' is no number"),
        ("day,usd\n2026-11-20,1e999999999\n", (), "'1e999999999' is no number"),
        ("day;usd\n2026-11-20;0,75\n", (), "'0,75' is no number"),
        ("day;usd\n2026-11-20;0,750\n", (), "line 2: '0,750' is no number; write decimals after a point"),
        ('day,usd\n2026-11-20,"0,750"\n', (), "'0,750' is no number"),
        ("day;usd\n2026-11-20;-012,345\n", (), "'-012,345' is no number"),
        ("day;usd\n2026-11-20;1,750\n", (), "'1,750' may be 1.750 or 1750"),
        ("day\tusd\n2026-11-20\t$1,750\n", (), "'$1,750' may be 1.750 or 1750"),
        ("day;requests\n2026-11-20;0,003\n", (), "'0,003' is no number"),
        ("day,requests\n2026-11-20,1.5\n", (), "'1.5' is no whole number"),
        ("day,usd\n", (), "no usage in it"),
        ("", (), "is empty"),
        ("\n \n", (), "is empty"),
        ("Usage, by day\nday,model,usd\n", (), "Found: the columns Usage, by day. Known:"),
        ("Usage of November\nday,model,usd\n", (), "Found: the columns Usage of November. Known:"),
        ('{"data": [', (), "is broken JSON"),
        ('{"error": {"message": "no"}}', (), "JSON with the keys error"),
        (page([costs(1, currency="eur")]), (), "amounts in eur"),
        (page([], []), (), "no usage in it"),
        ("day,usd\n9999-12-31,1\n", (), "'9999-12-31' is no day"),
        ("day,usd\n2026-W47,1\n", (), "'2026-W47' is no day"),
        ("day,usd\n2026-11-20,0.7_5\n", (), "'0.7_5' is no number"),
        ("day,usd\n2026-11-20,\uff11\n", (), "'\uff11' is no number"),
        ("day,usd\n2026-11-20,much\n2026-11-20,1,234.50\n", (), "line 3: 3 cells under 2 columns; put quotes around"),
        ("day,model,usd\n2026-11-20,m\n", (), "line 2: 2 cells under 3 columns; export it again"),
        ("day,usd,usd\n2026-11-20,1,2\n", (), "several columns called 'usd'"),
        ("day,requests\n2026-11-20,2500\n2026-11-20,-1000\n", (), "line 3: '-1000' is less than nothing"),
        (page([usage(input_tokens=-5)]), (), "'-5' is less than nothing"),
        ("day,usd,currency\n2026-11-20,1,EUR\n", (), "line 2: amounts in EUR"),
        ("day,usd,Currency Code\n2026-11-20,1,EUR\n", (), "line 2: amounts in EUR"),
        ("day,requests\n2026-11-20T00:00:00-08:00,9\n", (), "begins at 2026-11-20 08:00 UTC isn't one of UTC"),
        ("day,requests\n2026-11-20 00:00+09:00,9\n", (), "begins at 2026-11-19 15:00 UTC isn't one of UTC"),
        ("day,cost,cost_currency\n2026-11-20,1,eur\n", ("--columns", "usd=cost"), "line 2: amounts in eur"),
        ("when,usd\n2026-11-20,1\n", (), "usd, but no column `day`; found: when, usd. Say which it is: --columns day="),
        ("day,model,usd\n2026-11-20,m,\n", (), "a plain CSV, but no usage in it"),
        (
            page([usage(input_tokens=None, input_cached_tokens=None, output_tokens=None, num_model_requests=None)]),
            (),
            "no usage in it",
        ),
        ("day,usd\n2026-11-20,1\n", ("--columns", "usd=cost,usd=fee"), "usd is named twice: cost and fee"),
        ("day,usd\n2026-11-20,1\n", ("--columns", "usd=cost", "--columns", "usd=fee"), "usd is named twice"),
        (
            page([usage()]),
            ("--columns", "usd=cost"),
            "no file has all of cost; without it this is OpenAI's usage and c",
        ),
        ("day,usd\n2026-11-20,1\n", ("--tolerance", "nan"), "'nan' is no number"),
        ("day,usd\n2026-11-20,1\n", ("--tolerance", "inf"), "not in the range"),
        ("day,usd\n2026-11-20,1\n", ("--columns", "date=day"), "with a name of day, model, requests"),
        ("day,usd\n2026-11-20,1\n", ("--columns", "day"), "write NAME=COLUMN"),
    ],
)
def test_what_is_no_export_is_refused_with_what_was_found(project, content, args, message):
    book(project, *TWO_DAYS)
    assert message in project.run("reconcile", save(project, content), *args, code=2).stderr


def test_a_file_that_is_missing_or_not_text_is_named(project):
    book(project, *TWO_DAYS)
    assert "nowhere.csv can't be read: No such file" in project.run("reconcile", "nowhere.csv", code=2).stderr
    (project.folder / "sheet.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    assert "is not UTF-8 text" in project.run("reconcile", "sheet.xlsx", code=2).stderr


def test_files_of_two_vendors_are_not_taken_together(project):
    book(project, *TWO_DAYS)
    files = [save(project, page([usage()])), save(project, anthropic_page({"amount": "1"}), "other")]
    assert "the files are of anthropic and openai" in project.run("reconcile", *files, code=2).stderr


def bucket(*results, start=0, hours=24):
    """A page of one bucket, so many hours after midnight."""
    begins = int(DAY.replace(hour=start).timestamp())
    return {"data": [{"start_time": begins, "end_time": begins + hours * 3600, "results": list(results)}]}


def test_a_bucket_may_end_with_its_day_s_last_second(project):
    book(project, *TWO_DAYS)
    said = f"input_tokens,output_tokens,num_model_requests,model,start_time,end_time_iso\n1500,300,2,{SNAPSHOT},"
    assert project.run("reconcile", save(project, said + "1795132800,2026-11-20T23:59:59Z\n")).stderr == ""
    done = project.run("reconcile", save(project, said + "1795132800,2026-11-30T00:00:00Z\n"), code=2)
    assert "line 2: a bucket from 2026-11-20 00:00 to 2026-11-30 00:00 UTC" in done.stderr


@pytest.mark.parametrize(("start", "hours"), [(0, 720), (0, 25), (12, 24), (5, 0)])
def test_a_bucket_that_is_not_of_one_day_is_refused(project, start, hours):
    book(project, *TWO_DAYS)
    name = save(project, bucket(usage(), start=start, hours=hours))
    assert "UTC isn't of one UTC day; export by day (bucket_width=1d)" in project.run("reconcile", name, code=2).stderr


def test_hours_of_a_day_add_up_to_it_in_one_file_or_several(project):
    book(project, *TWO_DAYS)
    third = usage(input_tokens=500, input_cached_tokens=200, output_tokens=100, num_model_requests=1)
    no_requests = {**third, "num_model_requests": 0}
    first = [bucket(third, hours=8), bucket(third, start=8, hours=8)]
    files = [
        save(project, first, "a"),
        save(project, bucket({**no_requests, "input_cached_tokens": 0}, start=16, hours=8), "b"),
    ]
    done = project.run("reconcile", *files)
    assert done.stderr == ""
    assert "4 of 4 figures agree" in done.stdout
    done = project.run("reconcile", files[0], code=3)
    note = "requests, input_tokens, cached_input_tokens, output_tokens: only a part of 2026-11-20 is in the files"
    assert note in done.stderr


def test_a_row_of_openai_s_csv_without_requests_keeps_its_tokens(project):
    book(project, *TWO_DAYS)
    said = CSV_USAGE.replace(f"q,1.0,{SNAPSHOT}", f"q,,{SNAPSHOT}")
    done = project.run("reconcile", save(project, said), code=3)
    assert "requests is empty in 1 of 2 usage lines" in done.stderr
    assert [line[2:5] for line in compared(project, said, code=3)] == [("requests", 2, 1)]


def test_a_date_is_a_day_and_columns_may_be_named_one_by_one(project):
    book(project, *TWO_DAYS)
    assert count(project, "date,usd\n2026-11-20,0.75\n", "--tolerance", "0") == 1
    said = "date,cost,n\n2026-11-20,0.75,2\n"
    assert count(project, said, "--columns", "usd=cost", "--columns", "requests=n", "--tolerance", "0") == 2


def test_columns_are_for_the_files_that_have_them_beside_a_vendor_s_own(project):
    book(project, *TWO_DAYS)
    files = [save(project, page([usage()]), "a.json"), save(project, "on,cost\n2026-11-20,0.75\n", "b.csv")]
    found = json.loads(project.run("reconcile", *files, "--columns", "day=on,usd=cost", "--json").stdout)
    assert found["shapes"] == ["OpenAI's usage and costs (JSON)", "a plain CSV"]
    assert len(found["totals"]) == 5


def test_credits_are_dollars_below_nothing(project):
    book(project, *TWO_DAYS)
    assert count(project, "day,usd\n2026-11-20,1.75\n2026-11-20,-1.00\n", "--tolerance", "0") == 1
