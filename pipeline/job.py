"""A job file (TOML) to a Job: one frozen value made of the small values that the stations own.

Unknown keys, wrong types and missing values are errors that name the file, the key and the nearest valid name.
"""

import codecs
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from pipeline import providers
from pipeline.budget import MOST_BUDGET
from pipeline.doorman import Limits
from pipeline.errors import JobFileError, did_you_mean
from pipeline.files import read_bytes
from pipeline.health import StopRules
from pipeline.pricing import Price, price_from_table
from pipeline.prompts import PromptSpec, Template, address
from pipeline.providers import Provider
from pipeline.records import ModelSpec
from pipeline.retry import RetryPolicy
from pipeline.schemas import AnswerCheck
from pipeline.secrecy import check_values
from pipeline.sources import InputSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Kind = type | tuple[str, ...]

_LONGEST_TIMEOUT = 86_400
_LEAST_PER_MINUTE = Decimal("0.001")
_A_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_A_TYPING_MISTAKE = 0.85
"""How alike two names are that mean the same (`max_token`); `top_k` and `top_p` are less."""
_NUMBER = Decimal
"""Stands for int or decimal in the tables below; TOML floats are read as exact decimals."""

PARAMETERS: dict[str, Kind] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "stop": object,
    "seed": int,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "reasoning_effort": str,
    "verbosity": str,
}
"""Keys of [model] that shape the answer and go to the provider under their own names, when set."""

SECTIONS: dict[str, dict[str, Kind]] = {
    "input": {
        "path": str,
        "format": str,
        "id": str,
        "where": str,
        "limit": int,
        "bad_rows": ("stop", "reject"),
    },
    "model": {
        "provider": str,
        "name": str,
        "base_url": str,
        "api_key_env": str,
        "dialect": str,
        "max_tokens": int,
        "context_window": int,
        **PARAMETERS,
        "extra": dict,
    },
    "prompt": {"system": str, "user": str, "messages_column": str, "file": str},
    "output": {"schema": dict, "schema_file": str, "repair": int},
    "limits": {
        "requests_per_minute": _NUMBER,
        "tokens_per_minute": _NUMBER,
        "concurrency": int,
        "timeout_seconds": _NUMBER,
        "wire": ("auto", "native", "httpx"),
    },
    "budget": {"usd": _NUMBER},
    "retry": {"attempts": int},
    "stop": {"invalid_share": _NUMBER, "same_rejections": int, "outage_minutes": _NUMBER, "outage_rows": int},
    "run": {"dedupe": bool, "reuse": ("ledger", "job")},
    "price": {},  # checked by pricing, which knows its components
}
"""Every key of a job file, by section; docs/jobs.md is tested against it."""

_REQUIRED = {"input": ("path",), "model": ("provider", "name"), "prompt": ()}


@dataclass(frozen=True, slots=True)
class Job:
    """A whole job, checked. Holds the NAME of the key's variable, never the key."""

    name: str
    file: str
    input: InputSpec
    model: ModelSpec
    provider: Provider
    prompt: PromptSpec
    limits: Limits
    retry: RetryPolicy
    stop: StopRules = StopRules()  # noqa: RUF009 -- a frozen value
    api_key_env: str | None = None
    key_required: bool = False
    timeout_seconds: float = 300.0
    wire: Literal["auto", "native", "httpx"] = "auto"
    check: AnswerCheck | None = None
    repair: int = 0
    budget_usd: Decimal | None = None
    context_window: int | None = None
    """Tokens of the model's context, input and output together, if the job says it."""
    dedupe: bool = True
    reuse: Literal["ledger", "job"] = "ledger"
    price: Price | None = None
    price_file: Path | None = None
    """The user's own price list."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The file's content with overrides applied, as JSON: booked with each run."""

    @property
    def destination(self) -> str:
        """Say for people who is asked: a model at a provider, and the address if it isn't the provider's own."""
        elsewhere = "" if self.model.base_url is None else f" ({self.model.base_url})"
        return f"{self.model.name} at {self.provider.name}{elsewhere}"


