"""The nouns: frozen facts that travel from one station to the next. No behaviour, no I/O.

A row becomes a request, a request goes out in attempts, an attempt gets a reply or a failure, and the request
ends as exactly one outcome. See docs/design.md, "Words".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

AttemptKind = Literal["first", "retry", "repair"]
"""Why an exchange was made: the first for its key in this run, a retry, or a repair of an invalid answer."""

AttemptResult = Literal[
    "ok", "truncated", "invalid", "refused", "rejected", "rate_limited", "unavailable", "fatal", "lost"
]
"""How one exchange ended, as stored in `attempts.result`."""

Status = Literal["ok", "truncated", "invalid", "refused", "rejected", "failed"]
"""How a key ended, as stored in `outcomes.status`; a row without an outcome is `pending`."""

CountMethod = Literal["exact", "formula", "approximate"]
"""How a token count was made: see `pipeline.tokens`."""

Message = Mapping[str, Any]
"""One chat message in the dialect-neutral form: at least `role` and `content`, as JSON."""


class Row(NamedTuple):
    """A line of the dataset, values exactly as they stand in the file."""

    index: int  # type: ignore[assignment]  # of the row; a tuple's own `index` is not wanted here
    """0-based position among all rows of the input, before `where` and `limit`."""
    id: str
    """What people call the row: the id column's value as text, else the 1-based row number."""
    values: Mapping[str, Any]
    origin: str
    """`file:line` for text formats, `file#row` (1-based) for Parquet; for messages only."""


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A line that could not be read as a row; with `bad_rows = "reject"` it is booked as a rejected row."""

    index: int
    id: str
    origin: str
    problem: str
    """One sentence without the line's content."""
    digest: str
    """BLAKE2b-128 of the raw bytes, hex: what identifies the line in the ledger."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about the model that shapes an answer, plus `max_tokens`, which only bounds it."""

    provider: str
    name: str
    base_url: str | None = None
    """Only when the job overrides the preset's address."""
    max_tokens: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters the user set (temperature, top_p, seed, ...); unset ones are absent."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Passed through to the request body as they are."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema the answer must satisfy."""
    structured_output: str | None = None
    """How the provider is asked for the schema, when the job chose; None is the provider's own way."""


class Request(NamedTuple):
    """A rendered row, ready to send. Equal keys mean equal content, so one request serves all its rows."""

    key: str
    """`v1` + 32 hex digits; see `pipeline.prompts`."""
    messages: tuple[Message, ...]


class Usage(NamedTuple):
    """Tokens the provider says it billed, in one normal form. Never our own count.

    `input_tokens` includes cached and cache-write tokens; `output_tokens` includes reasoning tokens.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    raw: Mapping[str, Any] = MappingProxyType({})
    """The provider's own usage object, untouched."""
    cache_write_1h_tokens: int = 0
    """Those of `cache_write_tokens` that were written for an hour, not for five minutes."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A limit as headers name it, and what is left of it."""

    limit: float
    reset_seconds: float
    """Until the limit is fresh again, in the server's own sense: see docs/providers.md."""
    remaining: float | None = None


@dataclass(frozen=True, slots=True)
class RateHint:
    """What an answer says about the server's limits, apart from how long to wait."""

    requests: Allowance | None = None
    tokens: Allowance | None = None
    at_once: bool = False
    """The server limits how many requests it works on at the same time."""


class Reply(NamedTuple):
    """What a provider answered, decoded. It may still be cut off, refused or invalid: `finish` says."""

    text: str | None
    finish: Literal["stop", "length", "refused", "other"]
    finish_reason: str | None
    """The provider's own word, stored as it came."""
    usage: Usage | None
    model: str | None = None
    """The model that answered, in the provider's words (may differ from the one asked)."""
    request_id: str | None = None
    reasoned: bool = False
    """Reasoning text or reasoning tokens came with the reply."""
    hint: RateHint | None = None
    billed_usd: Decimal | None = None
    """What the provider says it charged; None where it says nothing."""
    odd_usage: Mapping[str, Any] | None = None
    """The provider's own usage object where no `usage` could be made of it."""
    reasoned_beyond_usage: bool = False
    """Of a cut-off answer: more was thought than the output tokens of its `usage` can hold."""


