"""What people read: the views, what is known of a key, and SQL of their own."""

from decimal import Decimal
from hashlib import blake2b

import duckdb
import pytest
from bookings import COST, PRICE, WORST, Booked, ask, request, value

from pipeline.api import spend
from pipeline.errors import UsageError
from pipeline.ledger import Ledger, _known


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work.duckdb"


# -- views ------------------------------------------------------------------------------------------


def test_the_cost_of_a_key_is_borne_by_its_first_row_and_the_sums_agree(path):
    run = Booked(path)
    run.attempt("k1", result="unavailable", cost=Decimal(0), output=None)
    run.attempt("k1", 2, cost=Decimal("0.000000000001"))
    run.outcome("k1", attempts=2)
    run.answer("k2")
    run.rows("k1", "k2", "k1", "k1", "k3")
    run.end()
    shown = "row_index, row_id, status, output, cost_usd, reused, attempts"
    assert ask(path, f"select {shown} from results order by 1") == [
        (0, "r0", "ok", "an answer", Decimal("0.000000000001"), False, 2),
        (1, "r1", "ok", "an answer", COST, False, 1),
        (2, "r2", "ok", "an answer", Decimal(0), True, 0),
        (3, "r3", "ok", "an answer", Decimal(0), True, 0),
        (4, "r4", "pending", None, Decimal(0), False, 0),
    ]  # fmt: skip
    assert ask(path, "select sum(cost_usd), sum(attempts) from results") == ask(
        path, "select sum(cost_usd), count(*) from attempts"
    )


@pytest.mark.parametrize(
    ("statuses", "best"),
    [
        (["ok", "failed"], "ok"),
        (["failed", "ok"], "ok"),
        (["ok", "truncated"], "ok"),
        (["truncated", "failed"], "truncated"),
        (["rejected", "failed"], "failed"),
        (["invalid", "refused", "invalid"], "invalid"),
    ],
)
def test_the_best_outcome_counts_and_among_equals_the_newest(path, statuses, best):
    for status in statuses:
        run = Booked(path)
        run.attempt("k1", result="ok" if status == "ok" else "invalid", output=f"{status} of run {run.run_id}")
        run.outcome("k1", status)
        if run.run_id == 1:
            run.rows("k1")
        run.end()
    newest = len(statuses) - statuses[::-1].index(best)
    assert ask(path, "select status, output, attempts, cost_usd from results") == [
        (best, f"{best} of run {newest}", len(statuses), len(statuses) * COST)
    ]


def test_of_two_good_answers_the_newer_one_is_shown(path):
    for n in (1, 2):
        run = Booked(path)
        run.answer("k1", output=f"answer {n}")
        if n == 1:
            run.rows("k1")
        run.end()
    assert ask(path, "select output from results") == [("answer 2",)]


def test_an_attempt_of_unknown_cost_is_null_and_never_zero(path):
    run = Booked(path)
    run.attempt("k1", cost=None)
    run.outcome("k1")
    run.sent("k2")
    run.rows("k1", "k2", "k2")
    run.die()
    assert ask(path, "select cost_usd from results order by row_index") == [(None,), (None,), (Decimal(0),)]
    assert ask(path, "select attempts, ok, cost_usd, unknown_cost, unknown_at_most_usd from spend") == [
        (2, 1, None, 2, 2 * WORST)
    ]


def test_an_unknown_cost_beside_failures_that_cost_nothing_is_null_and_never_zero(path):
    run = Booked(path)
    run.attempt("k1", result="rate_limited", cost=Decimal(0), usage=None, output=None)
    run.attempt("k1", 2, cost=None, worst=None)
    run.outcome("k1", attempts=2)
    run.attempt("k2", result="unavailable", cost=Decimal(0), usage=None, output=None)
    run.outcome("k2", "failed", answered=False)
    run.rows("k1", "k1", "k2")
    run.end()
    assert ask(path, "select cost_usd from results order by row_index") == [(None,), (Decimal(0),), (Decimal(0),)]
    assert ask(path, "select cost_usd, wasted_usd, unknown_cost from spend") == [(None, None, 1)]
    assert spend(Ledger(path)).total["cost_usd"] is None


def test_results_show_only_the_newest_plan_of_each_job(path):
    old = Booked(path, fingerprint="f1")
    old.answer("k1")
    old.rows("k1", "k2")
    old.end()
    new = Booked(path, fingerprint="f2")
    new.rows("k2", "k1", plan_end=True)
    new.end()
    other = Booked(path, "other", fingerprint="f1")
    other.rows("k1")
    other.end()
    assert ask(path, "select job, plan_id, row_index, key, status, cost_usd from results order by 1, 3") == [
        ("j", 2, 0, "k2", "pending", Decimal(0)),
        ("j", 2, 1, "k1", "ok", COST),
        ("other", 3, 0, "k1", "pending", Decimal(0)),
    ]
    assert ask(path, "select plan_id, complete, rows from plans order by 1") == [
        (1, False, None), (2, True, 2), (3, False, None),
    ]  # fmt: skip


