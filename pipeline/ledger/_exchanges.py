"""Attempt and outcome lines to rows: DuckDB reads their JSON itself, so that no line becomes Python values.

For a million rows that is less than half the processor time, and none of it under the interpreter's lock, which the
event loop wants. A value of another type than a column's is unknown: a line must not keep the rest of its journal out
of the ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import duckdb
import orjson
import polars as pl

from pipeline.journal import Line
from pipeline.ledger._frames import ANSWERS, ATTEMPTS, OUTCOMES, ArrowStream, RunFacts

_KINDS = frozenset({"sent", "attempt", "outcome"})
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
    # A cost that no column holds is unknown, and then more than whatever was its bound.
    "reserved_usd": "case when coalesce(j.billed_usd, j.computed_usd) is null"
                    " or try_cast(coalesce(j.billed_usd, j.computed_usd) as decimal(18,12)) is not null"
                    " then try_cast(j.reserved_usd as decimal(18,12)) end",
    "price_id": "coalesce(j.price_id, $price_id)",
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
    """Return the query for the lines of a piece, each as a struct `j`. Constants only, never data."""
    structure = orjson.dumps(line).decode()
    return f"select json_transform(line, '{structure}') as j, journal_offset from journal_lines"  # noqa: S608 -- constants


def _insert(table: str, columns: dict[str, str], source: str) -> str:
    """Return the statement that fills a table from `j`. Constants only, never data."""
    return f"insert into {table} ({', '.join(columns)}) select {', '.join(columns.values())} from {source}"  # noqa: S608


_KEEP_ATTEMPTS = f"create or replace temp table exchanged as {_read(_ATTEMPT_LINE)}"
_BOOK_ATTEMPTS = _insert(ATTEMPTS.name, _ATTEMPTS, "exchanged")
_BOOK_ANSWERS = _insert(ANSWERS.name, _ANSWERS, "exchanged where j.output is not null")
_BOOK_OUTCOMES = _insert(OUTCOMES.name, _OUTCOMES, f"({_read(_OUTCOME_LINE)})")
_WITH_ITS_ANSWER = (
    " where j.answer_attempt is null or j.answer_run <> $run_id or exists (select 1 from attempts a"
    " where a.run_id = $run_id and a.key = j.key and a.attempt = j.answer_attempt)"
)
"""Where a part of a journal is damaged: an outcome whose attempt was there is none, and its row is asked again."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """The attempts and outcomes among some lines, and the lines that are about no exchange.

    `sent` lines are about one, and there is nothing to book.
    """

    attempts: list[Line]
    outcomes: list[Line]
    others: list[Line]

    @classmethod
    def among(cls, lines: Sequence[Line]) -> Self:
        """Sort lines, in order."""
        attempts = [line for line in lines if line.kind == "attempt"]
        outcomes = [line for line in lines if line.kind == "outcome"]
        return cls(attempts, outcomes, [line for line in lines if line.kind not in _KINDS])

    def insert(self, intake: "Intake", run: RunFacts, journal_id: str, *, damaged: bool = False) -> None:
        """Append the rows of all lines; of a `damaged` journal no outcome whose answer is not there."""
        if self.attempts:
            facts = {
                "run_id": run.run_id, "lane": run.lane, "provider": run.provider, "model": run.model,
                "price_id": run.price_id, "journal_id": journal_id,
            }  # fmt: skip
            intake.execute(_KEEP_ATTEMPTS, lines=self.attempts)
            intake.execute(_BOOK_ATTEMPTS, facts)
            intake.execute(_BOOK_ANSWERS, {name: facts[name] for name in ("run_id", "provider", "model")})
            intake.execute("drop table temp.exchanged")
        if self.outcomes:
            outcomes = _BOOK_OUTCOMES + _WITH_ITS_ANSWER if damaged else _BOOK_OUTCOMES
            intake.execute(outcomes, {"run_id": run.run_id}, lines=self.outcomes)


class Intake:
    """How lines get into an open ledger, piece by piece.

    What takes DuckDB half a millisecond each time, to learn of a frame and to parse a long statement, is done once.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make ready, outside of any transaction: a rollback would undo it."""
        self._connection = connection
        self._shown = ArrowStream(_NO_LINES)
        self._parsed: dict[str, duckdb.Statement] = {}
        connection.complete()  # an answer of which only the first row was fetched is in the way
        connection.register("journal_lines", self._shown)

    def execute(self, sql: str, facts: Mapping[str, object] | None = None, *, lines: Sequence[Line] = ()) -> None:
        """Run a statement, which may read `lines`."""
        if sql not in self._parsed:
            (self._parsed[sql],) = self._connection.extract_statements(sql)
        self._shown.frame = _frame(lines) if lines else _NO_LINES
        self._connection.execute(self._parsed[sql], facts)
        self._shown.frame = _NO_LINES


def _frame(lines: Sequence[Line]) -> pl.DataFrame:
    bodies = pl.Series("line", [line.body for line in lines], pl.Binary).cast(pl.String)
    return pl.DataFrame([bodies, pl.Series("journal_offset", [line.offset for line in lines], pl.Int64)])


_NO_LINES = _frame(())
