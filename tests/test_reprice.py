"""What if: the ledger's attempts at other prices, exactly, and unknown where it is."""

import json
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal

import pytest
from bookings import PRICE, Booked
from project import Project

from pipeline.cli import group
from pipeline.cli._show import cell
from pipeline.pricing import Price, Variant, Window, cost_usd
from pipeline.pricing._terms import DAYS
from pipeline.records import Usage

D = Decimal
FILE = """
[[price]]
provider = "anthropic"
model = "old"
input = "1"
cached_input = "0.1"
cache_write = "1.25"
output = "5"
source = "a test"
[[price]]
provider = "anthropic"
model = "old"
effective_from = 2026-11-03
input = "2"
cached_input = "0.2"
cache_write = "2.5"
output = "10"
source = "a test"
[[price]]
provider = "p"
model = "tiered"
input = "0.10"
output = "0.50"
source = "a test"
[[price.above]]
input_tokens_over = 100000
input = "0.50"
output = "2.50"
[[price.window]]
utc_from = 01:00:00
utc_to = 04:00:00
multiplier = "2"
[[price]]
provider = "q"
model = "tiered"
input = "1"
output = "1"
source = "a test"
[[price]]
provider = "p"
model = "steps"
input = "0.10"
cached_input = "0.01"
output = "0.50"
source = "a test"
[[price.above]]
input_tokens_over = 100000
input = "0.50"
cached_input = "0.05"
output = "2.50"
"""
CACHED = Usage(504 + 123 + 1000, 97, 1000, 123)


def sent(*moment):
    return datetime(*moment, tzinfo=UTC).timestamp()


@pytest.fixture
def project(tmp_path):
    (tmp_path / "prices.toml").write_text(FILE)
    return Project(tmp_path, environ={"PROMPTMILL_PRICES": "prices.toml"})


@pytest.fixture
def book(project):
    def start(job="j", **changes):
        return Booked(project.folder / "promptmill.duckdb", job, **changes)

    return start


def spend_as(project, *args, code=0):
    done = project.run("spend", "--json", *args, code=code)
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.mark.parametrize(
    ("target", "usd"),
    [
        ("old@anthropic", "0.00124275"),
        ("old@anthropic:batch", "0.000621375"),
        ("old@anthropic:flex", None),
    ],
)
def test_an_attempt_is_priced_with_the_lanes_rules_and_unknown_is_null(project, book, target, usd):
    run = book()
    run.attempt("v1a", usage=CACHED, cost=D("0.5"), sent_at=sent(2026, 11, 2, 23, 59, 59))
    run.end()
    (row,) = spend_as(project, "--as", target)
    assert row["as_usd"] == (None if usd is None else f"{D(usd):.12f}")
    assert (row["job"], row["as"], D(row["cost_usd"])) == ("j", target, D("0.5"))
    assert row["as_unknown"] == (usd is None)
    assert row["difference_usd"] == (None if usd is None else f"{D(usd) - D('0.5'):.12f}")


def test_prices_are_those_of_the_moment_of_sending_or_of_the_day_that_is_named(project, book):
    run = book()
    run.attempt("v1a", usage=Usage(1_000_000, 0), sent_at=sent(2026, 11, 2, 23, 59, 59))
    run.attempt("v1b", usage=Usage(1_000_000, 0), sent_at=sent(2026, 11, 3))
    run.end()
    costs = [
        [D(row["as_usd"]) for row in spend_as(project, "--as", "old", "--by", "run_id,day", *at)]
        for at in ((), ("--at", "2026-11-02"), ("--at", "2026-11-03"))
    ]
    assert costs == [[1, 2], [1, 1], [2, 2]]


def test_tiers_and_hours_are_those_of_each_attempt(project, book):
    run = book()
    run.attempt("v1a", usage=Usage(100_000, 1000), sent_at=sent(2026, 11, 2, 0, 59, 59))
    run.attempt("v1b", usage=Usage(100_001, 1000), sent_at=sent(2026, 11, 2, 4))
    run.attempt("v1c", usage=Usage(100_000, 1000), sent_at=sent(2026, 11, 2, 1))
    run.end()
    (row,) = spend_as(project, "--as", "tiered@p")
    assert D(row["as_usd"]) == D("0.0105") + D("0.0525005") + 2 * D("0.0105")


