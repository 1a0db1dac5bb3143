"""From a dataset to tickets: render each row, find its key, look up what is answered, and meter the rest.

One scan of the input is a plan. Nothing here sends or stores anything; rows pass in bounded batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from itertools import chain, islice
from math import ceil
from typing import Any, NamedTuple

from pipeline.doorman import Ticket
from pipeline.errors import InputError, MissingColumn, PriceError
from pipeline.job import Job
from pipeline.keysets import IdSet, KeyCounts, KeySet
from pipeline.ledger import ANY_LIMIT, HELD_BACK, Known, RowsDone
from pipeline.pricing import Price, in_force, worst_case_usd
from pipeline.prompts import KeyMaker, Template, broken_key
from pipeline.records import BrokenRow, Message, Request, Row, TokenCount
from pipeline.sources import Source, open_source
from pipeline.tokens import IMAGE_BOUND, NOTHING_ATTACHED, Attached, Counter, attached_to, counter_for

CHECKED_ROWS = 1000
"""Rows that are rendered before anything is sent."""
MOST_DOLLARS = 1_000_000
"""What DECIMAL(18,12) can't hold any more."""
ADDED_FACTOR, USUAL_MARGIN = 1.1, 500
"""Of what a server was seen to add so much more is set aside; so many tokens every bound has beyond its count."""
ASSUMED_OUTPUT = 1024
"""Output tokens that a tokens-per-minute limit is charged for a request without max_tokens."""


def repeated_ids(count: int, column: str | None) -> str:
    """Say how many rows have an id that an earlier one has."""
    return f"{count:,} {'row repeats' if count == 1 else 'rows repeat'} the {column!r} of an earlier row"


class PlannedRow(NamedTuple):
    """A row and its key; `request` is None for a row that can't be sent, and `problem` says why."""

    index: int  # type: ignore[assignment]  # of the row; a tuple's own `index` is not wanted here
    id: str
    key: str
    request: Request | None
    repeated: bool
    """An earlier row of the plan has the same key: one request serves both."""
    problem: str | None = None
    values: Mapping[str, Any] | None = None
    """The row's own values; None for a line that could not be read."""


