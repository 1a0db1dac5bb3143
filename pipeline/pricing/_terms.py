"""The terms of a price: rates per kind of token, context tiers, and what a lane or a time of day changes."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from pipeline.errors import PriceError

SAME_AS_BASE = Decimal("NaN")
"""Stands for a component that was not given; it is replaced by the one it defaults to."""
_DEFAULTS = (
    ("cached_input", "input"),
    ("cache_write", "input"),
    ("cache_write_1h", "cache_write"),
    ("reasoning", "output"),
)
"""Component -> the one it defaults to, in the order in which they are filled in."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# Our own context, so that no setting of the calling thread can round a sum. 120 digits hold any exact result:
# a price has at most 18, a token count that fits a BIGINT 19, and each of three factors 18.
MONEY = Context(prec=120, rounding=ROUND_HALF_EVEN)
ZERO, ONE, ONE_MILLION = Decimal(0), Decimal(1), Decimal(1_000_000)
ONE_MILLIONTH = Decimal("0.000001")
_DECIMAL_PLACES = 12
"""What the ledger's DECIMAL(18,12) holds; the other six digits are before the point."""


def check(value: Decimal, place: str) -> Decimal:
    """Refuse what no price can be. Raises PriceError."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or value < 0:
        raise PriceError(f"{place}: {value} is not a price")
    if value >= ONE_MILLION:
        raise PriceError(
            f"{place}: {value} is a million or more; prices of tokens are dollars per 1,000,000 tokens, others dollars"
        )
    if -exponent > _DECIMAL_PLACES:
        raise PriceError(f"{place}: {value} has more than {_DECIMAL_PLACES} decimal places")
    return value


def fill_defaults(rates: object) -> None:
    """Give each component of a new, frozen value that was not stated the value of the one it defaults to."""
    for name, base in _DEFAULTS:
        if getattr(rates, name) is SAME_AS_BASE:
            object.__setattr__(rates, name, getattr(rates, base))


def plain(value: Decimal) -> str:
    """Write a number so that equal ones (0.30 and 0.3) are equal texts."""
    return format(MONEY.normalize(value), "f")


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per 1M tokens of each kind."""

    input: Decimal
    output: Decimal
    cached_input: Decimal = SAME_AS_BASE
    cache_write: Decimal = SAME_AS_BASE
    cache_write_1h: Decimal = SAME_AS_BASE
    reasoning: Decimal = SAME_AS_BASE

    def __post_init__(self) -> None:
        """Fill in the defaults."""
        fill_defaults(self)
        for item in fields(self):
            check(getattr(self, item.name), item.name)

    @property
    def dearest_input(self) -> Decimal:
        """The most an input token can cost."""
        return max(self.input, self.cached_input, self.cache_write, self.cache_write_1h)

    @property
    def dearest_output(self) -> Decimal:
        """The most an output token can cost."""
        return max(self.output, self.reasoning)

    def as_record(self) -> dict[str, str]:
        """Every rate as text."""
        return {item.name: plain(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Above:
    """A context tier: a request with more input tokens than this, cached ones included, moves to `rates` as a whole."""

    input_tokens_over: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Tariff:
    """Rates, and those of larger requests."""

    rates: Rates
    above: tuple[Above, ...] = ()
    """In any order; equal limits are refused."""

    def __post_init__(self) -> None:
        """Put the tiers in order."""
        ordered = tuple(sorted(self.above, key=lambda tier: tier.input_tokens_over))
        limits = [tier.input_tokens_over for tier in ordered]
        if len(set(limits)) < len(limits):
            raise PriceError("two context tiers begin above the same number of input tokens; keep one of them")
        object.__setattr__(self, "above", ordered)

    def rates_for(self, input_tokens: int) -> Rates:
        """Choose the tier: it is a cliff, not a slope."""
        found = self.rates
        for tier in self.above:
            if input_tokens > tier.input_tokens_over:
                found = tier.rates
        return found

    def reachable(self, input_bound: int) -> Iterator[Rates]:
        """Yield the rates that a request of at most so many input tokens may be charged."""
        yield self.rates
        yield from (tier.rates for tier in self.above if input_bound > tier.input_tokens_over)

    def every_rate(self) -> Iterator[Rates]:
        """Yield the rates of all tiers."""
        yield self.rates
        yield from (tier.rates for tier in self.above)

    def as_record(self) -> dict[str, Any]:
        """Everything as text and numbers."""
        above = [{"input_tokens_over": tier.input_tokens_over} | tier.rates.as_record() for tier in self.above]
        return self.rates.as_record() | ({"above": above} if above else {})


@dataclass(frozen=True, slots=True)
class Variant:
    """What a lane or a time of day changes: a factor on all token prices, or prices of its own."""

    multiplier: Decimal = ONE
    tariff: Tariff | None = None

    def as_record(self) -> dict[str, Any]:
        """Everything as text and numbers."""
        return {"multiplier": plain(self.multiplier)} if self.tariff is None else self.tariff.as_record()


def _in_a_row(days: tuple[str, ...]) -> str | None:
    """Write three days and more that follow each other as `mon-fri`."""
    first = DAYS.index(days[0])
    follow = len(days) > 2 and days == DAYS[first : first + len(days)]  # noqa: PLR2004 -- two are as short with a comma
    return f"{days[0]}-{days[-1]}" if follow else None


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a day in UTC, the end excluded; one that goes past midnight belongs to the day on which it begins."""

    utc_from: time
    utc_to: time
    variant: Variant
    weekdays: tuple[str, ...] = DAYS

    def covers(self, at: datetime) -> bool:
        """Tell whether a moment lies in it."""
        moment = at.astimezone(UTC)
        clock, day = moment.time(), moment.weekday()
        if self.utc_from < self.utc_to:
            return self.utc_from <= clock < self.utc_to and DAYS[day] in self.weekdays
        if clock >= self.utc_from:
            return DAYS[day] in self.weekdays
        return clock < self.utc_to and DAYS[day - 1] in self.weekdays

    def in_words(self) -> str:
        """Name the hours: `01:00-04:00 UTC mon-fri`, with seconds where they have some."""
        days = "" if self.weekdays == DAYS else f" {_in_a_row(self.weekdays) or ','.join(self.weekdays)}"
        exactly = "auto" if any(hour.second or hour.microsecond for hour in (self.utc_from, self.utc_to)) else "minutes"
        return f"{self.utc_from.isoformat(exactly)}-{self.utc_to.isoformat(exactly)} UTC{days}"

    def as_record(self) -> dict[str, Any]:
        """Everything as text and numbers."""
        hours = {"utc_from": self.utc_from.isoformat(), "utc_to": self.utc_to.isoformat()}
        return hours | {"weekdays": list(self.weekdays)} | self.variant.as_record()


@dataclass(frozen=True, slots=True)
class Claim:
    """Another price that a price's own source states: it contradicts itself, and nobody knows which one is billed.

    Where it states a price per request, tokens cost nothing beside it.
    """

    says: str
    """In the source's words."""
    input: Decimal = ZERO
    output: Decimal = ZERO
    per_request: Decimal = ZERO

    def in_words(self) -> str:
        """Say what would be charged: `0.085 per request`."""
        tokens = f"{plain(self.input)} in, {plain(self.output)} out per 1M tokens"
        request = f"{plain(self.per_request)} per request"
        if not self.per_request:
            return tokens
        return f"{tokens}, and {request}" if self.input or self.output else request