def load_job(path: str, overrides: Iterable[str] = ()) -> Job:
    """Read a job file; `overrides` are `section.key=value` with TOML values (`--set`). Raises JobFileError."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobFileError(f"there is no job file {path}{_similar_file(file)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError(f"the job file {path} can't be read: {error}") from error
    try:
        table = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise JobFileError(f"{path} is not valid TOML: {error}") from error
    for override in overrides:
        _override(table, override)
    return build_job(table, path)


def job_name(job: str) -> str:
    """Return the name of a job given as a file or as a name: a file's own `name`, else its stem."""
    file = Path(job)
    if file.suffix != ".toml":
        return job
    try:
        name = tomllib.loads(file.read_text(encoding="utf-8-sig")).get("name", file.stem)
    except (OSError, ValueError, RecursionError):
        return file.stem  # the job may be known to the ledger although its file is gone
    return name if isinstance(name, str) else file.stem


def _similar_file(file: Path) -> str:
    folder = file.parent
    names = [p.name for p in folder.glob("*.toml")] if folder.is_dir() else []
    return did_you_mean(file.name, names)


def _override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot:
        raise JobFileError(f"--set {key}: write section.key=value, for example --set model.max_tokens=300")
    try:
        value = tomllib.loads(f"v = {text}", parse_float=Decimal)["v"]
    except (ValueError, RecursionError):
        value = text  # a bare word is meant as a string
    if not isinstance(table.setdefault(section, {}), dict):
        raise JobFileError(f"--set {key}: {section} is not a section")
    table[section][name] = value


def build_job(table: dict[str, Any], path: str) -> Job:
    """Check a job's content and put its values together. Raises JobFileError (naming the file), PriceError."""
    try:
        return _build(table, path)
    except JobFileError as error:
        text = str(error)
        raise JobFileError(text if text.startswith(path) else f"{path}: {text}") from error


def _build(table: dict[str, Any], path: str) -> Job:
    check_values(table, path)  # first: other messages may repeat a value
    name = table.get("name", Path(path).stem)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise JobFileError(f"{path}: name must be letters, digits, '.', '_' and '-', at most 100 long; it is {name!r}")
    _check_sections(table, path)
    sections = {section: dict(table.get(section, {})) for section in SECTIONS}
    model = sections["model"]
    _refuse_keys(model, path)
    booked = _plain(table)
    if _is_own_address(model):  # as if it was not written: price, context, API key and requests' keys are the usual
        for place in (model, booked["model"]):
            del place["base_url"]
    provider = _provider(model, path)
    if "base_url" in model:
        booked["model"]["base_url"] = model["base_url"]
    schema = _schema(sections["output"], path)
    _refuse_twice(table["model"], schema, path)
    api_key_env, key_required = _key_source(model, provider)
    price = price_from_table(sections["price"], model["provider"], model["name"], path) if sections["price"] else None
    repair = sections["output"].get("repair", 0)
    if repair and schema is None:
        raise JobFileError(f"{path}: [output] repair needs a schema to check answers against")
    budget, window = sections["budget"].get("usd"), model.get("context_window")
    return Job(
        name=name,
        file=path,
        input=_input(sections["input"], path),
        model=_model(model, schema, _chosen_way(table["model"], schema), path),
        provider=provider,
        prompt=_prompt(sections["prompt"]),
        limits=_limits(sections["limits"], provider, path),
        retry=RetryPolicy(attempts=_at_least(1, sections["retry"].get("attempts", 6), f"{path}: [retry] attempts")),
        stop=_stop(sections["stop"], path),
        api_key_env=api_key_env,
        key_required=key_required,
        timeout_seconds=_timeout(sections["limits"], path),
        wire=sections["limits"].get("wire", "auto"),
        check=None if schema is None else AnswerCheck(schema),
        repair=_at_least(0, repair, f"{path}: [output] repair"),
        budget_usd=None if budget is None else _budget(Decimal(budget), path),
        context_window=None if window is None else _at_least(1, window, f"{path}: [model] context_window"),
        dedupe=sections["run"].get("dedupe", True),
        reuse=sections["run"].get("reuse", "ledger"),
        price=price,
        config=booked,
    )


