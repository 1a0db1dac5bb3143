"""docs/jobs.md and docs/providers.md say what is true: keys, types, defaults, prices, counts, errors, waits."""

import datetime as dt
import inspect
import json
import re
import tomllib
from contextlib import chdir
from decimal import Decimal
from itertools import pairwise
from typing import get_args

import orjson
import polars as pl
import pytest
from pages import ROOT, blocks, plain, prose, quoted, required_rows, rows, sections

from pipeline import pace, providers, slots
from pipeline.doorman import OPEN_PER_SLOT
from pipeline.errors import WireError
from pipeline.health import LEAST_ANSWERS, RECENT_ANSWERS
from pipeline.job import _NUMBER, SECTIONS, build_job, load_job
from pipeline.pricing import PRICE_KEYS, load_prices, parse_prices
from pipeline.prompts import KeyMaker, PromptSpec, Template
from pipeline.providers import _errors
from pipeline.providers.openai import _OPTIONS, _OURS, _OWN_TOOLS
from pipeline.records import ModelSpec, Request, Row, WireReply
from pipeline.retry import LONGEST_WAIT, RetryPolicy
from pipeline.runners.launch import plan_fingerprint
from pipeline.sources import InputSpec, open_source
from pipeline.tokens import FILE_BOUND, IMAGE_BOUND, IMAGE_TOKENS, counter_for

JOBS, PROVIDERS, DESIGN = (ROOT / "docs" / f"{page}.md" for page in ("jobs", "providers", "design"))

JOB = {
    "input": {"path": "rows.jsonl"},
    "model": {"provider": "openai", "name": "m"},
    "prompt": {"user": "{{ text }}"},
}
"""What a fragment of a job file on a page is put into."""


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_every_toml_example_is_accepted(block, tmp_path):
    for shown in (b for b in blocks("jinja", "json") if b.file and b.page == block.page):
        file = tmp_path / shown.file
        file.parent.mkdir(exist_ok=True)
        file.write_text(shown.text)
    if "[[price]]" in block.text:
        assert parse_prices(block.text, str(block))
        return
    with chdir(tmp_path):
        build_job({**JOB, **tomllib.loads(block.text, parse_float=Decimal)}, str(block))


def test_the_first_example_of_the_job_page_is_a_whole_job(tmp_path):
    (tmp_path / "orders.toml").write_text(blocks("toml", pages=(JOBS,))[0].text)
    assert load_job(str(tmp_path / "orders.toml")).name == "orders"


# docs/jobs.md

KINDS = {
    str: "text",
    int: "whole number",
    _NUMBER: "number",
    bool: "true or false",
    dict: "table",
    list: "list of tables",
    object: "text or list",
}


def job_rows(section, head="key"):
    return {plain(cells[0]): cells[1:] for cells in rows(JOBS, head, "type", "default", section=f"[{section}]")}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_job_file_is_documented_with_its_type(section):
    known = PRICE_KEYS if section == "price" else SECTIONS[section]
    documented = {key: cells[0] for key, cells in job_rows(section).items()}
    assert documented == {key: kind_in_words(kind) for key, kind in known.items()}


def kind_in_words(kind):
    return " or ".join(f'`"{choice}"`' for choice in kind) if isinstance(kind, tuple) else KINDS[kind]


def test_the_options_of_providers_are_documented_with_their_values():
    said = {option: cells[0] for option, cells in job_rows("model", "option").items()}
    assert said == {
        option: "true or false" if values == (True, False) else kind_in_words(values)
        for option, (_, values) in _OPTIONS.items()
    }
    for option in said:
        having = {name for name in providers.names() if option in find(name).options}
        only = re.findall(r"Only `(\w+)`", " ".join(job_rows("model", "option")[option]))
        assert having == set(only or providers.names())


def test_what_extra_may_not_hold_is_listed_with_its_reason():
    listed = rows(JOBS, "`extra` may not hold", "because")
    assert {name: reason for names, reason in listed for name in quoted(names)} == _OURS
    assert quoted(re.search(r"Tools may have the type (.*?)\.", prose(JOBS))[1]) == list(_OWN_TOOLS)


