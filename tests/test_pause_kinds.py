"""What made a run pause, in one word: in its JSON, in the ledger, in `status`, and in what `errors` recommends."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from project import Project, texts
from stub_faults import status

from pipeline.errors import PauseKind

PAGE = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
SCHEMA = '[output]\nschema = { type = "object", required = ["name"] }'
FAULTS = {
    "key": status(401, "no such key"),
    "credit": status(429, "You exceeded your current quota", code="insufficient_quota"),
    "fatal": status(404, "no such model"),
    "rejections": status(400, "no such parameter"),
    "rate_limited": status(429, "come back tomorrow", retry_after=7200),
}
JOBS = {
    "budget": {"more": "[budget]\nusd = 0.0002"},
    "answers": {"more": SCHEMA},
    "input": {},
    "key": {},
    "credit": {},
    "fatal": {},
    "rejections": {},
    "unavailable": {},
    "rate_limited": {},
}


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def paused(project, kind, stub):
    """Let a run of 100 rows pause for this reason; return its JSON."""
    rows = project.rows(texts(100 if kind != "input" else 2500))
    if kind == "input":  # behind the rows that are looked at first
        rows.write_text(rows.read_text() + "{broken\n")
    if kind in FAULTS:
        stub.faults = lambda *_: FAULTS[kind]
    if kind == "unavailable":
        project.base_url = "http://127.0.0.1:9/v1"
    project.job(**JOBS[kind])
    return json.loads(project.run("run", "job.toml", "--yes", "--json", code=4).stdout)


@pytest.mark.parametrize("kind", JOBS)
def test_a_script_reads_why_a_run_paused(project, stub, kind):
    said = paused(project, kind, stub)
    assert said["pause_kind"] == kind
    assert project.sql("select exit_code, reason, pause_kind from runs") == [
        {"exit_code": 4, "reason": said["paused"], "pause_kind": kind}
    ]
    (job,) = json.loads(project.run("status", "--json").stdout)
    assert (job["reason"], job["pause_kind"]) == (said["paused"], kind)


def test_a_run_that_ends_has_no_such_word(project):
    project.rows(texts(3))
    project.job()
    said = json.loads(project.run("run", "job.toml", "--yes", "--json").stdout)
    assert (said["paused"], said["pause_kind"]) == (None, None)
    assert project.sql("select reason, pause_kind from runs") == [{"reason": "finished", "pause_kind": None}]


@pytest.mark.parametrize(
    ("kind", "condition"),
    [
        ("budget", "with a higher budget"),
        ("answers", "with --set stop.invalid_share=1"),
        ("fatal", "when that is over or put right"),
    ],
)
def test_errors_says_what_brings_a_paused_run_further(project, stub, kind, condition):
    paused(project, kind, stub)
    assert f"`promptmill run job.toml` goes on {condition}\n" in project.run("errors", "job.toml").stderr


def test_errors_says_what_brings_a_paused_retry_further(project, stub):
    project.rows(texts(40))
    project.job(more=SCHEMA + "\n[stop]\ninvalid_share = 1")
    project.run("run", "job.toml", "--yes", code=3)
    spent = project.value("select sum(cost_usd)::double from attempts")
    project.run("retry", "job.toml", "--yes", "--budget", f"{spent + 0.0005:.6f}", code=4)
    said = project.run("errors", "job.toml").stderr
    assert re.search(r"`promptmill retry job\.toml --budget N` goes on with the retry with a higher budget", said)


def test_every_word_is_on_the_page_and_no_other():
    section = PAGE.partition("## Why a run pauses")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \| [^|]* \| [^|]* \|$", section, re.MULTILINE)[1:]) == get_args(PauseKind)
