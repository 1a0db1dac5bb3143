"""`estimate --pilot`: a few random rows are paid for and kept, and what they used says what the rest will cost."""

import json
import re
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b

import pytest
from project import Project, texts
from stub import StubServer
from stub_faults import Reply, status

from pipeline.errors import LedgerBusy
from pipeline.estimating import Sample
from pipeline.ledger import Ledger
from pipeline.pricebook import Prices
from pipeline.records import TokenCount


def words(most):
    """Answer with 1 to `most` words, always the same for the same prompt."""

    def answer(payload):
        said = payload["messages"][-1]["content"]
        number = int.from_bytes(blake2b(said.encode(), digest_size=4).digest()) % most + 1
        return " ".join(["word"] * number)

    return answer


@pytest.fixture
def stub():
    with StubServer(answer=words(40)) as server:
        yield server


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


# -- what is sent


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (("job.toml", "--pilot"), 100),
        (("--pilot", "job.toml"), 100),
        (("--pilot", "7", "job.toml"), 7),
        (("--pilot=7", "job.toml"), 7),
        (("job.toml", "--pilot", "--quiet"), 100),
    ],
)
def test_the_number_of_a_pilot_may_be_left_out_wherever_it_stands(project, stub, arguments, sent):
    project.rows(texts(120))
    project.job()
    project.run("estimate", *arguments)
    assert stub.calls == sent


def test_a_pilot_sends_so_many_rows_keeps_them_and_never_pays_for_them_again(project, stub):
    project.rows(texts(200))
    project.job()
    facts = project.estimated("--pilot", "60")
    assert stub.calls == 60
    assert facts["pilot"]["sent"] == facts["pilot"]["requests"] == 60
    assert Decimal(facts["pilot"]["spent_usd"]) == stub.bill
    assert (facts["to_send"], facts["already"]) == (140, 60)
    assert project.value("select count(*) from results where status = 'ok'") == 60
    again = project.estimated("--pilot", "60")
    assert stub.calls == 60
    assert again["pilot"] == {
        "requests": 60, "run_id": None, "sent": 0, "spent_usd": "0.000000000000", "uncertain_usd": "0.000000000000",
        "unknown_unbounded": 0, "paused": None, "pause_kind": None,
    }  # fmt: skip
    assert again["expected_usd"] == facts["expected_usd"]
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 200
    assert Decimal(project.value("select sum(cost_usd) from results")) == stub.bill


def test_without_a_number_a_pilot_is_100_rows(project, stub):
    project.rows(texts(150))
    project.job()
    project.estimated("--pilot")
    assert stub.calls == 100


def test_a_pilot_s_rows_are_spread_over_the_input_and_need_nothing_but_the_plan_to_be_found_again(project, stub):
    project.rows(texts(400))
    project.job()
    project.estimated("--pilot", "40")
    rows = project.sql("select row_index from results where status = 'ok' order by row_index")
    first_half = sum(row["row_index"] < 200 for row in rows)
    assert 5 < first_half < 35
    (project.folder / "promptmill.duckdb").unlink()
    for file in (project.folder / "promptmill.journal").iterdir():
        file.unlink()
    project.estimated("--pilot", "40")
    assert project.sql("select row_index from results where status = 'ok' order by row_index") == rows


def test_a_larger_pilot_pays_only_for_what_the_smaller_one_lacks(project, stub):
    project.rows(texts(100))
    project.job()
    project.estimated("--pilot", "20")
    project.estimated("--pilot", "50")
    assert stub.calls == 50


def test_rows_that_share_a_request_are_piloted_once_and_counted_right(project, stub):
    project.rows([*texts(30), *texts(30)])
    project.job()
    facts = project.estimated("--pilot", "10")
    assert stub.calls == 10
    assert (facts["rows"], facts["to_send"], facts["already"], facts["repeated"]) == (60, 20, 20, 20)
    again = project.estimated()
    assert [again[key] for key in ("rows", "to_send", "already", "repeated")] == [60, 20, 20, 20]


def test_a_pilot_larger_than_the_job_sends_the_job(project, stub):
    project.rows(texts(12))
    project.job()
    facts = project.estimated("--pilot", "100")
    assert stub.calls == 12
    assert (facts["to_send"], facts["low_usd"], facts["high_usd"]) == (0, "0.000000000000", "0.000000000000")


