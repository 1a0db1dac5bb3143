"""Money and tokens of the whole ledger or some days of it, by any of a few dimensions."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from pipeline.errors import UsageError

DIMENSIONS = ("job", "plan_id", "run_id", "provider", "model", "model_returned", "lane", "day", "month")


def require_dimensions(by: Iterable[str]) -> None:
    """Raise UsageError unless it is one of DIMENSIONS or more."""
    names = list(by)
    if not names:
        raise UsageError(f"--by: name at least one of {', '.join(DIMENSIONS)}")
    for name in names:
        if name not in DIMENSIONS:
            raise UsageError(f"--by {name}: choose from {', '.join(DIMENSIONS)}")


@dataclass(frozen=True, slots=True)
class Period:
    """The UTC days on which requests were sent: from `since` on, and before `before`. Raises UsageError if none is."""

    since: date | None = None
    before: date | None = None

    def __post_init__(self) -> None:
        for day in (self.since, self.before):
            if day is not None and type(day) is not date:  # a datetime is one, too, and its time would be left out
                raise UsageError(f"a period has days (datetime.date), not {day!r}")
        if self.since is not None and self.before is not None and self.before <= self.since:
            raise UsageError(f"--since {self.since} --before {self.before}: no day lies between")

    @property
    def condition(self) -> str:
        """The same in SQL, of a column `day`."""
        since = "true" if self.since is None else f"day >= date '{self.since}'"
        return since if self.before is None else f"{since} and day < date '{self.before}'"


ALWAYS_AND_EVER = Period()

_SUMS = """
sum(attempts)::bigint as attempts, sum(ok)::bigint as ok,
sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
round(100 * sum(cached_input_tokens) / nullif(sum(input_tokens), 0), 2) as cached_input_percent,
sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
round(100 * sum(reasoning_tokens) / nullif(sum(output_tokens), 0), 2) as reasoning_percent,
case when sum(unknown_cost) > 0 then nullif(sum(cost_usd), 0) else sum(cost_usd) end as cost_usd,
case when sum(unknown_cost) = 0 or sum(cost_usd) > 0 then sum(wasted_usd) end as wasted_usd,
sum(wasted_failed_usd) as wasted_failed_usd,
sum(wasted_repaired_usd) as wasted_repaired_usd, sum(wasted_truncated_usd) as wasted_truncated_usd,
sum(wasted_invalid_usd) as wasted_invalid_usd, sum(wasted_refused_usd) as wasted_refused_usd,
sum(unknown_cost)::bigint as unknown_cost,
case when sum(unknown_unbounded) = 0 then sum(unknown_at_most_usd) end as unknown_at_most_usd,
sum(unknown_unbounded)::bigint as unknown_unbounded,
sum(billed_usd) as billed_usd, sum(billed_computed_usd) as billed_computed_usd,
round(100 * (sum(billed_priced_usd) / nullif(sum(billed_computed_usd), 0) - 1), 2) as billed_drift_percent
"""

_OF = "from (select *, strftime(day, '%Y-%m') as month from spend) where {where}"
SQL = f"select {{by}}, {_SUMS} {_OF} group by {{by}} order by {{by}}"
"""`{by}` is filled with names from DIMENSIONS only, `{where}` with the condition of a Period."""
TOTAL = f"select {_SUMS} {_OF}"

SHOWN = {
    "attempts": "attempts", "ok": "ok", "input_tokens": "input", "cached_input_percent": "cached %",
    "output_tokens": "output", "reasoning_percent": "reasoning %", "cost_usd": "cost_usd", "wasted_usd": "wasted_usd",
    "wasted_failed_usd": "failed", "wasted_repaired_usd": "repaired", "wasted_truncated_usd": "truncated",
    "wasted_invalid_usd": "invalid", "wasted_refused_usd": "refused", "unknown_cost": "unknown",
    "unknown_at_most_usd": "at_most_usd", "unknown_unbounded": "no_bound", "billed_usd": "billed_usd",
    "billed_drift_percent": "drift %",
}  # fmt: skip
"""What people see, and under which heading, as far as it says something and fits."""
ALWAYS = ("attempts", "cost_usd")
KEPT = (
    "wasted_usd", "unknown_cost", "unknown_at_most_usd", "unknown_unbounded", "billed_drift_percent", "input_tokens",
    "output_tokens", "ok", "cached_input_percent", "reasoning_percent",
)  # fmt: skip
"""Where the line is too long, columns that are not named here go first, then these from the end."""

WRONG_PERCENT = 2
"""Above this the price table is wrong, not the rounding."""
MISPRICED = f"""
with billed as (
    select provider, model, price_id, sent_at, sent_at::date as day, billed_usd, computed_usd from attempts
    where billed_usd is not null and computed_usd is not null and price_id is not null
      and {{where}}),
newest as (select provider, model, arg_max(price_id, sent_at) as price_id from billed group by provider, model)
select provider, model, sum(billed_usd) as billed_usd, sum(computed_usd) as computed_usd,
       round(100 * (sum(billed_usd) / nullif(sum(computed_usd), 0) - 1), 2) as percent
from billed join newest using (provider, model, price_id) group by provider, model
having abs(sum(billed_usd) - sum(computed_usd)) * 100 > {WRONG_PERCENT} * abs(sum(computed_usd))
order by provider, model
"""  # noqa: S608 -- a constant
"""Of each model's newest price of a Period (`{where}`): who has corrected an older one need not hear of it again."""
