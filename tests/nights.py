"""Providers that go down or are full, and the run that meets them, on a virtual clock: door, desk, health, retries."""

import asyncio
import random
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace

from virtual_clock import run

from pipeline.budget import Budget
from pipeline.doorman import Doorman, Limits, Ticket
from pipeline.errors import WireError
from pipeline.health import Health, StopRules
from pipeline.journal import Journal
from pipeline.providers import find
from pipeline.records import ModelSpec, Request, WireReply
from pipeline.retry import RetryPolicy
from pipeline.runners._ahead import Ahead
from pipeline.runners._connection import Remote
from pipeline.runners._desk import Arrival, Desk
from pipeline.runners.attempt import Exchanger
from pipeline.runners.tally import Tally

ANSWER = WireReply(
    200,
    {},
    b'{"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": "fine"}}],'
    b' "usage": {"prompt_tokens": 10, "completion_tokens": 2}}',
)
DOWN = WireReply(503, {}, b'{"error": {"message": "no"}}')
FORBIDDEN = WireReply(403, {}, b"<html><title>403 Forbidden</title></html>")
NEVER = float("inf")
QUICK = 0.005
"""Seconds until a server that has no room says so."""


class Server:
    """Answers; with a 503 where it is down, has no room, or wants to.

    | parameter | meaning |
    | --- | --- |
    | down, back | from when until when it is down, in seconds |
    | bad | rows that never get an answer |
    | refused | rows that are always turned away at once |
    | crashing | rows that end the server, with all that it works on |
    | crashes | seconds from such a row until it ends, and until it is up again |
    | forbidden | rows that a firewall before it answers with a 403 |
    | latency | seconds an answer takes, or a function of a random generator |
    | slow | the same of single rows |
    | flaky | share of requests that fail after the time of an answer |
    | flapping | (seconds up, seconds down), for ever |
    | room | requests that it works on at once, or a function of the time; others are turned away |
    | moody | share of requests that are turned away by chance |
    | workers | requests that it works on at once; others wait, and after `patience` seconds are given up |
    """

    def __init__(
        self,
        *,
        down=NEVER,
        back=NEVER,
        bad=(),
        refused=(),
        crashing=(),
        crashes=(0.2, 2.0),
        forbidden=(),
        latency=0.2,
        slow=None,
        flaky=0.0,
        flapping=(NEVER, 0.0),
        room=NEVER,
        moody=0.0,
        workers=None,
        patience=NEVER,
    ):
        self.down, self.back, self.bad, self.latency, self.slow = down, back, bad, latency, slow or {}
        self.flaky, self.moody, self.chance = flaky, moody, random.Random(7)
        self.crashing, self.crashes, self.born, self.up_again = crashing, crashes, 0, 0.0
        self.forbidden = forbidden
        self.refused, (self.up, self.off) = refused, flapping
        self.room, self.working, self.turned_away = room, 0, 0
        self.workers, self.patience = None if workers is None else asyncio.Semaphore(workers), patience
        self.timed_out = 0
        self.sent = Counter()

    async def post(self, url, headers, body):
        loop = asyncio.get_running_loop()
        row = next(key for key in body.decode().split('"') if key.startswith("row "))
        self.sent[row] += 1
        if loop.time() < self.up_again:
            await asyncio.sleep(QUICK)
            raise WireError("connect", "refused", maybe_sent=False)
        if row in self.forbidden:
            await asyncio.sleep(QUICK)
            return FORBIDDEN
        life = self.born
        if row in self.crashing:
            loop.call_later(self.crashes[0], self.crash, life)
        room = self.room(loop.time()) if callable(self.room) else self.room
        if self.working >= room or row in self.refused or self.chance.random() < self.moody:
            self.turned_away += 1
            await asyncio.sleep(QUICK)
            return DOWN
        if self.workers is not None:
            return await self.queued(row)
        self.working += 1
        seconds = self.latency(self.chance) if callable(self.latency) else self.latency
        end = loop.time() + self.slow.get(row, seconds)
        while (left := end - loop.time()) > 1e-9 and life == self.born:  # noqa: ASYNC110 -- the clock is virtual
            await asyncio.sleep(min(left, 0.05))
        self.working -= 1
        if life != self.born:
            raise WireError("broken", "the connection was cut", maybe_sent=True)
        flapped = self.off and loop.time() % (self.up + self.off) >= self.up
        if row in self.bad or flapped or self.down <= loop.time() < self.back or self.chance.random() < self.flaky:
            return DOWN
        return ANSWER

    def crash(self, life):
        if life == self.born:
            self.born, self.up_again = self.born + 1, asyncio.get_running_loop().time() + self.crashes[1]

    async def queued(self, row):
        try:
            async with asyncio.timeout(self.patience), self.workers:
                await asyncio.sleep(self.latency(self.chance) if callable(self.latency) else self.latency)
        except TimeoutError:
            self.timed_out += 1
            raise WireError("timeout", f"no answer to {row}", maybe_sent=True) from None
        return ANSWER


