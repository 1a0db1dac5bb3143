"""What is answered already, by key: packed by DuckDB, a slice of the keys at a time.

A million keys as Python objects take 300 MB, and as much while DuckDB sorts out which of their outcomes counts: so it
does that for some of them after the others.
"""
# ruff: noqa: S608 -- what is put into the SQL here are this module's own constants

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

import duckdb

from pipeline.keysets import PLACES, KeyMap, KeySet
from pipeline.records import CONTEXT_FULL, Status

FRESH = "run --fresh"
"""`runs.command` of a run that asks again."""
_WENT_TO_THE_END = (0, 3)
SLICE_OUTCOMES = 200_000
"""About how many outcomes, of all jobs, are looked at together: some 300 bytes of memory each."""
MOST_SLICES = 8
"""Each reads the outcomes anew, and nobody else has the ledger meanwhile: for ten million of them memory must grow."""
HELD_BACK = "never_fits"
"""The status of a row here that a stated limit rejected: nothing was sent for it, so another limit may let it through.

It is the `error_type` of such an outcome; in the ledger and for people its status is `rejected`."""
_OURS = "regexp_full_match(key, 'v1[0-9a-f]{32}')"
_PLACE = "('0x' || key[3:6])::integer"

ANY_LIMIT = 2**63 - 1
"""In place of the max_tokens of an answer that the model's context cut off: no other would make it longer."""


def _ended(outcome: str, asked: str = "null") -> str:
    """Return what counts of an outcome: its status, and the limit that cut it off, or under which it was `asked`."""
    limit = f"if({outcome}.error_type = '{CONTEXT_FULL}', {ANY_LIMIT}, {outcome}.max_tokens)"
    return (
        f"row(if({outcome}.error_type = '{HELD_BACK}', '{HELD_BACK}', {outcome}.status),"
        f" if({outcome}.status = 'truncated' and {limit} < {asked}, {asked}, {limit}))"
    )


_ASKED_AGAIN = (
    f"select o.key, max(coalesce(o.max_tokens, {ANY_LIMIT})) as most from outcomes o join run_starts r using (run_id)"
    " where r.job = $1 and o.status in ('invalid', 'refused', 'rejected')"
    f" and o.error_type is distinct from '{HELD_BACK}' group by o.key"
)
"""The highest limits under which requests ended otherwise for good: a cut-off answer counts for more, but a run does
not ask under a limit again under which it got another answer. (A retry does: it is asked to.)"""
_OWN = (
    f"select key, {_ended('best', 'most')} as value from best_outcomes left join ({_ASKED_AGAIN}) using (key)"
    " where job = $1"
)
_OWN_AS_BOOKED = f"select key, {_ended('best')} as value from best_outcomes where job = $1"
_OWN_SINCE = (
    f"select o.key, arg_max({_ended('o')}, r.run_id) as value"
    " from outcomes o join run_starts r using (run_id) where r.job = ? and r.run_id >= ? group by o.key"
)
_OTHERS = (
    "select key, arg_max(row(best.status, best.max_tokens, best.answer_run, best.answer_attempt),"
    " row(best.status = 'ok', coalesce(best.max_tokens, 9223372036854775807))) as value"
    " from best_outcomes where job <> ? and best.status in ('ok', 'truncated') group by key"
)


class Retry(NamedTuple):
    """What makes two retries of a job the same: whoever types it again goes on with one that was interrupted."""

    command: str
    """`runs.command`, with the rows it selects."""
    prompt_id: str
    max_tokens: int | None


class OpenAnswer(NamedTuple):
    """An answer that does not fit its schema, whose repair had not come back when its run ended: it is paid for."""

    run_id: int
    attempt: int
    output: str
    error_type: str | None
    error: str | None
    """What is wrong with it."""
    repairs: int
    """Made so far."""


@dataclass(frozen=True, slots=True)
class RowsDone:
    """Rows of a plan that the ledger has, and that ended well: nobody needs to read them again."""

    bits: bytes
    """A bit for each row by its index, the lowest first."""
    rows: int
    repeated: int
    """How many of them share an earlier row's request."""
    keys: KeySet
    """Theirs."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger already knows about keys, from one job's point of view."""

    own: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)
    """key -> (status or HELD_BACK, the answer's max_tokens): outcomes of this job's runs."""
    others: Mapping[str, tuple[Status, int | None, int, int]] = field(default_factory=dict)
    """key -> (status, max_tokens, run, attempt): `ok` and `truncated` answers that other jobs paid for."""
    asked: KeySet = field(default_factory=KeySet)
    """Keys that ended in the interrupted retry with which this one goes on."""
    done: RowsDone | None = None
    """Rows of the plan that need not be read again; None if there are none, or nobody asked."""
    open: Mapping[str, OpenAnswer] = field(default_factory=dict)
    """key -> what its next request is to repair, of keys that have not ended since; none if nobody asked."""