def test_the_defaults_of_a_job_file_are_those_documented():
    job = build_job(JOB, "job.toml")
    defaults = {
        ("input", "bad_rows"): job.input.bad_rows,
        ("model", "dialect"): job.provider.dialect,
        ("output", "repair"): job.repair,
        ("limits", "timeout_seconds"): int(job.timeout_seconds),
        ("limits", "wire"): job.wire,
        ("retry", "attempts"): job.retry.attempts,
        ("stop", "invalid_share"): job.stop.invalid_share,
        ("stop", "same_rejections"): job.stop.same_rejections,
        ("stop", "outage_minutes"): int(job.stop.outage_minutes),
        ("stop", "outage_rows"): job.stop.outage_rows,
        ("run", "dedupe"): job.dedupe,
        ("run", "reuse"): job.reuse,
    }
    shown = {(section, key): cells[1] for section in SECTIONS for key, cells in job_rows(section).items()}
    for place, default in defaults.items():
        assert shown.pop(place) == f"`{json.dumps(default)}`", place
    assert [place for place, default in shown.items() if default.startswith("`")] == [
        ("price", name) for name in ("per_request", "minimum_charge", "markup")
    ]


OTHER = {
    "provider": "openai2", "name": "m2", "base_url": "http://127.0.0.1/v2", "api_key_env": "OTHER", "dialect": "openai",
    "max_tokens": 9, "context_window": 99, "temperature": 1, "top_p": 1, "stop": "x", "seed": 1, "frequency_penalty": 1,
    "presence_penalty": 1, "reasoning_effort": "low", "verbosity": "low", "extra": {"a": 1},
    "max_tokens_field": "max_tokens", "structured_output": "none", "model_field": "model_id", "key_in_body": True,
    "billed_cost_path": "usage.cost",
}  # fmt: skip


def test_what_enters_a_rows_key_is_what_the_page_says():
    model = {"provider": "modelslab", "name": "m", "base_url": "http://127.0.0.1/v1"}
    said = job_rows("model") | job_rows("model", "option")
    assert said.keys() == OTHER.keys()
    table = {**JOB, "output": {"schema": {"type": "object"}}}
    for key, cells in said.items():
        base = dict(model) if key != "provider" else model | {"provider": "openai"}
        changed = key_of({**table, "model": base | {key: OTHER[key]}}) != key_of({**table, "model": base})
        assert cells[2] == ("yes" if changed else "no"), key


@pytest.mark.parametrize(("provider", "own"), [("modelslab", "json_object"), ("mine", "json_schema")])
def test_a_providers_own_way_to_ask_for_a_schema_makes_no_new_key_when_it_is_written_down(provider, own):
    model = {"provider": provider, "name": "m", "base_url": "http://127.0.0.1/v1"}
    table = {**JOB, "output": {"schema": {"type": "object"}}}
    keys = {
        way: key_of({**table, "model": model | ({} if way is None else {"structured_output": way})})
        for way in (None, "json_schema", "json_object", "none")
    }
    assert [way for way, key in keys.items() if key == keys[None]] == [None, own]
    assert len(set(keys.values())) == 3
    without = {**JOB, "model": model}
    assert key_of({**without, "model": model | {"structured_output": "none"}}) == key_of(without), "nothing to ask for"


def test_a_schema_enters_a_rows_key_by_its_content_and_repair_does_not(tmp_path):
    schema = {"type": "object"}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    inline = key_of({**JOB, "output": {"schema": schema}})
    assert inline != key_of(JOB)
    assert inline == key_of({**JOB, "output": {"schema_file": str(tmp_path / "schema.json"), "repair": 1}})
    assert [cells[2] for cells in job_rows("output").values()] == ["yes", "yes", "no"]


def key_of(table):
    return KeyMaker(build_job({name: dict(content) for name, content in table.items()}, "job.toml").model).key(())