def test_attempts_without_usage_are_unknown_unless_nothing_was_billed(project, book):
    run = book()
    run.attempt("v1a", usage=Usage(1000, 0))
    run.attempt("v1b", usage=None, cost=None, result="unavailable", output=None)
    run.attempt("v1c", usage=None, cost=D(0), result="unavailable", output=None, http_status=503)
    run.attempt("v1d", usage=None, cost=D(0))  # an answer of a free model
    run.end()
    (row,) = spend_as(project, "--as", "tiered@q")
    assert (D(row["as_usd"]), row["attempts"], row["as_unknown"], row["unknown_cost"]) == (D("0.001"), 4, 2, 1)
    assert row["difference_usd"] is None


def test_what_was_cut_off_at_a_free_model_is_unknown_at_a_paid_one(project, book):
    run, other = book("a"), book("b")
    run.attempt("v1a", usage=Usage(1000, 0), cost=D(0))
    more = {"usage": None, "cost": D(0), "result": "unavailable", "output": None}
    for n, (status, kind) in enumerate([(500, "server_error"), (429, "x"), (None, "connect"), (None, "tls")]):
        run.attempt(f"v1b{n}", http_status=status, error_type=kind, **more)
    maybe = [(200, "undecodable_answer"), (504, "http_504"), (None, "timeout"), (None, "broken"), (None, "too_large")]
    for n, (status, kind) in enumerate(maybe):
        other.attempt(f"v1c{n}", http_status=status, error_type=kind, **more)
    run.end()
    other.end()
    never, cut = spend_as(project, "--as", "tiered@q")
    assert (never["as_unknown"], D(never["difference_usd"])) == (0, D("0.001"))
    assert (cut["as_unknown"], cut["as_usd"], cut["difference_usd"]) == (len(maybe), None, None)
    for row in spend_as(project, "--as", "smollm2-135m-instruct@local"):
        assert (row["as_unknown"], D(row["as_usd"]), D(row["difference_usd"])) == (0, D(0), D(0))


def test_a_prompt_that_a_filter_refused_before_it_was_read_costs_nothing_anywhere(project, book):
    refused = {"usage": None, "cost": D(0), "result": "refused", "output": None, "error_type": "content_filter"}
    for job, status in {"asked": 400, "withheld": 200}.items():  # the second is a free model's answer
        run = book(job)
        run.attempt(f"v1a{job}", usage=Usage(1000, 0), cost=D("0.5"))
        run.attempt(f"v1b{job}", http_status=status, **refused)
        run.end()
    asked, withheld = spend_as(project, "--as", "tiered@q")
    assert (asked["as_unknown"], D(asked["as_usd"]), D(asked["difference_usd"])) == (0, D("0.001"), D("-0.499"))
    assert (withheld["as_unknown"], withheld["difference_usd"]) == (1, None)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("tiered@q", "tiered@q"), ["tiered@q"]),
        (("tiered@q:realtime", "tiered@q"), ["tiered@q"]),
        (("old:batch", "tiered@q", "old@anthropic:batch"), ["old@anthropic:batch", "tiered@q"]),
    ],
)
def test_a_target_that_is_named_twice_counts_once(project, book, targets, said):
    run = book()
    run.attempt("v1a", usage=Usage(1000, 0))
    run.end()
    rows = spend_as(project, *(arg for target in targets for arg in ("--as", target)))
    assert [(row["as"], row["attempts"], D(row["cost_usd"])) for row in rows] == [
        (name, 1, D("0.001")) for name in said
    ]


def test_a_line_for_each_job_and_target(project, book):
    for job in ("a", "b"):
        run = book(job)
        run.attempt("v1" + job, usage=Usage(1000, 0))
        run.end()
    rows = spend_as(project, "--as", "tiered@q", "--as", "old:batch")
    assert [(row["job"], row["as"]) for row in rows] == [
        ("a", "tiered@q"), ("a", "old@anthropic:batch"), ("b", "tiered@q"), ("b", "old@anthropic:batch"),
    ]  # fmt: skip
    assert "as_usd" in project.run("spend", "--as", "tiered@q").stdout


