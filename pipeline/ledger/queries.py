"""What the rest of the package asks the ledger, as SQL behind small functions that return plain values."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb
import polars as pl
from duckdb.sqltypes import DuckDBPyType

from pipeline.ledger._known import ANY_LIMIT, HELD_BACK
from pipeline.records import CONTEXT_FULL

_AS_TEXT = frozenset(
    {"interval", "union", "bit", "bignum", "uhugeint", "variant", "blob", "geometry", "time with time zone"}
)
"""Types that Polars refuses or gets wrong, and bytes, which only DuckDB knows how to write."""
_NESTED = frozenset({"struct", "tuple", "map", "list", "array"})


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """The newest plan of a job, or what a new one would be."""

    plan_id: int
    new: bool
    rows_stored: int
    """Rows in the ledger form a prefix of the input: those with an index below this are stored."""
    complete: bool
    spent_usd: Decimal
    """What the plan's earlier runs spent; attempts of unknown cost count at their worst case."""
    unknown: int
    """How many attempts of unknown cost have no upper bound either."""
    new_job: bool
    uncertain_usd: Decimal = Decimal(0)
    """The part of `spent_usd` that is the worst case of attempts of unknown cost."""


def plan_facts(connection: duckdb.DuckDBPyConnection, job: str, fingerprint: str) -> PlanFacts:
    """Find the plan that a run of this job works on: the newest one if its fingerprint still holds, else a new one."""
    newest = connection.execute(
        "select plan_id, fingerprint, complete from plans where job = ? order by plan_id desc limit 1", [job]
    ).fetchone()
    usd, unknown, uncertain = _spent(connection, job, fingerprint)
    if newest is not None and newest[1] == fingerprint:
        plan_id, complete = int(newest[0]), bool(newest[2])
        return PlanFacts(plan_id, False, rows_stored(connection, plan_id), complete, usd, unknown, False, uncertain)
    highest = connection.execute("select coalesce(max(plan_id), 0) from plan_starts").fetchone()
    plan_id = int(highest[0]) + 1 if highest else 1
    return PlanFacts(plan_id, True, 0, False, usd, unknown, newest is None, uncertain)


def _spent(connection: duckdb.DuckDBPyConnection, job: str, fingerprint: str) -> tuple[Decimal, int, Decimal]:
    """Add up what the job spent under this fingerprint: a plan that was left and came back keeps its budget.

    Return it, how many attempts have neither a cost nor a bound, and which part of it is bounds.
    """
    spent = connection.execute(
        "select coalesce(sum(coalesce(a.cost_usd, a.reserved_usd)), 0),"
        " count(*) filter (where a.cost_usd is null and a.reserved_usd is null),"
        " coalesce(sum(a.reserved_usd) filter (where a.cost_usd is null), 0)"
        " from attempts a join run_starts r using (run_id) join plan_starts p using (plan_id)"
        " where p.job = ? and p.fingerprint = ?",
        [job, fingerprint],
    ).fetchone()
    return (spent[0], int(spent[1]), spent[2]) if spent else (Decimal(0), 0, Decimal(0))


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a job has spent under other plans than the one that begins."""

    usd: Decimal = Decimal(0)
    """Attempts of unknown cost count at their worst case."""
    same_prompt: bool = True
    """The job's newest run had the same prompt and model: so the input is what changed."""
    answers: int = 0
    """Requests that ended well."""
    config: str | None = None
    """The job's content as its newest run had it, as JSON."""


def spent_elsewhere(connection: duckdb.DuckDBPyConnection, job: str, prompt_id: str) -> Elsewhere:
    """Add up all that a job has spent and has got for it."""
    spent = connection.execute(
        "select coalesce(sum(coalesce(a.cost_usd, a.reserved_usd)), 0) from attempts a join run_starts r using (run_id)"
        " where r.job = ?",
        [job],
    ).fetchone()
    answered = connection.execute(
        "select count(distinct o.key) from outcomes o join run_starts r using (run_id)"
        " where r.job = ? and o.status = 'ok'",
        [job],
    ).fetchone()
    newest = connection.execute(
        "select prompt_id, config from run_starts where job = ? order by run_id desc limit 1", [job]
    ).fetchone()
    return Elsewhere(
        usd=spent[0] if spent else Decimal(0),
        same_prompt=newest is None or newest[0] == prompt_id,
        answers=answered[0] if answered else 0,
        config=None if newest is None else newest[1],
    )