PLANS = {
    ("input", "format"): "parquet", ("input", "id"): "id", ("input", "where"): "id = 'a'", ("input", "limit"): 1,
    ("input", "bad_rows"): "reject", ("output", "repair"): 1, ("run", "dedupe"): False, ("run", "reuse"): "job",
    ("prompt", "system"): "Be brief.", ("prompt", "user"): "{{ id }}", ("prompt", "messages_column"): "chat",
}  # fmt: skip


def test_what_makes_a_plan_is_what_the_page_says(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "x"}\n')
    said = {}
    for section, what, others in required_rows(JOBS, "of", "what", "not"):
        name = plain(section).strip("[]")
        said |= {(name, key): True for key in quoted(what)} | {(name, key): False for key in quoted(others)}
    changes = PLANS | {("model", key): value for key, value in OTHER.items() if ("model", key) in said}
    told_in_words = {("input", "path"), ("input", "--limit"), ("prompt", "file")}
    assert changes.keys() == said.keys() - told_in_words
    base = {**JOB, "model": {"provider": "openai", "name": "m", "base_url": "http://127.0.0.1/v1"}}
    base["output"] = {"schema": {"type": "object"}}
    with chdir(tmp_path):
        for (section, key), value in changes.items():
            kept = {} if key == "messages_column" else base.get(section, {})
            changed = fingerprint_of({**base, section: kept | {key: value}}) != fingerprint_of(base)
            assert changed == said[section, key], (section, key)


def fingerprint_of(table):
    job = build_job({name: dict(content) for name, content in table.items()}, "job.toml")
    return plan_fingerprint(job, open_source(job.input).fingerprint())


def test_the_where_examples_select_the_rows_that_the_page_says(tmp_path):
    (shown,) = [block for block in blocks("jsonl", pages=(JOBS,)) if block.section == "[input]"]
    (tmp_path / "rows.jsonl").write_text(shown.text)
    for where, selected in required_rows(JOBS, "where", "selects"):
        source = open_source(InputSpec(str(tmp_path / "rows.jsonl"), id="id", where=plain(where)))
        assert [row.id for batch in source.batches() for row in batch] == selected.split(", "), where


def test_the_where_examples_on_parquet_select_the_rows_that_the_page_says(tmp_path):
    days = [dt.date(2026, 10, 31), dt.date(2026, 11, 1), dt.date(2026, 11, 2)]
    at = [dt.datetime.combine(day, dt.time(minute=30)) for day in days]
    frame = pl.DataFrame({"day": days, "at": at}).with_columns(pl.col("at").dt.replace_time_zone("Europe/Berlin"))
    assert frame["at"].dt.convert_time_zone("UTC").dt.strftime("%F %R").to_list()[1] == "2026-10-31 23:30"
    frame.write_parquet(tmp_path / "rows.parquet")
    examples = list(rows(JOBS, "where, in Parquet", "selects"))
    assert len(examples) == 6
    for where, selected in examples:
        source = open_source(InputSpec(str(tmp_path / "rows.parquet"), where=plain(where)))
        assert [row.id for batch in source.batches() for row in batch] == selected.split(", "), where


def rendered(template, values):
    return Template(PromptSpec(user=template)).render(Row(0, "1", values, "rows.jsonl:1"))[0]["content"]


def test_values_print_in_a_prompt_as_the_page_says():
    for value, shown in required_rows(JOBS, "value in the row", "prints"):
        assert rendered("{{ value }}", {"value": orjson.loads(plain(value))}) == plain(shown)


def test_the_templates_of_the_page_render_as_it_says():
    row = orjson.loads(re.search(r"With the row `(.*?)`:", prose(JOBS))[1])
    for template, shown in required_rows(JOBS, "template", "becomes"):
        assert rendered(plain(template), row) == plain(shown)


def test_the_key_goes_to_the_address_that_the_page_says():
    for base_url, api_key_env, sent in required_rows(JOBS, "`base_url`", "`api_key_env`"):
        model = dict(JOB["model"])
        model |= {} if base_url == "not set" else {"base_url": "https://example.com/v1"}
        model |= {} if api_key_env == "not set" else {"api_key_env": "MY_KEY"}
        job = build_job({**JOB, "model": model}, "job.toml")
        named = "MY_KEY" if "named variable" in sent else quoted(sent)[0] if quoted(sent) else None
        assert (job.api_key_env, job.key_required) == (named, "must be set" in sent)