def test_a_pilot_that_was_paused_goes_on_with_the_same_command(project, stub):
    project.rows(texts(100))
    project.job(concurrency=4)
    dead = status(429, "You exceeded your current quota", code="insufficient_quota")
    stub.faults = lambda number, _: dead if number > 25 else None
    paused = project.run("estimate", "job.toml", "--pilot", "50", code=4)
    assert "paused: " in paused.stderr
    stub.faults = None
    answered = project.value("select count(*) from results where status = 'ok'")
    before = stub.calls
    project.estimated("--pilot", "50")
    assert stub.calls - before == 50 - answered
    assert project.value("select count(*) from results where status = 'ok'") == 50


def test_a_pilot_stays_within_the_budget(project, stub):
    project.rows(texts(100))
    project.job()
    paused = project.run("estimate", "job.toml", "--pilot", "100", "--budget", "0.002", code=4)
    assert "budget" in paused.stderr
    assert stub.bill <= Decimal("0.002")
    assert 0 < stub.calls < 100


def test_a_pilot_that_finds_its_free_model_charging_is_paused_and_its_estimate_is_shown(tmp_path):
    with StubServer(report_cost=True) as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(60))
        project.job(model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        ask = ("estimate", "job.toml", "--pilot", "20", "--price", "0,0", "--budget", "1")
        paused = project.run(*ask, code=4)
        assert "the estimate stands on what was answered" in paused.stderr
        assert "to send   " in paused.stdout
        sent = stub.calls
        assert sent > 0
        assert "a budget needs a known price" in project.run(*ask, code=2).stderr
        assert stub.calls == sent


def test_a_pilot_without_its_key_sends_nothing_and_one_that_is_answered_needs_none(project, stub):
    project.rows(texts(30))
    project.job(model='max_tokens = 50\napi_key_env = "STUB_KEY"')
    told = project.run("estimate", "job.toml", "--pilot", "10", code=2)
    assert "STUB_KEY" in told.stderr
    assert stub.calls == 0
    project.environ["STUB_KEY"] = "sk-a-key-of-the-stub"
    project.run("estimate", "job.toml", "--pilot", "10")
    del project.environ["STUB_KEY"]
    told = project.run("estimate", "job.toml", "--pilot", "10")
    assert "pilot: 10 random requests had their answers already: nothing was sent" in told.stderr


def test_a_pilot_says_what_it_sent_and_spent(project, stub):
    project.rows(texts(30))
    project.job()
    told = project.run("estimate", "job.toml", "--pilot", "10")
    assert "pilot: 10 attempts for 10 random requests, $0.0" in told.stderr
    assert "from the pilot's 10 answers; rough: fewer than 50" in told.stdout


# -- what it says about the rest


def at_a_known_port(**prices):
    """The address is part of a request's key, and keys are what a pilot chooses by: here chance is always the same."""
    for port in (47_811, 47_812, 47_813):
        with suppress(OSError):
            StubServer(port=port).start().stop()
            return StubServer(port=port, answer=words(40), **prices)
    pytest.skip("three ports are taken")


def test_what_is_left_costs_what_the_pilot_said_and_the_ledger_is_the_bill(tmp_path):
    published = Prices().find("openai", "gpt-4.1-nano", datetime.now(UTC))
    own = tmp_path / "prices.toml"
    own.write_text(
        f"""[[price]]
provider = "stub"
model = "test-model"
input = "{published.input}"
cached_input = "{published.cached_input}"
output = "{published.output}"
source = "{published.source}"
""",
        encoding="utf-8",
    )
    with at_a_known_port(input=str(published.input), output=str(published.output)) as stub:
        project = Project(tmp_path, stub.base_url, {"PROMPTMILL_PRICES": str(own)})
        project.rows(texts(1000))
        path = project.job()
        path.write_text(path.read_text().partition("[price]")[0], encoding="utf-8")
        facts = project.estimated("--pilot", "100")
        pilot = stub.bill
        project.run("run", "job.toml", "--yes")
        low, expected, high = (Decimal(facts[f"{name}_usd"]) for name in ("low", "expected", "high"))
        assert low < stub.bill - pilot < high <= Decimal(facts["ceiling_usd"])
        assert high - low < expected / 3  # it says something
        (spent,) = json.loads(project.run("spend", "--json").stdout)
        assert Decimal(spent["cost_usd"]) == stub.bill
        (_, judged) = json.loads(project.run("spend", "--forecast", "--json").stdout)
        assert judged["verdict"] == "inside"
        assert judged["expected_usd"] is not None


def test_counts_that_differ_from_the_bill_are_set_right_by_the_pilot(project, stub):
    project.rows(texts(200))
    project.job()
    before = project.estimated()
    facts = project.estimated("--pilot", "100")
    asked = project.sql("select sum(input_tokens) / sum(counted_tokens) as ratio from attempts")
    assert facts["billed_ratio"] == pytest.approx(asked[0]["ratio"], abs=1e-6)
    assert facts["billed_ratio"] < 0.9 < before["billed_ratio"] == 1
    project.run("run", "job.toml", "--yes")
    left = project.value("select sum(input_tokens)::bigint from attempts where run_id = 2")
    assert left == pytest.approx(facts["input_tokens"] * facts["billed_ratio"], rel=0.02)


def test_the_share_of_answers_that_were_cut_off_is_told_with_the_price_of_a_higher_limit(project, stub):
    project.rows(texts(300))
    project.job(model="max_tokens = 30")
    facts = project.estimated("--pilot", "100")
    assert 0.1 < facts["output"]["truncated_share"] < 0.4
    longer = Decimal(repr(facts["output"]["truncated_share"])) * 200 * 30 * Decimal(2) / 1_000_000
    again = facts["cut_off"] * (60 * Decimal(2) + 12 * Decimal("0.25")) / 1_000_000
    assert facts["cut_off"] == round(facts["output"]["truncated_share"] * 100)
    assert Decimal(facts["doubled_max_tokens_usd"]) == pytest.approx(longer + again, rel=Decimal("0.02"))
    told = project.run("estimate", "job.toml").stdout
    assert "of those answers hit max_tokens; with max_tokens = 60 this costs up to about $0.00" in told


def test_repairs_and_reasoning_are_part_of_what_a_request_uses(project, stub):
    calls = []

    def answer(payload):
        calls.append(payload)
        good = len(payload["messages"]) > 1
        return Reply('{"n": 1}' if good else "no JSON", reasoning_tokens=10)

    stub.answer = answer
    project.rows(texts(200))
    schema = '[output]\nrepair = 1\nschema = { type = "object", required = ["n"] }\n[stop]\ninvalid_share = 1.0'
    project.job(more=schema)
    facts = project.estimated("--pilot", "60")
    tokens = project.value("select sum(output_tokens)::bigint from attempts")
    assert project.value("select count(distinct key) from attempts") == 60
    assert len(calls) == 120
    assert facts["output"]["expected_tokens"] == round(tokens / 60 * 140)


def test_the_job_s_own_answers_stand_in_for_a_pilot(project, stub):
    project.rows(texts(300))
    project.job()
    assert project.estimated()["output"]["basis"] == "limit"
    project.run("run", "job.toml", "--yes", "--limit", "80")
    output = project.estimated()["output"]
    assert (output["basis"], output["observed"], output["rough"]) == ("history", 80, False)
    assert project.estimated("--set", "model.temperature=1.0")["output"]["basis"] == "limit"


def test_without_max_tokens_and_without_answers_the_output_is_unknown_not_zero(project, stub):
    project.rows(texts(10))
    project.job(model="")
    facts = project.estimated()
    assert facts["output"] is None
    assert facts["expected_usd"] is facts["high_usd"] is facts["ceiling_usd"] is None
    assert Decimal(facts["low_usd"]) > 0
    assert "no upper bound: set [model] max_tokens" in project.run("estimate", "job.toml").stdout


# -- the choice itself


def keys(count):
    return [f"v1{blake2b(str(n).encode(), digest_size=16).hexdigest()}" for n in range(count)]


def chosen(size, seed, offered):
    sample = Sample(size, seed)
    for index, key in offered:
        sample.offer(key, index)
    return set(sample.chosen)


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    offered = list(enumerate(keys(500)))
    one, other = b"one", b"other"
    assert chosen(50, one, offered) == chosen(50, one, reversed(offered))
    assert len(chosen(50, one, offered) & chosen(50, other, offered)) < 20


def test_every_request_has_the_same_chance():
    offered = list(enumerate(keys(100)))
    picked = [key for n in range(400) for key in chosen(10, b"%d" % n, offered)]
    counts = [picked.count(key) for _, key in offered]
    assert sum(counts) == 4000
    assert min(counts) > 15
    assert max(counts) < 75


def test_a_choice_holds_no_more_than_it_may_and_counts_rows_of_its_own_requests():
    offered = list(enumerate(keys(3)))
    low, middle = sorted(chosen(2, b"seed", offered))
    (high,) = {key for _, key in offered} - {low, middle}
    sample = Sample(2, b"seed")
    for index, key in offered:
        sample.offer(key, index)
        sample.again(key)
    sample.counted(low, TokenCount(5, "exact", 5))
    sample.counted(high, TokenCount(5, "exact", 5))
    assert set(sample.chosen) == {low, middle}
    assert [sample.chosen[key].rows for key in (low, middle)] == [2, 2]
    assert sample.to_send == {low}


def test_the_pilots_of_two_prompts_ask_for_the_same_rows(project, stub):
    project.rows(texts(300))
    for name, prompt in (("a", "{{ text }}"), ("b", "Shortly: {{ text }}")):
        project.job(name)
        file = project.folder / f"{name}.toml"
        file.write_text(file.read_text().replace("{{ text }}", prompt))
        project.run("estimate", f"{name}.toml", "--pilot", "20")
    sent = project.sql(
        "select r.job, list(w.row_id order by w.row_id) as ids from attempts a join runs r using (run_id)"
        " join rows w on w.plan_id = r.plan_id and w.key = a.key group by r.job order by r.job"
    )
    assert [len(line["ids"]) for line in sent] == [20, 20]
    assert sent[0]["ids"] == sent[1]["ids"]


def test_rows_that_a_pilot_has_sent_are_no_longer_named_as_too_long(project, stub):
    long = "word " * 300
    project.rows([{"id": f"d{number}", "text": f"{number} {long}"} for number in range(16)])
    project.job(model="max_tokens = 100\ncontext_window = 300")
    before = project.estimated()
    after = project.estimated("--pilot", "10")
    sent = {row["row_id"] for row in project.sql("select row_id from results where status = 'ok'")}
    named = [row["row_id"] for row in after["too_long_rows"]]
    assert (before["too_long"], after["too_long"], len(sent)) == (16, 6, 10)
    assert named == [f"d{number}" for number in range(16) if f"d{number}" not in sent][:5]
    assert project.run("estimate", "job.toml", "--json").stdout.count('"row_id"') == 5


def test_a_pilot_names_the_command_that_shows_what_did_not_end_well(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 90)
    project.rows(texts(40))
    project.job()
    said = project.run("estimate", "job.toml", "--pilot", "10", "--ledger", "my own.duckdb").stderr
    command = shlex.split(
        re.search(r"10 rows did not end well \(promptmill (errors .*?)\); the answers are kept", said)[1]
    )
    assert "truncated" in project.run(*command).stdout


def test_a_pilot_whose_ledger_is_held_afterwards_says_what_it_paid_for(project, stub, monkeypatch):
    """Exit 2 would say that nothing was sent."""
    known = Ledger.known

    def held(self, *args, **how):
        if stub.calls:
            raise LedgerBusy("the ledger is open in process 7", "close it there")
        return known(self, *args, **how)

    project.rows(texts(40))
    project.job()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Ledger, "known", held)
        told = project.run("estimate", "job.toml", "--pilot", "5", "--json", code=4)
    assert told.stdout == ""
    assert "pilot: 5 attempts for 5 random requests" in told.stderr
    assert "the estimate is not there: the ledger is open in process 7; close it there. The same command" in told.stderr
    facts = project.estimated("--pilot", "5")
    assert (facts["pilot"]["requests"], stub.calls) == (5, 5)