def rows_stored(connection: duckdb.DuckDBPyConnection, plan_id: int) -> int:
    """Return the index below which all rows of a plan are stored."""
    stored = connection.execute(
        "select coalesce(max(row_index) + 1, 0) from rows where plan_id = ?", [plan_id]
    ).fetchone()
    return int(stored[0]) if stored else 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one token of our count turned out to be at a provider: multiply the next count by `ratio`."""

    ratio: Decimal
    attempts: int
    """Attempts behind it, at least CALIBRATED_BY."""


CALIBRATED_BY = 30
"""Fewer attempts than this say nothing about the next thousand."""


def calibration(connection: duckdb.DuckDBPyConnection, provider: str, model: str) -> Calibration | None:
    """Compare our counts with reported usage; None below CALIBRATED_BY attempts.

    As the view `drift` does, but for answers to which the provider counted no input at all: it doesn't count.
    """
    found = connection.execute(
        "select count(*), sum(counted_tokens)::bigint, sum(input_tokens)::bigint from attempts"
        " where provider = $1 and model = $2 and kind = 'first'"
        " and result in ('ok', 'truncated', 'invalid', 'refused') and input_tokens > 0 and counted_tokens > 0",
        [provider, model],
    ).fetchone()
    if found is None or found[0] < CALIBRATED_BY:
        return None
    attempts, counted, billed = found
    return Calibration(Decimal(billed) / Decimal(counted), attempts)


def charged(connection: duckdb.DuckDBPyConnection, provider: str, model: str) -> bool:
    """Tell whether a provider charged for a model in the newest run in which it said what it charged."""
    billed = connection.execute(
        "select max(billed_usd) from attempts where provider = $1 and model = $2 and billed_usd is not null"
        " group by run_id order by run_id desc limit 1",
        [provider, model],
    ).fetchone()
    return billed is not None and billed[0] > 0


def added_tokens(connection: duckdb.DuckDBPyConnection, job: str, prompt_id: str, fingerprint: str) -> int:
    """Return by how many tokens at most an input was billed above its count, of a job's requests under a prompt.

    Or of a plan, whose requests go on under other repairs.

    Of those that cost more than they could by their counts: that a count is off is in every bound.
    """
    found = connection.execute(
        "select coalesce(max(input_tokens - counted_tokens), 0) from attempts"
        " join (select run_id, plan_id, prompt_id from run_starts where job = $1) using (run_id)"
        " where (prompt_id = $2 or plan_id in (select plan_id from plan_starts where job = $1 and fingerprint = $3))"
        " and computed_usd > reserved_usd",
        [job, prompt_id, fingerprint],
    ).fetchone()
    return 0 if found is None else max(int(found[0]), 0)


def has_estimate(connection: duckdb.DuckDBPyConnection, run_id: int) -> bool:
    """Tell whether a run's estimate is booked."""
    return connection.execute("select 1 from estimates where run_id = ?", [run_id]).fetchone() is not None


def attempts_booked(connection: duckdb.DuckDBPyConnection, run_id: int, keys: list[str]) -> set[tuple[str, int]]:
    """Return the (key, attempt) pairs of these keys that a run has in the ledger."""
    if not keys:
        return set()
    sql = "select key, attempt from attempts where run_id = ? and key = any(?)"
    return set(connection.execute(sql, [run_id, keys]).fetchall())


def keys_ended(connection: duckdb.DuckDBPyConnection, run_id: int, keys: list[str]) -> set[str]:
    """Return which of these keys have an outcome of this run in the ledger."""
    if not keys:
        return set()
    sql = "select key from outcomes where run_id = ? and key = any(?)"
    return {row[0] for row in connection.execute(sql, [run_id, keys]).fetchall()}


