"""`promptmill spend`: sums and shares, what was wasted and why, estimates and counts held against what came back."""

import json
import sys
from decimal import Decimal

import duckdb
import pytest
from bookings import COST, WORST, Booked, ask
from pages import ROOT, column
from project import Project, texts
from stub_faults import Reply, seeded, status

from pipeline.cli import group
from pipeline.cli._show import print_chosen
from pipeline.ledger import HistoryRequest, Ledger
from pipeline.records import Usage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "promptmill.duckdb"


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def spend(project, *args):
    return json.loads(project.run("spend", *args, "--json").stdout)


# -- wasted money -----------------------------------------------------------------------------------


def test_wasted_money_is_split_by_cause_and_the_parts_add_up(path):
    run = Booked(path)
    run.answer("good")
    for n, (key, result) in enumerate(
        [("a", "truncated"), ("b", "refused"), ("c", "invalid"), ("d", "rate_limited"), ("e", "unavailable")], 1
    ):
        run.attempt(key, result=result, cost=n * COST)
    run.attempt("f", result="invalid", cost=10 * COST)
    run.attempt("f", 2, result="unavailable", cost=Decimal(0), kind="repair")
    run.attempt("f", 3, result="invalid", cost=20 * COST, kind="retry")
    run.attempt("g", result="invalid", cost=40 * COST)
    run.attempt("g", 2, result="invalid", cost=80 * COST, kind="repair")
    run.attempt("g", 3, cost=COST, kind="repair")
    run.end()
    causes = ("failed", "repaired", "truncated", "invalid", "refused")
    (parts,) = ask(path, f"select wasted_usd, {', '.join(f'wasted_{cause}_usd' for cause in causes)} from spend")
    assert parts == tuple(n * COST for n in (165, 9, 130, 1, 23, 2))
    assert parts[0] == sum(parts[1:])


def test_an_invalid_answer_of_another_run_is_not_repaired_by_this_one(path):
    first = Booked(path)
    first.attempt("k", result="invalid")
    first.end()
    second = Booked(path)
    second.attempt("k", result="invalid")
    second.attempt("k", 2, kind="repair")
    second.end()
    assert ask(path, "select wasted_invalid_usd, wasted_repaired_usd from spend order by run_id") == [
        (COST, None), (None, COST),
    ]  # fmt: skip


def test_under_faults_the_parts_of_the_waste_are_the_waste_to_the_last_digit(tmp_path, stub):
    answers = {0: "no json", 1: '{"order_id": 1}', 2: '{"order_id": "A"}'}
    stub.answer = lambda payload: Reply(answers[len(str(payload["messages"])) % 3])
    stub.faults = seeded(0.3, [status(500), status(429, retry_after=0.01)], seed=3)
    project = Project(tmp_path, stub.base_url)
    project.rows([{"id": f"r{i}", "text": f"row {i} " + "x" * (i % 5)} for i in range(60)])
    schema = 'schema = { type = "object", properties = { order_id = { type = "string" } } }\nrepair = 1'
    project.job(more=f"[output]\n{schema}")
    project.run("run", "job.toml", "--yes", code=None)
    (row,) = spend(project)
    parts = [
        Decimal(value) for name, value in row.items() if name.startswith("wasted_") and name != "wasted_usd" and value
    ]
    assert Decimal(row["wasted_repaired_usd"]) > 0 < Decimal(row["wasted_invalid_usd"])
    assert sum(parts) == Decimal(row["wasted_usd"])
    assert Decimal(row["cost_usd"]) == stub.bill


# -- sums, shares, bounds ---------------------------------------------------------------------------


def test_shares_are_percent_of_input_and_of_output_and_unknown_without_tokens(project, path):
    run = Booked(path)
    run.attempt("a", usage=Usage(1000, 200, cached_input_tokens=333, reasoning_tokens=150))
    run.attempt("b", usage=None, cost=None)
    run.end()
    free = Booked(path, "other")
    free.attempt("c", usage=Usage(0, 0), cost=Decimal(0))
    free.end()
    ours, other = spend(project)
    assert (ours["cached_input_percent"], ours["reasoning_percent"]) == (33.3, 75.0)
    assert (other["cached_input_percent"], other["reasoning_percent"]) == (None, None)


@pytest.mark.parametrize(("worst", "bound"), [(WORST, 2 * WORST), (None, None)])
def test_one_unknown_cost_without_a_bound_leaves_the_sum_without_one(project, path, worst, bound):
    for n, known_worst in enumerate([WORST, worst]):  # in two lines of the view
        run = Booked(path)
        run.attempt(f"k{n}", cost=None, worst=known_worst)
        run.end()
    (row,) = spend(project)
    assert row["unknown_cost"] == 2
    assert row["unknown_at_most_usd"] == (None if bound is None else f"{bound:.12f}")


