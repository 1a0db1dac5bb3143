"""`promptmill reconcile`: the ledger and a provider's export, figure by figure."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from bookings import PRICE, Booked
from project import Project, texts
from stub_faults import CUT, every
from usage_pages import DAY, NEXT, SNAPSHOT, TWO_DAYS, book, compared, costs, count, last_day, lose, page, save, usage

FREE = {**PRICE, "input": "0", "output": "0"}


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


# -- what is compared -------------------------------------------------------------------------------


def test_an_export_that_says_what_the_ledger_says_agrees(project):
    book(project, *TWO_DAYS)
    assert count(project, page([usage()], [last_day()]), "--tolerance", "0") == 8
    billed = page([costs(0.5), costs(0.25, f"{SNAPSHOT}, cached input")], [costs("0.10", f"{SNAPSHOT}, output")])
    assert count(project, billed, "--tolerance", "0") == 2


@pytest.mark.parametrize(
    ("change", "figure", "ours"),
    [
        ({"input_tokens": 1600}, "input_tokens", 1500),
        ({"input_cached_tokens": 300}, "cached_input_tokens", 400),
        ({"output_tokens": 299}, "output_tokens", 300),
        ({"num_model_requests": 3}, "requests", 2),
    ],
)
def test_each_figure_that_differs_is_listed_with_both_sides(project, change, figure, ours):
    book(project, *TWO_DAYS)
    (theirs,) = change.values()
    line = ("2026-11-20", SNAPSHOT, figure, ours, theirs, "differs")
    assert compared(project, page([usage(**change)], [last_day()]), "--tolerance", "0.1", code=3) == [line]


def test_a_model_or_a_day_that_only_one_side_has_is_listed(project):
    book(project, *TWO_DAYS)
    other = usage("gpt-5", input_tokens=7, input_cached_tokens=0, output_tokens=0, num_model_requests=1)
    assert compared(project, page([usage(), other], []), code=3) == [
        ("2026-11-20", "gpt-5", "requests", 0, 1, "only provider"),
        ("2026-11-20", "gpt-5", "input_tokens", 0, 7, "only provider"),
        ("2026-11-21", SNAPSHOT, "requests", 1, 0, "only ledger"),
        ("2026-11-21", SNAPSHOT, "input_tokens", 300, 0, "only ledger"),
        ("2026-11-21", SNAPSHOT, "output_tokens", 60, 0, "only ledger"),
    ]


def test_days_that_the_export_does_not_cover_are_not_compared(project):
    book(project, *TWO_DAYS)
    assert compared(project, page([usage()])) == []


def test_only_attempts_at_the_export_s_provider_are_compared(project):
    book(project, *TWO_DAYS)
    book(project, (DAY, 10, 0, 10, "9"), provider="groq")
    assert compared(project, page([usage()], [last_day()])) == []
    assert compared(project, page([usage()], [last_day()]), "--provider", "groq", code=3)


def test_a_vendor_s_export_is_not_compared_with_attempts_that_went_to_another_address(project):
    book(project, *TWO_DAYS)
    book(project, (DAY, 10, 0, 10, "9"), config={"model": {"base_url": "http://127.0.0.1/v1"}})
    name = save(project, page([usage()], [last_day()]))
    note = "attempts at openai that went to another address (base_url) are left out: 1; --provider openai takes them in"
    done = project.run("reconcile", name)
    assert note in done.stderr
    assert json.loads(project.run("reconcile", name, "--json").stdout)["notes"] == [note]
    done = project.run("reconcile", name, "--provider", "openai", code=3)
    assert done.stderr == ""
    assert "1510" in done.stdout


def test_a_file_that_is_named_twice_counts_once_and_a_line_says_so(project):
    book(project, *TWO_DAYS)
    name, copy = save(project, page([usage()], [last_day()])), save(project, page([usage()], [last_day()]), "copy")
    for again in (name, copy):
        done = project.run("reconcile", name, again)
        assert f"{again} holds what {name} does: it counts once" in done.stderr


def test_a_provider_the_ledger_does_not_know_is_named_with_those_it_knows(project):
    book(project, *TWO_DAYS, provider="groq")
    done = project.run("reconcile", save(project, page([usage()])), code=2)
    assert "no attempts at 'openai' (providers: groq)" in done.stderr


@pytest.mark.parametrize("name", [SNAPSHOT, "gpt-4o-mini"])
def test_a_model_is_found_by_the_name_it_answered_with_and_by_the_one_it_was_asked_by(project, name):
    book(project, *TWO_DAYS)
    assert compared(project, page([usage(name)], [last_day(model=name)])) == []


def test_an_attempt_that_was_lost_belongs_to_the_snapshot_of_the_model_it_was_sent_to(project):
    book(project, *TWO_DAYS)
    lose(project)
    more = {"input_tokens": 1550, "output_tokens": 400, "num_model_requests": 3}
    assert compared(project, page([usage(**more)], [last_day()]), "--tolerance", "0") == []


LATER = "gpt-4o-mini-2026-09-01"


def several_snapshots(project, first, second):
    """What agrees if a vendor counts so many requests of two snapshots; the ledger knows of 1, 1 and a lost one."""
    book(project, (DAY, 10, 0, 1, "0.50"))
    book(project, (DAY, 10, 0, 1, "0.50"), returned=LATER)
    lose(project)
    said = f"day,model,requests\n2026-11-20,{SNAPSHOT},{first}\n2026-11-20,{LATER},{second}\n"
    found = json.loads(project.run("reconcile", save(project, said), "--json", code=None).stdout)
    lines = [(line["model"], line["ledger"], line["ledger_at_most"], line["verdict"]) for line in found["lines"]]
    assert lines[0][1:3] == lines[1][1:3] == (1, 2)
    assert [line[0] for line in lines] == [SNAPSHOT, LATER]
    (total,) = found["totals"]
    assert (total["ledger"], total["ledger_at_most"]) == (2, 3)
    return [line[3] for line in lines], total["verdict"]


@pytest.mark.parametrize(
    ("first", "second", "verdicts", "total"),
    [
        (1, 1, ["agrees", "agrees"], "agrees"),
        (2, 1, ["agrees", "agrees"], "agrees"),
        (1, 2, ["agrees", "agrees"], "agrees"),
        (2, 2, ["agrees", "agrees"], "differs"),
        (3, 1, ["differs", "agrees"], "differs"),
    ],
)
def test_an_attempt_that_was_lost_may_be_of_any_listed_snapshot_but_only_of_one(
    project, first, second, verdicts, total
):
    assert several_snapshots(project, first, second) == (verdicts, total)


def test_an_attempt_that_was_lost_is_of_a_snapshot_that_the_vendor_lists_on_its_day(project):
    book(project, (DAY, 10, 0, 1, "0.50"))
    book(project, (NEXT, 10, 0, 1, "0.50"), returned=LATER)
    lose(project, NEXT)
    said = f"day,model,requests\n2026-11-20,{SNAPSHOT},1\n2026-11-21,{LATER},2\n"
    assert compared(project, said) == []


def test_a_snapshot_that_only_a_lost_attempt_may_be_of_is_the_provider_s_alone(project):
    book(project, (DAY, 10, 0, 1, "0.50"))
    lose(project)
    said = f"day,model,requests\n2026-11-20,{SNAPSHOT},1\n2026-11-20,{LATER},7\n"
    assert compared(project, said, code=3) == [("2026-11-20", LATER, "requests", None, 7, "only provider")]


def test_an_answer_of_another_snapshot_is_not_that_of_the_listed_one(project):
    book(project, (DAY, 10, 0, 1, "0.50"))
    book(project, (DAY, 10, 0, 1, "0.50"), returned=LATER)
    assert compared(project, f"day,model,requests\n2026-11-20,{SNAPSHOT},2\n", code=3) == [
        ("2026-11-20", SNAPSHOT, "requests", 1, 2, "differs"),
        ("2026-11-20", LATER, "requests", 1, 0, "only ledger"),
    ]


OPUS = "claude-opus-4-5"


def of_anthropic(tokens, cost):
    """Its usage CSV, which has dated names, and its cost CSV, which has undated ones."""
    columns = "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_output_tokens"
    return (
        f"{columns}\n2026-11-20,{OPUS}-20251101,{tokens},97\n",
        f"usage_date_utc,model,token_type,cost_usd\n2026-11-20,Claude Opus 4.5,output,{cost}\n",
    )


def test_a_model_with_a_dated_name_in_one_file_and_an_undated_one_in_another_is_one(project):
    book(project, (DAY, 504, 0, 97, "1.23"), provider="anthropic", model=OPUS)
    for tokens, cost, differing in ((504, "1.23", []), (600, "2.00", ["input_tokens", "usd"])):
        files = [save(project, content, f"f{n}") for n, content in enumerate(of_anthropic(tokens, cost))]
        done = project.run("reconcile", *files, "--json", code=3 if differing else 0)
        lines = json.loads(done.stdout)["lines"]
        assert {line["model"] for line in lines} == {f"{OPUS}-20251101"}
        assert [line["figure"] for line in lines] == ["input_tokens", "output_tokens", "usd"]
        assert [line["figure"] for line in lines if line["verdict"] != "agrees"] == differing


def test_a_snapshot_and_its_undated_name_that_one_file_lists_stay_two(project):
    book(project, (DAY, 10, 0, 1, "0.50"))
    book(project, (DAY, 10, 0, 1, "0.50"), returned="gpt-4o-mini")
    said = f"day,model,requests\n2026-11-20,{SNAPSHOT},1\n2026-11-20,gpt-4o-mini,1\n"
    assert count(project, said) == 2


def test_a_day_on_which_an_export_has_another_name_of_a_model_is_looked_up_in_that_day_first(project):
    book(project, *TWO_DAYS)
    assert compared(project, f"day,model,usd\n2026-11-20,{SNAPSHOT},0.75\n2026-11-21,gpt-4o-mini,0.10\n") == []


# -- tolerance and what is unknown ------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "code"), [(1508, 3), (1507, 0), (1493, 0), (1492, 3)])
def test_half_a_percent_of_the_provider_s_figure_is_tolerated_and_no_more(project, tokens, code):
    book(project, *TWO_DAYS)
    project.run("reconcile", save(project, page([usage(input_tokens=tokens)])), code=code)


@pytest.mark.parametrize(("usd", "code"), [("0.7601", 3), ("0.76", 0), ("0.74", 0), ("0.7399", 3)])
def test_a_cent_is_tolerated_in_dollars_and_no_more(project, usd, code):
    book(project, *TWO_DAYS)
    project.run("reconcile", save(project, page([costs(usd)])), code=code)


def test_what_only_one_side_has_is_no_rounding_however_small(project):
    book(project, (DAY, 10, 0, 1, "0.004"))
    assert compared(project, "day,model,usd\n2026-11-20,gpt-9,0.004\n", code=3) == [
        ("2026-11-20", SNAPSHOT, "usd", "0.004000000000", "0", "only ledger"),
        ("2026-11-20", "gpt-9", "usd", "0", "0.004", "only provider"),
    ]


@pytest.mark.parametrize(("usd", "code"), [("0.754", 0), ("0.75", 0), ("0.7541", 3), ("0.7499", 3)])
def test_dollars_agree_between_what_is_known_and_what_unknown_costs_can_add(project, usd, code):
    book(project, *TWO_DAYS, (DAY, None, 0, 0, None))  # at most 0.004
    project.run("reconcile", save(project, page([costs(usd)])), "--tolerance", "0", code=code)


@pytest.mark.parametrize(
    ("usd", "code"),
    [("0.75", 0), ("0.750000000000000044", 0), ("0.750000000001", 3), ("0.749999999999", 3), ("0.7501", 3)],
)
def test_tolerance_0_is_exact_to_the_ledgers_last_digit(project, usd, code):
    book(project, *TWO_DAYS)
    name = save(project, page([costs(usd)]))
    project.run("reconcile", name, "--tolerance", "0", code=code)
    assert ("agree exactly;" in project.run("reconcile", name, "--tolerance", "0", code=code).stdout) is True


def many_days(project, off):
    """60 days that the ledger and a CSV have, each off by so many dollars."""
    days = [DAY - timedelta(days=n) for n in range(60)]
    book(project, *((day, 10, 0, 1, "0.009") for day in days))
    return "day,usd\n" + "".join(f"{day:%Y-%m-%d},{Decimal('0.009') + off(n)}\n" for n, day in enumerate(days))


def test_small_differences_that_go_one_way_make_the_total_differ_and_that_counts(project):
    name = save(project, many_days(project, lambda _: Decimal("0.0099")))
    found = json.loads(project.run("reconcile", name, "--json", code=3).stdout)
    assert {line["verdict"] for line in found["lines"]} == {"agrees"}
    assert (found["agrees"], [line["verdict"] for line in found["totals"]]) == (False, ["differs"])
    shown = project.run("reconcile", name, code=3).stdout
    assert "60 of 60 figures agree" in shown
    assert "the total of usd differs: it is off by 0.594" in shown


def test_roundings_to_the_cent_go_both_ways_and_their_total_agrees(project):
    name = save(project, many_days(project, lambda n: Decimal("0.0049") * (-1) ** n + Decimal("0.001")))
    found = json.loads(project.run("reconcile", name, "--json").stdout)
    assert (found["agrees"], found["totals"][0]["difference"]) == (True, "0.060000000000")


def test_tokens_agree_up_to_what_attempts_without_usage_can_add(project):
    book(project, *TWO_DAYS, (DAY, None, 0, 0, None))  # 50 counted tokens, max_tokens 100
    more = {"input_tokens": 1550, "output_tokens": 400, "num_model_requests": 3, "input_cached_tokens": 450}
    assert compared(project, page([usage(**more)]), "--tolerance", "0") == []
    beyond = {name: value + 1 for name, value in more.items()}
    assert [line[2] for line in compared(project, page([usage(**beyond)]), "--tolerance", "0", code=3)] == [
        "requests", "input_tokens", "cached_input_tokens", "output_tokens",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "price", "verdict"),
    [(15_700, PRICE, "agrees"), (15_701, PRICE, "differs"), (15_701, None, "unknown"), (500, None, "agrees")],
)
def test_input_that_was_not_counted_exactly_may_be_as_much_as_its_dollars_bound(project, tokens, price, verdict):
    book(project, (DAY, 500, 0, 100, "0.50"))
    # at most 0.004 = 100 tokens of output at 2.00 and 15,200 of input at 0.25; counted as 50
    lose(project, price=price, worst=Decimal("0.004") if price else None, count_method="formula")
    said = f"day,input_tokens\n2026-11-20,{tokens}\n"
    found = json.loads(project.run("reconcile", save(project, said), "--tolerance", "0", "--json", code=None).stdout)
    assert [line["verdict"] for line in found["lines"]] == [verdict]
    assert found["lines"][0]["ledger_at_most"] == (None if price is None else 15_700)


@pytest.mark.parametrize(
    ("ended", "code"),
    [({"http_status": None, "error_type": "read"}, 0), ({"http_status": 504}, 0), ({"http_status": 429}, 3),
     ({"http_status": None, "error_type": "connect"}, 3)],
)  # fmt: skip
def test_a_free_model_s_answers_that_were_lost_may_have_been_counted(project, ended, code):
    book(project, (DAY, 500, 0, 100, "0"), price=FREE)
    lose(project, price=FREE, cost=Decimal(0), worst=Decimal(0), **ended)
    said = f"day,model,requests,input_tokens,output_tokens\n2026-11-20,{SNAPSHOT},2,550,200\n"
    assert len(compared(project, said, code=code)) == code


@pytest.mark.parametrize("usd", ["3", "0.008", "0"])
def test_an_unknown_price_never_agrees_with_a_bill(project, usd):
    booked = Booked(project.folder / "promptmill.duckdb", provider="openai", model="gpt-4o-mini", price=None)
    booked.attempt("k", cost=None, worst=None, model_returned=SNAPSHOT, sent_at=DAY.timestamp())
    booked.attempt("never billed", usage=None, cost=Decimal(0), worst=None, output=None, result="unavailable",
                   model_returned=SNAPSHOT, sent_at=DAY.timestamp())  # fmt: skip
    booked.end()
    name = save(project, page([costs(usd)]))
    found = json.loads(project.run("reconcile", name, "--json", code=3).stdout)
    for line in (*found["lines"], *found["totals"]):
        assert [line[key] for key in ("ledger", "ledger_at_most", "difference", "verdict")] == [
            None, None, None, "unknown",
        ]  # fmt: skip
    assert "0 of 1 figures agree" in project.run("reconcile", name, code=3).stdout


def test_a_total_does_not_agree_where_a_part_of_it_is_unknown(project):
    book(project, *TWO_DAYS)
    booked = Booked(project.folder / "promptmill.duckdb", provider="openai", model="gpt-5", price=None)
    booked.attempt("k", cost=None, worst=None, model_returned="gpt-5", sent_at=DAY.timestamp())
    booked.end()
    name = save(project, page([costs("0.75"), costs("0.001", "gpt-5, input")], [costs("0.10")]))
    found = json.loads(project.run("reconcile", name, "--json", code=3).stdout)
    assert [(line["model"], line["verdict"]) for line in found["lines"]][:2] == [
        (SNAPSHOT, "agrees"), ("gpt-5", "unknown"),
    ]  # fmt: skip
    (total,) = found["totals"]
    assert (total["ledger"], total["ledger_at_most"], total["verdict"]) == ("0.850000000000", None, "unknown")


def test_nothing_known_with_a_bound_is_no_zero_and_agrees_up_to_the_bound(project):
    lose(project)
    found = json.loads(project.run("reconcile", save(project, page([costs("0.004")])), "--json").stdout)
    assert [found["totals"][0][key] for key in ("ledger", "ledger_at_most")] == [None, "0.004000000000"]


# -- for people, and with a vendor that bills ---------------------------------------------------------


def test_people_see_what_differs_the_totals_and_how_much_agrees(project):
    book(project, *TWO_DAYS)
    name = save(project, page([usage(input_tokens=1600)], [last_day()]))
    shown = project.run("reconcile", name, code=3).stdout
    assert shown.count(SNAPSHOT) == 1
    assert "7 of 8 figures agree within 0.5 %" in shown
    assert "at_most" not in shown
    assert shown.count("total") == 4
    assert project.run("reconcile", name, "--all", code=3).stdout.count(SNAPSHOT) == 8


def test_people_see_how_much_more_it_may_be_where_a_cost_is_unknown(project):
    book(project, *TWO_DAYS, (DAY, None, 0, 0, None))
    shown = project.run("reconcile", save(project, page([costs(0.75)])), "--all").stdout
    assert "0.75    0.754" in shown


def test_what_a_vendor_bills_agrees_with_the_ledger_to_the_last_digit(tmp_path, stub):
    stub.faults = every(7, CUT)  # billed, and never received
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(60))
    project.job()
    project.run("run", "job.toml", "--yes")
    day = project.value("select strftime(min(sent_at), '%Y-%m-%d') from attempts")
    bill = f"date,prompt,out,usd,n\n{day},{sum(e.prompt_tokens for e in stub.entries)},"
    bill += f"{sum(e.completion_tokens for e in stub.entries)},{stub.bill:f},{len(stub.entries)}\n"
    columns = ("--columns", "day=date,input_tokens=prompt,output_tokens=out,requests=n", "--tolerance", "0")
    assert project.value("select count(*) from attempts where cost_usd is null") > 0
    assert compared(project, bill, *columns) == []
    assert compared(project, bill.replace(f",{len(stub.entries)}\n", ",1000\n"), *columns, code=3)