class Plan:
    """One scan of a job's input under its prompt and model. Iterate it once; abandon it when you like."""

    def __init__(self, job: Job, *, limit: int | None = None, done: RowsDone | None = None) -> None:
        """Begin a scan; it passes over the rows that are `done`, whose plan must be this one (`passes_over`)."""
        self.source: Source = open_source(job.input)
        self.template = Template(job.prompt)
        self.complete = False
        self.rows = 0 if done is None else done.rows
        self.duplicate_ids = 0
        self._keys = KeyMaker(job.model)
        self._key = self._keys.key if job.dedupe else self._numbered_key
        self._unrendered = 0
        self._reject_bad = job.input.bad_rows == "reject"
        self._counts_ids = job.input.id is not None
        self._ids = IdSet()
        self._done = b"" if done is None else done.bits
        self._seen = KeySet() if done is None else done.keys
        self._occurrences = KeyCounts()
        self._limit = limit
        self._checked: list[PlannedRow] = []
        self._scan = self._scan_rows()

    def be_the_plan_of(self, other: "Plan") -> None:
        """Raise InputError during the scan if the input is not the one whose fingerprint another scan has taken."""
        self.source.be_the_input_of(other.source)

    def check_first_rows(self) -> list[PlannedRow]:
        """Read and render the first rows now, so that mistakes show before anything is sent. Raises InputError."""
        if not self._checked:
            self._checked = list(islice(self._scan, CHECKED_ROWS))
        return self._checked

    def batches(self, size: int = 256) -> Iterator[list[PlannedRow]]:
        """Yield the planned rows in order; afterwards `complete` tells whether the input's end was reached."""
        rows = chain(self._given_up(), self._scan)
        while batch := list(islice(rows, size)):
            yield batch

    def _given_up(self) -> Iterator[PlannedRow]:
        """Yield the rows that were checked, and keep none of them: they may be large."""
        checked, self._checked = self._checked, []
        checked.reverse()
        while checked:
            yield checked.pop()

    @cached_property
    def input_fingerprint(self) -> str:
        """Of the input as it is when this is first asked for: it reads all of it, so once is enough for a plan."""
        return self.source.fingerprint()

    @property
    def share(self) -> float | None:
        """Which part of the input has been read, from 0 to 1; None if nobody knows."""
        return self.source.share

    def _scan_rows(self) -> Iterator[PlannedRow]:
        for batch in self.source.batches(passed=self._done):
            for row in batch:
                if self.rows == self._limit:
                    return
                self.rows += 1
                yield self._planned(row)
        self.complete = True

    def _planned(self, row: Row | BrokenRow) -> PlannedRow:
        if isinstance(row, BrokenRow):  # its number is no id of anybody's
            return self._without_request(row, row.digest, f"{row.origin}: {row.problem}")
        if self._counts_ids and not self._ids.add(row.id):
            self.duplicate_ids += 1
        try:
            messages = self.template.render(row)
        except InputError as error:
            problem = self._problem(error)
            return self._without_request(row, f"{row.index}:{row.origin}:{problem}", problem)
        key = self._key(messages)
        index, row_id, values, _ = row
        return PlannedRow(index, row_id, key, Request(key, messages), not self._seen.add(key), None, values)

    def _problem(self, error: InputError) -> str:
        """Say why a row can't be rendered; raise it if such a row stops the run.

        As long as no row could be rendered the mistake may be the prompt's: then nothing speaks for the row's.
        """
        if self.rows - 1 == self._unrendered:
            if self._reject_bad:
                return str(error)
            raise error
        problem, cure = (error.said, error.cure) if isinstance(error, MissingColumn) else (str(error), "")
        if self._reject_bad:
            return problem
        raise InputError(
            f'{problem}. Mend the row{cure}, or set [input] bad_rows = "reject" to book such rows as rejected and go on'
        ) from error

    def _without_request(self, row: Row | BrokenRow, digest: str, problem: str) -> PlannedRow:
        key = broken_key(digest)
        self._unrendered += 1
        values = row.values if isinstance(row, Row) else None
        return PlannedRow(row.index, row.id, key, None, not self._seen.add(key), problem, values)

    def _numbered_key(self, messages: tuple[Message, ...]) -> str:
        key = self._keys.key(messages)
        occurrence = self._occurrences.add(key)
        return self._keys.key(messages, occurrence) if occurrence else key


def paid_for_nothing(rows: Sequence[PlannedRow], template: Template) -> list[str]:
    """Say in how many of the first rows a column that the prompt prints is null, and how many prompts are blank."""
    sent = [row for row in rows if row.request is not None and row.values is not None]
    among = f"of the first {len(rows):,} rows"
    said = []
    for path in sorted(template.printed):
        nulls = sum(_is_null(row.values, path) for row in sent if row.values is not None)
        if nulls:
            name = ".".join(path)
            said.append(
                f"{name!r} is null in {nulls:,} {among}, and the prompt says null there and is sent like any other;"
                + (f' leave such rows out with [input] where = "{name} is not null", or' if len(path) == 1 else "")
                + f' write {{{{ {name} or "" }}}}'
            )
    blank = sum(_is_blank(row.request.messages[-1]) for row in sent if row.request is not None)
    if blank:
        said.append(
            f"the prompt is blank in {blank:,} {among}, and is sent like any other; [input] where leaves rows out"
        )
    return said