# docs/providers.md


def find(name, **options):
    return providers.find(name, base_url=None, dialect=None, options=options)


def test_every_provider_is_listed_with_its_address_key_and_slots():
    listed = {plain(cells[0]): cells[1:] for cells in rows(PROVIDERS, "provider", "address")}
    other = providers.find("other", base_url="http://127.0.0.1/v1", dialect=None, options={})
    assert listed.pop("any other name")[2] == str(other.concurrency)
    assert listed == {
        name: [
            f"`{preset.base_url}`" if preset.base_url else "started with the run",
            f"`{preset.key_env}`" if preset.key_env else "none",
            str(preset.concurrency),
        ]
        for name, preset in ((name, find(name)) for name in providers.names())
    }
    assert set(providers.names()) <= set(quoted(job_rows("model")["provider"][3]))
    assert set(providers.names()) <= set(sections(PROVIDERS))


def test_the_known_prices_are_those_of_the_price_files():
    prices = [listing.price for listing in load_prices().listings]
    known = [[p.provider, p.model, str(p.input), str(p.cached_input), str(p.output)] for p in prices]
    assert [[plain(cell) for cell in cells] for cells in rows(PROVIDERS, "provider", "model", "input")] == known


def test_tokens_are_counted_as_the_page_says():
    listed = rows(PROVIDERS, "example", "at")
    for example, at, tokenizer, method in listed:
        counter = counter_for(plain(at), plain(example))
        assert (counter.encoding, counter.method) == (plain(tokenizer), plain(method)), example
    counters = [counter_for(plain(cells[1]), plain(cells[0])) for cells in listed]
    factors = {f"{c.family.label} {c.family.percent / 100:.2f}" for c in counters if c.method == "approximate"}
    assert factors == set(re.search(r"a stand-in times a factor \((.*?)\)", prose(PROVIDERS))[1].split(", "))


def test_images_and_files_are_taken_for_what_the_page_says():
    assert rows(PROVIDERS, "in a message", "taken for") == [
        ["an image", f"{IMAGE_TOKENS:,} tokens", f"{IMAGE_BOUND:,} tokens"],
        ["a file", f"{IMAGE_TOKENS:,} tokens", f"{FILE_BOUND:,} tokens"],
    ]


VERDICTS = {
    "pauses the run": ("pause", False),
    "rejects the row": ("reject", False),
    "retried": ("retry", False),
    "retried, everybody waits": ("retry", True),
}


def verdict(failure):
    said = next(words for words, what in VERDICTS.items() if what == (failure.action, failure.closes_door))
    return [said, f"`{failure.result}`"]


def error(number, code=None):
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    return find("openai").decode(WireReply(number, {}, body), now=0.0)


def test_every_error_code_has_the_consequence_that_the_page_says():
    listed = {code: cells[1:] for cells in rows(PROVIDERS, "code", "what happens") for code in quoted(cells[0])}
    assert {
        code: verdict(error(500 if cells[0] == "rejects the row" else 400, code)) for code, cells in listed.items()
    } == listed
    assert listed.keys() == _errors._CODES.keys()


def test_every_status_has_the_consequence_that_the_page_says():
    table = rows(PROVIDERS, "status", "what happens")
    listed = {int(number): cells[1:] for cells in table for number in re.findall(r"\d{3}", cells[0])}
    (others,) = [cells[1:] for cells in table if "other 4xx" in cells[0]]
    assert {number: verdict(error(number)) for number in listed} == listed
    assert verdict(error(418)) == others
    assert listed.keys() >= _errors._STATUSES.keys()
    (unbilled,) = re.findall(r"The cost is also unknown after (.*?), and after a 200", prose(PROVIDERS))
    assert {int(number) for number in re.findall(r"\d+", unbilled)} == _errors._MAYBE_BILLED


