"""What happens to one request: one exchange, what it means, and what comes next. Free of where it runs."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from pipeline.doorman import Limits, Ticket
from pipeline.errors import Pause, WireError
from pipeline.health import unreachable
from pipeline.ledger import OpenAnswer
from pipeline.planning import Meter
from pipeline.pricing import Price, cost_usd
from pipeline.providers import Provider, failure_from_wire
from pipeline.records import (
    CONTEXT_FULL,
    Attempt,
    AttemptResult,
    Failure,
    ModelSpec,
    Outcome,
    Reply,
    Request,
    Status,
    takes_the_place,
)
from pipeline.retry import RetryPolicy
from pipeline.runners._connection import Connection
from pipeline.schemas import AnswerCheck
from pipeline.suspects import HONEST, Standing
from pipeline.wire import Wire


class Done(NamedTuple):
    """The request has its outcome."""

    outcome: Outcome


class Again(NamedTuple):
    """The request goes out once more, after a wait outside the door."""

    ticket: Ticket
    wait_seconds: float
    shuts_door: bool = False
    """A rate limit or an outage: everybody waits, not only this request."""
    queue: Literal["first", "second", "apart", "own", "alone"] = "first"
    """Where it waits: ahead of fresh rows, behind one other, where it keeps nobody waiting, for itself, or until it has
    the server to itself."""


class Halt(NamedTuple):
    """No request will pass now: pause the run and leave this row pending."""

    pause: Pause


Step = Done | Again | Halt


@dataclass(frozen=True, slots=True)
class Exchanger:
    """Everything one request needs to become an answer."""

    run_id: int
    spec: ModelSpec
    provider: Provider
    connection: Connection
    wire: Wire
    meter: Meter
    policy: RetryPolicy
    check: AnswerCheck | None = None
    repair: int = 0
    limits: Limits = field(default_factory=Limits)
    """What no request may exceed, a repair neither."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What no message of the run may hold."""

    async def send(self, ticket: Ticket) -> tuple[Attempt, Reply | Failure]:
        """Make one exchange. Transport errors come back as a Failure, never as an exception."""
        target = await self.connection.endpoint()
        secrets = () if target.api_key is None else (target.api_key,)
        request = self.provider.encode(self.spec, ticket.request, base_url=target.base_url, api_key=target.api_key)
        sent_at, start = time.time(), time.monotonic()
        status: int | None = None
        result: Reply | Failure
        try:
            reply = await self.wire.post(request.url, request.headers, request.body)
        except WireError as error:
            result = failure_from_wire(error, secrets=secrets)
        else:
            status = reply.status
            result = self.provider.decode(reply, now=time.time(), secrets=secrets, spec=self.spec)
        latency_ms = (time.monotonic() - start) * 1000
        return self._attempt(ticket, result, sent_at=sent_at, latency_ms=latency_ms, status=status), result

    def _attempt(
        self, ticket: Ticket, result: Reply | Failure, *, sent_at: float, latency_ms: float, status: int | None
    ) -> Attempt:
        price = self.meter.price_at(sent_at)
        judged: AttemptResult
        error_type: str | None
        error: str | None
        output, parsed, finish_reason, odd_usage = None, None, None, None
        if isinstance(result, Failure):
            judged, error_type, error = result.result, result.error_type, result.message
        else:
            judged, error_type, error, parsed = judge(result, self.check, self.spec.max_tokens)
            output, finish_reason, odd_usage = result.text, result.finish_reason, result.odd_usage
        # By position: names would cost every answer half a microsecond.
        return Attempt(
            ticket.request.key,
            ticket.attempt,
            ticket.kind,
            judged,
            sent_at,
            round(latency_ms, 3),
            None if self.meter.charged else ticket.reserve_usd,
            _computed(price, result, sent_at, charged=self.meter.charged),
            result.billed_usd,
            None if price is None else price.price_id,
            status,
            result.model,
            finish_reason,
            result.usage,
            result.request_id,
            error_type,
            error,
            output,
            parsed,
            odd_usage,
        )

    def next_step(
        self,
        ticket: Ticket,
        attempt: Attempt,
        result: Reply | Failure,
        *,
        streak: int,
        jitter: float,
        outage: int = 0,
        standing: Standing = HONEST,
        turned_away: bool = False,
        held: bool = False,
        broke_with_others: bool = False,
    ) -> Step:
        """Decide what comes after an exchange. `streak` counts rate-limited exchanges in a row, over all rows.

        `outage` counts probes of a provider that is down: such a failure uses up no row's attempts, and neither does
        one that was `turned_away` for lack of room. `standing` is what the door says of a 429. `held`: others pass
        where this one did not, so it is the row's. `broke_with_others`: one of them may be to blame.
        """
        if isinstance(result, Failure):
            if outage:
                return _before_the_door(ticket, self.policy.wait_for_probe(outage, result, jitter))
            if standing.given_up is not None or standing.hopeless is not None:
                return self._never_passes(ticket, attempt, standing)
            if result.closes_door:
                return after_refusal(self.policy, ticket, result, standing, streak=streak, jitter=jitter)
            return self._after_failure(
                ticket, attempt, result, jitter, turned_away=turned_away, held=held, broke_with_others=broke_with_others
            )
        if attempt.result == "invalid" and ticket.repairs < self.repair:
            return self._repaired(ticket, attempt)
        return Done(self._outcome(ticket, attempt, _status_of(attempt.result)))

    def _never_passes(self, ticket: Ticket, attempt: Attempt, standing: Standing) -> Step:
        if standing.given_up is None:
            return Halt(Pause("rate_limited", f"{standing.hopeless}. It says: {attempt.error}"))
        advice = (
            f"a quota may be too small for its {ticket.tokens:,} tokens (input + max_tokens). A shorter row, a smaller"
            " max_tokens or a larger quota helps; `promptmill retry JOB --status rejected` tries again"
        )
        outcome = self._outcome(ticket, attempt, "rejected")
        if outcome.status != "rejected":  # a repair that never passes: the answer before it stays
            return Done(outcome._replace(error=f"{outcome.error}; {standing.given_up}"))
        error = f"{standing.given_up}; {advice}. It says: {attempt.error}"
        return Done(outcome._replace(error_type="never_passes", error=error))

    def _after_failure(
        self,
        ticket: Ticket,
        attempt: Attempt,
        failure: Failure,
        jitter: float,
        *,
        turned_away: bool,
        held: bool,
        broke_with_others: bool,
    ) -> Step:
        if failure.action == "pause" and not held:
            return Halt(Pause(failure.pause, failure.message))
        if failure.action != "retry":
            status: Status = "refused" if failure.result == "refused" else "rejected"
            return Done(self._outcome(ticket, attempt, status))
        again, tries = ticket._replace(attempt=ticket.attempt + 1, kind="retry"), ticket.tries + 1
        wait: float | None
        if turned_away:
            again = again._replace(turned_away=ticket.turned_away + 1)
            wait = self.policy.wait_for_room(again.turned_away, failure, jitter)
        else:
            again = again._replace(tries=tries)
            wait = self.policy.wait_before(tries, failure, jitter)
        if wait is not None:  # a full server must not keep fresh rows from being tried
            return Again(again, wait, queue="own" if turned_away else "first")
        if failure.not_sent:
            return Halt(unreachable(failure))  # no fault of this row, and the next ones would fare no better
        if broke_with_others and not ticket.alone:
            wait = self.policy.wait_for_suspect(tries, failure, jitter)
            return Again(again._replace(alone=True), wait, queue="alone")
        return Done(self._outcome(ticket, attempt, "failed"))

    def _repaired(self, ticket: Ticket, attempt: Attempt) -> Step:
        """Send an answer back to the model, unless a stated limit never lets that through: it is the longer request."""
        repair = self._repair_ticket(ticket, attempt)
        never = self.limits.never_fits(repair.tokens)
        if never is None:
            return Again(repair, 0.0)
        outcome = self._outcome(ticket, attempt, "invalid")
        return Done(outcome._replace(error=f"{outcome.error}; it can't be repaired: {never}"))

    def _repair_ticket(self, ticket: Ticket, attempt: Attempt) -> Ticket:
        first = ticket.answered_attempt
        better = first is None or takes_the_place(attempt.result, attempt.output)
        return self._complaint(ticket.request, attempt.output, attempt.error)._replace(
            attempt=ticket.attempt + 1,
            repairs=ticket.repairs + 1,
            answered_attempt=ticket.attempt if better else first,
            answered_run=None if better else ticket.answered_run,
        )

    def repair_of(self, request: Request, answer: OpenAnswer) -> Ticket:
        """Ask for the repair of an answer that an earlier run left open: it is paid for, and not asked for again."""
        return self._complaint(request, answer.output, answer.error)._replace(
            repairs=answer.repairs + 1, answered_attempt=answer.attempt, answered_run=answer.run_id
        )

    def _complaint(self, request: Request, output: str | None, error: str | None) -> Ticket:
        """Show the model its answer and what is wrong with it; filed under the row's key."""
        complaint = f"That answer is not valid: {error}. Answer again with nothing but the corrected JSON."
        messages = (
            *request.messages,
            {"role": "assistant", "content": output or ""},
            {"role": "user", "content": complaint},
        )
        return self.meter.ticket(Request(request.key, messages))._replace(kind="repair")

    def _outcome(self, ticket: Ticket, attempt: Attempt, status: Status) -> Outcome:
        answer, answer_run = ticket.attempt if attempt.output is not None else None, self.run_id
        error = attempt.error
        if ticket.answered_attempt is not None and not takes_the_place(attempt.result, attempt.output):
            answer, status, answer_run = ticket.answered_attempt, "invalid", ticket.answered_run or self.run_id
            error = f"the answer doesn't fit, and its repair brought nothing better: {error}"
        return Outcome(
            key=ticket.request.key,
            status=status,
            attempts=ticket.attempt,
            answer_run=answer_run if answer is not None else None,
            answer_attempt=answer,
            max_tokens=self.spec.max_tokens,
            error_type=attempt.error_type,
            error=error,
        )


