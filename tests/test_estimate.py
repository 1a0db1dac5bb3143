"""What `estimate` says to people and programs, and what a first run in a terminal says before it asks."""

import json
import random
from collections import Counter
from contextlib import chdir
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from project import Project, texts
from stub import StubServer

from pipeline import api
from pipeline.cli._sending import NewLedger, _Confirm
from pipeline.cli._ticker import Ticker
from pipeline.doorman import Limits
from pipeline.estimating import Outlook, TooLong, ToSend
from pipeline.estimating._finish import finish
from pipeline.estimating._groups import Group
from pipeline.estimating._terms import Terms
from pipeline.forecasting import forecast_from_limit
from pipeline.job import load_job
from pipeline.ledger import Calibration, Exchange, Ledger, Used
from pipeline.planning import Meter
from pipeline.pricing import Price, Share, cost_usd, mean_cost_usd
from pipeline.records import ModelSpec, TokenCount, Usage
from pipeline.runners.launch import Launch, launch, prepare
from pipeline.windows import ContextWindow

NOW = datetime(2026, 11, 24, tzinfo=UTC)
JOB = """
name = "job"
[input]
path = "rows.jsonl"
id = "id"
[model]
provider = "openai"
name = "{model}"
max_tokens = {max_tokens}
[prompt]
user = "{{{{ text }}}}"
[limits]
concurrency = 8
{limits}
"""


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.rows(texts(120))
    return project


def write(project, *, model="gpt-4.1-nano", max_tokens=100, limits="", more=""):
    (project.folder / "job.toml").write_text(JOB.format(model=model, max_tokens=max_tokens, limits=limits) + more)


def facts(project, *options):
    return json.loads(project.run("estimate", "job.toml", "--json", *options).stdout)


# -- dollars


def test_without_answers_an_estimate_is_rough_between_no_output_and_all_of_it(project):
    write(project)
    found = facts(project)
    tokens = found["input_tokens"]
    price = {name: Decimal(found["price"][name]) / 1_000_000 for name in ("input", "output")}
    assert Decimal(found["low_usd"]) == Decimal(found["input_usd"]) == tokens * price["input"]
    assert Decimal(found["expected_usd"]) == tokens * price["input"] + 120 * 50 * price["output"]
    assert Decimal(found["high_usd"]) == tokens * price["input"] + 120 * 100 * price["output"]
    assert Decimal(found["ceiling_usd"]) >= Decimal(found["high_usd"])
    assert found["output"]["rough"]
    assert "rough, taking half of max_tokens for each; --pilot finds out" in project.run("estimate", "job.toml").stdout


def test_a_mean_output_is_priced_between_the_whole_numbers_around_it():
    price = Price("p", "m", Decimal(1), Decimal(8))
    usage = Usage(10, 0)
    assert mean_cost_usd(price, usage, 3) == cost_usd(price, Usage(10, 3))
    assert mean_cost_usd(price, usage, 3.25) == Decimal("0.000010") + Decimal("0.000026")


def used(count, *, counted=100, billed=100, cached=0, output=10, seconds=1.0):
    exchange = Exchange(Usage(billed, output, cached), truncated=False)
    return [Used(f"k{n}", counted, (exchange,), seconds, max_tokens=100) for n in range(count)]


def at(price):
    """Everything is sent now."""
    return Terms([Share(price, NOW, 1)])


def test_counts_and_cached_input_follow_what_was_billed_before_if_that_was_often_enough():
    few, many = Outlook(used(29, billed=120)), Outlook(used(30, billed=120, cached=60))
    assert (few.input_ratio, few.cached_share) == (1, 0)
    assert (many.input_ratio, many.cached_share) == (Decimal("1.2"), Decimal("0.5"))
    price = Price("p", "m", Decimal(1), Decimal(8), cached_input=Decimal("0.1"))
    sizes = {100: 10}
    assert many.input_usd(at(price), sizes) == 10 * Decimal("0.000066")


def of_sizes(bills, *, seed=3, noise=2):
    """40 short requests that were billed as `bills` says of the counted tokens, give or take some."""
    chance = random.Random(seed)
    sizes = [chance.randint(190, 260) for _ in range(40)]
    return [one for n, size in enumerate(sizes) for one in used(1, counted=size, billed=round(bills(size)) + n % noise)]


