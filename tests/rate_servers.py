"""Servers that limit rates, as functions on a virtual clock, and the run that meets them: no network, no waiting.

A limit says of a request at a moment whether it passes, as real servers count: token buckets that refill all the
time, windows that start anew, requests at once. `send_all` is the run: the doorman, the retry policy, and the slots.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from virtual_clock import run

from pipeline.budget import Budget
from pipeline.doorman import Doorman, Limits, Ticket
from pipeline.records import Failure, RateHint, Reply, Request, Usage
from pipeline.retry import RetryPolicy
from pipeline.runners.attempt import after_refusal

LIMITED = Failure("retry", "rate_limited", "rate_limit_exceeded", "slow down", 429, closes_door=True)


class Bucket:
    """`rate` a second, refilled all the time, `burst` at most; starts full. Counts requests, or tokens."""

    def __init__(self, rate, burst, *, tokens=False):
        self.rate, self.burst, self.tokens = rate, burst, tokens
        self.level, self.seen = burst, 0.0

    def admit(self, now, ticket, in_flight):
        """None if the request passes, else the seconds after which it would."""
        amount = ticket.tokens if self.tokens else 1
        self.level = min(self.burst, self.level + (now - self.seen) * self.rate)
        self.seen = now
        if self.level < amount - 1e-6:
            return (amount - self.level) / self.rate
        self.level -= amount
        return None


class Window:
    """`most` in each window of `seconds`, the first of which began `began` ago. Counts requests, or tokens."""

    def __init__(self, most, seconds=60.0, *, began=0.0, tokens=False):
        self.most, self.seconds, self.began, self.tokens = most, seconds, began, tokens
        self.window, self.count = -1, 0.0

    def admit(self, now, ticket, in_flight):
        window, into = divmod(now + self.began, self.seconds)
        if window != self.window:
            self.window, self.count = window, 0.0
        amount = ticket.tokens if self.tokens else 1
        if self.count + amount > self.most + 1e-6:
            return self.seconds - into
        self.count += amount
        return None


class Dice:
    """Refuses a share of the requests whatever their rate: a gateway that is overloaded by others."""

    def __init__(self, share, seed=1, *, wait=0.01):
        self.share, self.dice, self.wait = share, random.Random(seed), wait

    def admit(self, now, ticket, in_flight):
        return self.wait if self.dice.random() < self.share else None


class Refunding(Window):
    """Admits with the worst case, and gives back what was not used when the answer is there."""

    def give_back(self, tokens):
        self.count -= tokens


@dataclass
class Both:
    """Two limits at once."""

    limits: tuple[Any, ...]

    def admit(self, now, ticket, in_flight):
        waits = (limit.admit(now, ticket, in_flight) for limit in self.limits)
        return next((wait for wait in waits if wait is not None), None)


@dataclass
class AtOnce:
    """More than `most` requests at a time are refused, and told to come back after a fixed time."""

    most: int
    come_back: float

    def admit(self, now, ticket, in_flight):
        return self.come_back if in_flight >= self.most else None


@dataclass
class Changing:
    """One limit until a moment, then the next."""

    limits: list[tuple[float, Any]]
    """(until when, limit)"""

    def admit(self, now, ticket, in_flight):
        return next(limit for until, limit in self.limits if now < until).admit(now, ticket, in_flight)


@dataclass
class Outage:
    """Everything is refused until `end`."""

    end: float
    start: float = 0.0

    def admit(self, now, ticket, in_flight):
        return 1.0 if self.start <= now < self.end else None


@dataclass
class Never:
    """Some rows never pass, whatever their rate; the others meet a limit."""

    rows: frozenset[str]
    limit: Any

    def admit(self, now, ticket, in_flight):
        if ticket.request.key in self.rows:
            return 1.0
        return None if self.limit is None else self.limit.admit(now, ticket, in_flight)


@dataclass
class Server:
    """A limit (or None), how long things take, and what the server tells about its limit."""

    limit: Any = None
    latency: float | Callable[[random.Random], float] = 0.05
    refusal: float = 0.005
    """Seconds until a 429 is there."""
    says_when: bool = True
    hint: Callable[[float], RateHint] | None = None
    at_once: bool = False
    """The 429 says that it is about requests at once."""
    used: Callable[[Ticket], int] = lambda ticket: ticket.tokens
    in_flight: int = 0

    def answer(self, now, ticket, dice):
        """(seconds, what comes back)"""
        hint = self.hint(now) if self.hint else None
        wait = None if self.limit is None else self.limit.admit(now, ticket, self.in_flight)
        if wait is not None:
            named = wait if self.says_when else None
            hint = replace(hint or RateHint(), at_once=True) if self.at_once else hint
            return self.refusal, LIMITED._replace(wait_seconds=named, hint=hint)
        self.in_flight += 1
        seconds = self.latency(dice) if callable(self.latency) else self.latency
        return seconds, Reply("fine", "stop", "stop", Usage(self.used(ticket), 0), hint=hint)


@dataclass
class Record:
    """What a run did."""

    rows: int
    sent: list[float] = field(default_factory=list)
    """When each request went out."""
    accepted: list[tuple[float, int]] = field(default_factory=list)
    """(when it went out, its tokens) of those that passed."""
    refused: list[float] = field(default_factory=list)
    """When the refused ones went out."""
    tries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When each row went out."""
    outcomes: Counter = field(default_factory=Counter)
    given_up: dict[str, str] = field(default_factory=dict)
    """Why rows were."""
    suspected: set[str] = field(default_factory=set)
    paused: str | None = None
    most_waiting: int = 0
    most_in_flight: int = 0
    seconds: float = 0.0
    """Until the last row that passed."""
    ended_at: float = 0.0
    """When the last row was given up."""
    learned: float | None = None
    """Requests per minute that the door had learned at the end."""

    @property
    def waste(self):
        return len(self.refused) / len(self.sent)

    @property
    def lost(self):
        return self.rows - len(self.outcomes) - len(self.given_up)

    def accepted_between(self, start, end):
        return sum(start <= when < end for when, _ in self.accepted)


