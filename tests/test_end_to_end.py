"""The whole tool against a server that bills exactly what it serves, and against one that nobody here wrote."""

import json
import random
import signal
from decimal import Decimal

import polars as pl
import pytest
from project import Project, texts
from stub_faults import CUT, NO_USAGE, REFUSAL, Reply, every, first, reasoned_away, status


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def test_spend_in_the_ledger_equals_the_bill_to_the_last_digit(project, stub):
    stub.faults = every(10, status(500))
    project.rows(texts(1000))
    project.job(concurrency=32)
    project.run("run", "job.toml", "--yes")
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill
    assert Decimal(project.value("select sum(cost_usd) from results")) == stub.bill
    assert project.value("select count(*) from attempts where result = 'unavailable'") == stub.calls - 1000


def test_each_answer_sits_at_its_row(project, stub):
    stub.latency = lambda n: (n * 7 % 13) / 1000
    stub.faults = every(7, status(503))
    project.rows(texts(200))
    project.job(concurrency=32)
    project.run("run", "job.toml", "--yes")
    rows = project.sql("select row_index, row_id, output from results order by row_index")
    assert [row["row_id"] for row in rows] == [f"r{i}" for i in range(200)]
    assert [json.loads(row["output"])["echo"] for row in rows] == [f"row {i} says hello" for i in range(200)]


def test_rows_with_equal_prompts_are_one_request(project, stub):
    project.rows([{"text": f"prompt {i % 10}"} for i in range(300)])
    project.job(more_input="")
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 10
    summary = project.sql("select count(*) n, count(output) answered, sum(cost_usd) cost from results")
    assert summary == [{"n": 300, "answered": 300, "cost": str(stub.bill.quantize(Decimal("1e-12")))}]
    assert project.value("select count(*) from results where reused") == 290


def test_a_shuffled_file_with_one_row_more_and_one_less_makes_one_call(project, stub):
    rows = texts(100)
    project.rows(rows)
    project.job()
    project.run("run", "job.toml", "--yes")
    changed = [*rows[1:], {"id": "new", "text": "a new row"}]
    random.Random(4).shuffle(changed)
    project.rows(changed)
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 101
    found = project.sql("select row_id, output from results order by row_index")
    assert [(row["row_id"], json.loads(row["output"])["echo"]) for row in found] == [
        (row["id"], row["text"]) for row in changed
    ]


def test_a_second_run_sends_nothing_and_says_so(project, stub):
    project.rows(texts(20))
    project.job()
    project.run("run", "job.toml", "--yes")
    again = project.run("run", "job.toml", "--yes")
    assert stub.calls == 20
    assert "nothing to send: every row has its outcome (20 ok)" in again.stdout


def test_the_ledger_answers_from_another_process_while_the_job_runs(project, stub):
    project.rows(texts(60))
    project.job(concurrency=20)
    stub.faults = None
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(20)
    stub.release(10)
    stub.wait_for_calls(30)
    while project.value("select count(*) from results where status = 'ok'") < 10:
        pass  # each look is a process of its own; the loader needs a moment
    assert project.value("select count(*) from results") == 60
    status_rows = json.loads(project.run("status", "--json").stdout)
    assert status_rows[0]["state"] == f"running ({run.pid})"
    stub.release()
    assert run.wait(60) == 0
    run.communicate()
    assert project.value("select count(*) from results where status = 'ok'") == 60


def test_kill_9_loses_no_received_answer_and_repeats_only_what_was_in_flight(project, stub):
    project.rows(texts(60))
    project.job(concurrency=8)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(8)
    for calls in (16, 24):  # a slot is free again only when its answer is on file
        stub.release(8)
        stub.wait_for_calls(calls)
    stub.wait_for_in_flight(8)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    delivered = stub.delivered_bill
    stub.release()
    stub.wait_until(lambda: stub.in_flight == 0, "the abandoned requests")
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == delivered
    lost = project.sql("select result, cost_usd, reserved_usd > 0 as bounded from attempts where result = 'lost'")
    assert lost == [{"result": "lost", "cost_usd": None, "bounded": True}] * 8
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 60 + 8
    assert project.value("select count(*) from results where status = 'ok'") == 60


