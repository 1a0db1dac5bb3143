"""When going on makes no sense: the provider is down, the job is wrong, or its answers are worth nothing.

A run tells what each exchange brought; what it hears back is a value. Pure: no clock, no I/O. Money and rates are
watched elsewhere (budget.py, doorman.py).
"""

import re
from collections import deque
from dataclasses import dataclass, replace

from pipeline.errors import Pause
from pipeline.records import Failure, Outcome, Reply, Status

PASSED_BY = 2
"""So often must others get something between two failures of a row to show that it fails on its own account."""
OUTAGE_SECONDS = 60.0
"""After so long without anything else fewer than one row per slot are enough: a rate may keep most slots empty."""
LEAST_CROWD, CROWD_SHARE = 200, 0.2
"""From so many requests on, so large a share of server errors among answers is told, with what may help."""
OUTAGES_TOLD = 10
"""So many outages of a run are told."""
REFUSED_SECONDS = 3600.0
"""So long may a rate limit refuse everybody until the user should know. A quota by the day does, and is waited for."""
LATE_REJECTIONS = 100
"""So many equal rejections in a row, after others were answered, are not the rows' fault: the server began anew."""
ROWS_OWN = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large", "http_413"})
"""Reasons that are: rows may be sorted by their length."""
LEAST_ANSWERS = 50
"""Before that many answers their quality says nothing about the job."""
RECENT_ANSWERS = 1000
_WORTHLESS: tuple[Status, ...] = ("invalid", "truncated")
_ANSWERED: tuple[Status, ...] = ("ok", *_WORTHLESS)


@dataclass(frozen=True, slots=True)
class StopRules:
    """When a run pauses by itself, beside a budget that is used up and errors that no row can pass.

    | field | a run pauses |
    | --- | --- |
    | invalid_share | when more than this share of its answers is `invalid` or `truncated`; 1 is never |
    | same_rejections | when its first so many requests are all rejected for the same reason; 0 is never |
    | outage_minutes | when a provider that had answered has been down so long |

    `outage_rows` different rows must fail with nothing else between for the provider to be down; one per slot if that
    is more. Fewer rows use up their attempts instead: two bad rows at a dataset's end are not an outage. 0: no row's
    failure ever means that.
    """

    invalid_share: float = 0.5
    same_rejections: int = 10
    outage_minutes: float = 5.0
    outage_rows: int = 8


@dataclass(frozen=True, slots=True)
class Heard:
    """What one exchange means for the others."""

    hold: bool = False
    """A rejection that is perhaps the job's fault: its row must not be booked as rejected yet."""
    release: bool = False
    """The rows held back so far were rejected on their own account."""
    doubt: bool = False
    """A row's last failure that is perhaps the provider's fault: it must not be booked as failed yet."""
    alive: bool = False
    """Something else than such a failure came back: those in doubt so far were their rows' own."""
    outage: int = 0
    """Not 0: the provider is down, and this failure is not its row's fault. Probes so far, from 1."""
    pause: Pause | None = None
    """Why the run must pause now."""
    notice: str | None = None
    """What the user should know."""


@dataclass(slots=True)
class _Failures:
    """What happened between the failures of a row."""

    spoke: int
    """The provider's other exchanges up to the newest."""
    passed_by: int = 0
    """Times that there were some since the one before."""


_MINUTE = 60
_ALL_WELL = Heard(release=True, alive=True)
_OFFER = re.compile(r"[-@:]latest$|:[^\W\d]+$")
"""What a name ends with that says which offer of a model is asked for: `-latest`, or OpenRouter's `:free`.

Not Ollama's `:8b`: that is another model."""
_WORD = re.compile(r"[^\W\d_]+|\d+")
_UNIQUE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[^\W_]*\d[^\W_]*", re.IGNORECASE)
"""What a code holds that may be of this request alone: a UUID, a part with a digit."""
_LOADING = re.compile(r"\bloading\b", re.IGNORECASE)
"""llama.cpp, and endpoints that begin when they are asked: the model will be there in minutes."""
_SIZES = frozenset({"nano", "micro", "mini", "lite", "small", "medium", "large", "pro", "plus", "max", "ultra"})
"""Words that make a name another model's, at another price, and no other edition's."""


