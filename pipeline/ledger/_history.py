"""What a job's answered requests have used: the ground on which its next estimate stands."""

from collections.abc import Sequence
from typing import NamedTuple

import duckdb

NEWEST = 1_000
"""So many answers say what the next ones will be like; older ones may belong to another prompt."""


class Used(NamedTuple):
    """One request of one run, with its retries and repairs."""

    key: str
    counted_tokens: int
    """Of its first answered attempt, as counted before it was sent."""
    input_tokens: int
    """As the provider reported them, like all that follows; of all attempts together."""
    cached_input_tokens: int
    output_tokens: int
    """With reasoning."""
    truncated: bool
    """An answer of it was cut off at max_tokens."""
    seconds: float
    """On the wire, all attempts together."""


# A request is left out where the usage of one of its answers is unknown: half a figure would be a wrong one.
_SQL = """
with newest as (
    select a.run_id, a.key, min(a.attempt) as first
    from (select a.* from attempts a join run_starts r using (run_id)
          where r.job = $job and a.provider = $provider and a.model = $model
            and r.max_tokens is not distinct from $max_tokens
            and a.kind <> 'repair' and a.output_tokens is not null and a.counted_tokens is not null
            and ($keys is null or list_contains($keys, a.key))
          order by a.sent_at desc limit $most) a
    group by all)
select a.key, max(a.counted_tokens) filter (where a.attempt = n.first), sum(a.input_tokens)::bigint,
       coalesce(sum(a.cached_input_tokens), 0)::bigint, sum(a.output_tokens)::bigint,
       bool_or(a.result = 'truncated'), sum(a.latency_ms) / 1000
from newest n join attempts a on a.run_id = n.run_id and a.key = n.key
group by a.run_id, a.key
having bool_and(a.input_tokens is not null and a.output_tokens is not null
                or a.result in ('rejected', 'rate_limited', 'unavailable'))
   and sum(a.latency_ms) is not null
order by a.run_id, a.key
"""


def used_by(
    connection: duckdb.DuckDBPyConnection,
    job: str,
    provider: str,
    model: str,
    *,
    max_tokens: int | None,
    keys: Sequence[str] | None = None,
) -> list[Used]:
    """Return what the newest answered requests of a job have used under this very limit; of these keys only, if given.

    Another limit would cut answers off elsewhere, so such answers say nothing about the next ones.
    """
    facts = {
        "job": job, "provider": provider, "model": model, "max_tokens": max_tokens,
        "keys": None if keys is None else list(keys), "most": NEWEST if keys is None else 2**31,
    }  # fmt: skip
    return [Used(*row) for row in connection.execute(_SQL, facts).fetchall()]
