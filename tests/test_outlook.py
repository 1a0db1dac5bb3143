"""What earlier answers say about the next ones, and what they don't: cut-off, repaired, billed otherwise, uncounted."""

import json
from decimal import Decimal

import pytest
from project import Project, texts
from stub import StubServer
from stub_faults import Reply, status

D = Decimal
SCHEMA = '[output]\nrepair = {}\nschema = {{ type = "object", required = ["n"] }}\n[stop]\ninvalid_share = 1.0'
ENTRY = '[[price]]\nprovider = "{}"\nmodel = "test-model"\ninput = "0.25"\noutput = "2"\nsource = "me"\n'


@pytest.fixture
def stub():
    with StubServer() as server:
        yield server


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def shown(project, *options, code=0):
    """What a person reads: the name of each line -> its text."""
    told = project.run("estimate", "job.toml", *options, code=code).stdout
    return {line[:8].strip(): line[10:] for line in told.partition("\n\n")[0].splitlines()}


def number(payload):
    return int(payload["messages"][0]["content"].split()[1])


def one_in(many, long, short=5):
    """Every so manieth answer has `long` words."""
    return lambda payload: " ".join(["w"] * (long if number(payload) % many == 0 else short))


def money(facts):
    return [D(facts[name]) for name in ("low_usd", "expected_usd", "high_usd", "ceiling_usd")]


# -- cut off before


def cut_off(project, stub, *, rows=100, run=()):
    stub.answer = one_in(4, 200)
    project.rows(texts(rows))
    project.job(more="[stop]\ninvalid_share = 1.0")
    project.run("run", "job.toml", "--yes", *run, code=3)


def test_answers_that_were_cut_off_get_longer_than_they_were_and_at_most_as_long_as_is_allowed(project, stub):
    cut_off(project, stub)
    more = ("--set", "model.max_tokens=400")
    facts = project.estimated(*more)
    output = facts["output"]
    assert facts["to_send"] == 25
    assert (output["basis"], output["rough"], output["observed"]) == ("limit", True, 0)
    assert (output["low_tokens"], output["high_tokens"]) == (25 * 50, 25 * 400)
    assert output["low_tokens"] < output["expected_tokens"] < output["high_tokens"]
    lines = shown(project, *more)
    assert "nothing says how much longer they get" in lines["output"]
    assert "(as long as before) to $0.02" in lines["cost"]
    assert "9 times of 10" not in lines["cost"]
    before = stub.bill
    project.run("run", "job.toml", "--yes", *more)
    low, expected, high, most = money(facts)
    assert low < stub.bill - before < high <= most
    assert low < expected < high


def test_a_run_that_nobody_is_asked_about_books_the_same_estimate_of_cut_off_answers(project, stub):
    cut_off(project, stub)
    facts = project.estimated("--set", "model.max_tokens=400")
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=400")
    (_, booked) = project.sql("select low_usd, expected_usd, high_usd, ceiling_usd from estimates order by run_id")
    assert [D(booked[name]) for name in ("low_usd", "expected_usd", "high_usd", "ceiling_usd")] == money(facts)


def test_a_retry_of_truncated_rows_knows_that_they_are_as_long_as_they_were_at_least(project, stub):
    cut_off(project, stub)
    told = project.run("retry", "job.toml", "--status", "truncated", "--max-tokens", "400", code=2).stderr
    assert "5,000 tokens, 1,250 to 10,000" not in told  # half of max_tokens would be a guess about others
    assert "1,250 to 10,000, at most 10,000 (max_tokens = 400)" in told


def test_what_was_cut_off_and_what_is_new_are_forecast_each_by_itself_and_added_up(project, stub):
    cut_off(project, stub, rows=200, run=("--limit", "100"))
    more = ("--set", "model.max_tokens=400")
    facts = project.estimated(*more, "--compare", "test-model@stub")
    assert facts["to_send"] == 125
    assert facts["output"]["rough"]
    assert facts["output"]["low_tokens"] > 25 * 50 + 75 * 5
    assert "some were cut off at a lower max_tokens" in shown(project, *more)["output"]
    before = stub.bill
    project.run("run", "job.toml", "--yes", *more)
    low, _, high, most = money(facts)
    assert low < stub.bill - before < high <= most


def test_answers_that_are_known_to_get_that_long_say_how_long_the_cut_off_ones_will_be(project, stub):
    cut_off(project, stub)
    project.run("run", "job.toml", "--yes", "--limit", "60", "--set", "model.max_tokens=400")
    facts = project.estimated("--set", "model.max_tokens=400")
    assert (facts["to_send"], facts["output"]["observed"]) == (10, 15)
    assert facts["output"]["expected_tokens"] == facts["output"]["low_tokens"] == 10 * 200