def test_more_than_one_group_ends_with_a_total_for_each_target(project, book):
    for job, cost in (("a", D("0.5")), ("b", D("0.25"))):
        run = book(job)
        run.attempt("v1" + job, usage=Usage(1000, 0), cost=cost)
        run.attempt("v1lost" + job, usage=None, cost=None if job == "b" else D(0), result="unavailable", output=None)
        run.end()
    shown = project.run("spend", "--as", "tiered@q", "--as", "smollm2-135m-instruct@local").stdout.splitlines()
    assert [line.split() for line in shown[-2:]] == [
        ["total", "tiered@q", "4", "0.75", "1", "0.002", "2"],
        ["total", "smollm2-135m-instruct@local", "4", "0.75", "1", "0", "0"],
    ]
    assert "total" not in project.run("spend", "--as", "tiered@q", "--as", "old:batch", "--by", "provider").stdout
    on_two_days = project.run("spend", "--at", "2026-11-03", "--at", "2026-11-02", "--as", "old").stdout
    assert on_two_days.splitlines()[-1].split()[:2] == ["total", "old@anthropic"]
    assert len(spend_as(project, "--as", "tiered@q")) == 2, "JSON holds groups alone"


@pytest.mark.parametrize(
    ("target", "cached", "usd"),
    [
        # 1,627 tokens in, 97 out; what was booked as read (1,000) and written (123) doesn't count
        ("old@anthropic", "0.8", "0.0009411"),  # 326 x 1 + 1,301 x 0.1 + 97 x 5
        ("old@anthropic:batch", "0.8", "0.00047055"),  # half of all that
        ("old@anthropic", "0.8,0.1", "0.0009816"),  # 164 x 1 + 1,301 x 0.1 + 162 x 1.25 + 97 x 5
        ("old@anthropic", "0,1", "0.00251875"),  # 1,627 x 1.25 + 97 x 5
        ("old@anthropic", "0", "0.002112"),  # 1,627 x 1 + 97 x 5
        ("old@anthropic", "1.0", "0.0006477"),  # 1,627 x 0.1 + 97 x 5
        ("old@anthropic:flex", ".8", None),
        ("gpt-5-mini@openai", "0.8", "0.000308025"),  # 326 x 0.25 + 1,301 x 0.025 + 97 x 2
        ("gpt-5-mini@openai:batch", "0.8", "0.0001540125"),  # a batch halves cached input too
        ("gpt-4o-mini@openai", "0.8", "0.000204675"),  # 326 x 0.15 + 1,301 x 0.075 + 97 x 0.6
        ("gpt-4o-mini@openai:batch", "0.8", "0.000151125"),  # 1,627 x 0.075 + 97 x 0.3, cached or not
        ("tiered@q", "0.8", "0.001724"),  # no price of cached input: 1,627 x 1 + 97 x 1
        ("tiered@q", "0", "0.001724"),  # nothing was asked of a cache
    ],
)
def test_a_cached_share_is_priced_as_the_lane_prices_it(project, book, target, cached, usd):
    run = book()
    run.attempt("v1a", usage=CACHED, sent_at=sent(2026, 11, 2))
    run.end()
    (row,) = spend_as(project, "--as", target, "--cached", cached)
    assert row["as_usd"] == (None if usd is None else f"{D(usd):.12f}")


@pytest.mark.parametrize(
    ("target", "cached", "idle"),
    [
        ("tiered@q", "0.8", True),
        ("tiered@q", "0", False),
        ("gpt-4o-mini@openai", "0.8", False),
        ("gpt-4o-mini@openai:batch", "0.8", True),
        ("smollm2-135m-instruct@local", "0.8", False),
    ],
)
def test_a_cache_that_saves_nothing_is_named(project, book, target, cached, idle):
    run = book()
    run.attempt("v1a", usage=CACHED)
    run.end()
    said = f"promptmill: {target}: input read from the cache costs no less than other input there"
    assert (said in project.run("spend", "--as", target, "--cached", cached).stderr) == idle


def test_context_tiers_are_chosen_by_all_input_cached_or_not(project, book):
    run = book()
    for key, tokens in (("v1a", 100_000), ("v1b", 100_001)):
        run.attempt(key, usage=Usage(tokens, 1000))
    run.attempt("v1c", usage=None, cost=D(0), result="unavailable", output=None)
    run.end()
    (row,) = spend_as(project, "--as", "steps@p", "--cached", "0.9")
    # 10,000 x 0.1 + 90,000 x 0.01 + 1,000 x 0.5, and 10,001 x 0.5 + 90,000 x 0.05 + 1,000 x 2.5
    assert D(row["as_usd"]) == D("0.0024") + D("0.0120005")