def _check_sections(table: Mapping[str, Any], path: str) -> None:
    for section, content in table.items():
        if section == "name":
            continue
        if section not in SECTIONS:
            kind = f"[{section}]" if isinstance(content, dict) else section
            raise JobFileError(f"{path}: unknown key {kind}{did_you_mean(section, ['name', *SECTIONS])}")
        if not isinstance(content, dict):
            raise JobFileError(f"{path}: [{section}] must be a section with keys, not {_kind_of(content)}")
        if section not in {"price", "model"}:  # [price]: pricing knows; [model]: after its provider is known
            _check_section(path, section, content)
    for section, keys in _REQUIRED.items():
        if section not in table:
            raise JobFileError(f"{path}: the section [{section}] is missing")
        for key in keys:
            if key not in table[section]:
                raise JobFileError(f"{path}: [{section}] {key} is missing")
            _check_type(path, section, key, table[section][key], SECTIONS[section][key])


def _check_section(path: str, section: str, content: Mapping[str, Any], also: Iterable[str] = ()) -> None:
    known = SECTIONS[section]
    for key, value in content.items():
        if key == "n" and section == "model":
            raise JobFileError(
                f"{path}: [model] n is not supported: one answer per request is kept. For several samples repeat the"
                " rows and set [run] dedupe = false"
            )
        if key not in known:
            near = did_you_mean(key, [*known, *also])
            own = section == "model" and _may_be_the_servers(key, known)
            extra = f"; a parameter of the server's own goes into extra = {{ {key} = ... }}" if own else ""
            raise JobFileError(f"{path}: unknown key {key} in [{section}]{near}{extra}")
        _check_type(path, section, key, value, known[key])


def _may_be_the_servers(key: str, known: Iterable[str]) -> bool:
    """Tell whether a key may be a parameter that we don't know: no typing mistake, and none of ours elsewhere."""
    if not _A_NAME.fullmatch(key) or any(key in keys for keys in SECTIONS.values()):
        return False
    if difflib.get_close_matches(key, list(known), n=1, cutoff=_A_TYPING_MISTAKE):
        return False
    try:
        providers.check_extra({key: None})
    except JobFileError:
        return False
    return True


def _check_type(path: str, section: str, key: str, value: Any, kind: Kind) -> None:
    if isinstance(kind, tuple):
        if value not in kind:
            near = did_you_mean(str(value), kind)
            choices = " or ".join(repr(choice) for choice in kind)
            raise JobFileError(f"{path}: [{section}] {key} must be {choices}, not {value!r}{near}")
        return
    wanted: tuple[type, ...] = (int, Decimal) if kind is _NUMBER else (kind,)
    right = isinstance(value, wanted) and (kind in {bool, object} or not isinstance(value, bool))
    if not right:
        name = {_NUMBER: "a number", int: "a whole number", str: "a string", bool: "true or false", dict: "a table"}
        raise JobFileError(f"{path}: [{section}] {key} must be {name[kind]}, not {_kind_of(value)}")


def _kind_of(value: Any) -> str:
    names = {str: "a string", bool: "true or false", int: "a whole number", Decimal: "a number", dict: "a table"}
    return names.get(type(value), "a list" if isinstance(value, list) else f"{value!r}")


def _refuse_keys(model: Mapping[str, Any], path: str) -> None:
    """Secrets come from environment variables only, so a key in an address is an error; it is never repeated."""
    url = model.get("base_url")
    if isinstance(url, str) and address(url) and "@" in urlsplit(url).netloc:
        raise JobFileError(f"{path}: [model] base_url holds a user or password; name a variable with api_key_env")


def _is_own_address(model: Mapping[str, Any]) -> bool:
    url, own = model.get("base_url"), providers.own_address(str(model.get("provider")))
    return isinstance(url, str) and own is not None and address(url) == address(own)