def test_an_answer_that_another_job_paid_for_costs_this_job_nothing(path):
    payer = Booked(path, "payer")
    payer.answer("k1", output="paid once")
    payer.rows("k1")
    payer.end()
    reuser = Booked(path, "reuser")
    assert reuser.start.known.others == {"k1": ("ok", 100, 1, 1)}
    reuser.journal.append("outcome", {"key": "k1", "status": "ok", "attempts": 0, "answer_run": 1, "answer_attempt": 1,
                                      "max_tokens": 100, "reused": True, "at": 0})  # fmt: skip
    reuser.rows("k1", "k1")
    reuser.end()
    assert ask(path, "select output, cost_usd, reused, attempts from results where job = 'reuser'") == [
        ("paid once", Decimal(0), True, 0), ("paid once", Decimal(0), True, 0),
    ]  # fmt: skip
    assert ask(path, "select sum(cost_usd) from results") == [(COST,)]


def test_errors_list_the_rows_that_did_not_end_well(path):
    run = Booked(path)
    run.answer("k1")
    for key, status in [("k2", "truncated"), ("k3", "failed"), ("k4", "rejected")]:
        run.attempt(key, result="truncated" if status == "truncated" else "unavailable", output=None)
        run.outcome(key, status, answered=False, error_type="why", error=f"{status} because")
    run.rows("k1", "k2", "k3", "k4", "k5")
    run.end()
    assert ask(path, "select row_index, status, error_type, error from errors order by 1") == [
        (1, "truncated", "why", "truncated because"),
        (2, "failed", "why", "failed because"),
        (3, "rejected", "why", "rejected because"),
    ]


def test_spend_counts_tokens_dollars_and_what_failures_wasted(path):
    run = Booked(path)
    run.answer("k1")
    run.attempt("k2", result="truncated", cost=Decimal("0.002"))
    run.attempt("k3", result="unavailable", cost=Decimal(0), output=None)
    run.end()
    assert ask(path, "select job, plan_id, run_id, provider, model, lane, attempts, ok, input_tokens,"
                     " cached_input_tokens, output_tokens, cost_usd, wasted_usd, unknown_cost from spend") == [
        ("j", 1, 1, "stub", "m", "realtime", 3, 1, 150, 15, 30, Decimal("0.003"), Decimal("0.002"), 0)
    ]  # fmt: skip


def test_forecast_puts_what_was_estimated_beside_what_was_spent(path):
    run = Booked(path)
    run.answer("k1")
    record = {"run_id": 1, "plan_id": 1, "rows": 2, "requests": 1, "input_tokens": 50, "count_method": "exact",
              "low_usd": "0.0001", "ceiling_usd": "0.004"}  # fmt: skip
    run.rows("k1", "k1", plan_end=True, estimate=record)
    run.end()
    shown = "job, rows, requests, input_tokens, low_usd, expected_usd, ceiling_usd, actual_usd, attempts"
    assert ask(path, f"select {shown} from forecast") == [
        ("j", 2, 1, 50, Decimal("0.0001"), None, WORST, COST, 1)
    ]  # fmt: skip


def test_many_tiny_amounts_add_up_exactly(path):
    run = Booked(path)
    for n in range(2000):
        run.attempt(f"k{n}", cost=Decimal("0.000000100001"), output=None)
    run.end()
    assert value(path, "select sum(cost_usd) from spend") == Decimal("0.000200002000")


# -- what is known ----------------------------------------------------------------------------------


def test_of_other_jobs_answers_the_best_serves(path):
    for job, status, limit in [("a", "truncated", 50), ("b", "ok", 70), ("c", "truncated", 900), ("d", "failed", None)]:
        run = Booked(path, job)
        run.attempt("k1")
        run.outcome("k1", status, max_tokens=limit)
        if job in "ac":
            run.attempt("k2")
            run.outcome("k2", "truncated", max_tokens=limit)
        run.end()
    known = Ledger(path).known("mine", "ledger")
    assert known.own == {}
    assert known.others == {"k1": ("ok", 70, 2, 1), "k2": ("truncated", 900, 3, 1)}
    assert Ledger(path).known("mine", "job").others == {}
    assert Ledger(path).known("d", "job").own == {"k1": ("failed", None)}