@pytest.mark.parametrize(
    ("bills", "long"),
    [
        (lambda size: size - 162, 26_600 - 162),  # a schema that is counted and not billed
        (lambda size: size + 40, 26_640),  # words of the server's own
        (lambda size: size * 1.2, 26_600 * 1.2),  # another tokenizer
        (lambda size: size, 26_600),
    ],
)
def test_long_requests_are_billed_as_short_ones_were_by_what_is_added_or_by_a_ratio(bills, long):
    outlook = Outlook(of_sizes(bills))
    assert outlook.usage(26_600, 1).input_tokens == pytest.approx(long, rel=0.02)
    short = [one.input_tokens for one in outlook.used]
    assert outlook.usage(60, 1).input_tokens > 0
    assert sum(outlook.billed_input(one.counted_tokens) for one in outlook.used) == pytest.approx(sum(short), rel=0.001)


@pytest.mark.parametrize(
    ("usual", "odd"),
    [((200, 240), (199, 238)), ((200, 240), (210, 400)), ((100, 120), (101, 140)), ((128, 128), (129, 140))],
)
def test_one_odd_request_makes_no_offset_of_a_ratio(usual, odd):
    bills = [*[usual] * 39, odd]
    outlook = Outlook([one for counted, billed in bills for one in used(1, counted=counted, billed=billed)])
    assert outlook.billed_beyond == 0


def test_answers_without_any_output_leave_room_above():
    price, sizes = Price("p", "m", Decimal(1), Decimal(8)), Counter({100: 50})
    outlook = Outlook(used(5, output=0), max_tokens=200)
    bill = outlook.bill(at(price), [Group(sizes, outlook.outputs(sizes))])
    assert bill.low == bill.expected == 50 * Decimal("0.0001")
    assert bill.high > bill.expected


def test_the_drift_of_the_model_stands_in_where_the_job_says_too_little():
    assert Outlook(calibration=Calibration(Decimal("1.05"), 500)).input_ratio == Decimal("1.05")


def test_a_budget_that_is_not_enough_is_told_before_anything_is_sent(project):
    write(project, more="[budget]\nusd = 0.000001")
    assert "not enough even for the low figure" in project.run("estimate", "job.toml").stdout
    write(project, more="[budget]\nusd = 0.001")
    assert "not enough for what is expected" in project.run("estimate", "job.toml").stdout


def test_a_price_page_that_contradicts_itself_shows_what_the_other_figure_would_cost(project):
    job = JOB.format(model="gpt-oss-20b", max_tokens=100, limits="").replace('"openai"', '"modelslab"')
    (project.folder / "job.toml").write_text(job)
    (per_call, blended) = facts(project)["contradictions"]
    assert (per_call["says"], Decimal(per_call["usd"])) == ("0.085 per call", 120 * Decimal("0.085"))
    assert Decimal(blended["usd"]) == (facts(project)["input_tokens"] + 6000) * Decimal("0.085") / 1_000_000
    told = project.run("estimate", "job.toml").stdout
    assert 'the same source contradicts itself: if "0.085 per call" is true $10.20' in told


def of_chats(project, contents, model="max_tokens = 100"):
    """Write a job whose rows hold chats of one message with these contents."""
    project.rows([{"id": f"r{n}", "chat": [{"role": "user", "content": each}]} for n, each in enumerate(contents)])
    path = project.job(model=model)
    path.write_text(path.read_text().replace('user = "{{ text }}"', 'messages_column = "chat"'))


PICTURE = {"image_url": "https://example.com/a.png"}
PAGES = {"type": "file", "file": {"file_id": "f"}}


def test_images_and_files_are_told_with_what_they_are_taken_for(tmp_path):
    with StubServer(answer=lambda _: "a cat") as stub:
        project = Project(tmp_path, stub.base_url)
        of_chats(
            project,
            [[{"type": "text", "text": f"row {n}"}, PICTURE, PICTURE, *([PAGES] if n == 0 else [])] for n in range(20)],
        )
        for counts in ("made", "kept"):
            found = facts(project)
            assert (found["images"], found["files"]) == (40, 1), counts
        assert (
            "attached  40 images, taken for 1,000 tokens each and at most 50,000; 1 file, taken for 1,000 tokens each"
            " and at most 2,000,000; [model] context_window bounds a request with them; --pilot finds out what they"
            " cost\n"
        ) in project.run("estimate", "job.toml").stdout
        assert facts(project, "--pilot", "19")["images"] == 2
        assert "finds out" not in project.run("estimate", "job.toml").stdout
        project.run("run", "job.toml", "--yes")
        assert facts(project)["images"] == facts(project)["files"] == 0


