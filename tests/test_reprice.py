"""What if: the ledger's attempts at other prices, exactly, and unknown where it is."""

import json
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal

import pytest
from bookings import Booked
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
    def start(job="j"):
        return Booked(project.folder / "promptmill.duckdb", job)

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
        ("new@anthropic", None),
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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--as", "tiered"), "tiered has several sellers; write tiered@ and one of p, q"),
        (("--as", "nothing"), "nobody's price of nothing is known"),
        (("--as", "@p"), "write MODEL, MODEL@PROVIDER"),
        (("--as", "tiered@p", "--by", "colour"), "--by colour: choose from job"),
        (("--as", "tiered@p", "--drift"), "not with --forecast or --drift"),
        (("--at", "2026-11-03"), "--at is for the prices that --as looks up"),
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