def test_a_pilot_among_cut_off_requests_takes_what_it_has_answered_off_again(project, stub):
    cut_off(project, stub)
    facts = project.estimated("--pilot", "60", "--set", "model.max_tokens=400")
    assert facts["to_send"] == 25 - facts["pilot"]["sent"]
    before = stub.bill
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=400")
    low, _, high, _ = money(facts)
    assert low <= stub.bill - before <= high


def test_where_nothing_would_be_asked_again_no_price_of_it_is_told(project, stub):
    cut_off(project, stub)
    line = shown(project)["cut off"]
    assert line.startswith("25 requests that ended hit max_tokens; with max_tokens = 100 asking them again up to")
    assert shown(project, "--set", "model.max_tokens=20")["cut off"] == "25 requests that ended hit max_tokens"
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=400")
    assert "cut off" not in shown(project, "--set", "model.max_tokens=400")


# -- at most


def repaired(project, stub, *, repair=2, rows=150, answers=1):
    """Answers of 45 words that don't fit; the one after so many does."""

    def answer(payload):
        return "blah " * 45 if len(payload["messages"]) // 2 < answers else Reply('{"n": 1}')

    stub.answer = answer
    project.rows(texts(rows))
    return project.job(more=SCHEMA.format(repair))


def test_no_figure_is_above_the_one_that_is_called_the_most_repairs_included(project, stub):
    repaired(project, stub, answers=2)
    facts = project.estimated("--pilot", "60", "--compare", "test-model@stub")
    low, expected, high, most = money(facts)
    assert low <= expected <= high <= most
    assert (
        "if every request is as dear as it can be (with 2 repairs, retries after errors apart)"
        in (shown(project)["at most"])
    )
    before = stub.bill
    project.run("run", "job.toml", "--yes")
    assert stub.bill - before <= most


def test_what_a_repair_quotes_is_within_the_most_in_whatever_script(project, stub):
    limit, wrong = 300, json.dumps(dict.fromkeys("abcd", "🙂" * 400), ensure_ascii=False)

    def answer(payload):
        """Bill a token a byte of what we say, and all of max_tokens for each answer, also as input."""
        said = [m["content"].encode() for m in payload["messages"] if m["role"] == "user"]
        return Reply(wrong, prompt_tokens=sum(map(len, said)) + limit * (len(said) - 1), completion_tokens=limit)

    stub.answer = answer
    project.rows(texts(3))
    properties = ", ".join(f'{name} = {{ type = "integer" }}' for name in "abcd")
    schema = f'[output]\nrepair = 4\nschema = {{ type = "object", properties = {{ {properties} }} }}\n'
    project.job(model=f"max_tokens = {limit}", more=f"{schema}[stop]\ninvalid_share = 1.0")
    most = money(project.estimated())[3]
    project.run("run", "job.toml", "--yes", code=None)
    assert stub.calls == 15
    assert stub.bill <= most


def test_a_budget_between_what_is_expected_and_the_most_is_told_not_to_do_for_the_worst(project, stub):
    repaired(project, stub, answers=2)
    _, _, high, _ = money(project.estimated("--pilot", "60"))
    spent = D(project.estimated()["plan_spent_usd"])
    budget = f"{spent + high * D('1.001'):.12f}"
    assert shown(project, "--budget", budget)["budget"].endswith("not for the worst case")