def lognormal(seconds):
    """Latencies around a median, a few much longer, as models have them."""
    return lambda chance: chance.lognormvariate(0, 0.4) * seconds


class Night:
    """A run of so many rows."""

    def __init__(self, folder, server, *, attempts=6, rules=None, answered_before=False, outage_minutes=5.0, **limits):
        self.server, self.paused, self.told, self.seconds = server, None, [], 0.0
        self.limits = Limits(**limits)
        self.budget, self.tally = Budget(), Tally()
        self.door = Doorman(self.limits, self.budget, self.told.append)
        self.health = Health(
            StopRules(outage_minutes=outage_minutes) if rules is None else rules,
            model="m",
            concurrency=self.limits.concurrency,
            most_open=self.limits.most_open,
            answered_before=answered_before,
        )
        self.exchanger = Exchanger(
            run_id=7,
            spec=ModelSpec("any", "m", base_url="http://127.0.0.1:1/v1", max_tokens=50),
            provider=find("any", base_url="http://127.0.0.1:1/v1", dialect=None, options={}),
            connection=Remote("http://127.0.0.1:1/v1", None),
            wire=server,
            meter=SimpleNamespace(is_free=False, charged=False, price_at=lambda sent_at: None, price=None),
            policy=RetryPolicy(attempts=attempts),
        )
        self.journal = Journal(folder, "ledger")
        self.desk = Desk(
            door=self.door, health=self.health, budget=self.budget, exchanger=self.exchanger, journal=self.journal,
            loader=SimpleNamespace(broken=None), tally=self.tally, ahead=Ahead(), notify=self.told.append,
            stop=self.stop, fail=self.fail, proven=False,
        )  # fmt: skip

    def stop(self, pause):
        self.paused = self.paused or pause
        self.door.stop()

    def fail(self, error):
        raise error

    async def exchange(self, ticket):
        epoch = self.health.epoch
        attempt, result = await self.exchanger.send(ticket)
        self.desk.arrive(Arrival(ticket, attempt, result, epoch))

    async def run(self, rows):
        """Return the rows by status."""
        tickets = [
            Ticket(Request(f"k{n}", ({"role": "user", "content": f"row {n}"},)), Decimal(0), 60, 10, "exact")
            for n in range(rows)
        ]
        for ticket in tickets:
            self.tally.row(ticket.request.key, None)
        bringing = asyncio.create_task(self.bring(tickets))
        exchanges = set()
        while (ticket := await self.door.next()) is not None:
            exchanges.add(asyncio.create_task(self.exchange(ticket)))
        await asyncio.gather(*exchanges)
        await asyncio.sleep(0)
        bringing.cancel()
        if self.paused is None:
            self.paused = self.desk.book_held()
        self.journal.close()
        self.seconds = asyncio.get_running_loop().time()
        return +self.tally.statuses

    async def bring(self, tickets):
        await self.door.offer(tickets)
        self.door.no_more()


def hold(folder, rows, server, **more):
    """Hold a run of so many rows to its end; return what became of it."""
    random.seed(4)
    held = Night(folder, server, **more)
    held.statuses = run(held.run(rows))
    return held
