"""What a job's answered requests have used: the ground on which its next estimate stands."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import duckdb

from pipeline.records import Usage

MOST_REQUESTS = 1_000
"""So many answers say what the next ones will be like."""
_ATTEMPTS_EACH = 4
"""For them so many times as many attempts are looked through: some were retries, or sent by several runs."""


class Exchange(NamedTuple):
    """One answered attempt."""

    usage: Usage
    """As the provider reported it."""
    truncated: bool
    """The answer was cut off at max_tokens."""
    computed_usd: Decimal | None = None
    """What the price of that time makes of it."""
    billed_usd: Decimal | None = None
    """What the provider said it charged."""
    sent_at: datetime | None = None


class Used(NamedTuple):
    """One request of one run, with its retries and repairs."""

    key: str
    counted_tokens: int
    """Of its first answered attempt, as counted before it was sent."""
    exchanges: tuple[Exchange, ...]
    seconds: float
    """On the wire, all attempts together."""
    max_tokens: int | None
    """The limit of that run."""

    @property
    def input_tokens(self) -> int:
        """Of all attempts together."""
        return sum(exchange.usage.input_tokens for exchange in self.exchanges)

    @property
    def output_tokens(self) -> int:
        """Of all attempts together, with reasoning."""
        return sum(exchange.usage.output_tokens for exchange in self.exchanges)

    @property
    def truncated(self) -> bool:
        """An answer of it was cut off."""
        return any(exchange.truncated for exchange in self.exchanges)


# Keys are hashes, so the lowest ones are a random choice among all; the newest ones might be those that were asked
# again under a higher limit, and long. A request is left out where the usage of one of its answers is unknown: half a
# figure would be a wrong one. No tokens at all are no usage: a provider that doesn't count says so in this way, too.
_SQL = """
with mine as (select run_id, max_tokens from run_starts where job = $job and prompt_id = $prompt_id),
found as (
    select a.key, a.run_id from attempts a join mine using (run_id)
    where a.kind <> 'repair' and a.input_tokens + a.output_tokens > 0 and a.counted_tokens is not null
      and ($keys is null or list_contains($keys, a.key))
    order by a.key limit $most_attempts),
newest as (select key, max(run_id) as run_id from found group by key order by key limit $most)
select a.key,
       arg_min(a.counted_tokens, a.attempt) filter (where a.output_tokens is not null),
       list([a.input_tokens, coalesce(a.cached_input_tokens, 0), coalesce(a.cache_write_tokens, 0), a.output_tokens,
             coalesce(a.reasoning_tokens, 0)] order by a.attempt) filter (where a.output_tokens is not null),
       list([a.computed_usd, a.billed_usd] order by a.attempt) filter (where a.output_tokens is not null),
       list(a.sent_at order by a.attempt) filter (where a.output_tokens is not null),
       list(a.result = 'truncated' order by a.attempt) filter (where a.output_tokens is not null),
       sum(a.latency_ms) / 1000, any_value(m.max_tokens)
from newest n join attempts a on a.run_id = n.run_id and a.key = n.key join mine m on m.run_id = a.run_id
group by a.run_id, a.key
having bool_and(coalesce(a.input_tokens + a.output_tokens > 0, false)
                or a.result in ('rejected', 'rate_limited', 'unavailable'))
   and sum(a.latency_ms) is not null
order by a.key
"""


def used_by(
    connection: duckdb.DuckDBPyConnection, job: str, prompt_id: str, *, keys: Sequence[str] | None = None
) -> list[Used]:
    """Return what answered requests of a job have used under this prompt, at random; of these keys only, if given.

    Of a request that several runs have sent the newest answer is taken.
    """
    facts = {
        "job": job, "prompt_id": prompt_id, "keys": None if keys is None else list(keys),
        "most": MOST_REQUESTS if keys is None else 2**31,
        "most_attempts": _ATTEMPTS_EACH * MOST_REQUESTS if keys is None else 2**31,
    }  # fmt: skip
    return [_used(row) for row in connection.execute(_SQL, facts).fetchall()]


def has_answers(connection: duckdb.DuckDBPyConnection, job: str, prompt_id: str) -> bool:
    """Tell whether any request of a job was answered under this prompt, with its usage or without."""
    found = connection.execute(
        "select 1 from attempts a join run_starts r using (run_id) where r.job = ? and r.prompt_id = ?"
        " and a.result in ('ok', 'truncated', 'invalid', 'refused') limit 1",
        [job, prompt_id],
    )
    return found.fetchone() is not None


def _used(row: Sequence[Any]) -> Used:
    key, counted, tokens, dollars, sent, truncated, seconds, max_tokens = row
    exchanges = tuple(
        Exchange(Usage(inputs, outputs, cached, written, reasoning), cut, computed, billed, sent_at.replace(tzinfo=UTC))
        for (inputs, cached, written, outputs, reasoning), (computed, billed), sent_at, cut in zip(
            tokens, dollars, sent, truncated, strict=True
        )
    )
    return Used(key, counted, exchanges, seconds, max_tokens)