def _provider(model: dict[str, Any], path: str) -> Provider:
    """Find the provider, check [model] against what it understands, and take its own options out of the section.

    A base_url gets its one form, so that whoever compares addresses, or sends to one, needs no other.
    """
    base_url, dialect = model.get("base_url"), model.get("dialect")
    for key in ("base_url", "dialect"):
        if key in model:
            _check_type(path, "model", key, model[key], str)
    plain = providers.find(model["provider"], base_url=base_url, dialect=dialect, options={})
    options = {key: model.pop(key) for key in list(model) if key in plain.options and key not in SECTIONS["model"]}
    _check_section(path, "model", model, also=plain.options)
    if base_url is not None:  # and nothing that its one form would leave out
        base_url = model["base_url"] = address(base_url)
    providers.check_extra(model.get("extra", {}))
    return providers.find(model["provider"], base_url=base_url, dialect=dialect, options=options)


def _refuse_twice(model: Mapping[str, Any], schema: Mapping[str, Any] | None, path: str) -> None:
    """Refuse what [model] extra would replace of the same request: only one of the two could be sent."""
    extra = model.get("extra", {})
    for name in PARAMETERS:
        if name in model and name in extra:
            raise JobFileError(f"{path}: [model] {name} and extra.{name} say the same thing twice: keep one of them")
    if "response_format" in extra and schema is not None and model.get("structured_output") != "none":
        raise JobFileError(
            f"{path}: [model] extra.response_format would replace the schema of [output]: leave it out, or say"
            ' structured_output = "none", and answers are only checked against the schema'
        )


def _chosen_way(model: Mapping[str, Any], schema: Mapping[str, Any] | None) -> str | None:
    """Return how a schema is asked for, unless it is the provider's own way: writing that down makes no new request."""
    chosen: str | None = model.get("structured_output")
    if chosen is None or schema is None:
        return None
    usual, asked = (
        providers.find(model["provider"], base_url=model.get("base_url"), dialect=model.get("dialect"), options=options)
        for options in ({}, {"structured_output": chosen})
    )
    return None if asked == usual else chosen


def _key_source(model: Mapping[str, Any], provider: Provider) -> tuple[str | None, bool]:
    """Return the variable that holds the key, and whether it must be set.

    A preset's own key never goes to an address that the job chose: with base_url only api_key_env counts.
    """
    named = model.get("api_key_env")
    if named is not None:
        return named, True
    if model.get("base_url") is not None:
        return None, False
    return provider.key_env, provider.needs_key