def test_the_stated_context_bounds_what_a_request_with_images_or_files_may_cost(project):
    of_chats(project, [[PAGES, PICTURE], [PICTURE], "word " * 40_000], "max_tokens = 100\ncontext_window = 32000")
    found = facts(project)
    assert (found["images"], found["files"]) == (2, 1)
    text = 200_000 + 528  # bytes, and what the chat's format adds: a text is not bounded by what the job says
    assert Decimal(found["ceiling_usd"]) == Decimal("0.25") * (2 * 32_000 + text) / 1_000_000 + Decimal("0.0006")
    assert (
        "and at most 2,000,000; a request with them at most 32,000 (context_window); --pilot"
        in project.run("estimate", "job.toml").stdout
    )
    with_more = facts(project, "--set", "model.context_window=40000")
    assert Decimal(with_more["ceiling_usd"]) == Decimal(found["ceiling_usd"]) + Decimal("0.25") * 16_000 / 1_000_000
    assert facts(project, "--set", "model.context_window=3000000")["ceiling_usd"] > "0.5"


def test_texts_alone_say_nothing_of_images(project):
    write(project)
    assert facts(project)["images"] == facts(project)["files"] == 0
    assert "attached" not in project.run("estimate", "job.toml").stdout


# -- elsewhere


def test_the_same_job_is_priced_on_other_models_sellers_and_lanes(project):
    write(project)
    same, batch, other = facts(project, "--compare", "gpt-4.1-nano@openai, gpt-4.1-nano@openai:batch,gpt-oss-20b@groq")[
        "compare"
    ]
    found = facts(project)
    for name in ("low_usd", "expected_usd", "high_usd"):
        assert Decimal(same[name]) == Decimal(found[name])
        assert Decimal(batch[name]) == Decimal(same[name]) / 2
    assert (other["as"], other["note"]) == ("gpt-oss-20b@groq", None)
    told = project.run("estimate", "job.toml", "--compare", "gpt-4.1-nano@openai,nobody-sells-this").stdout
    assert "the same tokens as" in told
    assert "the price is unknown" in told


def test_a_comparison_that_cannot_be_read_is_a_mistake(project):
    write(project)
    told = project.run("estimate", "job.toml", "--compare", "@groq", code=2).stderr
    assert "'@groq': write MODEL, MODEL@PROVIDER" in told


# -- time


def to_send(project, requests, size=100):
    write(project)
    job = load_job(str(project.folder / "job.toml"))
    found = ToSend(Meter(job, None))
    found.add([TokenCount(size, "exact", size)] * requests)
    return found


@pytest.mark.parametrize(
    ("limits", "outlook", "takes"),
    [
        (Limits(60, None, 8), Outlook(), (600, "requests_per_minute", 300)),
        (Limits(60, 100_000, 8), Outlook(), (600, "requests_per_minute", 300)),
        (Limits(600, 6_000, 8), Outlook(), (1200, "tokens_per_minute", 600)),  # 100 + max_tokens each
        (Limits(600, 6_000, 8), Outlook(used(50)), (660, "tokens_per_minute", 330)),  # 100 + 10 each
        (Limits(60, None, 8), Outlook(used(50, seconds=4.0)), (600, "requests_per_minute", 300)),
        (Limits(60, None, 2), Outlook(used(50, seconds=4.0)), (1200, "concurrency", 600)),
        (Limits(None, None, 10), Outlook(used(50, seconds=1.0)), (60, "concurrency", 30)),
        (Limits(120, 21_000, 8), Outlook(), (2400 / 7, "tokens_per_minute", 300)),  # then requests bind
        (Limits(None, 300, 8), Outlook(), (599 * 60.05, "tokens_per_minute", 12_000)),  # no two fit into a minute
        (Limits(None, 450, 8), Outlook(), (299 * 60.05, "tokens_per_minute", 149 * 60.05)),  # two do, and four
        (
            Limits(None, 300, 8),
            Outlook(used(50)),
            (599 * 60.05, "tokens_per_minute", 149 * 60.05),
        ),  # 200 aside, 110 used
    ],
)
def test_the_longest_limit_binds_and_twice_of_it_is_told(project, limits, outlook, takes):
    sums = to_send(project, 600)
    found = finish(sums, limits, outlook, replace(outlook, max_tokens=100).outputs(sums.sizes))
    seconds, binds, doubled = takes
    assert (found.limit, found.seconds) == (binds, pytest.approx(seconds))
    assert found.doubled_seconds == pytest.approx(doubled)


