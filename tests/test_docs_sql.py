"""The recipes of docs/sql.md add up to what the ledger cost: retries, repairs, duplicates, reused answers and all."""

from decimal import Decimal

import pytest
from bookings import PRICE, Booked, ask
from pages import ROOT, blocks

from pipeline.records import Outcome, Usage
from pipeline.runners._lines import outcome_line

D = Decimal
SQL = ROOT / "docs" / "sql.md"
ORDERS, COPY = D("0.0370"), D("0.0160")
"""What the two jobs below cost, as far as it is known."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two jobs that share keys, with everything that makes a key cost more, or less, than its first attempt."""
    ledger = tmp_path_factory.mktemp("ledger") / "work.duckdb"
    failed = {"result": "unavailable", "usage": None, "output": None}
    run = Booked(ledger, "orders")
    run.attempt("v1retried", cost=D(0), **failed)
    run.attempt("v1retried", 2, cost=D("0.001"))
    run.outcome("v1retried", attempts=2)
    run.attempt("v1repaired", result="invalid", cost=D("0.002"))
    run.attempt("v1repaired", 2, kind="repair", cost=D("0.003"), usage=Usage(90, 10))
    run.outcome("v1repaired", attempts=2)
    run.attempt("v1cut", cost=None, **failed)
    run.attempt("v1cut", 2, cost=D("0.004"), billed_usd=D("0.005"))
    run.outcome("v1cut", attempts=2)
    run.attempt("v1bad", result="invalid", cost=D("0.006"))
    run.outcome("v1bad", "invalid")
    run.attempt("v1long", result="truncated", cost=D("0.007"))
    run.outcome("v1long", "truncated")
    run.attempt("v1refused", result="refused", cost=D("0.008"))
    run.outcome("v1refused", "refused")
    run.attempt("v1pending", result="fatal", cost=D("0.005"), output=None)
    run.rows("v1retried", "v1repaired", "v1retried", "v1cut", "v1bad", "v1bad", "v1long", "v1refused", "v1pending")
    run.end(4)
    copy = Booked(ledger, "copy")
    copy.answer("v1bad", cost=D("0.016"))
    copy.rows("v1bad")
    copy.end()
    again = Booked(ledger, "orders")
    reused = Outcome("v1bad", "ok", 0, copy.run_id, 1, max_tokens=100, reused=True)
    again.journal.append("outcome", outcome_line(reused))
    again.end()
    return ledger


def asked(path, words):
    """The answer of the only recipe that has these words."""
    (query,) = [block.text for block in blocks("sql", pages=(SQL,)) if words in block.text and block.file is None]
    return ask(path, query)


def test_every_sum_is_what_the_attempts_cost(path):
    assert ask(path, "select sum(cost_usd) from attempts") == [(ORDERS + COPY,)]
    assert [row[:3] for row in asked(path, "as at_most_more")] == [("copy", COPY, 0), ("orders", ORDERS, 1)]
    assert sum(row[2] for row in asked(path, "split_part(job")) == ORDERS + COPY
    assert sum(row[-2] for row in asked(path, "ntile(10)")) == ORDERS + COPY
    assert asked(path, "as by_attempt") == [(ORDERS + COPY, ORDERS + COPY)]
    assert sum(row[1] for row in asked(path, "as as_usd")) == ORDERS + COPY


def test_a_key_is_in_one_group_with_all_of_its_attempts(path):
    groups = asked(path, "ntile(10)")
    assert sum(row[1] for row in groups) == 7
    assert {row[3] for row in groups} == {50}  # a repair counts as its key's first attempt does


def test_what_was_wasted_adds_up_by_cause(path):
    wasted = {(job, cause): usd for job, cause, usd in asked(path, "unpivot")}
    assert sum(wasted.values()) == sum(row[-1] for row in asked(path, "as at_most_more"))
    assert wasted["orders", "repaired"] == D("0.002")


def test_the_dearest_rows_have_a_share_of_the_whole_bill(path):
    shares = asked(path, "percent_of_bill")
    assert shares[0][1:3] == (1, 21.6)


def test_a_duplicate_saves_what_its_first_row_cost_also_where_the_answer_is_reused(path):
    assert asked(path, "as saved_usd") == [("orders", 2, D("0.007"), 0)]


def test_a_thousand_rows_cost_what_those_do_whose_cost_is_known(tmp_path):
    run = Booked(tmp_path / "work.duckdb")
    for n in range(4):
        run.answer(f"v1{n}", cost=D("0.002") if n % 2 else None)
    run.rows(*(f"v1{n}" for n in range(4)))
    run.end()
    assert asked(tmp_path / "work.duckdb", "usd_per_1000_good") == [("j", 2, 2.0, 2.0, 2, 2)]