def test_looking_at_one_slice_of_the_keys_after_the_other_finds_what_one_look_finds(path, monkeypatch):
    keys = [f"v1{blake2b(bytes([n]), digest_size=16).hexdigest()}" for n in range(60)]
    keys += ["", "odd", "v1", "v1" + "z" * 32, "w" * 34, "v1" + "0" * 32, "v1" + "f" * 32]
    run, other = Booked(path), Booked(path, "other")
    for number, key in enumerate(keys):
        if number % 5:
            run.attempt(key)
            run.outcome(key, ("ok", "ok", "failed", "truncated")[number % 4], max_tokens=100 + number % 3)
        if number % 3:
            other.answer(key)
    run.rows(*keys, *keys[:10], plan_end=True)
    run.end()
    other.end()

    def known():
        start = Ledger(path).begin(request(passes_over=True))
        start.journal.close()
        found, done = start.known, start.known.done
        rows = [index for index in range(8 * len(done.bits)) if done.bits[index // 8] >> index % 8 & 1]
        kept = [key for key in keys if key in done.keys]
        return dict(found.own), dict(found.others), rows, (done.rows, done.repeated, len(done.keys)), kept

    at_once = known()
    monkeypatch.setattr(_known, "SLICE_OUTCOMES", 5)
    assert known() == at_once
    own, others, rows, (count, repeated, kept), good = at_once
    ok = [key for number, key in enumerate(keys) if number % 5 and number % 4 < 2]
    assert {key for key, (status, _) in own.items() if status == "ok"} == set(ok) == set(good)
    assert (len(own), set(others)) == (sum(n % 5 > 0 for n in range(len(keys))), set(keys) - set(keys[::3]))
    assert rows == [n for n, key in enumerate(keys + keys[:10]) if key in ok]
    assert (count, repeated, kept) == (len(rows), sum(n >= len(keys) for n in rows), len(ok))


def test_tables_that_somebody_put_into_the_ledger_are_left_alone(path):
    names = ["own", "others", "numbered", "done", "ended"]
    run = Booked(path)
    run.answer("k1")
    run.rows("k1", plan_end=True)
    run.end()
    with duckdb.connect(path) as connection:
        for name in names:
            connection.execute(f"create table {name} as select 'theirs' as key")
    started = Ledger(path).begin(request(passes_over=True))
    started.journal.close()
    assert started.known.own == {"k1": ("ok", 100)}
    assert started.known.done.rows == 1
    assert [value(path, f"select key from {name}") for name in names] == ["theirs"] * len(names)


# -- people's SQL -----------------------------------------------------------------------------------


def test_people_may_ask_anything_and_change_nothing(path):
    run = Booked(path)
    run.answer("k1")
    run.end()
    assert Ledger(path).ask("select key, cost_usd from attempts").rows() == [("k1", COST)]
    for query in [
        "delete from attempts",
        "create table x (a int)",
        "selec 1",
        "select * from nothing",
        f"copy attempts to '{path.parent}/out.csv'",
        "select * from read_text('/etc/hostname')",
        f"attach '{path.parent}/other.duckdb'",
        "set enable_external_access = true",
        "install httpfs",
    ]:
        with pytest.raises(UsageError, match="SQL: "):
            Ledger(path).ask(query)
    assert sorted(file.name for file in path.parent.iterdir() if "gate" not in file.name) == [
        "work.duckdb", "work.journal",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select interval 90 minute as took", [("01:30:00",)]),
        ("select [interval 1 day] as a, '101'::bit as b, union_value(x := 1) as c", [(["1 day"], "101", "1")]),
        ("select 1 as a, 2 as a, 3 as a_1, 4 as a", [(1, 2, 3, 4)]),
        ('select interval 1 day as "a ""quoted"" name"', [("1 day",)]),
        ("select 1.50::decimal(18,12) as usd, null as nothing", [(Decimal("1.5"), None)]),
        ("select 1 as a where false", []),
    ],
)
def test_whatever_a_query_returns_can_be_shown(path, query, rows):
    Booked(path).end()
    shown = Ledger(path).ask(query)
    assert shown.rows() == rows
    assert len(set(shown.columns)) == shown.width


def test_prices_of_a_run_are_copied_and_an_unknown_price_copies_none(path):
    Booked(path, price=None).end()
    assert value(path, "select count(*) from prices") == 0
    Booked(path, price=PRICE | {"price_id": "p2"}).end()
    assert ask(path, "select run_id, price_id, note from prices") == [(2, "p2", None)]


def test_rows_that_ended_without_an_answer_name_the_model_that_was_asked(path):
    run = Booked(path)
    run.answer("v1a")
    run.attempt("v1b", result="unavailable", output=None)
    run.outcome("v1b", "failed", answered=False)
    run.rows("v1a", "v1b", "v1c")
    run.end()
    ((model,),) = ask(path, "select distinct model from plan_starts")
    assert ask(path, "select status, model from results order by row_index") == [
        ("ok", model), ("failed", model), ("pending", None),
    ]  # fmt: skip