class Health:
    """Hears every exchange of a run, in the order in which they come home."""

    def __init__(
        self, rules: StopRules, *, model: str, concurrency: int, most_open: int, answered_before: bool = False
    ) -> None:
        """Take the rules, the model asked for, the slots, and how many requests can be open at a time.

        Open: between first send and outcome. `answered_before`: the job has rows that have ended in earlier runs.
        """
        self._rules, self._asked, self._answered_before = rules, model, answered_before
        self._outage_rows = min(max(rules.outage_rows, concurrency), most_open)
        self._least_rows = min(rules.outage_rows, self._outage_rows)
        self._failing: set[str] = set()
        self._failing_since = 0.0
        self._failed: dict[str, _Failures] = {}
        """Of the rows that have failed and neither got an answer nor ended since."""
        self._spoke = 0
        """Exchanges that brought something else than a failure of the provider's own."""
        self._reached = False
        """The provider has said something that is not a failure of its own."""
        self._down_since: float | None = None
        self._probes = self._outages = 0
        self._refused_since: float | None = None
        self._refusals_told = False
        self._rejections = 0
        self._reason: tuple[int | None, str] | None = None
        self._late = 0
        """Equal rejections in a row, after others had been answered."""
        self._answers_before_late = -1
        self._shut_out = 0
        """Requests in a row that only a status spoke against, after others had been answered."""
        self._answers_before_shut = -1
        self._shut_since = 0.0
        self._shut_by: Failure | None = None
        self._proven = False
        """Something else than a rejection came back: the job can't be all wrong."""
        self._recent: deque[Status] = deque(maxlen=RECENT_ANSWERS)
        self._counts = dict.fromkeys(_ANSWERED, 0)
        self._concurrency = concurrency
        self._answers = self._unwell = 0
        """And failures of the provider's own that answers came after: not those of an outage."""
        self._unwell_since_back = 0
        self._crowd_told = False
        self._model: str | None = None
        self._model_changed = False
        self.epoch = 0
        """Of exchanges that began in the same epoch, only the first failed probe counts."""

    @property
    def wants_older(self) -> bool:
        """Whether it matters which requests are still on the wire when one fails."""
        return not self._reached and not self._answered_before

    @property
    def wants_sent(self) -> bool:
        """Whether it matters when an answered request was sent."""
        return self._shut_out > 0

    @property
    def down(self) -> bool:
        """Tell whether the provider is down: then one request at a time is enough to see when it is back."""
        return self._down_since is not None

    def heard(
        self,
        key: str,
        result: Reply | Failure,
        now: float,
        *,
        began: int,
        proven: bool = False,
        last: bool = False,
        older: int = 0,
        sent: float | None = None,
    ) -> Heard:
        """Take in an exchange. `now` is seconds of any steady clock, `began` the epoch in which it was sent.

        `sent`: when that was, by the same clock; None is now.

        `proven`: equal rejections are no news, and not the job's fault. `last`: a failure would use up the row's
        attempts. `older`: requests that went out before it and have not come back.
        """
        if isinstance(result, Failure):
            if result.result == "unavailable":
                return self._unavailable(key, result, now, began, last=last, older=older)
            if result.result == "rate_limited":
                return self._limited(result, now)
            if result.result == "rejected":
                return replace(self._rejected(result, proven=proven), notice=self._back(now), alive=True)
            if result.result != "refused":
                return self._no_row_passes(result, now)
        back = self._back(now)
        self._proven = True
        self.forget(key)
        self._answers += 1
        if self._shut_out:
            if sent is not None and sent < self._shut_since:  # it was let in before somebody was not
                self._answers_before_shut += 1
                return Heard(alive=True, notice=back)
            self._shut_out = 0
        notice = back or self._too_many_at_once() or self._other_model(result.model)
        return _ALL_WELL if notice is None else Heard(release=True, alive=True, notice=notice)

    def _back(self, now: float) -> str | None:
        """Note that the provider speaks: whatever was wrong with it is over."""
        since, self._down_since = self._down_since, None
        self._refused_since = None
        self._spoke += 1
        self._unwell += self._unwell_since_back
        self._unwell_since_back = 0
        self._failing.clear()
        self._reached, self._probes = True, 0
        if since is None or self._outages > OUTAGES_TOLD:
            return None
        no_more = "; further outages of this run are not told" if self._outages == OUTAGES_TOLD else ""
        return f"the provider is back after {now - since:.0f} s{no_more}"

    def _no_row_passes(self, failure: Failure, now: float) -> Heard:
        """Hold a row back that only a status speaks against, if others were answered: a firewall may dislike its text.

        Several in a row, and nothing else between, are no rows' fault.
        """
        notice, most = self._back(now), self._rules.same_rejections
        if not failure.perhaps_its_row or not (self._answers or self._answered_before):
            return Heard(notice=notice, alive=True)
        goes_on = self._answers == self._answers_before_shut
        self._shut_out = self._shut_out + 1 if goes_on else 1
        self._shut_since = now if self._shut_out == 1 else self._shut_since
        self._shut_by = failure
        self._answers_before_shut = self._answers
        if not most or self._shut_out < most:
            return Heard(hold=True, notice=notice, alive=True)
        return Heard(pause=self.shut_out(), notice=notice, alive=True)

    def shut_out(self) -> Pause | None:
        """Say why the run must pause if only a status spoke against rows, and nothing passed since."""
        if not self._shut_out or not self._rules.same_rejections or self._shut_by is None:
            return None
        rows = "1 request" if self._shut_out == 1 else f"{self._shut_out} requests"
        return Pause(
            self._shut_by.pause,
            f"{self._shut_by.message}. {rows} got this, and none that was sent later was answered: if it is for what"
            " stands in these rows, --set stop.same_rejections=0 rejects them and goes on",
        )

    def _limited(self, failure: Failure, now: float) -> Heard:
        since = self._refused_since
        back = self._back(now)
        self._refused_since = now if since is None else since
        hours = (now - self._refused_since) / 3600
        if since is None:
            self._refusals_told = False
        if back is not None or self._refusals_told or hours * 3600 < REFUSED_SECONDS:
            return Heard(notice=back, alive=True)
        self._refusals_told = True
        return Heard(
            alive=True,
            notice=f"for {hours:.1f} hours a rate limit has refused every request; a quota of the day may be used up."
            f" The run goes on asking. It is told: {failure.message}",
        )

    def _unavailable(self, key: str, failure: Failure, now: float, began: int, *, last: bool, older: int) -> Heard:
        if self._down_since is not None:
            return self._probed(failure, now, began, older)
        if self._rules.outage_rows == 0:
            return Heard()
        if self._on_its_own_account(key, failure):
            return Heard(doubt=last)
        return self._perhaps_down(key, failure, now, last=last, older=older)

    def _too_many_at_once(self) -> str | None:
        """Say once that many requests fail while others pass: a server may have no room for so many."""
        total = self._unwell + self._answers
        if self._crowd_told or self._concurrency == 1 or total < LEAST_CROWD or self._unwell < CROWD_SHARE * total:
            return None
        self._crowd_told = True
        return (
            f"{self._unwell:,} of {total:,} requests so far failed at the server while others passed. If it has no room"
            f" for so many at once, a lower [limits] concurrency helps (now {self._concurrency:,})"
        )

    def _perhaps_down(self, key: str, failure: Failure, now: float, *, last: bool, older: int) -> Heard:
        self._unwell_since_back += not failure.not_sent
        if not self._failing:
            self._failing_since = now
        self._failing.add(key)
        rows = len(self._failing)
        if rows >= self._least_rows and self._never_up(failure, older):
            return Heard(outage=1, pause=_down(failure, f"the first {rows} rows all failed"))
        unreached = last and failure.not_sent  # never a row's own fault, and the next ones would fare no better
        if unreached and self._never_up(failure, older):
            return Heard(outage=1, pause=_down(failure, ""))
        # Where a row is at stake, or many slots have been empty, nobody waits until there was one for each slot.
        few_are_enough = last or now - self._failing_since >= OUTAGE_SECONDS
        if not unreached and rows < (self._least_rows if few_are_enough else self._outage_rows):
            return Heard(doubt=last)
        self._down_since, self._probes = now, 1
        self._unwell_since_back = 0
        self._outages += 1
        if self._reached:  # what came back before may have ended an outage, and not have passed these rows by
            for each in self._failing & self._failed.keys():
                found = self._failed[each]
                found.passed_by = max(found.passed_by - 1, 0)
        self.epoch += 1
        if self._rules.outage_minutes == 0:
            return Heard(outage=1, pause=_down(failure, f"{rows} rows in a row failed"))
        failed = f"{rows} rows in a row failed" if rows > 1 else "a row failed in all its attempts"
        notice = f"{failed} ({failure.message}); trying one at a time until the provider is back"
        return Heard(outage=1, notice=notice if self._outages <= OUTAGES_TOLD else None)

    def _never_up(self, failure: Failure, older: int) -> bool:
        """Tell whether nothing speaks for the provider: no answer now or before, and none that may be on its way."""
        loads = not failure.not_sent and _LOADING.search(failure.message)
        return not self._reached and not loads and (failure.not_sent or not (self._answered_before or older))

    def nothing_came(self, last: Outcome, rows: int) -> Pause | None:
        """Say why a new job must pause that has used up its rows' attempts without one word from the provider.

        Fewer rows than an outage takes; `last` is how the last one ended. None: it has spoken, or did before.
        """
        loads = last.error is not None and _LOADING.search(last.error)
        if self._reached or (self._answered_before and not loads):
            return None
        words = _words_for(last.error_type)
        return Pause("unavailable", words.format(since=f"all {rows:,} rows failed", last=last.error))

    def forget(self, key: str) -> None:
        """Forget how a row failed: it has ended."""
        if self._failed:
            self._failed.pop(key, None)

    def _on_its_own_account(self, key: str, failure: Failure) -> bool:
        """Tell whether a row fails again and again while others pass: that is no sign of an outage."""
        if failure.not_sent:
            return False
        found = self._failed.setdefault(key, _Failures(self._spoke))
        if self._spoke > found.spoke:
            found.spoke, found.passed_by = self._spoke, found.passed_by + 1
        return found.passed_by >= PASSED_BY

    def _probed(self, failure: Failure, now: float, began: int, older: int) -> Heard:
        if self._never_up(failure, older):
            return Heard(outage=1, pause=_down(failure, "whatever was sent failed"))
        if began == self.epoch:
            self._probes += 1
            self.epoch += 1
        seconds = now - (self._down_since or now)
        patient = seconds < _MINUTE * self._rules.outage_minutes
        since = f"{seconds / _MINUTE:.0f} minutes" if seconds >= 2 * _MINUTE else f"{seconds:.0f} s"
        pause = None if patient else _down(failure, f"no answer for {since}")
        return Heard(outage=self._probes, pause=pause)

    def _rejected(self, failure: Failure, *, proven: bool) -> Heard:
        most = self._rules.same_rejections
        reason = (failure.http_status, _UNIQUE.sub("", failure.error_type))
        if proven or most == 0:
            self._proven = True
            return Heard(release=True)
        if self._proven or self._reason not in {None, reason}:
            self._proven = True
            return self._rejected_late(failure, reason)
        self._reason = reason
        self._rejections += 1
        if self._rejections < most:
            return Heard(hold=True)
        return Heard(
            hold=True,
            pause=Pause(
                "rejections",
                f"the first {self._rejections} requests were all rejected for one reason, so the job is to blame and"
                f" not its rows, which stay pending: {failure.message}. Put the job right; if the rows are to blame"
                " after all, set [stop] same_rejections = 0",
            ),
        )

    def _rejected_late(self, failure: Failure, reason: tuple[int | None, str]) -> Heard:
        """Hold rejections back until something else comes, as from the start: a whole rest of rows may be at stake."""
        goes_on = self._answers == self._answers_before_late and reason == self._reason
        self._late = self._late + 1 if goes_on else 1
        self._answers_before_late, self._reason = self._answers, reason
        if failure.error_type in ROWS_OWN:
            return Heard(release=True)
        if self._late < max(LATE_REJECTIONS, 2 * self._concurrency, self._rules.same_rejections):
            return Heard(release=not goes_on, hold=True)
        return Heard(
            hold=True,
            pause=Pause(
                "rejections",
                f"the last {self._late:,} requests were all rejected for one reason, after others had been answered: it"
                f" seems that the server has changed, and the rows stay pending: {failure.message}. If the rows are to"
                " blame after all, set [stop] same_rejections = 0",
            ),
        )

    def _other_model(self, model: str | None) -> str | None:
        """Say, once each, that another model answers than was asked for, and that it is another than before."""
        if model is None or model == self._model or self._model_changed:
            return None
        first, self._model = self._model, model
        if first is None:
            return None if alike(self._asked, model) else self._not_asked_for(model)
        self._model_changed = True
        return (
            f"the provider answers with another model than before: {model} instead of {first}; `promptmill spend --by"
            " model,model_returned` shows how many answers each gave"
        )

    def _not_asked_for(self, model: str) -> str:
        return (
            f"{self._asked} was asked for, and the provider answers with {model}: the ledger books these answers, and"
            f" what they cost, as {self._asked}'s; `promptmill spend --by model,model_returned` shows both names"
        )

    def ended(self, status: Status) -> Pause | None:
        """Take in how a row ended that was sent; return why the run must pause, if it must."""
        if status not in _ANSWERED:
            return None
        if len(self._recent) == RECENT_ANSWERS:
            self._counts[self._recent[0]] -= 1
        self._recent.append(status)
        self._counts[status] += 1
        worthless = self._counts["invalid"] + self._counts["truncated"]
        answers = len(self._recent)
        if not worthless or answers < LEAST_ANSWERS or worthless <= self._rules.invalid_share * answers:
            return None
        each = " and ".join(f"{self._counts[one]:,} {one}" for one in _WORTHLESS if self._counts[one])
        return Pause(
            "answers",
            f"of the last {answers:,} answers {each}, more than [stop] invalid_share = {self._rules.invalid_share:g}"
            " allows. A clearer prompt, which asks every row anew, or a larger max_tokens helps; invalid_share = 1 goes"
            " on regardless",
        )


