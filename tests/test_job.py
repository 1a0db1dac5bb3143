"""A job file becomes one frozen value, or an error that names the file, the key and the nearest valid name."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from project import Project

from pipeline.errors import JobFileError
from pipeline.job import PARAMETERS, build_job, job_name, load_job
from pipeline.prompts import KeyMaker
from pipeline.records import Request
from pipeline.runners.launch import account_of, find_prices, plan_fingerprint


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def test_what_is_not_said_has_its_default(project):
    job = load_job(str(project.job(model="")))
    assert (job.repair, job.dedupe, job.reuse, job.wire, job.timeout_seconds) == (0, True, "ledger", "auto", 300.0)
    assert (job.budget_usd, job.model.max_tokens, job.limits.requests_per_minute) == (None, None, None)
    assert (job.retry.attempts, job.input.bad_rows) == (6, "stop")


def test_a_job_is_called_by_its_name_else_by_its_files_stem(project):
    path = project.job("orders")
    assert load_job(str(path)).name == "orders"
    path.write_text(path.read_text().replace('name = "orders"\n', "", 1))
    assert (load_job(str(path)).name, job_name(str(path))) == ("orders", "orders")
    assert job_name("a-job-by-name") == "a-job-by-name"
    assert job_name(str(project.folder / "gone.toml")) == "gone"


@pytest.mark.parametrize(
    ("override", "look", "value"),
    [
        ("model.max_tokens=300", lambda job: job.model.max_tokens, 300),
        ("model.temperature=0.5", lambda job: job.model.params["temperature"], 0.5),
        ("model.name=other", lambda job: job.model.name, "other"),
        ('model.name="quoted"', lambda job: job.model.name, "quoted"),
        ("limits.concurrency=3", lambda job: job.limits.concurrency, 3),
        ("budget.usd=1.5", lambda job: job.budget_usd, Decimal("1.5")),
        ("run.dedupe=false", lambda job: job.dedupe, False),
    ],
)
def test_set_changes_a_key_for_one_command(project, override, look, value):
    assert look(load_job(str(project.job()), [override])) == value


@pytest.mark.parametrize("override", ["max_tokens=3", "model.max_tokens", "name.x=1", "model.max_token=3"])
def test_a_wrong_set_is_an_error(project, override):
    with pytest.raises(JobFileError):
        load_job(str(project.job()), [override])


def test_money_is_read_as_exact_decimals(project):
    job = load_job(str(project.job(more="[budget]\nusd = 0.1")))
    assert job.budget_usd == Decimal("0.1")


def test_a_presets_key_never_goes_to_an_address_that_the_job_chose(project):
    path = project.job(model="max_tokens = 5")
    path.write_text(path.read_text().replace('provider = "stub"', 'provider = "openai"'))
    job = load_job(str(path))
    assert (job.api_key_env, job.key_required) == (None, False)
    path.write_text(path.read_text().replace(f'base_url = "{project.base_url}"', ""))
    assert load_job(str(path)).api_key_env == "OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("base_url", "own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://api.openai.com/v1/", True),
        ("HTTPS://API.OpenAI.com:443/v1", True),
        ("https://api.openai.com/v1/chat/completions", True),
        ("https://api.openai.com/V1", False),
        ("https://api.openai.com/v2", False),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com:8443/v1", False),
    ],
)
def test_the_presets_own_address_written_out_changes_nothing_and_any_other_does(project, base_url, own):
    path = project.job(text='[input]\npath = "rows.jsonl"\n[model]\nprovider = "openai"\nname = "gpt-5-mini"\n'
                            'max_tokens = 5\n[prompt]\nuser = "{{ text }}"\n[budget]\nusd = 1\n')  # fmt: skip
    plain, written = load_job(str(path)), load_job(str(path), [f'model.base_url="{base_url}"'])
    assert (written.model == plain.model) is own
    assert (written.provider == plain.provider) is own
    assert (written.api_key_env, written.key_required) == (("OPENAI_API_KEY", True) if own else (None, False))
    at = datetime(2026, 11, 24, tzinfo=UTC)
    assert (find_prices(written, at) == find_prices(plain, at)) is own
    assert (KeyMaker(written.model).key(()) == KeyMaker(plain.model).key(())) is own
    assert written.config["model"].get("base_url") == (None if own else base_url)  # reports judge by what is booked


@pytest.mark.parametrize(
    "written",
    ["{}", "{}/", "{}/chat/completions", "{}/chat/completions/", "HTTP://LOCALHOST{port}/v1/chat/completions"],
)
def test_one_address_is_one_job_however_it_is_written(project, written):
    base_url = "http://localhost:8000/v1"
    path, url = project.job(), written.format(base_url, port=":8000")
    plain, other = (load_job(str(path), [f'model.base_url="{each}"']) for each in (base_url, url))
    assert (other.model, other.provider, other.config) == (plain.model, plain.provider, plain.config)
    assert plan_fingerprint(other, "input") == plan_fingerprint(plain, "input")
    assert account_of(other) == account_of(plain) == "stub http://localhost:8000/v1"
    request = Request("v1", ({"role": "user", "content": "hello"},))
    sent = other.provider.encode(other.model, request, base_url=other.provider.base_url, api_key=None)
    assert sent.url == "http://localhost:8000/v1/chat/completions"


def test_an_address_that_is_none_is_a_mistake_of_the_file(project):
    with pytest.raises(JobFileError, match="base_url is not an address"):
        load_job(str(project.job()), ['model.base_url="http://[::1"'])


def test_the_presets_concurrency_holds_unless_the_job_says_otherwise(project):
    path = project.job(model='api_key_env = "X"')
    path.write_text(
        path.read_text().replace('provider = "stub"', 'provider = "modelslab"').replace("concurrency = 8", "")
    )
    assert load_job(str(path)).limits.concurrency == 4


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ('schema = { type = "object" }\nschema_file = "s.json"', "not both"),
        ('schema_file = "missing.json"', "can't be read"),
        ('schema_file = "list.json"', "must hold a JSON object"),
        ('schema_file = "broken.json"', "is not JSON"),
        ("repair = 1", "repair needs a schema"),
        ("repair = -1\nschema = {}", "at least 0"),
    ],
)
def test_what_makes_no_sense_in_output_is_an_error(project, output, says):
    (project.folder / "list.json").write_text("[]")
    (project.folder / "broken.json").write_text("{")
    with pytest.raises(JobFileError, match=says):
        load_job(str(project.job(more=f"[output]\n{output}")))


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_parameter_that_extra_would_replace_is_an_error(project, name):
    model = {"stop": '"x"', "seed": "1", "reasoning_effort": '"low"', "verbosity": '"low"'}.get(name, "0.5")
    both = f"{name} = {model}\nextra = {{ {name} = {model} }}"
    with pytest.raises(JobFileError, match=rf"job\.toml: \[model\] {name} and extra\.{name} say the same thing twice"):
        load_job(str(project.job(model=both)))
    for one in both.split("\n"):
        load_job(str(project.job(model=one)))


def test_a_form_of_answers_in_extra_beside_a_schema_is_an_error_unless_it_is_the_only_one_sent(project):
    extra = 'extra = { response_format = { type = "json_object" } }'
    schema = '[output]\nschema = { type = "object" }'
    with pytest.raises(JobFileError, match=r"extra\.response_format would replace the schema of \[output\]"):
        load_job(str(project.job(model=extra, more=schema)))
    load_job(str(project.job(model=extra)))
    load_job(str(project.job(model=f'{extra}\nstructured_output = "none"', more=schema)))


def test_a_schema_may_stand_in_a_file(project):
    (project.folder / "s.json").write_text('{"type": "object"}', encoding="utf-8-sig")
    assert load_job(str(project.job(more='[output]\nschema_file = "s.json"'))).model.schema == {"type": "object"}


def test_the_booked_configuration_is_plain_json(project):
    config = load_job(str(project.job(model="temperature = 0.0"))).config
    assert config["model"]["temperature"] == 0.0
    assert isinstance(config["model"]["temperature"], float)


@pytest.mark.parametrize(
    ("key", "goes"),
    [("top_k", True), ("min_p", True), ("temprature", False), ("max_token", False), ("stream", False), ("path", False)],
)
def test_a_parameter_that_only_the_server_knows_goes_into_extra(key, goes):
    model = {"provider": "openai", "name": "m", key: 1}
    with pytest.raises(JobFileError, match=f"unknown key {key} in ") as caught:
        build_job({"input": {"path": "a.jsonl"}, "model": model, "prompt": {"user": "x"}}, "j.toml")
    assert (f"goes into extra = {{ {key} = ... }}" in str(caught.value)) is goes