def after_refusal(
    policy: RetryPolicy, ticket: Ticket, failure: Failure, standing: Standing, *, streak: int, jitter: float
) -> Again:
    """Say when a row goes out again that was refused: with everybody, or alone if the 429 says nothing of others."""
    if standing.apart or standing.by_chance:
        wait = policy.wait_for_suspect(standing.refusals, failure, jitter)
        again = ticket._replace(attempt=ticket.attempt + 1, kind="retry")
        return Again(again, wait, queue="apart" if standing.apart else "own")
    with_all = _before_the_door(ticket, policy.wait_for_door(streak, failure, jitter))
    return with_all._replace(queue="second" if standing.steps_back else "first")


def _before_the_door(ticket: Ticket, wait_seconds: float) -> Again:
    """Nobody passes now, and that is no fault of this row."""
    return Again(ticket._replace(attempt=ticket.attempt + 1, kind="retry"), wait_seconds, shuts_door=True)


def _computed(price: Price | None, result: Reply | Failure, sent_at: float, *, charged: bool) -> Decimal | None:
    """Usage times price; nothing for a failure that can't have been billed, at any price; else unknown.

    Without usage a free model's answer costs nothing either, unless it is `charged` for.
    """
    if isinstance(result, Failure) and result.usage is None and not result.cost_unknown:
        return Decimal(0)
    if price is None:
        return None
    if result.usage is not None:
        return cost_usd(price, result.usage, at=datetime.fromtimestamp(sent_at, UTC) if price.windows else None)
    return Decimal(0) if price.is_free and not charged else None


