"""Promise: each row has exactly one outcome, and it is the true one. A cut-off answer is never a success."""

import json
import re
import shlex
from decimal import Decimal

import pytest
from project import Project, texts
from stub_faults import CONTENT_FILTER, REFUSAL, Reply, every, first, reasoned_away, status

from pipeline import api
from pipeline.ledger import Ledger


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def test_each_answer_sits_at_its_row(project, stub):
    stub.latency = lambda n: (n * 7 % 13) / 1000
    stub.faults = every(7, status(503))
    project.rows(texts(200))
    project.job(concurrency=32)
    project.run("run", "job.toml", "--yes")
    rows = project.sql("select row_index, row_id, output from results order by row_index")
    assert [row["row_id"] for row in rows] == [f"r{i}" for i in range(200)]
    assert [json.loads(row["output"])["echo"] for row in rows] == [f"row {i} says hello" for i in range(200)]


def test_a_cut_off_answer_is_truncated_and_a_raised_limit_sends_only_those_again(project, stub):
    long_rows = {f"row {i} says hello" for i in range(5)}

    def answer(payload):
        text = payload["messages"][-1]["content"]
        return " ".join(["word"] * (80 if text in long_rows else 3))

    stub.answer = answer
    project.rows(texts(20))
    project.job()
    project.run("run", "job.toml", "--yes", code=3)
    assert project.value("select count(*) from results where status = 'truncated'") == 5
    errors = project.run("errors", "job.toml")
    assert "truncated" in errors.stdout
    assert "--max-tokens" in errors.stderr
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 20, "the same limit can't help: nothing is sent"
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=100")
    assert stub.calls == 25
    assert project.value("select count(*) from results where status = 'ok'") == 20
    assert Decimal(project.value("select sum(cost_usd) from results")) == stub.bill


def test_a_cut_off_row_that_ended_otherwise_under_a_higher_limit_is_not_asked_under_that_again(project, stub):
    stub.answer = lambda payload: " ".join(["word"] * 80)
    project.rows(texts(5))
    project.job(more='[output]\nschema = { type = "object" }')
    project.run("run", "job.toml", "--yes", code=3)
    for _ in range(2):
        project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=100", code=3)
        assert stub.calls == 10
    assert project.value("select count(*) from results where status = 'truncated'") == 5
    higher = ("--set", "model.max_tokens=110")
    stub.faults = lambda number, _: status(500) if number > 10 else None
    project.run("run", "job.toml", "--yes", "--set", "retry.attempts=1", "--set", "stop.outage_rows=0", *higher, code=3)
    stub.faults, calls = None, stub.calls
    project.run("run", "job.toml", "--yes", *higher, code=3)
    assert stub.calls == calls + 5, "what failed is no answer"
    project.run("retry", "job.toml", "--yes", *higher, code=3)
    assert stub.calls == calls + 10, "and who wants a retry gets one"


