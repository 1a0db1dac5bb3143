"""What answers and bills show that a job did not expect: a server set up otherwise, a bound that does not hold."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

from pipeline.budget import dollars
from pipeline.doorman import Ticket
from pipeline.errors import Pause
from pipeline.notices import Notify
from pipeline.records import Attempt, Usage

CUT_SHARE, LONG_TOKENS, CUT_TOLD, MOST_LENGTHS = 0.95, 300, 5, 1000
"""Prompts that a server cut: to less than this share of so many tokens, so many times to the same length; of so many
lengths it is looked."""
FAR_SHARE, VARIED = 0.6, 1.1
"""That is known where it is less than this share, or where the longest had so many times the tokens of the shortest."""
BILLS_MISSED = 5
"""So many answers in a row from the first on that don't say what they cost, though they should, are worth a word."""
DEARER, MOST_USD = 1.02, 1e6
"""So much more than computed, and no absurd number, is a cost worth a word that an answer states and nobody reads."""
COUNTED_OTHERWISE = 2
"""So many output tokens beyond max_tokens are a matter of counting: servers differ about those that end an answer."""


class _Lengths(NamedTuple):
    """What was counted of requests that have one and the same length by the server."""

    times: int
    least: int
    most: int
    told: bool = False


class Oddities:
    """Looks at every exchange; says once what the user should know, and stops a run whose budget can't be held."""

    def __init__(
        self,
        *,
        max_tokens: int | None,
        free: bool,
        capped: bool,
        tells_costs: bool,
        notify: Notify,
        stop: Callable[[Pause], None],
    ) -> None:
        """Take what the job expects: `free` by the price, `capped` by a budget, answers that say what they cost."""
        self._max_tokens, self._capped = max_tokens, capped
        self._most_output = None if max_tokens is None or free else max_tokens + COUNTED_OTHERWISE
        self._notify, self._stop = notify, stop
        self._thoughts_told = False
        self._bills_missed = 0 if tells_costs else None
        """Answers so far that don't say what they cost; None: one did, or nobody expects it."""
        self._costs_unread = not tells_costs
        """Nobody has said where an answer says what it cost, nor heard yet that it does."""
        self._cut: dict[int, _Lengths] = {}
        """How many requests were so long by the server, of those that it says were far shorter than what was sent."""
        self._longest = 0
        """Input tokens of the longest request, by the server."""

    def look_at(self, ticket: Ticket, attempt: Attempt) -> None:
        """Look at an exchange that is on file."""
        self._watch_bill(ticket, attempt)
        usage, output = attempt.usage, attempt.output
        if self._bills_missed is not None and output is not None:
            self._watch_what_it_says_it_cost(attempt)
        if usage is not None:
            self._longest = max(self._longest, usage.input_tokens)
            if usage.input_tokens < CUT_SHARE * ticket.input_tokens > LONG_TOKENS:
                self._perhaps_cut(usage.input_tokens, ticket.input_tokens)
            if self._costs_unread and "cost" in usage.raw:
                self._watch_what_nobody_reads(usage, attempt.computed_usd)
        if not self._thoughts_told and output is not None and _thinks(output):
            self._thoughts_told = True
            self._notify(
                "answers begin with <think>, or hold </think>: the model's thoughts are kept as a part of them; let the"
                " server take them apart (vLLM: --reasoning-parser), if they should not be"
            )

    def _watch_what_it_says_it_cost(self, attempt: Attempt) -> None:
        """Say once that answers lack what was charged for them, though a job says where it stands."""
        missed = self._bills_missed = None if attempt.billed_usd is not None else (self._bills_missed or 0) + 1
        if missed == BILLS_MISSED:
            self._bills_missed = None
            self._notify(
                f"the first {BILLS_MISSED} answers don't say what they cost where [model] billed_cost_path has it, or"
                " not as an amount of dollars: their costs are computed from the price, and unknown without one"
            )

    def _watch_what_nobody_reads(self, usage: Usage, computed: Decimal | None) -> None:
        """Say once that the provider says of itself that it charges more than the price: then the bill is that."""
        path, said = "usage.cost", usage.raw["cost"]
        if isinstance(said, Mapping):
            path, said = "usage.cost.total_cost", said.get("total_cost")
        if not isinstance(said, int | float) or isinstance(said, bool) or not 0 < said < MOST_USD:
            return
        if computed is not None and said <= DEARER * float(computed):
            return
        self._costs_unread = False
        by_price = "no price is known" if computed is None else f"by the price it is {dollars(computed)}"
        self._notify(
            f"an answer says that it cost {said:g} ({path}), and {by_price}: if these are dollars, [model]"
            f' billed_cost_path = "{path}" books and caps what the provider charges'
        )

    def _perhaps_cut(self, billed: int, counted: int) -> None:
        """Hear of a request of which the server says that it was far shorter than what was sent.

        Some servers (Ollama) cut a prompt at their context without a word: then many have one and the same length.
        """
        found = self._cut.get(billed)
        if found is None:
            if len(self._cut) < MOST_LENGTHS:
                self._cut[billed] = _Lengths(1, counted, counted)
            return
        found = self._cut[billed] = found._replace(
            times=found.times + 1, least=min(found.least, counted), most=max(found.most, counted)
        )
        if found.told or found.times < CUT_TOLD or billed < self._longest:
            return
        # Another tokenizer may count all of them as so many more; it makes one number of different lengths for nobody.
        if billed < FAR_SHARE * counted or found.most >= VARIED * found.least:
            self._cut[billed] = found._replace(told=True)
            self._notify(
                f"{CUT_TOLD} requests had exactly {billed:,} input tokens by the server, though up to {counted:,} were"
                " counted: does it cut prompts to its context (Ollama: num_ctx)? Then these answers are to a part of"
                " what was asked"
            )

    def _watch_bill(self, ticket: Ticket, attempt: Attempt) -> None:
        """Pause when an exchange costs more than its worst case, or has more output: the cap can't hold then."""
        cost, worst_case, usage = attempt.cost_usd, attempt.reserved_usd, attempt.usage
        if self._capped and cost is not None and worst_case is not None and cost > worst_case:
            why = (
                f"an attempt cost {dollars(cost)}, and could cost {dollars(worst_case)} at most: the budget can't be"
                f" held; {self._dearer_by(ticket, attempt, worst_case)}"
            )
            self._stop(Pause("bill", why))
        elif self._most_output is not None and usage is not None and usage.output_tokens > self._most_output:
            self._watch_length(usage)

    def _dearer_by(self, ticket: Ticket, attempt: Attempt, worst_case: Decimal) -> str:
        """Say what broke the bound: the answer's length, the input's, or the price."""
        usage, computed = attempt.usage, attempt.computed_usd
        if usage is None or computed is None or computed <= worst_case:
            said = "nothing" if computed is None else dollars(computed)
            return f"the provider says what it charged, and by the price it is {said}; is the price right?"
        if self._most_output is not None and usage.output_tokens > self._most_output:
            return f"{self._length(usage)}; does this provider honour max_tokens?"
        return (
            f"it was billed for {usage.input_tokens:,} input tokens, and {ticket.input_tokens:,} were counted;"
            " does this provider add to what it is sent? Then the next run sets so much more aside"
        )

    def _length(self, usage: Usage) -> str:
        thought = f", {usage.reasoning_tokens:,} of them for reasoning" if usage.reasoning_tokens else ""
        return f"an answer has {usage.output_tokens:,} output tokens{thought}, and max_tokens is {self._max_tokens:,}"

    def _watch_length(self, usage: Usage) -> None:
        """Hear of an answer beyond max_tokens. Its dollars may fit: the input's bound is often far from its tokens."""
        said = self._length(usage)
        if self._capped:
            why = f"{said}: the budget can't be held; does this provider honour max_tokens?"
            self._stop(Pause("bill", why))
            return
        self._most_output = None  # told once
        self._notify(f"{said}: the run may cost more than was estimated; does this provider honour max_tokens?")


def _thinks(output: str) -> bool:
    """Tell whether a text holds a model's thoughts; a chat's template may have begun them."""
    return output.startswith("<think>") or "</think>" in output