def test_two_days_show_what_each_run_would_have_cost_and_the_change(project, book):
    for tokens in (1_000_000, 3_000_000):
        run = book(provider="anthropic", model="old")
        run.attempt("v1a", usage=Usage(tokens, 0), cost=D("0.5"))
        run.end()
    run = book(provider="anthropic", model="unknown")
    run.attempt("v1b", usage=Usage(1000, 0), cost=None)
    run.end()
    days = ("--at", "2026-11-03", "--at", "2026-11-02", "--by", "run_id")
    rows = spend_as(project, *days)
    assert [(row["run_id"], row["as"], row["before"], row["after"]) for row in rows] == [
        (n, None, "2026-11-02", "2026-11-03") for n in (1, 2, 3)
    ]
    zeros = "000000000000"
    assert [(row["before_usd"], row["after_usd"], row["change_usd"]) for row in rows] == [
        (f"1.{zeros}", f"2.{zeros}", f"1.{zeros}"), (f"3.{zeros}", f"6.{zeros}", f"3.{zeros}"), (None, None, None),
    ]  # fmt: skip
    assert [(row["before_unknown"], row["after_unknown"], row["unknown_cost"]) for row in rows][1:] == [
        (0, 0, 0), (1, 1, 1),
    ]  # fmt: skip
    (row, _, _) = spend_as(project, *days, "--as", "old:batch", "--cached", "0.5")
    assert (row["as"], D(row["before_usd"]), D(row["change_usd"])) == ("old@anthropic:batch", D("0.275"), D("0.275"))
    lines = project.run("spend", *days).stdout.splitlines()
    assert lines[0].split("  ") == [
        "run_id", "cost_usd", "unknown", "on 2026-11-02", "unknown on 2026-11-02", "on 2026-11-03",
        "unknown on 2026-11-03", "change_usd",
    ]  # fmt: skip
    assert lines[3].split() == ["2", "0.5", "0", "3", "0", "6", "0", "3"]


def test_without_a_target_attempts_keep_their_model_and_only_prices_that_hold_for_them_count(project, book):
    for job, changes in {
        "listed": {},
        "mine": {"config": {"model": {"base_url": "http://127.0.0.1/v1"}}},
        "other": {"model": "gpt-5-mini", "provider": "openai", "config": {"model": {"base_url": "http://a/v1"}}},
        "stated": {"config": {"price": {"input": "9", "output": "9"}}},
        "option": {"price": {**PRICE, "source": "--price"}},
    }.items():
        run = book(job, **{"provider": "q", "model": "tiered", **changes})
        run.attempt("v1" + job, usage=Usage(1000, 0))
        run.end()
    costs = {row["job"]: row["as_usd"] for row in spend_as(project, "--at", "2026-11-03")}
    assert costs == {
        "listed": "0.001000000000",
        "mine": "0.001000000000",
        "other": None,
        "stated": None,
        "option": None,
    }
    assert spend_as(project, "--at", "2026-11-03") == spend_as(project, "--cached", "0")


def test_runs_are_listed_in_their_order(project, book):
    for _ in range(11):
        run = book()
        run.attempt("v1a", usage=Usage(1000, 0))
        run.end()
    rows = spend_as(project, "--as", "tiered@q", "--by", "run_id")
    assert [row["run_id"] for row in rows] == list(range(1, 12))


