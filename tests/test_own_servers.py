"""Servers of one's own, as people run them: what they say in other words, or not at all, is told and costs no row."""

import pytest
from project import Project, texts
from stub_faults import Reply, every, status

SCHEMA = '[output]\nschema = { type = "object" }'
LONG = "word " * 1000


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def results(project):
    return {row["status"]: row["n"] for row in project.sql("select status, count(*) n from results group by all")}


def test_a_server_that_begins_to_reject_everything_pauses_the_run_and_keeps_the_rest(project, stub):
    """It began anew with another template, say."""
    stub.faults = lambda number, _: None if number <= 300 else status(400, "roles must alternate")
    project.rows(texts(1000))
    project.job(concurrency=8)
    paused = project.run("run", "job.toml", "--yes", code=4)
    assert "it seems that the server has changed, and the rows stay pending: roles must alternate" in paused.stderr
    assert (results(project)["ok"], results(project).keys()) == (300, {"ok", "pending"})
    assert stub.calls <= 300 + 100 + 8
    before, stub.faults = stub.calls, None
    project.run("run", "job.toml", "--yes")
    assert (results(project), stub.calls - before) == ({"ok": 1000}, 700)


def test_a_small_job_whose_answers_all_take_too_long_is_told_of_the_time_out(project, stub):
    stub.hold()
    project.rows(texts(3))
    project.job(limits="timeout_seconds = 0.2", more="[retry]\nattempts = 1")
    paused = project.run("run", "job.toml", "--yes", code=4)
    stub.release()
    assert "no answer comes in time (all 3 rows failed, the last with: no complete answer from" in paused.stderr
    assert "a larger [limits] timeout_seconds helps" in paused.stderr
    assert results(project) == {"pending": 3}


def test_a_small_job_before_a_server_that_never_answers_keeps_its_rows(project, stub):
    """As one that loads its model for minutes."""
    stub.faults = every(1, status(503, "Loading model"))
    project.rows(texts(5))
    project.job(more="[retry]\nattempts = 2")
    paused = project.run("run", "job.toml", "--yes", code=4)
    assert "the provider is down (all 5 rows failed, the last with: Loading model" in paused.stderr
    assert results(project) == {"pending": 5}
    stub.faults = None
    project.run("run", "job.toml", "--yes")
    assert results(project) == {"ok": 5}


def test_where_outages_are_not_minded_such_rows_fail(project, stub):
    stub.faults = every(1, status(503, "Loading model"))
    project.rows(texts(5))
    project.job(more="[retry]\nattempts = 2\n[stop]\noutage_rows = 0")
    project.run("run", "job.toml", "--yes", code=3)
    assert results(project) == {"failed": 5}