@pytest.mark.parametrize(("where", "selected"), [("x <> 'zz'", 21), ("x in ('a', '5', '7')", 3)])
def test_a_run_that_goes_on_selects_the_rows_that_a_whole_run_selects(project, stub, where, selected):
    project.rows({**row, "x": x} for row, x in zip(texts(21), ["a", *range(20)], strict=True))
    project.job(more_input=f'id = "id"\nwhere = "{where}"')
    project.run("run", "job.toml", "--yes", "--limit", "1")
    project.run("run", "job.toml", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == selected == stub.calls


def test_retry_sends_only_the_rows_of_the_named_status(project, stub):
    stub.faults = first(3, status(400, "no such thing"))
    project.rows(texts(10))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", code=3)
    assert project.value("select count(*) from results where status = 'rejected'") == 3
    stub.faults = None
    project.run("retry", "job.toml", "--yes", "--status", "truncated")
    assert stub.calls == 10
    project.run("retry", "job.toml", "--yes", "--status", "rejected")
    assert stub.calls == 13
    assert project.value("select count(*) from results where status = 'ok'") == 10


@pytest.mark.parametrize(
    ("answer", "fault", "expected"),
    [
        ("not json", None, "invalid"),
        ('{"n": "seven"}', None, "invalid"),
        ('```json\n{"n": 7}\n```', None, "ok"),
        ('{"n": 7}', REFUSAL, "refused"),
        ('{"n": 7}', reasoned_away(20), "truncated"),
        ("", None, "invalid"),
    ],
)
def test_an_answer_counts_only_if_it_is_whole_and_valid(project, stub, answer, fault, expected):
    stub.answer = lambda _: answer
    stub.faults = None if fault is None else every(1, fault)
    project.rows(texts(1))
    schema = 'schema = { type = "object", required = ["n"], properties = { n = { type = "integer" } } }'
    project.job(more=f"[output]\n{schema}")
    project.run("run", "job.toml", "--yes", code=0 if expected == "ok" else 3)
    (row,) = project.sql("select status, parsed, cost_usd from results")
    assert row["status"] == expected
    assert Decimal(row["cost_usd"]) == stub.bill, "a bad answer costs money too"
    if expected == "ok":
        assert json.loads(row["parsed"]) == {"n": 7}


def test_a_repair_shows_the_model_its_mistake_and_is_filed_under_the_rows_key(project, stub):
    def answer(payload):
        return '{"n": 7}' if "not valid" in payload["messages"][-1]["content"] else '{"n": "seven"}'

    stub.answer = answer
    project.rows(texts(2))
    schema = 'schema = { type = "object", properties = { n = { type = "integer" } } }'
    project.job(more=f"[output]\n{schema}\nrepair = 1")
    project.run("run", "job.toml", "--yes")
    kinds = project.sql("select kind, result, count(*) n from attempts group by all order by all")
    assert kinds == [{"kind": "first", "result": "invalid", "n": 2}, {"kind": "repair", "result": "ok", "n": 2}]
    assert Decimal(project.value("select sum(cost_usd) from results")) == stub.bill
    assert stub.requests[-1].payload["messages"][-2] == {"role": "assistant", "content": '{"n": "seven"}'}


def test_a_row_whose_attempts_are_used_up_is_failed_and_the_rest_goes_on(project, stub):
    stub.faults = lambda n, payload: status(503) if payload["messages"][-1]["content"].startswith("row 3 ") else None
    project.rows(texts(6))
    project.job(more="[retry]\nattempts = 2")
    project.run("run", "job.toml", "--yes", code=3)
    assert project.sql("select row_id, status, attempts from results where status <> 'ok'") == [
        {"row_id": "r3", "status": "failed", "attempts": 2}
    ]


def test_a_broken_line_behind_the_checked_rows_pauses_or_is_booked_as_rejected(project, stub):
    rows = project.rows(texts(1500))
    with rows.open("a") as file:
        file.write("{broken\n")
    project.job(concurrency=32)
    stopped = project.run("run", "job.toml", "--yes", code=4)
    assert "rows.jsonl:1501" in stopped.stderr
    project.job(concurrency=32, more_input='id = "id"\nbad_rows = "reject"')
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 1500
    assert project.sql("select row_index, status, error_type from results where status <> 'ok'") == [
        {"row_index": 1500, "status": "rejected", "error_type": "bad_row"}
    ]


def test_a_request_that_can_never_fit_a_stated_limit_is_rejected_with_that_reason(project, stub):
    project.rows([*texts(2), {"id": "huge", "text": "word " * 70_000}])
    project.job()
    project.run("run", "job.toml", "--yes", "--set", "limits.tokens_per_minute=60_000", code=3)
    (row,) = project.sql("select row_id, status, error from results where status <> 'ok'")
    assert (row["row_id"], row["status"]) == ("huge", "rejected")
    assert "more than the stated limit of 60,000 tokens per minute" in row["error"]


def test_an_answer_may_be_a_forced_tools_arguments(project, stub):
    call = {"id": "c", "type": "function", "function": {"name": "save", "arguments": '{"n": 1}'}}
    stub.answer = lambda _: Reply(text=None, finish_reason="tool_calls", message={"tool_calls": [call]})
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.value("select output from results") == '{"n": 1}'


def test_a_shorter_answer_never_hides_a_longer_one(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 80)
    project.rows(texts(2))
    project.job()
    project.run("run", "job.toml", "--yes", code=3)
    project.run("run", "job.toml", "--yes", "--fresh", "--set", "model.max_tokens=5", code=3)
    assert project.value("select min(len(string_split(output, ' '))) from results") == 50
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 4


def test_a_retry_leaves_out_what_would_be_cut_off_again_and_says_so(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 90)
    project.rows(texts(3))
    project.job()
    project.run("run", "job.toml", "--yes", code=3)
    for options in ((), ("--max-tokens", "50"), ("--status", "truncated", "--max-tokens", "10")):
        done = project.run("retry", "job.toml", "--yes", *options, code=None)
        assert "truncated rows left out: 3, cut off at max_tokens = " in done.stderr
        assert stub.calls == 3, "nothing is paid for"
    done = project.run("retry", "job.toml", "--yes", "--status", "truncated", code=3)
    assert "truncated rows asked again under the limit that cut them off: 3 (max_tokens = 50)" in done.stderr
    assert stub.calls == 6
    done = project.run("retry", "job.toml", "--yes", "--max-tokens", "500")
    assert "left out" not in done.stderr
    assert stub.calls == 9


def badly_ended(project, stub, rows=10, *, invalid=True):
    """A job whose rows all ended `invalid`, or `truncated`, each after one request."""
    stub.answer = lambda _: "no JSON" if invalid else " ".join(["word"] * 90)
    schema = '[output]\nschema = { type = "object" }' if invalid else ""
    project.rows(texts(rows))
    project.job(concurrency=1, more=schema)
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == rows


def out_of_credit_at(n):
    return lambda number, _: status(402, "no credit") if number == n else None


@pytest.mark.parametrize("status_name", ["invalid", "truncated"])
def test_a_retry_that_was_interrupted_goes_on_and_a_finished_one_is_over(project, stub, status_name):
    badly_ended(project, stub, invalid=status_name == "invalid")
    retry = ("retry", "job.toml", "--yes", "--status", status_name)
    for interrupted_at in (15, 18):
        stub.faults = out_of_credit_at(interrupted_at)
        said = project.run(*retry, code=4).stderr
        assert stub.calls == interrupted_at
    assert "left out because it has asked them again: 4\n" in said
    stub.faults = None
    done = project.run(*retry, code=3)
    assert stub.calls == 18 + 4, "four and two had been asked again"
    assert f"10 of 10 rows have their outcome (10 {status_name})" in done.stdout
    assert "going on with the interrupted retry; requests left out because it has asked them again: 6\n" in done.stderr
    assert ("asked again under the limit that cut them off: 4 " in done.stderr) is (status_name == "truncated")
    assert "going on" not in project.run(*retry, code=3).stderr
    assert stub.calls == 22 + 10, "a finished retry is over: the same command asks for all again"


def test_a_retry_that_was_killed_goes_on_and_asks_again_what_was_in_flight(project, stub):
    badly_ended(project, stub)
    stub.hold()
    run = project.start("retry", "job.toml", "--yes")
    for request in range(11, 15):
        stub.wait_for_calls(request)
        stub.release(1)
    stub.wait_for_calls(15)
    run.kill()
    run.communicate()
    stub.release()
    done = project.run("retry", "job.toml", "--yes", code=3)
    assert "it has asked them again: 4\n" in done.stderr
    assert stub.calls == 15 + 6


def test_the_progress_of_a_retry_that_goes_on_and_asks_first_counts_what_it_had_asked(project, stub, monkeypatch):
    badly_ended(project, stub)
    project.rows([{"id": "first", "text": "row 0 says hello"}, *texts(10), {"id": "new", "text": "not asked yet"}])
    stub.faults = out_of_credit_at(15)
    project.run("retry", "job.toml", "--yes", code=4)
    stub.faults = None
    monkeypatch.chdir(project.folder)
    totals = []

    async def watch(run):
        totals.append(run.tally.total)

    options = api.RunOptions(
        environ={},
        watch=watch,
        notify=lambda _: None,
        confirm=lambda _, estimate: estimate.to_send == 6,
        selection=api.statuses_to_retry([]),
        command="retry",
    )
    report = api.run(api.open_job("job.toml"), Ledger(project.folder / "promptmill.duckdb"), options)
    assert stub.calls == 15 + 6
    assert (totals, report.tally.rows, report.tally.done) == ([11], 11, 11)


@pytest.mark.parametrize(("killed", "limit"), [(False, "40"), (True, "60")])
@pytest.mark.parametrize("more_rows", [0, 4])
def test_what_errors_says_of_an_interrupted_retry_pays_for_nothing_twice(project, stub, more_rows, killed, limit):
    badly_ended(project, stub)
    project.rows(texts(10 + more_rows))
    retry = ("retry", "job.toml", "--yes", "--max-tokens", limit, "--budget", "1.5", "--ledger", "l.duckdb")
    (project.folder / "promptmill.duckdb").rename(project.folder / "l.duckdb")
    project.environ["PROMPTMILL_LEDGER"] = "l.duckdb"
    if killed:
        stub.hold()
        run = project.start(*retry)
        stub.wait_for_calls(11)
        run.kill()
        run.communicate()
        stub.release()
    else:
        stub.faults = out_of_credit_at(15)
        project.run(*retry, code=4)
        stub.faults = out_of_credit_at(16)
        if more_rows:
            project.run("run", "job.toml", "--yes", code=4)
        stub.faults = None
    before = stub.calls
    asked = 0 if killed else 4
    said = project.run("errors", "job.toml").stderr
    assert said.count("promptmill retry") == 1, "the same rows are not offered in other words"
    assert "After any other run or retry that ends before, the retry asks all its rows again" in said
    command = re.search("`promptmill (retry job.toml .*?)` goes on with the retry", said)[1]
    assert command == f"retry job.toml --set model.max_tokens={limit} --budget 1.5 --ledger l.duckdb"
    project.run(*shlex.split(command), "--yes", code=3)
    assert stub.calls == before + 10 - asked
    then = re.search("; then `promptmill (run job.toml .*?)` sends the rest", said)
    budget = " --budget 1.5" if killed else ""  # else the newest run is one that had none
    assert (then and then[1]) == (f"run job.toml{budget} --ledger l.duckdb" if more_rows else None)
    assert "invalid: promptmill retry job.toml" in project.run("errors", "job.toml").stderr


def test_a_retry_goes_on_also_with_a_higher_budget_and_when_it_asks_first(project, stub):
    badly_ended(project, stub)
    project.run("retry", "job.toml", "--yes", "--budget", "0.0006", code=4)
    asked = stub.calls - 10
    assert 0 < asked < 10
    assert f"{10 - asked} requests" in re.sub(r" +", " ", project.run("retry", "job.toml", code=2).stderr)
    project.run("retry", "job.toml", "--yes", "--budget", "1", code=3)
    assert stub.calls == 20


@pytest.mark.parametrize(
    "other",
    [
        ("--status", "invalid"),
        ("--limit", "9"),
        ("--max-tokens", "60"),
        ("--set", "output.repair=1"),
    ],
)
def test_another_retry_does_not_go_on_with_the_one_that_was_interrupted(project, stub, other):
    badly_ended(project, stub)
    stub.faults = out_of_credit_at(15)
    project.run("retry", "job.toml", "--yes", code=4)
    stub.faults = None
    assert "going on" not in project.run("retry", "job.toml", "--yes", *other, code=3).stderr
    assert len({request.payload["messages"][-1]["content"] for request in stub.requests[15:]}) >= 9


def test_what_a_run_did_in_between_is_not_taken_for_the_retrys(project, stub):
    badly_ended(project, stub)
    stub.faults = out_of_credit_at(15)
    project.run("retry", "job.toml", "--yes", code=4)
    project.rows(texts(14))
    stub.faults = out_of_credit_at(18)
    project.run("run", "job.toml", "--yes", code=4)
    stub.faults = None
    assert stub.calls == 18, "two new rows ended badly, too"
    done = project.run("retry", "job.toml", "--yes", code=3)
    assert "it has asked them again: 4\n" in done.stderr
    assert stub.calls == 18 + 6 + 2
    stub.faults = out_of_credit_at(28)
    project.run("retry", "job.toml", "--yes", code=4)
    stub.faults = None
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 28 + 2
    assert "going on" not in project.run("retry", "job.toml", "--yes", code=3).stderr, "the job has been finished since"
    assert stub.calls == 30 + 14


def test_a_row_that_a_limit_held_back_was_asked_by_no_retry(project, stub):
    stub.faults = every(1, status(400, "no such thing"))
    project.rows([{"id": "long", "text": "word " * 2000}, *texts(3)])
    project.job(concurrency=1, limits="tokens_per_minute = 1000")
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 3
    stub.faults = lambda n, _: status(402, "no credit") if n == 5 else status(400, "no such thing")
    project.run("retry", "job.toml", "--yes", code=4)
    stub.faults = None
    said = project.run("retry", "job.toml", "--yes", "--set", "limits.tokens_per_minute=100000", code=3).stderr
    assert "it has asked them again: 1\n" in said
    assert stub.calls == 5 + 3, "two that it had not reached, and the long one that now fits"


def test_a_cut_off_row_that_a_limit_held_back_is_none_that_the_retry_asked(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 90)
    project.rows([{"id": "long", "text": "word " * 300}, *texts(3)])
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", code=3)
    retry = ("retry", "job.toml", "--yes", "--status", "truncated")
    stub.faults = out_of_credit_at(6)
    project.run(*retry, "--set", "limits.tokens_per_minute=300", code=4)
    stub.faults = None
    done = project.run(*retry, code=3)
    assert "it has asked them again: 1\n" in done.stderr
    assert "asked again under the limit that cut them off: 3 " in done.stderr
    assert stub.calls == 6 + 3


def test_a_retry_with_a_limit_counts_no_cut_off_row_beyond_it(project, stub):
    stub.answer = lambda payload: " ".join(["word"] * (80 if _number(payload) > 3 else 3))
    project.rows(texts(12))
    project.job(more_input='where = "id <> \'r1\'"\nid = "id"')
    project.run("run", "job.toml", "--yes", code=3)
    done = project.run("retry", "job.toml", "--yes", "--status", "truncated", "--limit", "3")
    assert "nothing to send" in done.stdout
    assert "truncated rows" not in done.stderr
    done = project.run("retry", "job.toml", "--yes", "--status", "truncated", "--limit", "4", code=3)
    assert "under the limit that cut them off: 1 (max_tokens = 50)" in done.stderr


def test_a_retry_with_a_larger_limit_sends_the_cut_off_rows_and_keeps_all_else(project, stub):
    stub.answer = lambda payload: " ".join(["word"] * (80 if _number(payload) < 4 else 3))
    stub.faults = lambda _, payload: status(400) if _number(payload) == 7 else None
    project.rows(texts(20))
    project.job()
    project.run("run", "job.toml", "--yes", code=3)
    kept = "select key, output, status from results where status <> 'truncated' order by all"
    before = project.sql(kept)
    project.run("retry", "job.toml", "--yes", "--status", "truncated", "--max-tokens", "100")
    assert sorted(_number(request.payload) for request in stub.requests[20:]) == [0, 1, 2, 3]
    assert {json.dumps(row) for row in before} < {json.dumps(row) for row in project.sql(kept)}
    assert project.sql("select status, count(*) n from results group by all order by all") == [
        {"status": "ok", "n": 19},
        {"status": "rejected", "n": 1},
    ]


def _number(payload):
    return int(payload["messages"][-1]["content"].split()[1])


def test_errors_groups_every_bad_ending_by_its_cause_and_names_the_command_that_helps(project, stub):
    faults = {
        1: reasoned_away(),
        2: REFUSAL,
        3: CONTENT_FILTER,
        4: status(400, "no such thing"),
        5: status(400, "flagged", code="content_policy_violation"),
        6: status(500),
    }
    stub.faults = lambda _, payload: faults.get(_number(payload))
    stub.answer = lambda payload: "not json" if _number(payload) == 7 else '{"n": 7}'
    project.rows(texts(12))
    schema = 'schema = { type = "object", required = ["n"], properties = { n = { type = "integer" } } }'
    project.job(more=f"[output]\n{schema}\n[retry]\nattempts = 1")
    project.run("run", "job.toml", "--yes", code=3)
    said = project.run("errors", "job.toml", "--json")
    assert {(row["status"], row["error_type"], row["rows"]) for row in json.loads(said.stdout)} == {
        ("truncated", "max_tokens", 1),
        ("refused", "refused", 2),
        ("refused", "content_policy_violation", 1),
        ("rejected", "bad_request", 1),
        ("failed", "internal_error", 1),
        ("invalid", "schema", 1),
    }
    for status_name in ("truncated", "invalid", "failed"):
        assert f"promptmill retry job.toml --status {status_name}" in said.stderr


def test_a_kept_bad_answer_can_be_read(project, stub):
    stub.answer = lambda _: "the dog ate the JSON"
    project.rows(texts(1))
    project.job(more='[output]\nschema = { type = "object" }')
    project.run("run", "job.toml", "--yes", code=3)
    assert project.sql("select status, output, parsed from results") == [
        {"status": "invalid", "output": "the dog ate the JSON", "parsed": None}
    ]


def test_an_empty_repair_does_not_hide_the_answer_that_was_paid_for(project, stub):
    stub.answer = lambda payload: "" if len(payload["messages"]) > 1 else "long and paid"
    project.rows(texts(3))
    project.job(more='[output]\nschema = { type = "object" }\nrepair = 1')
    project.run("run", "job.toml", "--yes", code=3)
    assert project.sql("select distinct status, output from results") == [
        {"status": "invalid", "output": "long and paid"}
    ]
    assert project.value("select count(*) from attempts") == 6


def test_when_repairs_bring_nothing_the_first_answer_stays_and_each_is_paid_for(project, stub):
    stub.answer = lambda payload: "still not json" if len(payload["messages"]) > 1 else "not json"
    project.rows(texts(3))
    project.job(more='[output]\nschema = { type = "object" }\nrepair = 2')
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 9
    assert project.sql("select distinct status, attempts from results") == [{"status": "invalid", "attempts": 3}]
    assert Decimal(project.value("select sum(cost_usd) from results")) == stub.bill