def test_the_total_is_for_people_only_and_is_the_sum_of_the_lines(project, path):
    for job in ("one", "two"):
        run = Booked(path, job)
        run.answer("k")
        run.end()
    assert project.run("spend").stdout.splitlines()[-1].split() == ["total", "2", "2", "100", "10.0", "20", "0.002"]
    assert [row["job"] for row in spend(project)] == ["one", "two"]
    assert "total" not in project.run("spend", "--by", "provider").stdout  # of one line


def test_the_table_fits_120_columns_and_names_what_it_left_out(project, path):
    book_every_cause(path)
    done = project.run("spend")
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert "cost_usd" in done.stdout
    assert "No room for: " in done.stderr


def book_every_cause(path):
    """So much in one line that not all columns fit."""
    run = Booked(path, "a-job-with-a-name-that-is-rather-long")
    for n, result in enumerate(["ok", "truncated", "refused", "invalid", "unavailable"]):
        usage = Usage(10**7, 10**7, cached_input_tokens=10**6, reasoning_tokens=10**6)
        run.attempt(f"k{n}", result=result, cost=Decimal("123.456789012345"), usage=usage, model_returned="m" * 40)
    run.attempt("x", cost=None)
    run.end()


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_terminal_is_never_too_narrow_for_what_was_asked_for_and_what_it_cost(path, monkeypatch, capsys, columns):
    book_every_cause(path)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert group.main(["spend", "--by", "job,model_returned", "--ledger", str(path)], standalone_mode=False) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= columns
    assert shown[0].split()[:2] == ["job", "model_returned"]
    assert "cost_usd" in shown[0]


def test_columns_that_say_nothing_are_not_shown(project, path):
    run = Booked(path)
    run.attempt("k", usage=Usage(10, 5))
    run.end()
    head = project.run("spend").stdout.splitlines()[0].split()
    assert head == ["job", "attempts", "ok", "input", "output", "cost_usd"]


@pytest.mark.parametrize(
    ("columns", "shown"), [(9, "name  b\n----  -\nx     2\n"), (20, "name  a  b  c\n----  -  -  -\nx     1  2  3\n")]
)
def test_in_a_terminal_the_columns_kept_longest_are_those_named_first(monkeypatch, capsys, columns, shown):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    row = {"name": "x", "a": 1, "b": 2, "c": 3, "idle": 0}
    print_chosen([row], {name: name for name in row}, always=("name",), kept=("b", "a"))
    assert capsys.readouterr().out == shown


# -- what the provider billed -----------------------------------------------------------------------


def billed(path, *dollars):
    """A run whose provider said what it charged; COST was computed for each."""
    run = Booked(path)
    for n in range(len(dollars)):
        run.attempt(f"k{n}")
    run.end()
    ask(path, "select 1")  # catch up
    with duckdb.connect(str(path)) as connection:
        for n, usd in enumerate(dollars):
            connection.execute("update attempts set billed_usd = ?, cost_usd = ? where key = ?", [usd, usd, f"k{n}"])


@pytest.mark.parametrize(
    ("usd", "warned"), [("0.00102", False), ("0.001021", True), ("0.00098", False), ("0.000979", True)]
)
def test_a_bill_more_than_two_percent_off_says_that_the_price_table_is_wrong(project, path, usd, warned):
    billed(path, Decimal(usd), Decimal(usd))
    done = project.run("spend")
    assert ("the price table is wrong" in done.stderr) == warned
    assert "the price table is wrong" not in project.run("spend", "--before", "2020-01-01").stderr
    (row,) = spend(project)
    assert row["billed_drift_percent"] == pytest.approx((float(usd) / 0.001 - 1) * 100, abs=0.01)


def test_attempts_without_a_bill_are_no_part_of_the_drift(project, path):
    billed(path, Decimal("0.001"))
    run = Booked(path)
    run.attempt("more", cost=Decimal(5))
    run.end()
    (row,) = spend(project)
    assert (row["billed_usd"], row["billed_computed_usd"]) == ("0.001000000000", "0.001000000000")
    assert row["billed_drift_percent"] == 0


# -- estimate against actual ------------------------------------------------------------------------


def estimated(path, low, high, *costs, expected=None, ceiling="0.010", exit_code=0):
    run = Booked(path)
    for n, cost in enumerate(costs):
        run.attempt(f"k{run.run_id}-{n}", cost=cost)
    record = {"run_id": run.run_id, "plan_id": run.plan_id, "rows": 2, "requests": 2, "input_tokens": 100,
              "count_method": "exact", "low_usd": low, "expected_usd": expected, "high_usd": high,
              "ceiling_usd": ceiling}  # fmt: skip
    run.rows("a", "b", plan_end=True, estimate=record)
    if exit_code is None:
        run.die()
    else:
        run.end(exit_code)