def tickets(count, tokens=100):
    """`tokens` is a number, or a function of the row's number."""
    size = tokens if callable(tokens) else lambda n: tokens
    return [Ticket(Request(f"k{n}", ()), None, size(n), size(n) // 2, "exact") for n in range(count)]


def send_all(server: Server, rows: int | Iterable[Ticket] = 300, *, seed=1, until=float("inf"), **limits) -> Record:
    """Send every row to its outcome (or until the clock shows `until`) and say what happened."""
    return run(_night(server, tickets(rows) if isinstance(rows, int) else list(rows), seed, until, limits))


def _again(door, again):
    """What the desk does with a row that goes out once more."""
    if again.shuts_door:
        door.shut_for(again.wait_seconds)
    if again.queue == "second":
        door.step_back(again.ticket)
    elif again.queue == "apart":
        door.again_apart(again.ticket, again.wait_seconds)
    elif again.queue == "own":
        door.again_by_itself(again.ticket, again.wait_seconds)
    else:
        door.again(again.ticket, 0.0)


async def _night(server, rows, seed, until, limits):
    loop, dice, policy = asyncio.get_running_loop(), random.Random(seed), RetryPolicy()
    door = Doorman(Limits(**limits), Budget())
    record = Record(len(rows))

    def home(ticket, result, accepted):
        server.in_flight -= accepted
        standing = door.heard(ticket, result)
        record.suspected.update([ticket.request.key] * standing.suspect)
        if accepted:
            door.back(ticket, cost=None, used_tokens=result.usage.input_tokens)
            if isinstance(server.limit, Refunding):
                server.limit.give_back(ticket.tokens - result.usage.input_tokens)
            door.ended(ticket.request.key)
            record.outcomes[ticket.request.key] += 1
            record.seconds = loop.time()
            return
        door.back(ticket, cost=None, used_tokens=None)
        if standing.given_up or standing.hopeless:
            ended(ticket, standing)
            return
        _again(door, after_refusal(policy, ticket, result, standing, streak=door.closed_in_a_row, jitter=dice.random()))

    def ended(ticket, standing):
        record.paused = standing.hopeless
        if standing.hopeless:
            door.stop()
            return
        record.given_up[ticket.request.key] = standing.given_up
        record.ended_at = loop.time()
        door.ended(ticket.request.key)

    async def bring():
        await door.offer(rows)
        door.no_more()

    bringing = asyncio.create_task(bring())
    while loop.time() < until and (ticket := await door.next()) is not None:
        now = loop.time()
        record.sent.append(now)
        record.tries[ticket.request.key].append(now)
        record.most_in_flight = max(record.most_in_flight, door.in_flight)
        record.most_waiting = max(record.most_waiting, len(door._retries))
        seconds, result = server.answer(now, ticket, dice)
        accepted = isinstance(result, Reply)
        if accepted:
            record.accepted.append((now, ticket.tokens))
        else:
            record.refused.append(now)
        loop.call_later(seconds, home, ticket, result, accepted)
    bringing.cancel()
    record.learned = door.requests_per_minute
    return record