def test_ctrl_c_waits_for_what_is_in_flight_and_the_same_command_goes_on(project, stub):
    project.rows(texts(40))
    project.job(concurrency=4)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    run.send_signal(signal.SIGINT)
    while "waiting for 4 in flight" not in (line := run.stderr.readline()):
        assert line, "the run ended without waiting"
    stub.release()
    _, err = run.communicate(timeout=60)
    assert run.returncode == 4
    assert "paused: stopped by Ctrl-C. The same command goes on from here." in err
    assert project.value("select count(*) from results where status = 'ok'") == 4
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 40


def test_a_second_ctrl_c_leaves_now_and_lists_what_was_on_the_wire(project, stub):
    project.rows(texts(10))
    project.job(concurrency=4)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    run.send_signal(signal.SIGINT)
    while "in flight" not in run.stderr.readline():
        pass
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    stub.release()
    assert run.returncode == 130
    assert project.value("select count(*) from attempts where result = 'lost'") == 4


def test_stop_from_another_terminal_pauses_the_run(project, stub):
    project.rows(texts(10))
    project.job(concurrency=2)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(2)
    assert str(run.pid) in project.run("stop", "job").stdout
    while "in flight" not in run.stderr.readline():
        pass
    stub.release()
    run.communicate(timeout=60)
    assert run.returncode == 4
    assert "not running" in project.run("stop", "job", code=2).stderr


def test_a_second_run_of_the_same_job_at_once_is_refused_and_names_the_process(project, stub):
    project.rows(texts(4))
    project.job(concurrency=2)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(2)
    second = project.run("run", "job.toml", "--yes", code=2)
    assert f"already running (process {run.pid})" in second.stderr
    stub.release()
    assert run.wait(60) == 0
    run.communicate()
    assert stub.calls == 4


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


def test_an_answer_whose_cost_cannot_be_known_is_listed_with_an_upper_bound(project, stub):
    stub.faults = first(1, CUT)
    project.rows(texts(3))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes")
    (unknown,) = project.sql("select cost_usd, reserved_usd from attempts where cost_usd is null")
    known = Decimal(project.value("select sum(cost_usd) from attempts"))
    assert known < stub.bill <= known + Decimal(unknown["reserved_usd"])
    assert project.sql("select unknown_cost from spend")[0]["unknown_cost"] == 1


def test_an_answer_without_usage_is_kept_and_its_cost_is_unknown(project, stub):
    stub.faults = every(1, NO_USAGE)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.sql("select status, cost_usd from results") == [{"status": "ok", "cost_usd": None}]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (status(401, "bad key"), "bad key"),
        (status(402, "no credit"), "no credit"),
        (status(404, "no such model"), "no such model"),
        (status(429, "You exceeded your current quota", code="insufficient_quota"), "quota"),
    ],
)
def test_what_no_row_can_pass_pauses_the_run_and_leaves_rows_pending(project, stub, fault, says):
    stub.faults = every(1, fault)
    project.rows(texts(200))
    project.job(concurrency=4)
    done = project.run("run", "job.toml", "--yes", code=4)
    assert says in done.stderr
    assert stub.calls <= 4 + 4, "at most the concurrency after the first refusal"
    stub.faults = None
    before = stub.calls
    project.run("run", "job.toml", "--yes")
    assert stub.calls - before == 200


def test_an_unreachable_provider_pauses_the_run(project, stub):
    stub.stop()
    project.rows(texts(50))
    project.job(concurrency=4)
    done = project.run("run", "job.toml", "--yes", code=4)
    assert "can't be reached" in done.stderr
    assert project.value("select count(*) from results where status = 'pending'") == 50