@pytest.mark.parametrize(
    ("options", "attempts"),
    [
        ((), 5),
        (("--since", "2026-11-01"), 4),
        (("--since", "2026-11-30", "--before", "2026-12-01"), 2),
        (("--before", "2026-11-01"), 1),
        (("--since", "2027-01-01"), 0),
    ],
)
def test_money_of_some_days_is_what_was_sent_from_one_midnight_utc_to_another(project, book, options, attempts):
    run = book(model="tiered", provider="p")
    moments = [(2026, 10, 31, 23, 59, 59), (2026, 11, 1), (2026, 11, 30), (2026, 11, 30, 23, 59, 59), (2026, 12, 1)]
    for number, moment in enumerate(moments):
        run.attempt(f"v1{number}", usage=Usage(1_000_000, 0), cost=D("0.5"), sent_at=sent(*moment))
    run.end()
    for what_if in ((), ("--as", "tiered@q")):
        rows = spend_as(project, *what_if, *options)
        assert sum(row["attempts"] for row in rows) == attempts
        if rows:
            assert D(rows[0]["cost_usd"]) == attempts * D("0.5")
    months = spend_as(project, "--by", "month", "--since", "2026-11-01", "--as", "tiered@q")
    assert [(row["month"], row["attempts"], row["as_usd"]) for row in months] == [
        ("2026-11", 3, "3.000000000000"), ("2026-12", 1, "1.000000000000"),
    ]  # fmt: skip
    shown = project.run("spend", "--by", "month").stdout
    assert [line.split()[:2] for line in shown.splitlines()[2:]] == [
        ["2026-10", "1"], ["2026-11", "3"], ["2026-12", "1"], ["total", "5"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--as", "tiered"), "tiered has several sellers; write tiered@ and one of p, q"),
        (("--as", "nothing"), "nobody's price of nothing is known"),
        (("--as", "steeps"), "`promptmill prices` lists some; did you mean 'steps'?"),
        (("--as", "new@anthropic"), "--as new@anthropic: no price of new at anthropic is known"),
        (("--as", "gpt-4.1-mni@openai:batch"), "did you mean 'gpt-4.1-mini'?"),
        (("--as", "gpt-4.1-mini@opena"), "no price of gpt-4.1-mini at opena is known; did you mean 'openai'?"),
        (("--as", "tiered@q", "--as", "tiered@r"), "no price of tiered at r is known"),
        (("--as", "@p"), "write MODEL, MODEL@PROVIDER"),
        (("--as", "tiered@p", "--by", "colour"), "--by colour: choose from job"),
        (("--as", "tiered@p", "--drift"), "not with --forecast or --drift"),
        (("--at", "2026-11-03", "--forecast"), "not with --forecast or --drift"),
        (("--cached", "0.8", "--drift"), "not with --forecast or --drift"),
        (("--at", "2026-11-03", "--at", "2026-11-03"), "--at: name one day, or two different ones"),
        (("--at", "2026-11-03", "--at", "2026-11-04", "--at", "2026-11-05"), "--at: name one day, or two"),
        (("--cached", "80"), "--cached 80: write a share of the input from 0 to 1, such as 0.8"),
        (("--cached", "-0.1"), "write a share of the input from 0 to 1"),
        (("--cached", "0.1,0.1,0.1"), "write a share of the input from 0 to 1"),
        (("--cached", "0.9,0.2"), "can't be more than all of the input"),
        (("--since", "2026-11-03", "--forecast"), "--since and --before go with --by"),
        (("--before", "2026-11-03", "--drift"), "--since and --before go with --by"),
        (("--since", "2026-11-03", "--before", "2026-11-03"), "no day lies between"),
        (("--since", "yesterday"), "'yesterday' does not match the format '%Y-%m-%d'"),
    ],
)
def test_a_mistake_is_a_sentence(project, book, args, message):
    book().end()
    assert message in spend_as(project, *args, code=2)


def test_the_macro_gives_the_same_dollars_to_the_last_digit(project, book):
    run = book()
    run.attempt("v1a", usage=CACHED)
    run.attempt("v1b", usage=None, cost=None)
    run.attempt("v1c", usage=Usage(10**12, 10**12, 1, 1, 1))
    run.end()
    tokens = "input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens"
    asked = f"select reprice({tokens}, 1, 0.1, 1.25, 5, 5) as usd, typeof(usd) as type from attempts order by key"
    rows = project.sql(asked)
    assert rows[0] == {"usd": "0.001242750000", "type": "DECIMAL(38,12)"}
    assert rows[1]["usd"] is None
    assert rows[2]["usd"] == "5999999.999999350000"


