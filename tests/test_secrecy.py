"""A job file holds no secret and nothing that is no JSON, however deep; what only sounds like one is let through."""

import tomllib
from decimal import Decimal

import pytest

from pipeline.errors import JobFileError
from pipeline.secrecy import check_values

MARK = "mark0123456789ABCDEFmark"
"""Letters and digits as keys have them; what is refused must not be shown."""

FUNCTION = """{name = 'f', description = 'finds the password', parameters = {type = 'object', required = ['api_key'],
properties = {api_key = {type = 'string'}, login = {enum = ['a'], examples = [{password = 'x'}]}}}}""".replace(
    "\n", " "
)


def check(text):
    check_values(tomllib.loads(text, parse_float=Decimal), "job.toml")


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('api_key = "MARK"', "[model] api_key"),
        ('api-key = "MARK"', "[model] api-key"),
        ('extra = { key = "MARK" }', "[model] extra.key"),
        (
            'extra = { data_sources = [{ parameters = { authentication = { type = "api_key", key = "MARK" } } }] }',
            "[model] extra.data_sources[0].parameters.authentication.key",
        ),
        ('extra.provider.api_key = "short"', "[model] extra.provider.api_key"),
        ('extra.headers."X-API-Key" = "MARK"', "[model] extra.headers.X-API-Key"),
        ('extra.headers.Authorization = "MARK"', "[model] extra.headers.Authorization"),
        ('extra.a = [[{ accessToken = "MARK" }]]', "[model] extra.a[0][0].accessToken"),
        ('extra.a = { AWS_SECRET_ACCESS_KEY = "MARK" }', "[model] extra.a.AWS_SECRET_ACCESS_KEY"),
        ('extra.a = { client_secret = "MARK" }', "[model] extra.a.client_secret"),
        ('extra.a = { passwords = "x", Password = "MARK" }', "[model] extra.a.Password"),
        ('extra.tokens = { token = ["MARK"] }', "[model] extra.tokens.token[0]"),
        ('extra.metadata = { api_key = "MARK" }', "[model] extra.metadata.api_key"),
        ('extra.tools = [{ type = "mcp", authorization = "MARK" }]', "[model] extra.tools[0].authorization"),
        # by its shape, under any name
        ('extra.a = ["sk-proj-MARK"]', "[model] extra.a[0]"),
        ('extra.a = "see gsk_MARK"', "[model] extra.a"),
        ('extra.a = "AIzaMARK"', "[model] extra.a"),
        ('extra.a = "eyJhbGciOiJIUzI1NiJ9.MARK"', "[model] extra.a"),
        ('extra.a = "Bearer MARK"', "[model] extra.a"),
        ('extra.a = "https://host/v1?api_key=MARK"', "[model] extra.a"),
        ('extra.a = "postgres://me:MARK@host/db"', "[model] extra.a"),
        ('extra.a = "AccountName=x;AccountKey=MARK"', "[model] extra.a"),
        ('extra.a.properties.x.default = "sk-ant-api03-MARK"', "[model] extra.a.properties.x.default"),
        ('extra.a = { "sk-proj-MARK" = 1 }', "[model] extra.a...."),
        ('base_url = "https://host/sk-proj-MARK/v1"', "[model] base_url"),
        ('seed = "sk-proj-MARK"', "[model] seed"),
        # the key itself instead of the name of its variable
        ('api_key_env = "sk-MARK"', "[model] api_key_env"),
        ('api_key_env = "MARK"', "[model] api_key_env"),
        ('api_key_env = "a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3"', "[model] api_key_env"),
    ],
)
def test_a_secret_is_named_by_its_place_and_never_shown(line, place):
    with pytest.raises(JobFileError) as caught:
        check(f"[model]\n{line.replace('MARK', MARK)}")
    message = str(caught.value)
    assert message.startswith(f"job.toml: {place} ")
    assert "environment variable" in message
    assert MARK not in message
    assert "short" not in message
    assert "a0b1c2" not in message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f'name = "sk-proj-{MARK}"', "name"),
        (f'[headers]\nAuthorization = "{MARK}"', "[headers] Authorization"),
        (f'[input]\npath = "s3://me:{MARK}@bucket/x.jsonl"', "[input] path"),
        (f'[limits]\nwire = "sk-proj-{MARK}"', "[limits] wire"),
        (f'[[price.window]]\ntoken = "{MARK}"', "[price] window[0].token"),
    ],
)
def test_secrets_are_looked_for_in_every_section(text, place):
    with pytest.raises(JobFileError) as caught:
        check(text)
    assert str(caught.value).startswith(f"job.toml: {place} ")
    assert MARK not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[model]\nmax_tokens = 50\nextra = { min_tokens = 1, stop_token_ids = [1], eos_token = '</s>' }",
        "[model]\nextra = { prompt_cache_key = 'task-classification-2024-internationalization' }",
        "[model]\nextra = { user = '5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8' }",
        "[model]\nextra = { safety_identifier = '550e8400-e29b-41d4-a716-446655440000', key_count = 3 }",
        "[model]\nextra = { metadata = { key = 'value', token = 'first' }, store = true }",
        "[model]\nextra = { return_token = true, password = false, auth = {}, secret = '' }",
        "[model]\nextra = { logit_bias = { token = -100 } }",
        "[model]\nextra = { tool_choice = 'api_key', stop = ['token', 'password:'] }",
        f"[model]\nextra.tools = [{{type = 'function', function = {FUNCTION}}}]",
        "[model]\nname = 'hf-internal-testing/sk-0123456789abcdef0123'",
        "[model]\napi_key_env = 'AZURE_OPENAI_API_KEY_2'",
        "[input]\nid = 'token'\nwhere = \"token = 'sk-0123456789abcdef0123' and api_key is not null\"",
        "[input]\npath = 'data/5e884898da28047151d0e56f8dc6292773603d0d/mails_sk-SK.jsonl'",
        "[prompt]\nsystem = 'Extract the api_key field'\nuser = 'Is sk-0123456789abcdef0123 a key? {{ text }}'",
        "[output.schema.properties]\napi_key = {type = 'string', default = 'sk-0123456789abcdef0123'}",
        "[output.schema]\nexamples = [{password = 'x', token = 'y'}]",
    ],
)
def test_what_only_sounds_like_a_secret_is_none(text):
    check(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[model]\nextra.a = [{ b = 9223372036854775808 }]", "[model] extra.a[0].b is too large"),
        ("[model]\nextra.a = -9223372036854775808", "[model] extra.a is too large"),
        (f"[model]\nextra.a = 0x{'f' * 5000}", "[model] extra.a is too large"),
        ("[output]\nschema.properties.n.maximum = 100000000000000000000", "schema.properties.n.maximum is too large"),
        ("[price]\ninput = 99999999999999999999", "[price] input is too large"),
        ("[model]\nextra.a = [nan]", "[model] extra.a[0] must be a finite number"),
        ("[model]\nextra.a = 1e999", "[model] extra.a must be a finite number"),
        (f"[model]\nextra{'.a' * 300} = 1", "[model] extra.a is nested too deeply"),
    ],
)
def test_what_no_journal_line_can_hold_is_a_mistake_in_the_file(text, says):
    with pytest.raises(JobFileError) as caught:
        check(text)
    assert says in str(caught.value)


def test_a_file_may_have_any_name():
    path = "data/sk_9f86d081884c7d659a2feaa0c55ad015.jsonl"
    check_values({"input": {"path": path}}, "job.toml")
    with pytest.raises(JobFileError, match="another secret"):
        check_values({"model": {"extra": {"user": path}}}, "job.toml")


def test_numbers_of_64_bits_and_tables_in_tables_are_let_through():
    check(f"[model]\nextra = {{ a = [9223372036854775807, -9223372036854775807, 1e300] }}\nextra2{'.a' * 90} = 1")