def cut_off(
    connection: duckdb.DuckDBPyConnection, job: str, runs: list[int], limit: int | None
) -> list[tuple[int | None, int]]:
    """Return at which max_tokens the truncated rows of a job's newest plan were cut off, and how many at each.

    ANY_LIMIT where the model's context did that.

    Rows that ended in one of these runs are left out, but for those that a limit held back there.
    `limit`: only among the plan's first rows.
    """
    return connection.execute(
        "with newest as (select key, row_index from rows"
        " where plan_id = (select max(plan_id) from plan_starts where job = $1))"
        " select if(b.best.error_type = $5, $6, b.best.max_tokens), count(*)"
        " from newest w join best_outcomes b on b.job = $1 and b.key = w.key"
        " where b.best.status = 'truncated' and w.key not in"
        " (select key from outcomes where run_id = any($2) and error_type is distinct from $4)"
        " and ($3 is null or w.row_index <= (select max(row_index)"
        " from (select row_index from newest order by row_index limit coalesce($3, 0))))"
        " group by 1 order by 1",
        [job, runs, limit, HELD_BACK, CONTEXT_FULL, ANY_LIMIT],
    ).fetchall()


def next_run_id(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the number of the run about to start; valid while the ledger stays open for writing."""
    row = connection.execute("select coalesce(max(run_id), 0) + 1 from run_starts").fetchone()
    return int(row[0]) if row else 1


def unended_runs(connection: duckdb.DuckDBPyConnection, job: str) -> list[tuple[str, int]]:
    """Return journal and process of each of a job's runs whose journal was not loaded to its end."""
    return connection.execute(
        "select journal_id, r.pid from run_starts r join journal_state s using (journal_id)"
        " where r.job = ? and not s.closed order by all",
        [job],
    ).fetchall()


def loaded(connection: duckdb.DuckDBPyConnection, job: str) -> list[tuple[str, int, bool]]:
    """Return how far the journals of a job's runs are loaded, and whether to their ends."""
    return connection.execute(
        "select journal_id, journal_offset, closed from journal_state s join run_starts r using (journal_id)"
        " where r.job = ? order by all",
        [job],
    ).fetchall()


def prepare(connection: duckdb.DuckDBPyConnection, steps: Iterable[str], **variables: str) -> None:
    """Make temporary tables; their rows have no order unless a step sorts them. Steps use `getvariable`."""
    connection.execute("set preserve_insertion_order = false")  # keeping it takes memory
    for name, value in variables.items():
        connection.execute(f"set variable {name} = $1", [value])
    for step in steps:
        connection.execute(step)


def rows_of(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None
) -> list[dict[str, Any]]:
    """Run a query and return its rows as dictionaries."""
    result = connection.execute(sql, parameters or [])
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def frame_of(connection: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None) -> pl.DataFrame:
    """Run a query and return its rows as a frame; Decimal stays Decimal; JSON, intervals and the like come as text."""
    relation = connection.sql(sql, params=parameters or [])
    return pl.DataFrame() if relation is None else pl.DataFrame(presentable(relation))


def presentable(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Make what Polars refuses (with a Rust panic, for an interval) acceptable: names told apart, odd types as text."""
    taken: set[str] = set()
    columns: list[str] = []
    for number, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1):
        alias = next(a for a in (name, *(f"{name}_{n}" for n in range(1, number + 1))) if a not in taken)
        taken.add(alias)
        shown = str(kind) if kind.id == "hugeint" else _presentable_type(kind)
        cast = "" if shown == str(kind) else f"::{shown}"
        columns.append(f"#{number}{cast} as {quoted(alias)}")
    changed = taken != set(relation.columns) or any("::" in column.split(" as ")[0] for column in columns)
    return relation.project(", ".join(columns)) if changed else relation


def _presentable_type(kind: DuckDBPyType) -> str:
    """Return the type, as SQL has it, that shows all values of one exactly."""
    if kind.id in _AS_TEXT or kind.id == "hugeint":  # which has more digits than the decimal it is handed over as
        return "VARCHAR"
    if kind.id == "timestamp_s":  # Polars has milliseconds, and no room there for an infinite one
        return "TIMESTAMP"
    if kind.id not in _NESTED:
        return str(kind)
    parts = [(name, _presentable_type(part)) for name, part in kind.children if isinstance(part, DuckDBPyType)]
    if kind.id in {"list", "array"}:
        return f"{parts[0][1]}{str(kind)[str(kind).rindex('[') :]}"
    named = kind.id == "struct"
    return f"{kind.id.upper()}({', '.join(f'{quoted(name)} {part}' if named else part for name, part in parts)})"


def quoted(name: str) -> str:
    """Write any name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