def test_a_429_shuts_the_door_for_everybody_and_uses_up_no_attempts(project, stub):
    stub.faults = first(3, status(429, "slow down", retry_after=0.05))
    project.rows(texts(10))
    project.job(concurrency=2, more="[retry]\nattempts = 1")
    project.run("run", "job.toml", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 10
    assert project.value("select count(*) from attempts where result = 'rate_limited'") == 3


def test_the_budget_is_never_exceeded_and_a_higher_one_goes_on(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 40)
    project.rows(texts(200))
    project.job(concurrency=16)
    done = project.run("run", "job.toml", "--yes", "--budget", "0.004", code=4)
    assert "--budget" in done.stderr
    worst_case = Decimal(project.value("select max(reserved_usd) from attempts"))
    assert Decimal("0.004") - worst_case < stub.bill <= Decimal("0.004")
    more = project.run("run", "job.toml", "--yes", "--budget", "1")
    assert "already spent $0.00" in more.stderr
    assert stub.calls == 200


@pytest.mark.parametrize(
    ("model", "price", "says"),
    [("max_tokens = 50", "", "needs a known price"), ("", "--price=1,2", "needs [model] max_tokens")],
)
def test_a_budget_that_could_not_be_held_refuses_to_start(project, stub, model, price, says):
    project.rows(texts(3))
    path = project.job(model=model)
    text = path.read_text()
    path.write_text(text.replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    arguments = ["run", "job.toml", "--yes", "--budget", "1", *([price] if price else [])]
    assert says in project.run(*arguments, code=2).stderr
    assert stub.calls == 0


def test_an_unknown_price_is_null_everywhere_with_a_warning(project, stub):
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    assert "is unknown: costs will be NULL" in project.run("run", "job.toml", "--yes").stderr
    assert project.value("select count(cost_usd) from attempts") == 0


def test_another_jobs_answers_serve_unless_the_job_keeps_to_its_own(project, stub):
    project.rows(texts(10))
    project.job("one")
    project.job("two")
    project.job("three", more='[run]\nreuse = "job"')
    project.run("run", "one.toml", "--yes")
    project.run("run", "two.toml", "--yes")
    assert stub.calls == 10
    assert project.sql("select count(*) n, sum(cost_usd) c, bool_and(reused) r from results where job = 'two'") == [
        {"n": 10, "c": "0.000000000000", "r": True}
    ]
    project.run("run", "three.toml", "--yes")
    assert stub.calls == 20
    project.run("run", "one.toml", "--yes", "--fresh")
    assert stub.calls == 30


def test_without_dedupe_each_row_is_asked_on_its_own_and_a_resume_keeps_them_apart(project, stub):
    project.rows([{"text": "throw a die"}] * 6)
    project.job(more_input="", more="[run]\ndedupe = false")
    project.run("run", "job.toml", "--yes", "--limit", "4")
    assert stub.calls == 4
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 6


def test_a_changed_and_restored_prompt_keeps_what_was_paid_for(project, stub):
    project.rows(texts(5))
    path = project.job()
    original = path.read_text()
    project.run("run", "job.toml", "--yes")
    path.write_text(original.replace("{{ text }}", "Say: {{ text }}"))
    project.run("run", "job.toml", "--yes")
    path.write_text(original)
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 10
    assert project.value("select count(*) from plans") == 3


def test_limit_works_on_the_same_plan(project, stub):
    project.rows(texts(30))
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "10")
    assert stub.calls == 10
    assert project.sql("select complete, rows from plans") == [{"complete": False, "rows": None}]
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 30
    assert project.sql("select complete, rows from plans") == [{"complete": True, "rows": 30}]


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


def test_estimate_counts_what_is_left_to_send_and_bounds_its_cost(project, stub):
    project.rows([*texts(10), *texts(10)])
    project.job()
    first_look = json.loads(project.run("estimate", "job.toml", "--json").stdout)
    assert (first_look["rows"], first_look["to_send"], first_look["repeated"]) == (20, 10, 10)
    project.run("run", "job.toml", "--yes", "--limit", "4")
    left = json.loads(project.run("estimate", "job.toml", "--json").stdout)
    assert (left["to_send"], left["already"]) == (6, 8)
    assert Decimal(first_look["low_usd"]) < Decimal(first_look["ceiling_usd"])
    project.run("run", "job.toml", "--yes")
    assert stub.bill <= Decimal(first_look["ceiling_usd"])


def test_estimate_says_which_limit_binds_and_how_long_it_takes(project):
    project.rows(texts(120))
    project.job()
    facts = json.loads(project.run("estimate", "job.toml", "--json", "--set", "limits.requests_per_minute=60").stdout)
    assert (facts["seconds"], facts["binding_limit"]) == (120.0, "requests_per_minute")


def test_without_a_terminal_and_without_yes_nothing_is_sent_if_it_costs(project, stub):
    project.rows(texts(3))
    project.job()
    refused = project.run("run", "job.toml", code=2)
    assert "add --yes" in refused.stderr
    assert stub.calls == 0
    project.run("run", "job.toml", "--yes")
    project.run("run", "job.toml")  # nothing left to pay for: nobody needs to be asked


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_results_come_out_in_input_order(project, stub, ending):
    project.rows(texts(30))
    project.job(concurrency=16)
    project.run("run", "job.toml", "--yes")
    project.run("results", "job.toml", "-o", f"out{ending}")
    readers = {".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet, ".csv": pl.read_csv}
    frame = readers[ending](project.folder / f"out{ending}")
    assert frame["row_id"].to_list() == [f"r{i}" for i in range(30)]
    assert [json.loads(text)["echo"] for text in frame["output"]] == [f"row {i} says hello" for i in range(30)]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_results_with_input_are_joined_by_key_so_an_edited_file_cannot_shift_answers(project, ending):
    rows = texts(10)
    project.rows(rows)
    project.job()
    project.run("run", "job.toml", "--yes")
    project.rows([{"id": "new", "text": "not asked yet", "status": "mine"}, *reversed(rows)])
    project.run("results", "job.toml", "--with-input", "-o", f"out{ending}")
    readers = {".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet, ".csv": pl.read_csv}
    found = readers[ending](project.folder / f"out{ending}").to_dicts()
    assert (found[0]["id"], found[0]["status"], found[0]["output"]) == ("new", "pending", None)
    assert found[0]["input_status"] == "mine"
    for row in found[1:]:
        assert json.loads(row["output"])["echo"] == row["text"]


def test_spend_and_status_say_what_was_spent(project, stub):
    project.rows(texts(5))
    project.job()
    project.run("run", "job.toml", "--yes")
    (spent,) = json.loads(project.run("spend", "--by", "job,model", "--json").stdout)
    assert Decimal(spent["cost_usd"]) == stub.bill
    (state,) = json.loads(project.run("status", "job.toml", "--json").stdout)
    assert (state["state"], state["ok"], state["pending"]) == ("finished", 5, 0)


def test_a_journal_of_a_lost_ledger_rebuilds_it(project, stub):
    project.rows(texts(10))
    project.job()
    project.run("run", "job.toml", "--yes")
    (project.folder / "promptmill.duckdb").unlink()
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 10
    assert project.value("select count(*) from results where status = 'ok'") == 10


def test_run_prints_its_report_as_json(project, stub):
    project.rows(texts(3))
    project.job()
    report = json.loads(project.run("run", "job.toml", "--yes", "--json", "--quiet").stdout)
    assert report["statuses"] == {"ok": 3}
    assert Decimal(report["spent_usd"]) == stub.bill


def test_an_answer_may_be_a_forced_tools_arguments(project, stub):
    call = {"id": "c", "type": "function", "function": {"name": "save", "arguments": '{"n": 1}'}}
    stub.answer = lambda _: Reply(text=None, finish_reason="tool_calls", message={"tool_calls": [call]})
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.value("select output from results") == '{"n": 1}'


def test_a_server_nobody_here_wrote_serves_a_whole_job(tmp_path, llmock):
    server = llmock("--response-style", "echo", "--rpm", "100000")
    project = Project(tmp_path, server.base_url)
    project.rows(texts(40))
    project.job(concurrency=8)
    project.run("run", "job.toml", "--yes")
    rows = project.sql("select output from results order by row_index")
    assert all(f"row {i} says hello" in row["output"] for i, row in enumerate(rows))
    assert server.verdict()["passed"]


def test_a_server_nobody_here_wrote_finds_our_retries_well_behaved(tmp_path, llmock):
    server = llmock("--response-style", "static")
    server.script(
        {"type": "fail", "status": 503, "times": 2},
        {"type": "fail", "status": 429, "retry_after": 1, "times": 1},
        {"type": "fail", "status": 500, "times": 2},
    )
    project = Project(tmp_path, server.base_url)
    project.rows(texts(12))
    project.job(concurrency=2)
    project.run("run", "job.toml", "--yes")
    verdict = server.verdict()
    assert (verdict["passed"], verdict["findings"]) == (True, [])
    assert project.value("select count(*) from results where status = 'ok'") == 12


def test_an_answer_whose_outcome_line_was_cut_off_is_not_asked_for_again(project, stub):
    project.rows(texts(3))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes")
    (project.folder / "promptmill.duckdb").unlink()
    (path,) = (project.folder / "promptmill.journal").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"type":"attempt"' in line)
    path.write_bytes(b"".join(lines[: last + 1]) + lines[last + 1][:20])
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 3
    assert project.value("select count(*) from results where status = 'ok'") == 3


def test_no_row_is_lost_to_many_429s_at_once(project, stub):
    stub.faults = first(16, status(429, "slow down"))
    project.rows(texts(40))
    project.job(concurrency=16)
    project.run("run", "job.toml", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 40
    assert project.value("select count(*) from attempts where result = 'rate_limited'") == 16


def test_a_plan_that_was_left_and_came_back_keeps_its_budget(project, stub):
    project.rows(texts(60))
    path = project.job(concurrency=1)
    original = path.read_text()
    project.run("run", "job.toml", "--yes", "--budget", "0.0004", code=4)
    spent = stub.bill
    path.write_text(original.replace("{{ text }}", "Say: {{ text }}"))
    project.run("run", "job.toml", "--yes", "--limit", "1")
    path.write_text(original)
    done = project.run("run", "job.toml", "--yes", "--budget", "0.0004", code=4)
    assert "has already spent" in done.stderr
    assert stub.bill - spent < Decimal("0.0001"), "only the other plan's row was paid for"


def test_a_shorter_retry_never_hides_a_longer_answer(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 80)
    project.rows(texts(2))
    project.job()
    project.run("run", "job.toml", "--yes", code=3)
    project.run("retry", "job.toml", "--yes", "--max-tokens", "5", code=3)
    assert project.value("select min(len(string_split(output, ' '))) from results") == 50
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 4


def test_a_provider_that_claims_absurd_usage_does_not_make_the_ledger_unusable(project, stub):
    stub.answer = lambda _: Reply("fine", completion_tokens=10**12)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.sql("select status, cost_usd from results") == [{"status": "ok", "cost_usd": None}]


def test_a_price_that_no_ledger_can_book_is_refused(project, stub):
    project.rows(texts(1))
    project.job(model="max_tokens = 100_000_000")
    done = project.run("run", "job.toml", "--yes", "--price", "1,99999", code=2)
    assert "one request may cost" in done.stderr
    assert stub.calls == 0


def test_a_panic_below_python_stops_the_run_with_an_internal_error(project, stub, monkeypatch):
    class Panic(BaseException):
        """What Rust libraries raise; not an Exception."""

    def panic(*_):
        raise Panic("out of range")

    project.rows(texts(5))
    project.job()
    monkeypatch.setattr("pipeline.runners.local.outcome_line", panic)
    done = project.run("run", "job.toml", "--yes", code=1)
    assert "Traceback" in done.stderr
    assert "out of range" in done.stderr
    assert project.sql("select exit_code from runs") == [{"exit_code": 1}]


def test_an_interrupted_fresh_run_goes_on_where_it_was(project, stub):
    project.rows(texts(10))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes")
    stub.faults = lambda n, _: status(402, "no credit") if n == 15 else None
    project.run("run", "job.toml", "--yes", "--fresh", code=4)
    assert stub.calls == 15
    stub.faults = None
    project.run("run", "job.toml", "--yes", "--fresh")
    assert stub.calls == 15 + 6, "four were asked again before the pause"
    project.run("run", "job.toml", "--yes", "--fresh")
    assert stub.calls == 21 + 10, "a finished fresh run is over: the next one asks for all again"


def test_a_run_that_never_connected_leaves_no_unknown_cost_behind(project, stub):
    stub.stop()
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    project.run("run", "job.toml", "--yes", "--set", "retry.attempts=1", code=4)
    stub.start()
    project.run("run", "job.toml", "--yes", "--price", "0.25,2.00", "--budget", "1")
    assert project.value("select count(*) from attempts where error_type like 'connect%' and cost_usd is null") == 0


def test_a_finished_job_needs_no_key(project, stub):
    project.environ["STUB_KEY"] = "k"
    project.rows(texts(3))
    project.job(model='max_tokens = 50\napi_key_env = "STUB_KEY"')
    project.run("run", "job.toml", "--yes")
    del project.environ["STUB_KEY"]
    assert "nothing to send" in project.run("run", "job.toml", "--yes").stdout
    assert "STUB_KEY is not set" in project.run("run", "job.toml", "--yes", "--fresh", code=2).stderr
