"""Attempt and outcome lines to rows: DuckDB reads their JSON itself, so that no line becomes Python values.

For a million rows that is less than half the processor time, and none of it under the interpreter's lock, which the
event loop wants. A value of another type than a column's is unknown: a line must not keep the rest of its journal out
of the ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb
import orjson
import polars as pl

from pipeline.journal import Line
from pipeline.ledger._frames import ANSWERS, ATTEMPTS, OUTCOMES, ArrowStream, RunFacts

_ATTEMPT_LINE = {
    "key": "VARCHAR", "attempt": "INTEGER", "kind": "VARCHAR", "result": "VARCHAR", "sent_at": "DOUBLE",
    "latency_ms": "DOUBLE", "http_status": "INTEGER", "model_returned": "VARCHAR", "finish_reason": "VARCHAR",
    "usage": dict.fromkeys(("input", "cached", "cache_write", "output", "reasoning"), "BIGINT"),
    "usage_json": "JSON", "counted": "BIGINT", "count_method": "VARCHAR", "computed_usd": "VARCHAR",
    "billed_usd": "VARCHAR", "price_id": "VARCHAR", "reserved_usd": "VARCHAR", "request_id": "VARCHAR",
    "error_type": "VARCHAR", "error": "VARCHAR", "output": "VARCHAR", "parsed": "JSON",
}  # fmt: skip
_OUTCOME_LINE = {
    "key": "VARCHAR", "status": "VARCHAR", "attempts": "INTEGER", "answer_run": "BIGINT", "answer_attempt": "INTEGER",
    "max_tokens": "BIGINT", "reused": "BOOLEAN", "error_type": "VARCHAR", "error": "VARCHAR", "at": "DOUBLE",
}  # fmt: skip
_SENT_AT = "make_timestamp(round(j.sent_at * 1000000)::bigint)"
_ANSWERED_AT = "make_timestamp(round((j.sent_at + coalesce(j.latency_ms, 0) / 1000) * 1000000)::bigint)"
_ATTEMPTS = {
    "run_id": "$run_id", "key": "j.key", "attempt": "j.attempt", "kind": "j.kind", "lane": "$lane",
    "provider": "$provider", "model": "$model", "model_returned": "j.model_returned", "sent_at": _SENT_AT,
    "latency_ms": "j.latency_ms", "http_status": "j.http_status", "result": "j.result",
    "finish_reason": "j.finish_reason", "input_tokens": "j.usage.input", "cached_input_tokens": "j.usage.cached",
    "cache_write_tokens": "j.usage.cache_write", "output_tokens": "j.usage.output",
    "reasoning_tokens": "j.usage.reasoning", "usage_json": "j.usage_json", "counted_tokens": "j.counted",
    "count_method": "j.count_method",
    "cost_usd": "try_cast(coalesce(j.billed_usd, j.computed_usd) as decimal(18,12))",
    "billed_usd": "try_cast(j.billed_usd as decimal(18,12))",
    "computed_usd": "try_cast(j.computed_usd as decimal(18,12))",
    "reserved_usd": "try_cast(j.reserved_usd as decimal(18,12))", "price_id": "coalesce(j.price_id, $price_id)",
    "request_id": "j.request_id", "error_type": "j.error_type", "error": "j.error", "journal_id": "$journal_id",
    "journal_offset": "journal_offset",
}  # fmt: skip
_ANSWERS = {
    "run_id": "$run_id", "key": "j.key", "attempt": "j.attempt", "output": "j.output", "parsed": "j.parsed",
    "finish_reason": "j.finish_reason", "input_tokens": "j.usage.input", "output_tokens": "j.usage.output",
    "provider": "$provider", "model": "$model", "model_returned": "j.model_returned", "latency_ms": "j.latency_ms",
    "answered_at": _ANSWERED_AT,
}  # fmt: skip
_OUTCOMES = {
    "run_id": "$run_id", "key": "j.key", "status": "j.status", "attempts": "j.attempts", "answer_run": "j.answer_run",
    "answer_attempt": "j.answer_attempt", "max_tokens": "j.max_tokens", "reused": "coalesce(j.reused, false)",
    "error_type": "j.error_type", "error": "j.error",
    "ended_at": "make_timestamp(round(j.at * 1000000)::bigint)",
}  # fmt: skip


def _read(line: Mapping[str, object]) -> str:
    """Return the query for the lines in `burst`, each as a struct `j`. Constants only, never data."""
    structure = orjson.dumps(line).decode()
    return f"select json_transform(line, '{structure}') as j, journal_offset from burst"  # noqa: S608 -- constants


def _insert(table: str, columns: dict[str, str], source: str) -> str:
    """Return the statement that fills a table from `j`. Constants only, never data."""
    return f"insert into {table} ({', '.join(columns)}) select {', '.join(columns.values())} from {source}"  # noqa: S608


_KEEP_ATTEMPTS = f"create or replace temp table exchanged as {_read(_ATTEMPT_LINE)}"
_BOOK_ATTEMPTS = _insert(ATTEMPTS.name, _ATTEMPTS, "exchanged")
_BOOK_ANSWERS = _insert(ANSWERS.name, _ANSWERS, "exchanged where j.output is not null")
_BOOK_OUTCOMES = _insert(OUTCOMES.name, _OUTCOMES, f"({_read(_OUTCOME_LINE)})")


@dataclass(slots=True)
class Exchanges:
    """The attempts and outcomes of a piece of a journal."""

    attempts: list[Line] = field(default_factory=list)
    outcomes: list[Line] = field(default_factory=list)

    def take(self, line: Line) -> bool:
        """Take a line in if it is for us to book; `sent` lines are, too, and there is nothing to book."""
        kind = line.kind
        if kind == "attempt":
            self.attempts.append(line)
        elif kind == "outcome":
            self.outcomes.append(line)
        return kind in {"sent", "attempt", "outcome"}

    def insert(self, connection: duckdb.DuckDBPyConnection, run: RunFacts, journal_id: str) -> None:
        """Append the rows of all lines."""
        if self.attempts:
            facts = {
                "run_id": run.run_id, "lane": run.lane, "provider": run.provider, "model": run.model,
                "price_id": run.price_id, "journal_id": journal_id,
            }  # fmt: skip
            _with_lines(connection, self.attempts, _KEEP_ATTEMPTS)
            connection.execute(_BOOK_ATTEMPTS, facts)
            connection.execute(_BOOK_ANSWERS, {name: facts[name] for name in ("run_id", "provider", "model")})
            connection.execute("drop table temp.exchanged")
        if self.outcomes:
            _with_lines(connection, self.outcomes, _BOOK_OUTCOMES, {"run_id": run.run_id})


def _with_lines(
    connection: duckdb.DuckDBPyConnection, lines: list[Line], statement: str, facts: dict[str, object] | None = None
) -> None:
    """Run a statement that reads `burst`."""
    bodies = pl.Series("line", [line.body for line in lines], pl.Binary).cast(pl.String)
    offsets = pl.Series("journal_offset", [line.offset for line in lines], pl.Int64)
    connection.register("burst", ArrowStream(pl.DataFrame([bodies, offsets])))
    connection.execute(statement, facts)
    connection.unregister("burst")