def test_where_nothing_says_how_long_anything_takes_no_time_is_made_up(project):
    sums = to_send(project, 600)
    assert finish(sums, Limits(None, None, 8), Outlook(), forecast_from_limit(sums.sizes, 100)) is None
    assert "depends on the provider" in project.run("estimate", "job.toml").stdout


def test_the_binding_limit_and_what_raising_it_brings_are_told(project):
    write(project, limits="requests_per_minute = 60")
    told = project.run("estimate", "job.toml").stdout
    assert "at least 2 min 00 s: requests_per_minute = 60 binds; with 120: 1 min 00 s" in told


# -- rows


def test_rows_that_do_not_fit_the_model_are_named_before_they_are_paid_for(project):
    project.rows([*texts(2), {"id": "huge", "text": "word " * 20_000}, {"id": "huge too", "text": "word " * 20_000}])
    write(project, model="gpt-3.5-turbo")
    found = facts(project)
    assert found["context_window"] == 16_385
    assert found["too_long"] == 1  # the two are one request
    assert [row["row_id"] for row in found["too_long_rows"]] == ["huge"]
    told = project.run("estimate", "job.toml").stderr
    assert "1 row may not fit gpt-3.5-turbo's context of 16,385 tokens with max_tokens = 100: huge (20,0" in told


def test_the_context_of_a_server_of_ones_own_is_what_the_job_says(project):
    project.rows([*texts(2), {"id": "huge", "text": "word " * 3000}])
    project.job(model="max_tokens = 100\ncontext_window = 2048")
    found = facts(project)
    assert (found["context_window"], [row["row_id"] for row in found["too_long_rows"]]) == (2048, ["huge"])
    said = project.run("estimate", "job.toml").stderr
    assert "may not fit test-model's context of 2,048 tokens with max_tokens = 100: huge (3," in said
    assert "(source: [model] context_window of job.toml)" in said
    project.job(model="max_tokens = 100\ncontext_window = 0")
    assert "[model] context_window must be at least 1" in project.run("estimate", "job.toml", code=2).stderr


def warned(text):
    return [line for line in text.splitlines() if "may not fit" in line]


def too_long(project, *more):
    """A job with a row that its model can't hold, and a budget that lets nothing out."""
    project.environ["OPENAI_API_KEY"] = "sk-not-used"
    project.rows([*texts(2), {"id": "huge", "text": "word " * 20_000}, *more])
    write(project, model="gpt-3.5-turbo", more="[budget]\nusd = 0.000001\n")


def test_a_run_that_nobody_is_asked_about_names_rows_that_do_not_fit_with_the_estimate_s_words(project):
    too_long(project, {"id": "huge too", "text": "word " * 20_000})
    (said,) = warned(project.run("estimate", "job.toml").stderr)
    assert warned(project.run("run", "job.toml", "--yes", code=4).stderr) == [said]
    assert warned(project.run("run", "job.toml", "--yes", "--quiet", code=4).stderr) == [said]


def test_a_pilot_names_them_before_it_sends_anything_and_once(project):
    too_long(project)
    (said,) = warned(project.run("estimate", "job.toml").stderr)
    told = project.run("estimate", "job.toml", "--pilot", "3", code=4).stderr
    assert warned(told) == [said]
    assert told.index(said) < told.index("pilot: 0 attempts")


async def nobody(_):
    pass


def test_who_was_shown_the_estimate_is_not_told_again(project):
    too_long(project, {"id": "r0", "text": "another row with this id"})
    told = []
    options = api.RunOptions(project.environ, nobody, told.append, confirm=lambda *_: True)
    with chdir(project.folder):
        report = api.run(api.open_job("job.toml"), Ledger(project.folder / "promptmill.duckdb"), options)
    assert report.exit_code == 4
    assert [line for line in told if "may not fit" in line or "earlier row" in line] == []


def test_with_quiet_a_free_run_that_asks_nothing_names_them_too(project):
    project.rows([{"id": "huge", "text": "word " * 20_000}])
    write(project, model="gpt-3.5-turbo", more="[price]\ninput = '0'\noutput = '0'\n")
    told = []
    with chdir(project.folder):
        ledger = Ledger(project.folder / "promptmill.duckdb")
        found = api.estimate(api.open_job("job.toml"), ledger)
        news = NewLedger(ledger, told.append, quiet=True)
        assert _Confirm(told.append, Ticker(quiet=True), news, quiet=True)(*found)
    assert len(warned("\n".join(told))) == 1