@pytest.mark.parametrize(
    ("interval", "costs", "exit_code", "verdict"),
    [
        (("0.001", "0.002"), [COST], 0, "inside"),
        (("0.001", "0.002"), [COST, COST], 3, "inside"),
        (("0.001", "0.002"), [COST, COST, Decimal("0.000000000001")], 0, "above"),
        (("0.001", "0.002"), [COST, COST, COST], None, "above"),
        (("0.001", "0.002"), [Decimal("0.000999999999")], 0, "below"),
        (("0.001", "0.002"), [Decimal("0.000999999999")], 4, "unfinished"),
        (("0.001", "0.002"), [COST], None, "unfinished"),
        (("0.001", "0.002"), [COST, None], 0, "uncertain"),
        (("0.001", "0.006"), [COST, None], 0, "inside"),
        (("0.004", "0.006"), [None], 0, "uncertain"),
        (("0.005", "0.006"), [None], 0, "below"),
        (("0.000", "0.002"), [], 0, "inside"),
        (("0.001", None), [COST], 0, "inside"),
        (("0.001", None), [Decimal("0.011")], 0, "above"),
        ((None, None), [COST], 0, None),
    ],
)
def test_each_run_is_judged_against_its_estimate(path, interval, costs, exit_code, verdict):
    estimated(path, *interval, *costs, exit_code=exit_code)
    assert ask(path, "select verdict from forecast") == [(verdict,)]


def test_the_verdicts_on_the_sql_page_are_those_there_are():
    assert column(ROOT / "docs" / "sql.md", "verdict", "meaning") == [
        "inside", "above", "below", "uncertain", "unfinished",
    ]  # fmt: skip


def test_an_estimate_without_any_bound_is_not_judged(path):
    estimated(path, "0.001", None, COST, ceiling=None)
    assert ask(path, "select verdict from forecast") == [(None,)]


def test_spend_shows_each_run_s_estimate_beside_its_cost(project, path):
    estimated(path, "0.001", "0.002", COST, expected="0.0015")
    estimated(path, "0.001", None, 11 * COST)
    lines = project.run("spend", "--forecast").stdout.splitlines()
    assert lines[0].split() == ["run_id", "job", "command", "requests", "low_usd", "expected_usd", "high_usd",
                                "ceiling_usd", "actual_usd", "verdict"]  # fmt: skip
    assert lines[2].split() == ["1", "j", "run", "2", "0.001", "0.0015", "0.002", "0.01", "0.001", "inside"]
    assert lines[3].split() == ["2", "j", "run", "2", "0.001", "0.01", "0.011", "above"]
    assert [row["verdict"] for row in spend(project, "--forecast")] == ["inside", "above"]


def test_a_ledger_without_estimates_says_so(project, path):
    Booked(path).end()
    assert project.run("spend", "--forecast").stdout == "(no rows)\n"
    assert spend(project, "--forecast") == []


def test_two_tables_at_once_are_refused(project, path):
    Booked(path).end()
    for args in (["--forecast", "--drift"], ["--by", "job", "--drift"], ["--by", "job", "--forecast"]):
        assert "choose one" in project.run("spend", *args, code=2).stderr


# -- counts against usage, and what the next estimate learns ------------------------------------------


def counted(path, *reported, **run):
    """A run whose requests were counted as 50 tokens each, and reported as these."""
    booked = Booked(path, **run)
    for n, tokens in enumerate(reported):
        booked.attempt(f"k{booked.run_id}-{n}", usage=None if tokens is None else Usage(tokens, 5))
    return booked


def test_drift_compares_answered_first_attempts_whose_usage_is_known(project, path):
    run = counted(path, 50, 60, 40, 70)
    run.attempt("k1-0", 2, kind="repair", usage=Usage(500, 5))
    run.attempt("x", usage=None, cost=None)
    run.attempt("y", result="unavailable", usage=Usage(999, 0))
    run.end()
    counted(path, 55, model="other").end()
    ours, other = spend(project, "--drift")
    assert ours == {"provider": "stub", "model": "m", "count_method": "exact", "attempts": 4, "counted_tokens": 200,
                    "input_tokens": 220, "ratio": 1.1, "mean_difference": 10.0, "p95_difference": 18.5}  # fmt: skip
    assert (other["model"], other["ratio"]) == ("other", 1.1)


def test_a_calibration_is_the_exact_ratio_of_thirty_attempts_or_more(path):
    def calibration(provider="stub", model="m"):
        return Ledger(path).history(HistoryRequest("j", provider, model, "q1", "f1")).calibration

    assert calibration() is None  # no ledger yet
    counted(path, *[57] * 29).end()
    assert calibration() is None
    counted(path, 50).end()
    found = calibration()
    assert (found.ratio, found.attempts) == (Decimal(57 * 29 + 50) / 1500, 30)
    assert calibration(model="another") is None
    assert calibration(provider="another") is None


def test_counts_times_their_calibration_are_what_a_vendor_with_a_tokenizer_of_its_own_bills(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(40))
    project.job()
    project.run("run", "job.toml", "--yes")
    found = (
        Ledger(tmp_path / "promptmill.duckdb").history(HistoryRequest("job", "stub", "test-model", "", "")).calibration
    )
    counted_tokens = project.value("select sum(counted_tokens)::bigint from attempts")
    assert found.attempts == 40
    assert round(counted_tokens * found.ratio) == sum(entry.prompt_tokens for entry in stub.entries)