def test_rows_that_cost_nothing_here_say_nothing_of_a_job_whose_costs_are_unknown(tmp_path):
    """What another job paid for is $0, and so is a repeated row: no sum is zero for them."""
    lender = Booked(tmp_path / "work.duckdb", "lender")
    lender.answer("v1lent", cost=D("0.002"))
    lender.end()
    run = Booked(tmp_path / "work.duckdb", "j")
    run.journal.append("outcome", outcome_line(Outcome("v1lent", "ok", 0, lender.run_id, 1, reused=True)))
    run.answer("v1unknown", cost=None)
    run.rows("v1lent", "v1lent", "v1unknown", "v1unknown")
    run.end()
    assert asked(tmp_path / "work.duckdb", "usd_per_1000_good") == [("j", 2, None, None, 2, 1)]
    assert asked(tmp_path / "work.duckdb", "as saved_usd") == [("j", 2, None, 1)]


def test_what_a_command_sends_again_is_told_from_what_a_run_does(tmp_path):
    first = Booked(tmp_path / "work.duckdb", "j")
    first.attempt("v1a", result="unavailable", usage=None, output=None, cost=D(0))
    first.attempt("v1a", 2, result="invalid")
    first.outcome("v1a", "invalid", 2)
    first.answer("v1b")
    first.end(3)
    again = Booked(tmp_path / "work.duckdb", "j", command="retry")
    again.answer("v1a")
    again.end()
    found = asked(tmp_path / "work.duckdb", "as in_a_later_run")
    assert [sum(row[n] for row in found) for n in (1, 2, 3, 4, 5)] == [1, 0, 1, 1, 0]


def test_a_row_has_one_answer_of_each_plan(path):
    answers = asked(path, "p.plan_id, w.row_id, o.best.status as status, a.output")
    assert len(answers) == len({row[1:3] for row in answers}) == 8


@pytest.mark.parametrize(
    ("words", "place"),
    [("as at_most_more", 1), ("split_part(job", 2), ("as as_usd", 1), ("as cached_usd", 1), ("as estimated_by_run", 6)],
)
def test_where_nothing_is_known_but_of_refused_requests_no_sum_is_zero(tmp_path, words, place):
    run = Booked(tmp_path / "work.duckdb", "nop")
    run.attempt("v1a", cost=None)
    run.attempt("v1b", result="rate_limited", cost=D(0), usage=None, output=None)
    run.load(estimate={"run_id": run.run_id, "plan_id": run.plan_id, "rows": 2, "requests": 2, "input_tokens": 50,
                       "count_method": "exact"})  # fmt: skip
    run.end(4)
    ((*facts,),) = asked(tmp_path / "work.duckdb", words)
    assert facts[place] is None


def test_the_price_of_a_run_is_the_one_that_its_attempts_were_priced_with(tmp_path):
    later = PRICE | {"price_id": "p2", "input": "9", "effective_from": "2027-01-01T00:00:00+00:00"}
    run = Booked(tmp_path / "work.duckdb", "j", later_prices=(later,))
    run.attempt("v1a", price_id="p1")
    run.end()
    assert [row[6] for row in asked(tmp_path / "work.duckdb", "p.effective_from, p.input")] == [D("0.25")]


def test_a_job_without_a_bill_has_no_dearest_rows(tmp_path):
    run = Booked(tmp_path / "work.duckdb", "orders")
    run.answer("v1a", cost=D(0))
    run.rows("v1a")
    run.end()
    assert {row[2] for row in asked(tmp_path / "work.duckdb", "as percent_of_bill")} == {None}


def test_a_job_that_was_interrupted_stands_beside_its_first_whole_estimate(tmp_path):
    ledger = tmp_path / "night.duckdb"

    def ran(command, keys, rows, low, **more):
        run = Booked(ledger, "night", command=command, **more)
        for key, cost in keys.items():
            run.attempt(key, cost=cost)
            run.outcome(key)
        estimate = {"run_id": run.run_id, "plan_id": run.plan_id, "rows": rows, "requests": len(keys),
                    "input_tokens": 50, "count_method": "exact", "low_usd": str(low), "expected_usd": str(2 * low),
                    "high_usd": str(3 * low), "ceiling_usd": "0.9"}  # fmt: skip
        run.load(estimate=estimate)
        run.end(4)

    ran("estimate --pilot", {"k1": D("0.001")}, 5, D("0.1"))
    ran("run", {"k2": D("0.002")}, 2, D("0.2"))  # with --limit
    ran("run", {"k3": D("0.003")}, 5, D("0.3"))
    ran("run", {"k1": D("0.5")}, 5, D("0.4"), fingerprint="another prompt")
    ran("run", {"k4": D("0.004"), "k5": None}, 5, D("0.5"))
    ran("retry", {"k5": D("0.006")}, 5, D("0.6"))
    mine, other = asked(ledger, "as estimated_by_run")
    assert mine == ("night", 3, 5, D("0.3"), D("0.6"), D("0.9"), D("0.013"), 1, D("0.003"))
    assert other[1] == 4
    assert other[-3:] == (D("0.5"), 0, 0)
