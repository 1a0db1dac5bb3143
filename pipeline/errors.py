"""Every exception this package raises, on one page.

    PromptmillError
     |- UserError               a mistake found before any request was sent: exit 2, no traceback
     |   |- UsageError          a wrong option or argument
     |   |- JobFileError        the job file: unknown key, wrong type, missing value
     |   |- InputError          the dataset: missing, empty, broken line
     |   |   |- MissingColumn   a row has no column that the prompt names
     |   |- PriceError          a price that is not a price, or is needed and unknown
     |   |- LedgerError         the ledger or a journal can't be used
     |       |- LedgerBusy      another process holds it
     |- RunPaused               the run can't go on now; the same command goes on later: exit 4
     |   |- RunStopped          somebody asked for it before it has begun
     |   |   |- RunDeclined     who was asked with its estimate said no
     |   |- BudgetExhausted
     |- WireError               an exchange failed below HTTP

A failure of a request is not an exception but a value, `records.Failure`: it becomes a row in the ledger.
"""

import difflib
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Self

PauseKind = Literal[
    "stopped", "time", "budget", "bill", "credit", "key", "fatal", "unavailable", "rate_limited", "rejections",
    "answers", "input", "disk", "ledger", "bug",
]  # fmt: skip
"""What made a run pause, for scripts: docs/cli.md says what each means."""


class Pause(NamedTuple):
    """Why a run lets nothing more out."""

    kind: PauseKind
    why: str
    """A clause for people: what happened, and often what helps."""


def condition_of(kind: str | None) -> str:
    """Say when or how the same command brings a run further that paused for this; empty: at once, as it is."""
    if kind in {None, "stopped"}:  # None: an older promptmill didn't say
        return ""
    return {
        "time": "with a later --until, or none",
        "budget": "with a higher budget",
        "answers": "with --set stop.invalid_share=1",
        "rejections": "when the job is put right, or with --set stop.same_rejections=0",
    }.get(kind, "when that is over or put right")


class PromptmillError(Exception):
    """Base of all of them; its text is written for the person at the keyboard."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process whatever the constructor takes."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[PromptmillError], arguments: tuple[Any, ...], facts: dict[str, Any]) -> PromptmillError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(facts)
    return error


class UserError(PromptmillError):
    """Something the user can put right. The text says what happened, where, and what to do next."""


class UsageError(UserError):
    """A wrong option or argument."""


class JobFileError(UserError):
    """The job file can't be used."""


class InputError(UserError):
    """The dataset can't be used."""


class MissingColumn(InputError):
    """A row has no column that the prompt names."""

    def __init__(self, said: str, guess: str, cure: str = "") -> None:
        """Say what is missing; apart from it what may be meant if no row has it, and what helps if others have it."""
        super().__init__(said + guess)
        self.said, self.cure = said, cure


class PriceError(UserError):
    """A price is missing where it is needed, or is not a price."""


class LedgerError(UserError):
    """The ledger or a journal can't be used."""


class LedgerBusy(LedgerError):
    """Another process holds the ledger or runs the job."""

    def __init__(self, holder: str, cure: str = "") -> None:
        """Say who holds what, and apart from it what to do when waiting has not helped."""
        super().__init__(f"{holder}; {cure}" if cure else holder)
        self.holder = holder


class RunPaused(PromptmillError):
    """The run stopped letting requests out; nothing is lost and the same command goes on."""

    kind: PauseKind = "disk"


PAUSED, LEFT = 4, 130
"""Exit codes of runs that did not go to their ends: the second was left before all was home, or in the ledger."""
STOP_REQUEST = "a stop request"
"""What stops a run that is neither Ctrl-C nor a closed terminal."""


class RunStopped(RunPaused):
    """Somebody asked for it before the run had begun."""

    kind = "stopped"

    @classmethod
    def before_sending(cls, by: str = STOP_REQUEST) -> Self:
        """Return the error that says what stopped it."""
        return cls(f"stopped by {by} before anything was sent")


class RunDeclined(RunStopped):
    """Who was asked with the run's estimate said no."""


class BudgetExhausted(RunPaused):
    """The next request's worst case does not fit into what is left of the budget."""

    kind = "budget"


def pause_of(error: PromptmillError) -> Pause:
    """Say what a run that meets this error has to tell."""
    if isinstance(error, RunPaused):
        return Pause(error.kind, str(error))
    if isinstance(error, InputError):
        return Pause("input", str(error))
    if isinstance(error, LedgerError):
        return Pause("ledger", str(error))
    return Pause("unavailable", str(error))  # a model on this machine that doesn't start


class WireError(PromptmillError):
    """An exchange failed below HTTP."""

    def __init__(
        self,
        kind: Literal["connect", "tls", "timeout", "broken", "too_large", "bad_request"],
        message: str,
        *,
        maybe_sent: bool,
    ) -> None:
        """Say what broke and whether the provider may have received (and billed) the request."""
        super().__init__(message)
        self.kind = kind
        self.maybe_sent = maybe_sent


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'X'?` for the choice nearest to the word, or nothing: the end of many messages."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