def test_a_provider_that_bills_more_than_the_price_or_more_tokens_than_counted_raises_the_most_as_well(tmp_path):
    with StubServer(report_cost=True, input="25", output="200") as stub:
        project = Project(tmp_path, stub.base_url)
        stub.answer = lambda _: Reply("yes", prompt_tokens=90)
        project.rows(texts(100))
        project.job(model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        before = money(project.estimated())[3]
        low, expected, high, most = money(project.estimated("--pilot", "60"))
        assert low <= expected <= high <= most
        assert most > 40 * before / 100


# -- what is billed otherwise


def test_a_price_that_was_corrected_is_believed_whatever_was_computed_at_the_old_one(tmp_path):
    with StubServer(report_cost=True, input="0.50", output="4.00") as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(200))
        project.job(model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        project.run("run", "job.toml", "--yes", "--limit", "100")
        assert project.estimated()["billed_factor"] == 2
        facts = project.estimated("--price", "0.5,4")
        assert facts["billed_factor"] == 1
        assert "price is wrong" not in shown(project, "--price", "0.5,4")["cost"]
        before = stub.bill
        warning = "the price table is wrong"
        assert warning in project.run("spend").stderr
        project.run("run", "job.toml", "--yes", "--price", "0.5,4")
        assert D(facts["expected_usd"]) == pytest.approx(stub.bill - before, rel=D("0.02"))
        assert warning not in project.run("spend").stderr


# -- repairs elsewhere


def own_prices(project, path, *entries):
    (project.folder / "prices.toml").write_text("".join(entries))
    project.environ["PROMPTMILL_PRICES"] = str(project.folder / "prices.toml")
    path.write_text(path.read_text().partition("[price]")[0] + SCHEMA.format(1))


def test_a_repair_pays_the_fee_of_a_request_again_in_a_comparison_and_in_what_a_source_contradicts(project, stub):
    path = repaired(project, stub, repair=1)
    claim = '[[price.contradiction]]\nsays = "0.085 per call"\nper_request = "0.085"\n'
    own_prices(project, path, ENTRY.format("stub"), 'per_request = "0.001"\n', claim)
    facts = project.estimated("--pilot", "60", "--compare", "test-model@stub")
    (line,), (claimed,) = facts["compare"], facts["contradictions"]
    for name in ("low_usd", "expected_usd", "high_usd", "ceiling_usd"):
        assert D(line[name]) == pytest.approx(D(facts[name]), rel=D("0.001")), name
    assert D(facts["expected_usd"]) > 180 * D("0.001")
    assert D(claimed["usd"]) == 180 * D("0.085")


def test_a_context_tier_is_reached_by_an_exchange_and_not_by_a_request_with_its_repairs(project, stub):
    def answer(payload):
        first = len(payload["messages"]) == 1
        return Reply("no" if first else '{"n": 1}', prompt_tokens=80 if first else 95)

    path = repaired(project, stub, repair=1)
    stub.answer = answer
    own_prices(
        project,
        path,
        ENTRY.format("stub"),
        '[[price.above]]\ninput_tokens_over = 100\ninput = "250"\noutput = "2000"\n',
    )
    facts = project.estimated("--pilot", "60", "--compare", "test-model@stub")
    low, expected, _, _ = money(facts)
    assert D(facts["input_usd"]) < low
    assert D(facts["compare"][0]["expected_usd"]) == pytest.approx(expected, rel=D("0.01"))


def test_repairs_take_their_minutes_at_the_door(project, stub):
    repaired(project, stub, repair=1)
    assert project.estimated("--pilot", "60")["seconds"] is not None
    facts = project.estimated("--set", "limits.requests_per_minute=60")
    assert (facts["to_send"], facts["binding_limit"]) == (90, "requests_per_minute")
    assert facts["seconds"] == pytest.approx(180)


# -- a provider that doesn't count


@pytest.mark.parametrize("completion_tokens", [0, 5])
def test_a_provider_that_counts_no_input_breaks_no_estimate_of_that_model(project, stub, completion_tokens):
    stub.answer = lambda _: Reply("an answer", prompt_tokens=0, completion_tokens=completion_tokens)
    project.rows(texts(90))
    project.job()
    project.run("estimate", "job.toml", "--pilot", "60", "--compare", "gpt-4.1-mini@openai")
    project.job("other", text=(project.folder / "job.toml").read_text().replace('"job"', '"other"'))
    (project.folder / "other.toml").write_text(
        (project.folder / "other.toml").read_text().replace("{{ text }}", "Sum up: {{ text }}")
    )
    other = json.loads(project.run("estimate", "other.toml", "--compare", "gpt-4.1-mini@openai", "--json").stdout)
    assert other["billed_ratio"] == 1
    assert D(other["input_usd"]) > 0


def test_answers_without_usage_are_said_to_say_nothing_and_no_pilot_is_promised_to_help(project, stub):
    stub.answer = lambda _: Reply("an answer", prompt_tokens=0, completion_tokens=0)
    project.rows(texts(90))
    project.job(model="")
    assert shown(project)["output"].endswith("nothing was answered yet; --pilot finds out")
    piloted = shown(project, "--pilot", "40")
    assert piloted["output"].endswith("no request of the pilot brought an answer with its usage")
    assert "no answer says how long one takes" in piloted["time"]
    assert shown(project)["output"].endswith("no answer so far came with its usage")
    assert shown(project, "--set", "model.max_tokens=50")["output"].endswith("no answer so far came with its usage")


# -- what is saved


def test_rows_that_were_rejected_save_nothing_and_answered_ones_what_they_cost(project, stub):
    stub.faults = lambda _, payload: status(400, "no such thing") if number(payload) % 3 == 0 else None
    stub.answer = one_in(1, 10)
    project.rows(texts(60))
    project.job(more="[stop]\ninvalid_share = 1.0")
    project.run("run", "job.toml", "--yes", code=3)
    cost = stub.bill
    longer = [{"id": f"l{n}", "text": f"row {n} " + "hello " * 300} for n in range(60, 70)]
    project.rows([*texts(60), *longer])
    facts = project.estimated()
    assert (facts["already"], facts["to_send"]) == (60, 10)
    assert D(facts["saved_usd"]) == pytest.approx(cost, rel=D("0.001"))
    assert len(facts["saved_usd"].partition(".")[2]) == 12
    assert facts["price"]["blended"] is False