def known_keys(
    connection: duckdb.DuckDBPyConnection,
    job: str,
    *,
    reuse: str,
    fresh: bool = False,
    retry: Retry | None = None,
    plan_id: int | None = None,
    repairs: bool = False,
) -> Known:
    """Read what is answered. `reuse` is "ledger" (answers of every job serve) or "job" (only this job's own).

    To a `fresh` run only what an interrupted fresh run before it has brought is known: so it can go on, too. A `retry`
    knows what an interrupted one like it has asked again. With a `plan_id` the rows of that plan that are done are
    looked for, with `repairs` answers that wait for theirs.
    """
    first: int | None = 0
    own = _Keys(connection, "own", _OWN if retry is None else _OWN_AS_BOOKED, [job])
    others = _Keys(connection, "others", _OTHERS, [job])
    if fresh:
        first = _interrupted_fresh_run(connection, job)
        if first is None:
            return Known()
        own, reuse = _Keys(connection, "own", _OWN_SINCE, [job, first]), "job"
    done = None if plan_id is None else _Done(connection, plan_id)
    for condition in _slices(connection):
        table = own.read(condition)
        if done is not None:
            done.read(condition, table)
        if reuse == "ledger":
            others.read(condition)
    asked = KeySet() if retry is None else _asked(connection, interrupted_retries(connection, job, retry))
    waiting = _open_answers(connection, job, first or 0) if repairs else {}
    return Known(own.found, others.found, asked, None if done is None else done.found(), waiting)


_INVALID = """
create or replace temp table invalid as
select a.key, a.run_id, a.attempt from attempts a join runs r using (run_id)
where a.result = 'invalid' and r.job = $1 and r.run_id >= $2 and coalesce(r.exit_code, -1) not in (0, 3)
"""
_OPEN = """
with own as (select run_id from run_starts where job = $1 and run_id >= $2),
ended as (
    select key, max(run_id) as run_id from outcomes
    where key in (select key from invalid) and run_id in (select run_id from own) group by key),
waiting as (
    select i.*, coalesce(e.run_id, 0) as ended from invalid i left join ended e using (key)
    where i.run_id > coalesce(e.run_id, 0)),
best as (
    select w.*, coalesce(s.output, '') as output from waiting w left join answers s using (run_id, key, attempt)
    qualify row_number() over (partition by key order by trim(coalesce(s.output, '')) <> '' desc, run_id desc,
                               attempt desc) = 1),
answered as (
    select a.key, greatest(count(*) filter (where a.result in ('ok', 'invalid', 'truncated', 'refused'))
                           - bool_or(a.kind = 'first')::int, 0) as repairs
    from attempts a join best b using (key)
    where a.run_id > b.ended and a.run_id in (select run_id from own)
    group by a.key, a.run_id)
select b.key, b.run_id, b.attempt, b.output, a.error_type, a.error, sum(n.repairs)::bigint
from best b join attempts a using (run_id, key, attempt) join answered n using (key)
group by all
"""


def _open_answers(connection: duckdb.DuckDBPyConnection, job: str, first: int) -> dict[str, OpenAnswer]:
    """Return answers that were to be repaired when their run ended, of the job's runs from one on.

    Only runs that did not go to their end leave any, as many as were open at once. Of several answers to a key the
    newest counts that says anything.
    """
    connection.execute(_INVALID, [job, first])
    return {key: OpenAnswer(*facts) for key, *facts in connection.execute(_OPEN, [job, first]).fetchall()}


def _interrupted_fresh_run(connection: duckdb.DuckDBPyConnection, job: str) -> int | None:
    """Return the first of the fresh runs that a fresh run goes on with, None if there is none."""
    runs = connection.execute(
        "select run_id, command, exit_code, exists (select 1 from attempts a where a.run_id = r.run_id) as sent"
        " from runs r where job = ? order by run_id desc",
        [job],
    ).fetchall()
    first: int | None = None
    for run_id, command, exit_code, sent in runs:
        if command == FRESH and exit_code not in _WENT_TO_THE_END:
            first = run_id
        elif command == FRESH or sent:  # one that found nothing to send is no step on the way
            break
    return first