@pytest.mark.parametrize(("context", "told"), [(600, True), (1000, True), (10_000, False)])
def test_prompts_that_are_a_little_too_long_and_cut_are_told_too(project, stub, context, told):
    """All of one length by the server, though none are."""
    stub.answer = lambda payload: Reply(
        "fine", prompt_tokens=min(context, len(payload["messages"][-1]["content"]) // 5)
    )
    project.rows([{"id": str(n), "text": f"{n} " + "word " * (1100 + 20 * n)} for n in range(20)])
    project.job()
    said = project.run("run", "job.toml", "--yes").stderr
    assert said.count(f"5 requests had exactly {context:,} input tokens by the server") == told


def test_prompts_that_another_tokenizer_counts_lower_are_no_cut_ones(project, stub):
    stub.answer = lambda payload: Reply("fine", prompt_tokens=len(payload["messages"][-1]["content"]) // 7)
    project.rows([{"id": str(n), "text": f"{n} " + "word " * (1100 + n // 4)} for n in range(40)])
    project.job()
    assert "by the server" not in project.run("run", "job.toml", "--yes").stderr


def test_prompts_that_a_server_cuts_are_told_once(project, stub):
    stub.answer = lambda payload: Reply("fine", prompt_tokens=min(600, len(payload["messages"][-1]["content"]) // 5))
    project.rows([{"id": str(n), "text": f"{n} {LONG}{'word ' * n}"} for n in range(20)])
    project.job()
    said = project.run("run", "job.toml", "--yes").stderr
    assert said.count("5 requests had exactly 600 input tokens by the server, though up to ") == 1
    assert "does it cut prompts to its context (Ollama: num_ctx)?" in said


def test_prompts_that_are_only_counted_otherwise_are_not(project, stub):
    stub.answer = lambda payload: Reply("fine", prompt_tokens=len(payload["messages"][-1]["content"]) // 10)
    project.rows([{"id": str(n), "text": f"{n} {LONG}{'word ' * 3 * n}"} for n in range(20)])
    project.job()
    assert "does it cut prompts" not in project.run("run", "job.toml", "--yes").stderr


def test_an_answer_shorter_than_max_tokens_was_cut_off_by_the_context(project, stub):
    stub.answer = lambda _: Reply("half an ans", finish_reason="length", prompt_tokens=1900, completion_tokens=148)
    project.rows(texts(3))
    project.job(model="max_tokens = 2000")
    project.run("run", "job.toml", "--yes", code=3)
    said = project.run("errors", "job.toml")
    assert (
        "cut off after 148 tokens, behind 1,900 of the prompt, and max_tokens is 2,000: the model's context"
        in said.stdout
    )
    assert "truncated (context_full): shorter rows or a model with a longer context help" in said.stderr
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=4000", code=3)
    assert stub.calls == 3, "a higher limit makes them no longer"


RAN_OUT = "Could not finish the message because max_tokens or model output limit was reached. Please try again with"


def test_a_400_that_says_that_the_limit_was_reached_is_asked_again_under_a_higher_one(project, stub):
    """OpenAI, of a reasoning model that came to no text."""
    stub.faults = every(1, status(400, f"{RAN_OUT} higher max_tokens."))
    project.rows(texts(3))
    project.job(model="max_tokens = 200")
    project.run("run", "job.toml", "--yes", code=3)
    assert results(project) == {"truncated": 3}
    stub.faults = None
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 3, "not under the same limit"
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=4000")
    assert (results(project), stub.calls) == ({"ok": 3}, 6)


def test_without_max_tokens_nobody_says_to_raise_it(project, stub):
    stub.answer = lambda _: Reply("half an ans", finish_reason="length", prompt_tokens=1900, completion_tokens=148)
    project.rows(texts(2))
    project.job(model="")
    project.run("run", "job.toml", "--yes", code=3)
    assert "by the server's own limit, as max_tokens is not set" in project.run("errors", "job.toml").stdout


def test_thoughts_in_answers_are_told_once_and_named_where_they_spoil_them(project, stub):
    stub.answer = lambda _: "<think>so I think\n</think>\n\nParis"
    project.rows(texts(20))
    project.job()
    assert project.run("run", "job.toml", "--yes").stderr.count("answers begin with <think>, or hold </think>") == 1
    stub.answer = lambda _: 'so I think\n</think>\n\n{"a": 1}'
    project.rows(texts(60))
    project.job("other", more=SCHEMA)
    paused = project.run("run", "other.toml", "--yes", code=4)
    assert "The last one: the answer is not JSON" in paused.stderr
    assert "let the server take the reasoning apart" in paused.stderr


def test_a_retry_leaves_out_what_the_context_cut_off_unless_it_is_named(project, stub):
    stub.answer = lambda _: Reply("half an ans", finish_reason="length", prompt_tokens=1900, completion_tokens=148)
    project.rows(texts(3))
    project.job(model="max_tokens = 2000")
    project.run("run", "job.toml", "--yes", code=3)
    for more in ((), ("--max-tokens", "4000"), ("--status", "invalid", "--max-tokens", "4000")):
        project.run("retry", "job.toml", "--yes", *more, code=None)
    assert stub.calls == 3
    project.run("retry", "job.toml", "--yes", "--status", "truncated", code=3)
    assert stub.calls == 6


def test_rejections_held_back_when_a_run_is_stopped_stay_pending(project, stub):
    """More of them may be the server's fault."""
    stub.faults = lambda number, _: (
        None if number <= 100 else status(400, "a bad row") if number <= 130 else status(402)
    )
    project.rows(texts(300))
    project.job(concurrency=4)
    paused = project.run("run", "job.toml", "--yes", code=4)
    assert "the account has no credit left" in paused.stderr
    assert results(project).keys() == {"ok", "pending"}
    stub.faults = None
    project.run("run", "job.toml", "--yes")
    assert results(project) == {"ok": 300}


@pytest.mark.parametrize("tokens", [4, 7, 90, 96, 100])
def test_an_answer_of_about_max_tokens_was_cut_off_by_it(project, stub, tokens):
    stub.answer = lambda _: Reply("half", finish_reason="length", prompt_tokens=50, completion_tokens=tokens)
    project.rows(texts(1))
    project.job(model=f"max_tokens = {8 if tokens < 8 else 100}")
    project.run("run", "job.toml", "--yes", code=3)
    assert project.value("select error_type from errors") == "max_tokens"
