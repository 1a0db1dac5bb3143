"""`promptmill check JOB`."""

import os
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import job_options, json_option, overrides_of, warn
from pipeline.cli._show import as_json_text, money, print_facts, say

if TYPE_CHECKING:
    from pipeline.job import Job
    from pipeline.records import Message

_IN_BASE64 = "[A-Za-z0-9+/_-]"
_ENCODED = re.compile(
    r"""(?<![A-Za-z])data:[\w.+-]+/[\w.+-]+[;,][^\s"']{256,}"""
    rf"|(?<!{_IN_BASE64})(?={_IN_BASE64}*[0-9])(?={_IN_BASE64}*[A-Z])(?={_IN_BASE64}*[a-z]){_IN_BASE64}{{256,}}={{0,2}}"
)
"""A picture or a sound as a data URL, or bytes in base64: nobody reads those, and they fill a terminal."""
_SHOWN = 60


@click.command("check", short_help="Validate a job and show its first request; send nothing.")
@click.argument("job")
@job_options
@json_option
def command(
    job: str, settings: tuple[str, ...], limit: int | None, budget: Decimal | None, price: str | None, as_json: bool
) -> int:
    """Check JOB's file, its input, its first 1,000 rows and its price, and render the first row."""
    from pipeline import api

    opened = api.open_job(job, overrides_of(settings, budget, price))
    found = api.check(opened, os.environ, limit=limit)
    counter = found.prepared.meter.counter
    if as_json:
        facts = {
            "job": opened.name,
            "provider": opened.provider.name,
            "model": opened.model.name,
            "address": opened.provider.base_url,
            "api_key_env": opened.api_key_env,
            "files": [str(file) for file in found.prepared.plan.source.files],
            "key": found.key,
            "input_tokens": found.tokens,
            "count_method": found.count_method,
            "count_note": counter.note,
            "counter": counter.library,
            "at_most_usd": found.reserve_usd,
            "messages": found.messages,
            "warnings": found.warnings,
        }
        print_facts(facts, as_json=True)
        return 0
    files = len(found.prepared.plan.source.files)
    facts = {
        "job": opened.name,
        "model": f"{opened.model.name} at {opened.provider.name}",
        "sent to": _sent_to(opened),
        "input": f"{opened.input.path} ({files} file{'s' if files > 1 else ''})",
        "key": found.key,
        "tokens": f"{found.tokens} ({found.count_method}, counted by {counter.library}: {counter.note})",
        "at most": money(found.reserve_usd) + " for the first request",
    }
    print_facts(facts, as_json=False)
    for message in found.messages or ():
        say(f"\n--- {message.get('role')} ---")
        for line in _lines(message):
            say(_ENCODED.sub(_cut, line))
    click.echo()
    for warning in found.warnings:
        warn(warning)
    say(f"{opened.file}: no mistakes found; nothing was sent")
    return 0


def _sent_to(job: "Job") -> str:
    """Name the address, and the variable whose key goes there: the two that a stranger's job may have chosen."""
    if job.provider.base_url is None:
        return "a model on this machine"
    return f"{job.provider.base_url}, {f'the key in ${job.api_key_env}' if job.api_key_env else 'no key'} with it"


def _lines(message: "Message") -> Iterator[str]:
    """Yield a message as it is sent: its text as it is, parts and whatever else it holds as JSON."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    else:  # a message with tool calls may have none
        yield from (as_json_text(part, indent=None) for part in content or ())
    for name, value in message.items():
        if name not in {"role", "content"}:
            yield f"{name}: {as_json_text(value, indent=None)}"


def _cut(match: re.Match[str]) -> str:
    text = match.group()
    return f"{text[:_SHOWN]}\u2026 ({len(text):,} characters)"