def test_a_run_names_the_first_rows_that_do_not_fit_before_they_are_sent_and_counts_the_others(tmp_path):
    """Far behind the rows that are checked first: the planner meets them while requests go out."""
    sent, told = [], []

    def answer(payload):
        sent.append(payload["messages"][-1]["content"])
        return "yes"

    def notify(text):
        told.append((text, any("word" in prompt for prompt in sent)))

    rows = [{"id": f"r{n}", "text": "word " * 80 + str(n) if n >= 1500 else f"row {n}"} for n in range(1530)]
    with StubServer(answer=answer) as stub, chdir(tmp_path):
        project = Project(tmp_path, stub.base_url)
        project.rows([*rows, *rows[-3:]])
        project.job()
        how = Launch(Ledger(tmp_path / "promptmill.duckdb"), nobody, notify, window=ContextWindow(120, "a test"))
        assert launch(prepare(load_job("job.toml")), None, how).exit_code == 0
    assert len(sent) == 1530
    words = [
        text.partition(" may not fit test-model's context of 120 tokens with max_tokens = 50: ") for text, _ in told
    ]
    assert told[0][1] is False
    assert words[0][2].startswith("r1500 (99 tokens)")
    assert (words[-1][0], words[-1][2].count(" tokens), ")) == ("30 rows", 5)
    assert words[-1][2].endswith(
        "r1504 (99 tokens), ...; shorten them, or leave them out with [input] where (source: a test)"
    )


def test_whoever_fails_to_hear_the_last_news_of_a_plan_does_not_keep_the_run_from_ending(tmp_path):
    def notify(text):
        if text.startswith("7 rows may not fit"):
            raise RuntimeError("the caller's own mistake")

    rows = [
        {"id": n, "text": "word " * 80 + str(n) if n in {0, 1, 2, 3, 4, 5, 299} else f"row {n}"} for n in range(300)
    ]
    with StubServer() as stub, chdir(tmp_path):
        project = Project(tmp_path, stub.base_url)
        project.rows(rows)
        project.job()
        ledger = Ledger(tmp_path / "promptmill.duckdb")
        how = Launch(ledger, nobody, notify, window=ContextWindow(120, "a test"))
        with pytest.raises(RuntimeError, match="the caller's own mistake"):
            launch(prepare(load_job("job.toml")), None, how)
        with ledger.read() as connection:
            assert connection.execute("select exit_code from runs").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("batches", "heard"),
    [
        ([0, 0], []),
        ([1, 0, 1], [1, 2]),
        ([3, 2, 1, 100], [3, 5, 106]),
        ([5, 44, 1, 300], [5, 50, 350]),
        ([5, 4], [5, 9]),
        ([250, 250, 250, 250], [250, 1000]),
    ],
)
def test_a_run_is_not_told_of_every_batch(batches, heard):
    found = TooLong(ModelSpec("p", "m"), ContextWindow(10, "a test"))
    told = []
    for size in batches:
        found.add([("fits", 10)] + [("row", 11)] * size)
        told.append(found.news())
    told.append(found.news(ended=True))
    assert [int(said.split()[0].replace(",", "")) for said in told if said] == heard
    assert len(found.rows) == min(sum(batches), 5)


def test_a_row_s_name_can_not_pretend_to_be_a_line_of_ours():
    found = TooLong(ModelSpec("p", "m"), ContextWindow(10, "a test"))
    found.add([("a\npromptmill: all is well", 11)])
    assert "\n" not in found.said()


def test_behind_another_address_nobody_knows_the_context(project):
    write(project, model="gpt-3.5-turbo")
    assert facts(project, "--set", 'model.base_url="http://127.0.0.1:9/v1"')["context_window"] is None


def test_sizes_are_drawn_and_listed(project):
    project.rows([*texts(119), {"id": "long", "text": "word " * 300}])
    write(project)
    found = facts(project)
    assert sum(found["sizes"].values()) == 120
    assert sum(int(size) * count for size, count in found["sizes"].items()) == found["input_tokens"]
    assert "requests by input tokens" in project.run("estimate", "job.toml").stdout


def test_a_run_without_yes_shows_the_whole_estimate_before_it_asks(tmp_path):
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(10))
        project.job()
        told = project.run("run", "job.toml", code=2).stderr
        assert stub.calls == 0
    for part in ("to send   10 requests", "rough, taking half", "at most   $", "price     $0.25 in", "add --yes"):
        assert part in told