def interrupted_retries(connection: duckdb.DuckDBPyConnection, job: str, retry: Retry) -> list[int]:
    """Return the runs with which this retry goes on: like it, and none of the job went to its end since."""
    runs = connection.execute(
        "select run_id, exit_code, command, prompt_id, max_tokens from runs where job = ? order by run_id desc", [job]
    ).fetchall()
    unfinished = takewhile(lambda run: run[1] not in _WENT_TO_THE_END, runs)
    return [run_id for run_id, _, *like in unfinished if tuple(like) == retry]


def _asked(connection: duckdb.DuckDBPyConnection, runs: list[int]) -> KeySet:
    """Return the keys that ended in these runs; for those that a limit held back nobody was asked."""
    connection.execute(
        f"create or replace temp table asked as select distinct key, {_OURS} as ours from outcomes"
        f" where run_id = any($1) and error_type is distinct from '{HELD_BACK}'",
        [runs],
    )
    found = KeySet()
    _fill(found, connection, "asked")
    return found


def _fill(keys: KeySet, connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Put in the keys of a table, of which none is there yet."""
    packed = connection.execute(
        f"select {_PLACE}, unhex(string_agg(key[7:], '')) from (select distinct key from {table} where ours) group by 1"
    )
    keys.fill(_rows(packed))
    for (key,) in connection.execute(f"select key from {table} where not ours").fetchall():
        keys.add(key)


def _slices(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield conditions on `key`, of which each key fulfils exactly one: ranges of their places."""
    counted = connection.execute("select count(*) from outcomes").fetchone()
    count = 1 if counted is None else min(counted[0] // SLICE_OUTCOMES + 1, MOST_SLICES)
    starts = [f"'v1{place * PLACES // count:04x}'" for place in range(count)]
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        lowest = [] if start == starts[0] else [f"key >= {start}"]
        yield " and ".join([*lowest, *([] if end is None else [f"key < {end}"])]) or "true"


class _Keys:
    """The answers of a query's keys."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str, sql: str, parameters: list[object]) -> None:
        self._connection, self._table, self._sql, self._parameters = connection, table, sql, parameters
        self.found: KeyMap[Any] = KeyMap()

    def read(self, condition: str) -> str:
        """Read the keys that fulfil a condition; return a temporary table that has them until the next call."""
        execute, table, found = self._connection.execute, self._table, self.found
        # Before there is the next one: memory. A table of somebody's own may have the name.
        execute(f"drop table if exists temp.{table}")
        execute(
            f"create temp table {table} as select *, {_OURS} as ours from ({self._sql}) where {condition}",
            self._parameters,
        )
        execute(
            "create or replace temp table numbered as"
            f" select value, row_number() over () as number from (select distinct value from {table})"
        )
        values = execute("select value from numbered order by number").fetchall()
        packed = execute(
            f"select {_PLACE}, unhex(string_agg(key[7:] || lpad(to_hex(list_extract(?::integer[], number)), 8, '0'),"
            f" '')) from {table} join numbered on numbered.value is not distinct from {table}.value"
            " where ours group by 1",
            [[found.number(value) for (value,) in values]],
        )
        found.fill(_rows(packed))
        for key, value in execute(f"select key, value from {table} where not ours").fetchall():
            found[key] = value
        return table


class _Done:
    """The rows of a plan whose own job has a good answer."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan_id: int) -> None:
        self._connection, self._plan_id = connection, plan_id
        self._keys = KeySet()
        connection.execute("create or replace temp table done (row_index bigint, repeated boolean)")

    def read(self, condition: str, own: str) -> None:
        """Look for the rows whose keys fulfil a condition; the table `own` has the answers of those keys."""
        execute = self._connection.execute
        execute(
            "create or replace temp table ended as select row_index, key, repeated, ours from rows"
            f" join (select key, ours from {own} where value[1] = 'ok') using (key) where plan_id = ? and {condition}",
            [self._plan_id],
        )
        execute("insert into done select row_index, repeated from ended")
        _fill(self._keys, self._connection, "ended")

    def found(self) -> RowsDone | None:
        """Return them all, None if there are none."""
        execute = self._connection.execute
        counted = execute("select count(*), count(*) filter (repeated), max(row_index) from done").fetchone()
        if counted is None or not counted[0]:
            return None
        bits = bytearray(4 * (counted[2] // 32 + 1))
        for number, word in _rows(
            execute("select row_index // 32, bit_or(1::bigint << (row_index % 32)) from done group by 1")
        ):
            bits[4 * number : 4 * number + 4] = word.to_bytes(4, "little")
        return RowsDone(bytes(bits), counted[0], counted[1], self._keys)


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[Any]:
    while rows := result.fetchmany(4096):
        yield from rows
