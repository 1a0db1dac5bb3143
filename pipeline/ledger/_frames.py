"""Facts to frames: one Polars frame per table, handed to DuckDB through the Arrow stream interface.

Dollars travel as decimal strings and become DECIMAL in SQL; times travel as microseconds since 1970, UTC.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import orjson
import polars as pl

from pipeline.records import takes_the_place

_TYPES: dict[str, Any] = {
    "text": pl.String,
    "int": pl.Int64,
    "float": pl.Float64,
    "bool": pl.Boolean,
    "usd": pl.String,
    "sum": pl.String,
    "time": pl.Int64,
}


FRAME_ROWS = 2048
"""Rows that become a frame at a time: Polars holds the interpreter's lock meanwhile, and the event loop wants it."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of a table and their kinds, in insert order."""

    name: str
    columns: Mapping[str, str]

    def insert(self, connection: duckdb.DuckDBPyConnection, rows: Sequence[Sequence[Any]]) -> None:
        """Append these rows, in the open transaction."""
        if not rows:
            return
        frames = [self._frame(rows[start : start + FRAME_ROWS]) for start in range(0, len(rows), FRAME_ROWS)]
        self._append(connection, pl.concat(frames, rechunk=False))

    def _frame(self, rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
        columns = zip(self.columns.items(), zip(*rows, strict=True), strict=True)  # a third of what rows would take
        return pl.DataFrame([pl.Series(name, values, _TYPES[kind]) for (name, kind), values in columns])

    def _append(self, connection: duckdb.DuckDBPyConnection, frame: pl.DataFrame) -> None:
        selected = ", ".join(_expression(name, kind) for name, kind in self.columns.items())
        connection.register("burst", ArrowStream(frame))
        # The names are our own constants, never data.
        connection.execute(
            f"insert into {self.name} ({', '.join(self.columns)}) select {selected} from burst"  # noqa: S608 -- constants
        )
        connection.unregister("burst")


def _expression(name: str, kind: str) -> str:
    if kind == "usd":
        # A provider may claim any number of tokens: what is no amount of money is unknown, and must not keep the
        # rest of the journal out of the ledger.
        return f"try_cast({name} as decimal(18,12))"
    if kind == "sum":
        return f"try_cast({name} as decimal(38,12))"
    if kind == "time":
        return f"make_timestamp({name})"
    return name


class ArrowStream:
    """Shows DuckDB nothing but the Arrow stream of a frame, so that it doesn't ask for pyarrow."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


def microseconds(seconds: float) -> int:
    """Epoch seconds to the integer that `make_timestamp` takes."""
    return round(seconds * 1_000_000)


def _table(name: str, **columns: str) -> Table:
    return Table(name, columns)


JOBS = _table("jobs", job="text", job_file="text", created_at="time")
PLAN_STARTS = _table(
    "plan_starts",
    plan_id="int", job="text", fingerprint="text", input="text", provider="text", model="text", created_at="time",
)  # fmt: skip
PLAN_ENDS = _table("plan_ends", plan_id="int", rows="int", completed_at="time")
ROWS = _table("rows", plan_id="int", row_index="int", row_id="text", key="text", repeated="bool")
RUN_STARTS = _table(
    "run_starts",
    run_id="int", plan_id="int", job="text", command="text", max_tokens="int", config="text", code_version="text",
    pid="int", started_at="time", journal_id="text", prompt_id="text",
)  # fmt: skip
RUN_ENDS = _table("run_ends", run_id="int", exit_code="int", reason="text", ended_at="time", pause_kind="text")
ATTEMPTS = _table(
    "attempts",
    run_id="int", key="text", attempt="int", kind="text", lane="text", provider="text", model="text",
    model_returned="text", sent_at="time", latency_ms="float", http_status="int", result="text", finish_reason="text",
    input_tokens="int", cached_input_tokens="int", cache_write_tokens="int", output_tokens="int",
    reasoning_tokens="int", usage_json="text", counted_tokens="int", count_method="text", cost_usd="usd",
    billed_usd="usd", computed_usd="usd", reserved_usd="usd", price_id="text", request_id="text", error_type="text",
    error="text", journal_id="text", journal_offset="int",
)  # fmt: skip
ANSWERS = _table(
    "answers",
    run_id="int", key="text", attempt="int", output="text", parsed="text", finish_reason="text", input_tokens="int",
    output_tokens="int", provider="text", model="text", model_returned="text", latency_ms="float", answered_at="time",
)  # fmt: skip
OUTCOMES = _table(
    "outcomes",
    run_id="int", key="text", status="text", attempts="int", answer_run="int", answer_attempt="int",
    max_tokens="int", reused="bool", error_type="text", error="text", ended_at="time",
)  # fmt: skip
PRICES = _table(
    "prices",
    run_id="int", price_id="text", provider="text", model="text", input="usd", cached_input="usd", cache_write="usd",
    output="usd", reasoning="usd", per_request="usd", currency="text", effective_from="text", source="text",
    checked="text", note="text", terms="text",
)  # fmt: skip
ESTIMATES = _table(
    "estimates",
    run_id="int", plan_id="int", rows="int", requests="int", input_tokens="int", count_method="text", low_usd="sum",
    expected_usd="sum", high_usd="sum", ceiling_usd="sum", made_at="time",
)  # fmt: skip
JOURNAL_DAMAGE = _table(
    "journal_damage", journal_id="text", journal_offset="int", length="int", torn="bool", found_at="time"
)


@dataclass(slots=True)
class Bundle:
    """Rows waiting to be inserted, by table, in one transaction."""

    rows: dict[str, tuple[Table, list[Sequence[Any]]]] = field(default_factory=dict)

    def add(self, table: Table, values: Sequence[Any]) -> None:
        """Queue one row, values in the table's column order."""
        self.rows.setdefault(table.name, (table, []))[1].append(values)

    def extend(self, table: Table, values: Iterable[Sequence[Any]]) -> None:
        """Queue many rows."""
        self.rows.setdefault(table.name, (table, []))[1].extend(values)

    def insert(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Insert everything that is queued."""
        for table, rows in self.rows.values():
            table.insert(connection, rows)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the attempts of a journal share: told once, in its `run` line."""

    run_id: int
    provider: str
    model: str
    lane: str
    price_id: str | None
    max_tokens: int | None = None
    repair: int = 0
    free: bool = False
    """Nothing costs anything, whatever becomes of it."""

    @classmethod
    def from_line(cls, fields: Mapping[str, Any]) -> "RunFacts":
        """Read them from a `run` line."""
        repair = fields["config"].get("output", {}).get("repair", 0)
        return cls(
            fields["run_id"], fields["provider"], fields["model"], fields["lane"], fields.get("price_id"),
            fields.get("max_tokens"), repair, fields.get("free", False),
        )  # fmt: skip


def book_line(bundle: Bundle, run: RunFacts, journal_id: str, fields: Mapping[str, Any]) -> None:
    """Queue the rows of a line that is no exchange; a line type this version doesn't know is left to a later one."""
    booker = _BOOKERS.get(fields.get("type", ""))
    if booker is not None:
        booker(bundle, run, journal_id, fields)


def _book_run(bundle: Bundle, run: RunFacts, journal_id: str, line: Mapping[str, Any]) -> None:
    started = microseconds(line["started_at"])
    config = orjson.dumps(line["config"]).decode()
    bundle.add(
        RUN_STARTS,
        (run.run_id, line["plan_id"], line["job"], line["command"], line.get("max_tokens"), config,
         line["code_version"], line["pid"], started, journal_id, line.get("prompt_id")),
    )  # fmt: skip
    plan = line["plan"]
    if plan["new"]:
        bundle.add(
            PLAN_STARTS,
            (line["plan_id"], line["job"], plan["fingerprint"], plan["input"], run.provider, run.model, started),
        )
    if line["new_job"]:
        bundle.add(JOBS, (line["job"], line["job_file"], started))


def _book_price(bundle: Bundle, run: RunFacts, _: str, line: Mapping[str, Any]) -> None:
    bundle.add(PRICES, (run.run_id, *(line.get(name) for name in list(PRICES.columns)[1:])))


def _book_end(bundle: Bundle, run: RunFacts, _: str, line: Mapping[str, Any]) -> None:
    ended_at = microseconds(line["at"])
    bundle.add(RUN_ENDS, (run.run_id, line["exit_code"], line.get("reason"), ended_at, line.get("pause_kind")))


_BOOKERS: dict[str, Callable[[Bundle, RunFacts, str, Mapping[str, Any]], None]] = {
    "run": _book_run,
    "price": _book_price,
    "end": _book_end,
}


def lost_attempt(run: RunFacts, journal_id: str, offset: int, sent: Mapping[str, Any]) -> Sequence[Any]:
    """Return the `attempts` row of an exchange sent and never heard of again: cost unknown, at most reserved."""
    free = "0" if run.free else None
    values: dict[str, Any] = dict.fromkeys(ATTEMPTS.columns)
    values.update(
        run_id=run.run_id, key=sent["key"], attempt=sent["attempt"], kind=sent["kind"], lane=run.lane,
        provider=run.provider, model=run.model, sent_at=microseconds(sent["at"]), result="lost",
        counted_tokens=sent.get("counted"), count_method=sent.get("count_method"),
        reserved_usd=sent.get("reserved_usd"), price_id=run.price_id, error_type="lost", cost_usd=free,
        computed_usd=free,
        error="the run ended before the answer was written; the provider may have billed it",
        journal_id=journal_id, journal_offset=offset,
    )  # fmt: skip
    return tuple(values.values())


_FINAL = frozenset({"ok", "truncated", "refused", "rejected"})
"""Results of an attempt that end its key whatever comes next; an invalid one does when no repair is allowed."""


def missing_outcome(run: RunFacts, attempt: Mapping[str, Any]) -> Sequence[Any] | None:
    """Return the `outcomes` row of an answer whose outcome line a kill or a power cut took, None if none was due.

    Without it the row would count as pending, and an answer that was paid for would be asked for again. A rejection
    that was held back was none.
    """
    result = attempt["result"]
    if attempt.get("held"):
        return None
    if result not in _FINAL and not (result == "invalid" and attempt.get("repairs", 0) >= run.repair):
        return None
    answer, answer_run = None if attempt.get("output") is None else attempt["attempt"], run.run_id
    earlier = attempt.get("repaired_attempt")
    if earlier is not None and not takes_the_place(result, attempt.get("output")):
        result, answer = "invalid", earlier
        answer_run = attempt.get("repaired_run") or run.run_id
    ended_at = attempt["sent_at"] + (attempt.get("latency_ms") or 0) / 1000
    return (
        run.run_id, attempt["key"], result, attempt["attempt"], None if answer is None else answer_run, answer,
        run.max_tokens, False, attempt.get("error_type"), attempt.get("error"), microseconds(ended_at),
    )  # fmt: skip