_AT_A_LIMIT = frozenset(
    {
        "length",
        "max_tokens",
        "max_length",
        "model_length",
        "model_context_window_exceeded",
        "context_window_exceeded",
        "context_length_exceeded",
        "max_output_tokens",
        "token_limit",
        "incomplete",
    }
)
_FULL, _FEW = 0.9, 16
"""So large a share of max_tokens, or all but so many of them, may well be all of them."""
_CUT_OFF = {
    "length": ("max_tokens", "the answer was cut off at max_tokens; raise it and run again"),
    "repetition": (
        "repetition",
        "the server ended an answer that repeated itself; another temperature or prompt helps",
    ),
}
"""Type and text of the error, by the server's reason to stop."""
_ONLY_REASONING = (
    "max_tokens",
    "the answer holds nothing but reasoning; a larger max_tokens helps if that used it up",
)
_THOUGHTS = "; it holds <think>: let the server take the reasoning apart (vLLM: --reasoning-parser)"
_STATUSES: dict[AttemptResult, Status] = {
    "ok": "ok",
    "truncated": "truncated",
    "invalid": "invalid",
    "refused": "refused",
}


def _status_of(result: AttemptResult) -> Status:
    return _STATUSES[result]


def judge(
    reply: Reply, check: AnswerCheck | None, max_tokens: int | None = None
) -> tuple[AttemptResult, str | None, str | None, Any]:
    """Say what a reply is worth: (result, error type, error, parsed). A cut-off answer is never a success."""
    if reply.finish == "refused":
        return "refused", "refused", f"the model or its filter refused (finish_reason {reply.finish_reason})", None
    if reply.finish == "length":
        return "truncated", *_cut_off(reply, max_tokens), None
    if not reply.text or reply.text.isspace():
        return "invalid", "empty_answer", f"the answer is empty (finish_reason {reply.finish_reason})", None
    if reply.text.startswith("<think>") and _says_nothing_else(reply.text):
        return "truncated", *_ONLY_REASONING, None
    parsed, problem = (None, None) if check is None else check.check(reply.text)
    if problem is None:
        return "ok", None, None, parsed
    return "invalid", "schema", problem + (_THOUGHTS if "</think>" in reply.text else ""), parsed


