"""The whole tool against a server that bills exactly what it serves, and against one that nobody here wrote."""

import json
import re
import signal
from decimal import Decimal

import polars as pl
import pytest
from project import Project, texts
from stub_faults import first, status


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


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


def test_a_429_shuts_the_door_for_everybody_and_uses_up_no_attempts(project, stub):
    stub.faults = first(3, status(429, "slow down", retry_after=0.05))
    project.rows(texts(10))
    project.job(concurrency=2, more="[retry]\nattempts = 1")
    facts = json.loads(project.run("run", "job.toml", "--yes", "--json").stdout)
    assert project.value("select count(*) from results where status = 'ok'") == 10
    assert project.value("select count(*) from attempts where result = 'rate_limited'") == facts["rate_limited"] == 3
    assert 0.05 <= facts["shut_seconds"] < facts["seconds"]


def test_a_run_that_rate_limits_held_down_says_so_at_its_end_and_in_its_log(project, stub):
    stub.faults = first(3, status(429, "slow down", retry_after=0.3))
    project.rows(texts(10))
    project.job(concurrency=2)
    said = project.run("run", "job.toml", "--yes", "--log", "a.log").stderr
    held = re.search(r"held down by the provider's rate limits: \d answers said to slow down \(429\), and .*", said)[0]
    assert held in (project.folder / "a.log").read_text()
    again = project.run("run", "job.toml", "--yes", "--fresh").stderr
    assert "held down" not in again


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
    again = json.loads(project.run("run", "job.toml", "--yes", "--json", "--quiet").stdout)
    assert (again["spent_usd"], again["uncertain_usd"]) == ("0.000000000000", "0.000000000000")
    assert again["plan_spent_usd"] == report["spent_usd"]


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


def test_a_job_with_a_system_prompt_of_100_kb_runs_and_keeps_no_other_job_out(project, stub):
    long = "x" * 100_000
    project.rows(texts(3))
    project.job(text=project.job().read_text().replace("[prompt]", f'[prompt]\nsystem = "{long}"'))
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 3
    project.job("other")
    project.run("run", "other.toml", "--yes")
    assert stub.calls == 6
    assert project.value("select count(*) from results where status = 'ok'") == 6


def test_no_row_is_lost_to_many_429s_at_once(project, stub):
    stub.faults = first(16, status(429, "slow down"))
    stub.hold()
    project.rows(texts(40))
    project.job(concurrency=16)
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(16)
    stub.release()
    run.communicate(timeout=60)
    assert run.returncode == 0
    assert project.value("select count(*) from results where status = 'ok'") == 40
    assert project.value("select count(*) from attempts where result = 'rate_limited'") == 16


def test_a_panic_below_python_stops_the_run_with_an_internal_error(project, stub, monkeypatch):
    class Panic(BaseException):
        """What Rust libraries raise; not an Exception."""

    def panic(*_):
        raise Panic("out of range")

    project.rows(texts(5))
    project.job()
    monkeypatch.setattr("pipeline.runners._desk.outcome_line", panic)
    done = project.run("run", "job.toml", "--yes", code=1)
    assert "Traceback" in done.stderr
    assert "out of range" in done.stderr
    assert project.sql("select exit_code from runs") == [{"exit_code": 1}]


def test_a_finished_job_needs_no_key(project, stub):
    project.environ["STUB_KEY"] = "k"
    project.rows(texts(3))
    project.job(model='max_tokens = 50\napi_key_env = "STUB_KEY"')
    project.run("run", "job.toml", "--yes")
    del project.environ["STUB_KEY"]
    assert "nothing to send" in project.run("run", "job.toml", "--yes").stdout
    assert "STUB_KEY is not set" in project.run("run", "job.toml", "--yes", "--fresh", code=2).stderr


@pytest.mark.parametrize(
    "chaos",
    [
        ("--error-rate-429", "0.1"),
        ("--error-rate-503", "0.15"),
        ("--error-rate", "429=0.1", "--error-rate", "500=0.05", "--error-rate", "503=0.05", "--error-rate", "408=0.05"),
        ("--error-rate", "529=0.1", "--error-rate", "502=0.05", "--error-rate", "504=0.05"),
        ("--error-rate", "400=0.1", "--error-rate", "422=0.1", "--error-rate", "500=0.1"),
    ],
    ids=lambda chaos: " ".join(one for one in chaos if not one.startswith("--error-rate") or one[-1].isdigit()),
)
def test_a_server_nobody_here_wrote_calls_us_resilient_in_its_chaos_runs(tmp_path, llmock, chaos):
    server = llmock("--response-style", "echo", "--latency-ms", "5", *chaos)
    project = Project(tmp_path, server.base_url)
    project.rows(texts(80))
    project.job(concurrency=16, more="[retry]\nattempts = 12")  # chance fails no row then
    rejecting = any("400=" in one for one in chaos)
    project.run("run", "job.toml", "--yes", code=3 if rejecting else 0)
    verdict = server.verdict()
    assert (verdict["passed"], verdict["errors"]) == (True, 0)
    # Two waits of one row may be alike by chance, which it takes for a constant interval and warns of.
    assert {finding["code"] for finding in verdict["findings"]} <= {"no_backoff"}
    assert project.value("select count(*) from results where status not in ('ok', 'rejected')") == 0