def test_every_transport_error_has_the_consequence_that_the_page_says():
    kinds = get_args(inspect.signature(WireError).parameters["kind"].annotation)
    listed = {quoted(cells[0])[0]: cells[1:] for cells in rows(PROVIDERS, "what broke", "what happens")}
    for kind, (*said, cost) in listed.items():
        failure = providers.failure_from_wire(WireError(kind, "no", maybe_sent=cost == "unknown"))
        assert verdict(failure) == said, kind
        assert failure.cost_unknown == (cost == "unknown")
    assert set(listed) == set(kinds)


def test_the_waits_are_those_that_the_page_says():
    policy = RetryPolicy(attempts=100)
    failure = error(503)
    waits = [policy.wait_before(tries, failure, 1.0) for tries in range(1, 10)]
    text = prose(PROVIDERS)
    assert f"{waits[0]} seconds, doubled each time up to {waits[-1]:g}, times a random number from 0.5 to 1" in text
    assert all(later == min(2 * earlier, 60) for earlier, later in pairwise(waits))
    assert policy.wait_before(1, failure, 0.0) == 0.5 * waits[0]
    closed = [policy.wait_for_door(streak, failure, 1.0) for streak in range(1, 30)]
    assert (
        f"For a rate limit: {closed[0]} seconds, a third longer each time in a row (35 %), up to {closed[-1]:g}" in text
    )
    assert all(later == pytest.approx(min(1.35 * earlier, 60)) for earlier, later in pairwise(closed))
    assert f"more than {LONGEST_WAIT / 60:g} minutes" in text


def test_what_is_called_an_outage_or_a_bad_share_is_what_the_page_says():
    text = prose(JOBS)
    assert "(`outage_rows`, or as many as `concurrency`" in text
    assert f"never more than {OPEN_PER_SLOT} times `concurrency`" in text
    said = job_rows("stop")["invalid_share"][-1]
    assert f"the last {RECENT_ANSWERS:,} answers, and of at least {LEAST_ANSWERS}" in said


def test_the_rates_are_those_that_the_pages_say():
    providers_page, design = prose(PROVIDERS), prose(DESIGN)
    assert f"at {pace.BACK_TO * 100:g} % of the rate" in providers_page
    for said in (
        f"at {pace.MARGIN * 100:g} % ({pace.STRICT_MARGIN * 100:g} % up to 10 requests a second)",
        f"up to {pace.CATCH_UP_SECONDS * 1000:g} ms",
        f"the requests of {pace.SLICE_SECONDS * 1000:g} ms go out together",
        f"a ceiling at {pace.MARGIN * 100:g} %",
        f"a ramp from {pace.START:g} requests a second",
        f"From {pace.FULL_RAMP:,.0f} on",
        f"for longer than {pace.FREE_PAUSE_SECONDS} seconds",
        f"Beyond {pace.LONGEST_WINDOW_SECONDS:g} seconds it is an outage",
        f"({pace.QUICKEST:g} to {pace.SLOWEST:g} seconds)",
        f"after {slots.SLOT_PATIENCE_SECONDS:g} seconds or {slots.PAUSES_PER_TRY:g} pauses",
        f"of {', '.join(f'{w:g}' for w in pace.WINDOWS[:-1])} and {pace.WINDOWS[-1]:g} seconds",
    ):
        assert said in design
    assert pace.NO_RAMP_UP_TO == 4
    assert pace.DOUBLING_SECONDS == 0.25


def test_the_provider_of_the_page_works_when_its_file_is_added(tmp_path, monkeypatch):
    (code,) = blocks("python", pages=(PROVIDERS,))
    (tmp_path / "acme.py").write_text(code.text)
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    assert "acme" in providers.names()
    job = build_job({**JOB, "model": {"provider": "acme", "name": "acme-small"}}, "job.toml")
    sent = job.provider.encode(
        ModelSpec("acme", "acme-small"), Request("v1", ()), base_url=job.provider.base_url, api_key="k"
    )
    assert sent.url == "https://api.acme.example/v1/chat/completions"
    assert (job.api_key_env, job.limits.concurrency) == ("ACME_API_KEY", 8)
