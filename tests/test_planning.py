"""What a key means for a run, before anything is counted or sent."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from project import Project, texts

from pipeline.counting import Counting
from pipeline.errors import InputError
from pipeline.estimating import Outlook, Scan, TooLong
from pipeline.job import load_job
from pipeline.ledger import HELD_BACK, Known
from pipeline.planning import Meter, Plan, Selection, decide
from pipeline.records import Request

NORMAL = Selection()
BY_NAME = Selection(retry=frozenset({"truncated"}), same_limit=True)
RETRY = Selection(retry=frozenset({"truncated", "failed"}))


@pytest.mark.parametrize(
    ("own", "others", "selection", "max_tokens", "expected"),
    [
        (None, None, NORMAL, 50, "send"),
        (("ok", 50), None, NORMAL, 900, "ended"),
        (("failed", 50), None, NORMAL, 900, "ended"),
        (("truncated", 50), None, NORMAL, 50, "ended"),
        (("truncated", 50), None, NORMAL, 40, "ended"),
        (("truncated", 50), None, NORMAL, 51, "send"),
        (("truncated", 50), None, NORMAL, None, "send"),
        (("truncated", None), None, NORMAL, 900, "ended"),
        (None, ("ok", 50, 1, 1), NORMAL, 900, "reuse"),
        (None, ("truncated", 50, 1, 1), NORMAL, 50, "reuse"),
        (None, ("truncated", 50, 1, 1), NORMAL, 51, "send"),
        (("failed", 50), ("ok", 50, 1, 1), NORMAL, 50, "reuse"),
        (("truncated", 50), ("ok", 50, 1, 1), NORMAL, 900, "reuse"),
        (("truncated", 50), ("truncated", 90, 1, 1), NORMAL, 50, "ended"),
        (("truncated", 50), ("truncated", 90, 1, 1), NORMAL, 90, "reuse"),
        (("truncated", 50), ("truncated", 90, 1, 1), NORMAL, 91, "send"),
        (("truncated", 50), ("ok", 50, 1, 1), RETRY, 50, "reuse"),
        (("truncated", 50), None, RETRY, 50, "skip"),
        (("truncated", 50), None, RETRY, 51, "send"),
        (("truncated", 50), None, RETRY, None, "send"),
        (("truncated", None), None, RETRY, 50, "send"),
        (("truncated", 50), None, BY_NAME, 50, "send"),
        (("truncated", 50), None, BY_NAME, 49, "skip"),
        (("failed", 50), None, RETRY, 50, "send"),
        (("ok", 50), None, RETRY, 50, "skip"),
        (("invalid", 50), None, RETRY, 50, "skip"),
        (None, None, RETRY, 50, "skip"),
        ((HELD_BACK, None), None, NORMAL, 50, "send"),
        ((HELD_BACK, None), ("ok", 50, 1, 1), NORMAL, 50, "reuse"),
        ((HELD_BACK, None), None, RETRY, 50, "skip"),
        ((HELD_BACK, None), None, Selection(retry=frozenset({"rejected"})), 50, "send"),
    ],
)
def test_a_key_is_sent_only_if_nothing_known_serves_it(own, others, selection, max_tokens, expected):
    known = Known({"k": own} if own else {}, {"k": others} if others else {})
    assert decide(known, "k", selection, max_tokens).what == expected


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def test_a_plan_is_complete_only_at_the_end_of_the_input(project):
    project.rows(texts(10))
    job = load_job(str(project.job()))
    part, whole = Plan(job, limit=4), Plan(job)
    assert len([row for batch in part.batches() for row in batch]) == 4
    assert len([row for batch in whole.batches(3) for row in batch]) == 10
    assert (part.complete, whole.complete) == (False, True)


def test_checking_the_first_rows_does_not_lose_them(project):
    project.rows(texts(10))
    plan = Plan(load_job(str(project.job())))
    assert len(plan.check_first_rows()) == 10
    assert [row.index for batch in plan.batches(4) for row in batch] == list(range(10))


def test_a_row_that_cannot_be_rendered_stops_or_is_planned_as_rejected(project):
    project.rows([{"id": "a", "text": "x"}, {"id": "b"}])
    stopping = Plan(load_job(str(project.job())))
    with pytest.raises(InputError, match=r"rows.jsonl:2.*'text'"):
        stopping.check_first_rows()
    rejecting = Plan(load_job(str(project.job(more_input='bad_rows = "reject"'))))
    first, second = rejecting.check_first_rows()
    assert first.request is not None
    assert second.request is None
    assert "rows.jsonl:2" in second.problem


def test_a_column_that_other_rows_have_is_no_typo_and_what_helps_is_named(project):
    project.rows([{"id": "a", "text": "x"}, {"id": "b", "txt": "y"}, {"id": "c", "txt": "z"}])
    with pytest.raises(InputError) as caught:
        Plan(load_job(str(project.job()))).check_first_rows()
    assert str(caught.value).endswith(
        "rows.jsonl:2: the prompt uses column 'text', which this row does not have. Mend the row, write"
        ' {{ text | default("") }} in the prompt to do without it, or set [input] bad_rows = "reject" to book such rows'
        " as rejected and go on"
    )
    rows = Plan(load_job(str(project.job(more_input='bad_rows = "reject"')))).check_first_rows()
    assert [str(row.problem).rpartition(", ")[2] for row in rows[1:]] == ["which this row does not have"] * 2


def test_a_column_that_no_row_before_had_may_be_a_typo(project):
    project.rows([{"id": "a", "txt": "x"}, {"id": "b", "txt": "y"}, {"id": "c", "text": "z"}])
    with pytest.raises(InputError, match=r"rows.jsonl:1: .* does not have; did you mean 'txt'\?$"):
        Plan(load_job(str(project.job()))).check_first_rows()
    rows = Plan(load_job(str(project.job(more_input='bad_rows = "reject"')))).check_first_rows()
    assert [str(row.problem).rpartition("; ")[2] for row in rows[:2]] == ["did you mean 'txt'?"] * 2


def test_a_row_that_the_prompt_cannot_render_names_the_way_on_if_others_could_be(project):
    project.rows([{"id": "a", "text": {"n": 1}}, {"id": "b", "text": {}}])
    text = project.job().read_text().replace("{{ text }}", "{{ text.n }}")
    project.job(text=text)
    with pytest.raises(InputError, match=r"rows.jsonl:2: .*'n'\. Mend the row, or set \[input\] bad_rows = \"reject\""):
        Plan(load_job(str(project.folder / "job.toml"))).check_first_rows()


@pytest.mark.parametrize(
    ("price", "max_tokens", "bounded"),
    [
        ('input = "1"\noutput = "2"', "max_tokens = 10", True),
        ('input = "1"\noutput = "2"', "", False),
        ('input = "1"\noutput = "0"', "", True),
        ('input = "0"\noutput = "0"', "", True),
    ],
)
def test_the_worst_case_is_known_only_with_a_price_and_a_bound_on_output(project, price, max_tokens, bounded):
    project.rows(texts(1))
    path = project.job(model=max_tokens)
    path.write_text(path.read_text().replace('input = "0.25"\noutput = "2.00"', price))
    job = load_job(str(path))
    ticket = Meter(job, job.price).ticket(Request("k", ({"role": "user", "content": "hello"},)))
    assert (ticket.reserve_usd is not None) == bounded


def test_the_worst_case_is_open_where_output_is_free_only_until_another_price_holds(project):
    project.rows(texts(1))
    job = load_job(str(project.job(model="")))
    free = replace(job.price, output=Decimal(0), reasoning=Decimal(0))
    later = replace(job.price, effective_from=date(2026, 11, 3))
    assert Meter(job, free).worst_case(1000) == Decimal("0.00025")
    assert Meter(job, free, (later,)).worst_case(1000) is None


def estimated(job, meter):
    plan, scan = Plan(job), Scan(Known(), NORMAL, job.limits, meter, TooLong(job.model, None))
    scan.run(plan, Counting(meter), None)
    return scan.answer(plan, Outlook(max_tokens=job.model.max_tokens), Decimal(0), None).forecast


def test_an_estimate_without_a_price_has_no_dollars(project):
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    job = load_job(str(path))
    found = estimated(job, Meter(job, None))
    assert (found.low_usd, found.bill, found.ceiling_usd, found.requests) == (None, None, None, 3)


def test_an_estimate_adds_up_exactly(project):
    project.rows(texts(3))
    job = load_job(str(project.job()))
    meter = Meter(job, job.price)
    tickets = [meter.ticket(row.request) for batch in Plan(job).batches() for row in batch]
    found = estimated(job, meter)
    assert found.ceiling_usd == sum(ticket.reserve_usd for ticket in tickets)
    assert (
        found.low_usd == found.input_usd == sum(ticket.input_tokens for ticket in tickets) * Decimal("0.25") / 1_000_000
    )


def test_a_row_that_can_not_be_rendered_ends_anew_under_another_prompt(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows([{"id": "1", "text": "fine"}, {"id": "2"}])
    job = project.job(more_input='id = "id"\nbad_rows = "reject"')
    project.run("run", "job.toml", "--yes", code=3)
    assert "'text'" in project.run("errors", "job.toml").stdout
    project.rows([{"id": "1", "other": "fine"}, {"id": "2"}])
    job.write_text(job.read_text().replace("{{ text }}", "{{ other }}"))
    project.run("run", "job.toml", "--yes", code=3)
    said = project.run("errors", "job.toml").stdout
    assert "'other'" in said
    assert "'text'" not in said


def test_a_plan_keeps_no_row_that_it_has_handed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    project.rows(texts(10))
    plan = Plan(load_job(str(project.job())))
    assert len(plan.check_first_rows()) == 10
    assert [row.index for batch in plan.batches(3) for row in batch] == list(range(10))
    assert plan._checked == []