def _is_null(values: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Tell whether a row has a null there, of its own or as `row` calls it; what it lacks is no null."""
    found: Any = values
    for name in path[1:] if path[0] == "row" and "row" not in values else path:
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    return found is None


def as_base64(source: Source, template: Template) -> list[str]:
    """Say which columns of the prompt hold bytes: text that was written so would be paid for and useless."""
    names = [repr(name) for name in source.opaque_columns() if template.reads(name)]
    if not names:
        return []
    hold, it = ("holds", "it is") if len(names) == 1 else ("hold", "they are")
    said = f"{', '.join(names)} {hold} bytes, which the prompt has as base64"
    return [f"{said}; where {it} text, write text into the file (in DuckDB: NAME::varchar)"]


def _is_blank(message: Message) -> bool:
    content = message.get("content")
    return isinstance(content, str) and not content.strip()


def passes_over(job: Job, selection: "Selection", limit: int | None) -> bool:
    """Tell whether a scan may leave out rows that are done: not where each row counts for those behind it."""
    whole = limit is None and job.input.limit is None and selection.only is None
    return whole and job.dedupe and selection.retry is None and not selection.fresh


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows a command wants sent."""

    fresh: bool = False
    """Ask again even where an answer is known: then `Known` holds only what an interrupted fresh run has brought."""
    retry: frozenset[str] | None = None
    """Only rows that ended with one of these statuses; None is the normal run."""
    same_limit: bool = False
    """Of a retry: truncated rows are wanted by name, so also under the limit that cut them off (chance may help)."""
    only: frozenset[str] | None = None
    """Only these keys: a pilot's."""


class Decision(NamedTuple):
    """What happens to a key: it has ended, its answer is reused from another job, it is sent, or left alone."""

    what: str
    """ended | reuse | send | skip"""
    status: str = "pending"


SEND = Decision("send")
Own = tuple[str, int | None]
"""Status (or HELD_BACK) and max_tokens, as in `Known.own`."""
Other = tuple[str, int | None, int, int]
"""Status, max_tokens, run and attempt, as in `Known.others`."""


def decide(known: Known, key: str, selection: Selection, max_tokens: int | None) -> Decision:
    """Look a key up (docs/design.md, "Keys"). A truncated answer serves limits no higher than its own."""
    own, other = known.own.get(key), known.others.get(key)
    if own is None and other is None and selection.retry is None and selection.only is None:
        return SEND
    status = own[0] if own else "pending"
    if selection.retry is not None and key in known.asked:
        return Decision("ended", status)
    if status == HELD_BACK:  # it was never sent: the limits that hold now decide
        own, status = None, "rejected"
    if selection.only is not None and key not in selection.only:
        return Decision("skip", status)
    if selection.retry is not None and status not in selection.retry:
        return Decision("skip", status)
    answered = _answered(own, other, max_tokens, retrying=selection.retry is not None)
    if answered is None and own is not None and own[0] == "truncated" and selection.retry is not None:
        return Decision("skip", status) if cut_again(own[1], max_tokens, same_limit=selection.same_limit) else SEND
    return answered or SEND


def _answered(own: Own | None, other: Other | None, max_tokens: int | None, *, retrying: bool) -> Decision | None:
    if own is not None and own[0] == "ok":
        return Decision("ended", "ok")
    if other is not None and other[0] == "ok":
        return Decision("reuse", "ok")
    if retrying:
        return None
    if own is not None and not (own[0] == "truncated" and is_raised(own[1], max_tokens)):
        return Decision("ended", own[0])
    return None if other is None or is_raised(other[1], max_tokens) else Decision("reuse", other[0])


def cut_again(old: int | None, new: int | None, *, same_limit: bool) -> bool:
    """Tell whether a retry leaves out what was cut off at `old`; `same_limit`: an equal limit may be tried."""
    return old is not None and not is_raised(old, new) and not (same_limit and old in (new, ANY_LIMIT))


def cut_before(known: Known, key: str, max_tokens: int | None) -> int | None:
    """Return the lower limit at which the answer of a request was cut off that is sent under this one; else None."""
    own, other = known.own.get(key), known.others.get(key)
    if own is None and other is None:  # nearly every row that is sent
        return None
    found = [answer[1] for answer in (own, other) if answer and answer[0] == "truncated"]
    return max((old for old in found if old is not None and is_raised(old, max_tokens)), default=None)


def is_raised(old: int | None, new: int | None) -> bool:
    """Tell whether an answer that was cut off at one max_tokens may get longer under another (None: no limit)."""
    return old not in (None, ANY_LIMIT) and (new is None or new > old)


class Meter:
    """What a request costs at worst, in dollars and in tokens."""

    def __init__(self, job: Job, price: Price | None, later: Sequence[Price] = ()) -> None:
        self.price = price
        """The one in force when the run was prepared; None if unknown."""
        self.prices: tuple[Price, ...] = () if price is None else (price, *later)
        """Every price that may come into force during the run."""
        self.counter: Counter = counter_for(
            job.model.provider, job.model.name, overridden=job.model.base_url is not None
        )
        self._schema = job.model.schema
        self._extra = job.model.extra
        self.max_tokens = job.model.max_tokens
        self._output = ASSUMED_OUTPUT if self.max_tokens is None else self.max_tokens
        self._window = job.context_window
        """What the job says of the model's context: no request can be billed more input than it holds."""
        self._worst_cases: dict[int, Decimal | None] = {}
        """By the input's bound: requests of one size cost the same, and different sizes are few."""
        self._added = 0
        """Tokens more than counted that requests are to be able to cost."""
        self.charged = False
        """The provider charges for what every price here calls free: what is said goes before what is computed."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that a count depends on beside the request's messages."""
        facts = self.counter.identity(self._schema, self._extra)
        return facts if self._window is None else {**facts, "context_window": self._window}

    def count_all(self, requests: Sequence[Request]) -> list[TokenCount]:
        """Count requests, in order. May be called from several threads."""
        counts = self.counter.count_all(
            [request.messages for request in requests], schema=self._schema, extra=self._extra
        )
        if self._window is None:
            return counts
        return [self._within(self._window, request, count) for request, count in zip(requests, counts, strict=True)]

    def _within(self, window: int, request: Request, count: TokenCount) -> TokenCount:
        """Bound what goes with a text by the model's context; a text has its own bound, whatever the job says."""
        if count.bound <= window or self.attached(request, count) == NOTHING_ATTACHED:
            return count
        return count._replace(bound=max(window, count.tokens))

    def may_attach(self, bound: int) -> bool:
        """Tell whether a request with this bound may have images or files. Of a batch ask for the largest first."""
        return bound >= (IMAGE_BOUND if self._window is None else min(IMAGE_BOUND, self._window))

    def attached(self, request: Request, count: TokenCount) -> Attached:
        """Say how many images and files a request has that was counted."""
        return attached_to(request.messages) if self.may_attach(count.bound) else NOTHING_ATTACHED

    @property
    def is_free(self) -> bool:
        """Whether no request of the run can cost anything."""
        return bool(self.prices) and not self.charged and all(price.is_free for price in self.prices)

    def heard_of_charges(self) -> None:
        """Hear that the provider charged for this model: where that was to be free, nobody knows now what it costs."""
        if self.is_free:
            self.charged = True
            self._worst_cases = {}

    def heard_of_added(self, tokens: int) -> None:
        """Hear that inputs were billed above their counts, by so many tokens at most: a bound must hold that, too.

        A server may put a prompt of its own before what it is sent. What the usual margins of a bound hold is no more.
        """
        margin = 0 if tokens <= USUAL_MARGIN else ceil(ADDED_FACTOR * tokens)
        if margin != self._added:
            self._added, self._worst_cases = margin, {}

    def price_at(self, sent_at: float) -> Price | None:
        """Return the price in force at a moment (epoch seconds) of the run, None if unknown."""
        if len(self.prices) <= 1:
            return self.price
        return in_force(self.prices, datetime.fromtimestamp(sent_at, UTC)) or self.price

    def ticket(self, request: Request, counted: TokenCount | None = None) -> Ticket:
        """Say what to reserve for a request; counts it if that has not been done."""
        if counted is None:
            (counted,) = self.count_all([request])
        tokens, method, bound = counted
        return Ticket(request, self.worst_case(bound), self.limit_tokens(tokens), tokens, method)

    def limit_tokens(self, input_tokens: int) -> int:
        """Return what a tokens-per-minute limit is charged for a request."""
        return input_tokens + self._output

    def worst_case(self, input_bound: int) -> Decimal | None:
        """Return the upper bound of one request's cost, or None if price or max_tokens leave it open."""
        try:
            return self._worst_cases[input_bound]
        except KeyError:
            return self._worst_cases.setdefault(input_bound, self._worst_case(input_bound))

    def _worst_case(self, input_bound: int) -> Decimal | None:
        if self.price is None or self.charged:
            return None
        input_bound += self._added
        if self.max_tokens is None and not all(price.output_is_free for price in self.prices):
            return None
        worst = max(worst_case_usd(price, input_bound, self.max_tokens or 0) for price in self.prices)
        if worst >= MOST_DOLLARS:
            raise PriceError(
                f"one request may cost ${worst:,.2f}, and the ledger books less than ${MOST_DOLLARS:,} for one:"
                " look at the price (dollars per 1M tokens) and at [model] max_tokens"
            )
        return worst