@pytest.mark.parametrize(("read", "written"), [("0", "0"), ("0.8", "0"), ("0.333333333333", "0.1"), ("1", "0")])
def test_the_macro_and_the_command_take_the_same_share_from_the_cache(project, book, read, written):
    run = book(provider="anthropic", model="old")
    usages = [CACHED, *(Usage(n * n, n, n, 1, n // 2) for n in range(2, 40)), Usage(10**12, 7)]
    for n, usage in enumerate(usages):
        run.attempt(f"v1{n:02}", usage=usage, sent_at=sent(2026, 11, 2))
    run.end()
    tokens = "input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens"
    shares = f"cached_share := {read}" + (f", written_share := {written}" if written != "0" else "")
    asked = f"select reprice({tokens}, 1, 0.1, 1.25, 5, 5, {shares}) as usd, typeof(usd) as type from attempts"
    (row,) = spend_as(project, "--cached", read if written == "0" else f"{read},{written}")
    sums = project.sql(f"select sum(usd) as usd, any_value(type) as type from ({asked})")
    assert sums == [{"usd": row["as_usd"], "type": "DECIMAL(38,12)"}]


def test_a_share_in_the_macro_counts_whole_tokens_and_no_shares_are_above_one_together(project, book):
    run = book()
    run.attempt("v1a", usage=CACHED)
    run.end()
    tokens = "input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens"
    shares = (
        "cached_share := 0.8", "cached_share := 0.8::double", "written_share := 1", "cached_share := 80",
        "cached_share := 0.8, written_share := 0.5", "cached_share := 0.9, written_share := 0.1",
        "cached_share := 1, written_share := -0.5", "cached_share := 1, written_share := 0.000000000001",
    )  # fmt: skip
    columns = ", ".join(f"reprice({tokens}, 1, 0.1, 1.25, 5, 5, {share}) as c{n}" for n, share in enumerate(shares))
    (row,) = project.sql(f"select {columns} from attempts")
    # 1,464 x 0.1 + 162 x 1.25 + 1 x 1 + 97 x 5, in whole tokens
    assert list(row.values()) == [
        "0.000941100000", "0.000941100000", "0.002518750000", None, None, "0.000834900000", None, None,
    ]  # fmt: skip


def test_the_macro_rounds_as_costs_do_and_charges_a_contradicting_usage_by_its_parts(project, book):
    run = book()
    halves = [Usage(tokens, 0) for tokens in (1, 3, 5)]  # 0.5, 1.5 and 2.5 of the last digit
    usages = [*halves, *(Usage(n, n % 7, n % 3, n % 2, n % 5) for n in range(30)), Usage(1, 1, 9, 9, 9)]
    for n, usage in enumerate(usages):
        run.attempt(f"v1{n:02}", usage=usage)
    run.end()
    price = Price("p", "m", D("0.0000005"), D("0.0000015"), D("0.123456789012"), D("0.00000025"), D("0.0000007"))
    columns = "input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens"
    prices = f"{price.input:f}, {price.cached_input:f}, {price.cache_write:f}, {price.output:f}, {price.reasoning:f}"
    rows = project.sql(f"select reprice({columns}, {prices}) as usd from attempts order by key")
    costs = [cost_usd(price, usage) for usage in usages]
    assert [D(row["usd"]) for row in rows] == costs
    assert [cost.scaleb(12) for cost in costs[:3]] == [0, 2, 2]


def test_prices_shows_every_seller_list_lane_and_tier(project):
    rows = json.loads(project.run("prices", "tiered", "--json").stdout)
    assert [(row["provider"], row["list"], row["counts"]) for row in rows] == [
        ("p", "prices.toml", True),
        ("q", "prices.toml", True),
    ]
    charges = [
        (one["hours"], one["input_tokens_over"], D(one["input"]), D(one["output"])) for one in rows[0]["charges"]
    ]
    assert charges == [
        (None, None, D("0.1"), D("0.5")),
        (None, 100_000, D("0.5"), D("2.5")),
        ("01:00-04:00 UTC", None, D("0.2"), D("1")),
        ("01:00-04:00 UTC", 100_000, D("1"), D("5")),
    ]
    text = project.run("prices", "old", "--at", "2026-11-02").stdout
    assert "1.25" in text
    assert "2026-11-03" not in text


def test_prices_says_which_list_counts_and_marks_what_nobody_checked(project):
    (project.folder / "prices.toml").write_text(
        '[[price]]\nprovider = "modelslab"\nmodel = "gpt-oss-20b"\ninput = "1"\noutput = "2"\nsource = "mine"\n'
    )
    done = project.run("prices", "gpt-oss-20b", "--provider", "modelslab", "--json")
    assert [(row["list"], row["counts"], row["source"]) for row in json.loads(done.stdout)] == [
        ("prices.toml", True, "mine"), ("promptmill's price files", False, "vendor's model page, 2026-04-24"),
    ]  # fmt: skip
    assert [claim["per_request"] for claim in json.loads(done.stdout)[1]["contradictions"]] == ["0.085", "0"]
    done = project.run("prices", "gpt-oss-20b", "--provider", "modelslab", "--at", "2026-11-24")
    assert 'modelslab gpt-oss-20b: if "0.085 per call" is true: 0.085 per request\n' in done.stderr
    assert "more than 90 days ago" in done.stderr
    assert "nobody's price of nope is known" in project.run("prices", "nope", code=2).stderr


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize(
    "model",
    [[], ["gpt-oss-20b"], ["gpt-5-mini"], ["deepseek-flash"], ["claude-haiku-5-5"], ["tiered"], ["priced-oddly"]],
)
def test_people_see_what_tells_prices_apart_since_when_and_who_says_so_at_any_width(
    project, monkeypatch, capsys, columns, model
):
    odd = (
        '[[price]]\nprovider = "p"\nmodel = "priced-oddly"\ninput = "1"\noutput = "2"\nreasoning = "3"\n'
        f'cache_write_5m = "1.25"\nsource = "{"a page with a long name " * 5}"\nper_request = "0.001"\n'
        'minimum_charge = "0.01"\nmarkup = "0.05"\nchecked = 2026-11-01\n'
        '[price.tier.batch]\nmultiplier = "0.5"\n'
    )
    (project.folder / "prices.toml").write_text(FILE + odd)
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PROMPTMILL_PRICES", "prices.toml")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    at = ["--at", "2026-11-24"]
    assert group.main(["prices", *model, *at, "--json"], standalone_mode=False) == 0
    prices = json.loads(capsys.readouterr().out)
    assert group.main(["prices", *model, *at], standalone_mode=False) == 0
    shown = capsys.readouterr()
    assert "No room" not in shown.out + shown.err
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= columns
    head, *listed = re.split(r"\n(?=\S)", shown.out.rstrip("\n"))
    assert head.startswith("dollars per 1M tokens")
    assert len(listed) == len(prices)
    for price, text in zip(prices, listed, strict=True):
        said, words = text.splitlines(), " ".join(text.split())
        assert said[0] == f"{price['provider']} {price['model']}"
        assert f"counts: {'yes' if price['counts'] else 'no, after '}" in words
        assert f"list: {price['list']}; since: {price['effective_from'] or 'not said'}; checked: " in words
        assert f"checked: {price['checked'] or 'not said'}" in words
        assert " ".join(price["source"].split()) in words
        conditions = [
            " ".join(filter(None, (one["lane"], (over := one["input_tokens_over"]) and f">{over:,}", one["hours"])))
            for one in price["charges"]
        ]
        assert len(set(conditions)) == len(conditions)
        for condition, charge in zip(conditions, price["charges"], strict=True):
            assert f" {condition} {cell(D(charge['input']))} {cell(D(charge['cached_input']))} " in words
    if model == ["priced-oddly"]:
        assert "per request: 0.001; at least: 0.01; markup: 0.05" in shown.out
        assert lines[0].split()[4:] == ["input", "cached", "cache_write", "write_1h", "output", "reasoning"]


def test_days_that_follow_each_other_are_written_as_from_and_to():
    hours = Window(time(1), time(4), Variant())
    words = [
        replace(hours, weekdays=days).in_words().partition("UTC")[2]
        for days in (DAYS, DAYS[:5], DAYS[5:], DAYS[4:], ("mon", "wed", "thu"))
    ]
    assert words == ["", " mon-fri", " sat,sun", " fri-sun", " mon,wed,thu"]


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (time(0, 0, 10), time(0, 0, 20), "00:00:10-00:00:20 UTC"),
        (time(1), time(3, 59, 59), "01:00:00-03:59:59 UTC"),
        (time(22, 30), time(6), "22:30-06:00 UTC"),
    ],
)
def test_hours_keep_their_seconds(first, last, words):
    assert Window(first, last, Variant()).in_words() == words