def _says_nothing_else(thoughts: str) -> bool:
    """Tell whether nothing follows a model's thoughts, or they begin on a line of their own and never end."""
    _, ended, said = thoughts.partition("</think>")
    if not ended:
        return thoughts.partition("<think>")[2][:1] in {"", "\n", "\r"}
    while said.lstrip().startswith("<think>"):
        said = said.partition("</think>")[2]
    return not said.replace("</think>", "").strip()


def _cut_off(reply: Reply, max_tokens: int | None) -> tuple[str, str]:
    """Say what cut an answer off: max_tokens, unless the answer, with what was thought, is clearly shorter."""
    reason, usage = (reply.finish_reason or "length").lower().partition(":")[0].strip(), reply.usage
    if reason not in _AT_A_LIMIT:
        return _CUT_OFF.get(reason, _ONLY_REASONING)
    if usage is None or reply.reasoned_beyond_usage or _may_be_full(usage.output_tokens, max_tokens):
        return _CUT_OFF["length"]
    so_many = f"after {usage.output_tokens:,} tokens, behind {usage.input_tokens:,} of the prompt"
    if max_tokens is None:
        return (
            "max_tokens",
            f"the answer was cut off {so_many}: by the server's own limit, as max_tokens is not set",
        )
    return CONTEXT_FULL, (
        f"the answer was cut off {so_many}, and max_tokens is {max_tokens:,}: the model's context was full, or the"
        " server has a limit of its own. Shorter rows or a longer context help (vLLM: --max-model-len, Ollama: num_ctx)"
    )


def _may_be_full(tokens: int, max_tokens: int | None) -> bool:
    """Tell whether an answer of so many tokens may have been cut off by max_tokens; servers count a bit otherwise."""
    return max_tokens is not None and (tokens >= _FULL * max_tokens or max_tokens - tokens <= _FEW)