def _schema(output: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    if "schema" in output and "schema_file" in output:
        raise JobFileError(f"{path}: [output] takes schema or schema_file, not both")
    if "schema" in output:
        return {key: _plain(value) for key, value in output["schema"].items()}
    if "schema_file" not in output:
        return None
    file = Path(output["schema_file"])
    try:
        schema = orjson.loads(read_bytes(file).removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        raise JobFileError(f"{path}: [output] schema_file {file} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise JobFileError(f"{path}: [output] schema_file {file} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise JobFileError(f"{path}: [output] schema_file {file} must hold a JSON object")
    return schema


def _input(table: Mapping[str, Any], path: str) -> InputSpec:
    limit = table.get("limit")
    if limit is not None:
        _at_least(1, limit, f"{path}: [input] limit")
    return InputSpec(**table)


def _model(
    table: Mapping[str, Any], schema: Mapping[str, Any] | None, structured_output: str | None, path: str
) -> ModelSpec:
    max_tokens = table.get("max_tokens")
    if max_tokens is not None:
        _at_least(1, max_tokens, f"{path}: [model] max_tokens")
    stop = table.get("stop")
    if stop is not None and not (
        isinstance(stop, str) or (isinstance(stop, list) and all(isinstance(s, str) for s in stop))
    ):
        raise JobFileError(f"{path}: [model] stop must be a string or a list of strings")
    return ModelSpec(
        provider=table["provider"],
        name=table["name"],
        base_url=table.get("base_url"),
        max_tokens=max_tokens,
        params={key: _plain(table[key]) for key in PARAMETERS if key in table},
        extra=_plain(table.get("extra", {})),
        schema=schema,
        structured_output=structured_output,
    )


def _prompt(table: Mapping[str, Any]) -> PromptSpec:
    spec = PromptSpec(**table)
    Template(spec)  # a template that doesn't compile is a mistake in the job file
    return spec


def _limits(table: Mapping[str, Any], provider: Provider, path: str) -> Limits:
    per_minute = {
        key: float(_per_minute(table[key], path, key))
        for key in ("requests_per_minute", "tokens_per_minute")
        if key in table
    }
    concurrency = table.get("concurrency", provider.concurrency)
    return Limits(concurrency=_at_least(1, concurrency, f"{path}: [limits] concurrency"), **per_minute)


def _stop(table: Mapping[str, Any], path: str) -> StopRules:
    usual = StopRules()
    share = float(table.get("invalid_share", usual.invalid_share))
    if not 0 <= share <= 1:
        raise JobFileError(f"{path}: [stop] invalid_share must be from 0 to 1, not {share:g}")
    minutes = float(table.get("outage_minutes", usual.outage_minutes))
    if minutes < 0:
        raise JobFileError(f"{path}: [stop] outage_minutes must be at least 0, not {minutes:g}")
    rejections = table.get("same_rejections", usual.same_rejections)
    rows = table.get("outage_rows", usual.outage_rows)
    return StopRules(
        share,
        _at_least(0, rejections, f"{path}: [stop] same_rejections"),
        minutes,
        _at_least(0, rows, f"{path}: [stop] outage_rows"),
    )


def _per_minute(value: int | Decimal, path: str, key: str) -> int | Decimal:
    if value < _LEAST_PER_MINUTE:
        raise JobFileError(f"{path}: [limits] {key} must be at least {_LEAST_PER_MINUTE}, not {value}")
    return value


def _timeout(limits: Mapping[str, Any], path: str) -> float:
    seconds = _positive(limits.get("timeout_seconds", 300), path, "[limits] timeout_seconds")
    if seconds > _LONGEST_TIMEOUT:
        raise JobFileError(
            f"{path}: [limits] timeout_seconds must be at most {_LONGEST_TIMEOUT} (a day), not {seconds}"
        )
    return float(seconds)


def _positive(value: int | Decimal, path: str, key: str) -> int | Decimal:
    if not value > 0:
        raise JobFileError(f"{path}: {key} must be greater than 0, not {value}")
    return value


def _budget(usd: Decimal, path: str) -> Decimal:
    if usd > MOST_BUDGET:
        raise JobFileError(f"{path}: [budget] usd must be at most {MOST_BUDGET:,}; leave it away for no cap")
    _positive(usd, path, "[budget] usd")
    return usd


def _at_least(least: int, value: int, what: str) -> int:
    if value < least:
        raise JobFileError(f"{what} must be at least {least}, not {value}")
    return value


def overridden(
    job: Job,
    *,
    max_tokens: int | None = None,
    budget: Decimal | None = None,
    price: Price | None = None,
    price_file: Path | None = None,
) -> Job:
    """Return the job with what the command line changes, and a configuration that says so."""
    config = dict(job.config)
    if max_tokens is not None:
        config["model"] = config["model"] | {"max_tokens": max_tokens}
        job = replace(job, model=replace(job.model, max_tokens=max_tokens))
    if budget is not None:
        config["budget"] = {"usd": float(budget)}
        job = replace(job, budget_usd=budget)
    if price is not None:
        config["price"] = {"input": f"{price.input:f}", "output": f"{price.output:f}"}
        job = replace(job, price=price)
    return replace(job, config=config, price_file=price_file)


def _plain(value: Any) -> Any:
    """TOML values to JSON values: decimals to floats, dates to text."""
    if isinstance(value, dict):
        return {key: _plain(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_plain(content) for content in value]
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