CONTEXT_FULL = "context_full"
"""The `error_type` of an answer that a higher max_tokens would not make longer."""


class Failure(NamedTuple):
    """An exchange that brought no answer, and what the caller should do about it."""

    action: Literal["retry", "reject", "pause"]
    """retry: send again later; reject: this row will never pass; pause: no row will, stop the run."""
    result: Literal["rejected", "refused", "rate_limited", "unavailable", "fatal"]
    error_type: str
    """A stable machine-readable name: the provider's error code where it gave one, else ours."""
    message: str
    """One line for people; never contains a secret."""
    http_status: int | None = None
    wait_seconds: float | None = None
    """How long the server asked us to wait, if it did."""
    closes_door: bool = False
    """Everybody must wait, not only this request (rate limits). Does not use up the row's attempts."""
    cost_unknown: bool = False
    """The provider may have billed for this exchange (e.g. a time-out after sending)."""
    not_sent: bool = False
    """The request never reached the provider (no connection)."""
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
    hint: RateHint | None = None
    billed_usd: Decimal | None = None
    """What the provider says it charged; None where it says nothing."""
    pause: Literal["credit", "key", "fatal", "rate_limited", "unavailable"] = "fatal"
    """Of an action `pause`: the run's `pause_kind`."""
    perhaps_its_row: bool = False
    """Of an action `pause`: only the status says so, and others may pass all the same."""


class HttpRequest(NamedTuple):
    """What a provider's translator makes of a request: bytes for the wire."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Show neither headers nor body: one of them holds the key."""
        return f"HttpRequest(url={self.url!r})"


class WireReply(NamedTuple):
    """Bytes that came back. Header names are lower case; of repeated headers the first counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Show neither headers nor body: a server may echo the key."""
        return f"WireReply(status={self.status!r})"


class TokenCount(NamedTuple):
    """Input tokens of one request, and how sure the number is."""

    tokens: int
    method: CountMethod
    bound: int
    """A number the provider's own count can't exceed: equal to `tokens` where the method is `exact`,
    else derived from UTF-8 bytes."""


class Attempt(NamedTuple):
    """One exchange with the provider for a key, as the journal and `attempts` keep it."""

    key: str
    attempt: int
    """1 for the key's first exchange in this run, then 2, 3, ..."""
    kind: AttemptKind
    result: AttemptResult
    sent_at: float
    """Epoch seconds."""
    latency_ms: float
    reserved_usd: Decimal | None
    """Upper bound of the cost; None where the price or max_tokens is unknown."""
    computed_usd: Decimal | None
    """Usage times price; None is unknown, never free."""
    billed_usd: Decimal | None = None
    """What the provider says it charged."""
    price_id: str | None = None
    """The price in force when the request was sent."""
    http_status: int | None = None
    model_returned: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    request_id: str | None = None
    error_type: str | None = None
    error: str | None = None
    output: str | None = None
    """The answer's text, as received."""
    parsed: Any = None
    """The answer as JSON, when a schema was asked for and the text is JSON."""
    odd_usage: Mapping[str, Any] | None = None
    """The provider's own usage object where no `usage` could be made of it."""

    @property
    def cost_usd(self) -> Decimal | None:
        """What is booked: what was billed goes before what was computed; None is unknown."""
        return self.computed_usd if self.billed_usd is None else self.billed_usd


class Outcome(NamedTuple):
    """How a key ended in a run. Exactly one per key and run."""

    key: str
    status: Status
    attempts: int
    """Exchanges made for the key in this run."""
    answer_run: int | None = None
    """The run whose attempt brought the answer: this one, or an earlier one whose answer is reused."""
    answer_attempt: int | None = None
    max_tokens: int | None = None
    """The limit the answer was asked under; None is none."""
    reused: bool = False
    error_type: str | None = None
    error: str | None = None


def takes_the_place(result: str, output: str | None) -> bool:
    """Tell whether a repair's answer goes before the one it was to repair: it is whole, and there is something in it.

    A cut-off answer, a refusal or silence is worse than a whole answer that doesn't fit.
    """
    return result in {"ok", "invalid"} and bool(output and output.strip())