def alike(asked: str, returned: str) -> bool:
    """Tell whether two names may mean one model: gateways put a vendor before it, providers an edition behind it."""
    fewer, more = sorted((_words(asked), _words(returned)), key=len)
    return fewer <= more and not (more - fewer) & _SIZES


def _words(model: str) -> set[str]:
    name = _OFFER.sub("", model.casefold().rstrip("/").rpartition("/")[2])
    return set(_WORD.findall(name))


_DOWN = (
    "the provider is down ({since}, the last with: {last}); no row is given up for that. If it answers all but some"
    " rows, --set stop.outage_rows=0 lets those use up their attempts and end as failed"
)


_SLOW = (
    "no answer comes in time ({since}, the last with: {last}); no row is given up for that. If the server is only slow,"
    " a larger [limits] timeout_seconds helps, or a smaller concurrency, with which each answer takes less time"
)


def _down(failure: Failure, since: str) -> Pause:
    if failure.not_sent:
        return unreachable(failure)
    return Pause("unavailable", _words_for(failure.error_type).format(since=since, last=failure.message))


def _words_for(error_type: str | None) -> str:
    return _SLOW if error_type == "timeout" else _DOWN


def unreachable(failure: Failure) -> Pause:
    """Say that no connection can be made, and what to look at."""
    why = f"the provider can't be reached: {failure.message}; check the address and the network"
    return Pause("unavailable", why)
