"""The one place that looks prices up: the user's file, the project's files, the `genai-prices` package, in this order.

A price is found by provider and model, never by the model's name alone; what nobody knows is unknown, not free.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

from pipeline import _genai
from pipeline.errors import PriceError, did_you_mean
from pipeline.files import read_text
from pipeline.pricing import (
    LANES,
    REALTIME,
    Above,
    Price,
    PriceBook,
    Rates,
    Tariff,
    Variant,
    in_force,
    load_prices,
    parse_prices,
)

LONGEST_RUN = timedelta(days=30)
"""Prices that begin within it are copied with a run."""
STALE_DAYS = 90
USUAL_FILE = "~/.config/promptmill/prices.toml"
"""Where the user's price file is looked for if none is named."""
_HALF = Variant(Decimal("0.5"))


def _half_once(price: Price) -> Variant | None:
    """Half of input and output; cached tokens cost what other input does then."""
    if _one_input_price(price):
        return _HALF
    if price.windows or not all(rates.cache_write == rates.input for rates in price.tariff.every_rate()):
        return None
    above = (Above(tier.input_tokens_over, _halved(tier.rates)) for tier in price.above)
    return Variant(tariff=Tariff(_halved(price.tariff.rates), tuple(above)))


def _halved(rates: Rates) -> Rates:
    half = _HALF.multiplier
    return Rates(rates.input * half, rates.output * half, reasoning=rates.reasoning * half)


def _half_if_nothing_stacks(price: Price) -> Variant | None:
    """Half, where cached tokens cost what others do. Elsewhere nobody says whether both discounts hold together."""
    return _HALF if _one_input_price(price) else None


def _one_input_price(price: Price) -> bool:
    variants = [price.tariff, *(window.variant.tariff for window in price.windows)]
    rates = [each for tariff in variants if tariff is not None for each in tariff.every_rate()]
    return all({one.cached_input, one.cache_write, one.cache_write_1h} == {one.input} for one in rates)


_LANE_RULES: dict[tuple[str, str], Callable[[Price], Variant | None]] = {
    ("anthropic", "batch"): lambda _: _HALF,  # on cache reads and writes, too
    ("mistral", "batch"): lambda _: _HALF,  # on cache reads, too, as its price list has it for each model
    ("groq", "batch"): _half_once,  # its page on batches: no discount for cached tokens beside it
    ("fireworks", "batch"): _half_if_nothing_stacks,
    ("groq", "flex"): lambda _: Variant(),  # faster or not at all, at the normal price
}
"""What a provider's lane costs for all of its models, where a price says nothing about it; None: unknown.

Not here: OpenAI and Google (what a batch asks for cached tokens differs by model; their prices say it), OpenRouter
("usually" 50 %), Together ("up to" 50 % for some models).
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A model, perhaps at a provider, perhaps in a lane: `gpt-oss-20b@groq:batch`."""

    model: str
    provider: str | None = None
    lane: str = REALTIME

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read MODEL[@PROVIDER][:LANE]. A colon in a model's own name is left alone. Raises PriceError."""
        rest, colon, lane = text.rpartition(":")
        if not colon or lane not in LANES:
            rest, lane = text, REALTIME
        model, at, provider = rest.rpartition("@")
        if not at:
            model, provider = rest, ""
        if not model or (at and not provider) or ":" in provider:
            lanes = " or :".join(LANES[1:])
            raise PriceError(f"{text!r}: write MODEL, MODEL@PROVIDER, or either with :{lanes}")
        return cls(model, provider or None, lane)

    @classmethod
    def of(cls, target: "Target | str") -> "Target":
        """Take one as it is, or read it. Raises PriceError."""
        return target if isinstance(target, cls) else cls.parse(str(target))

    def __str__(self) -> str:
        at = f"@{self.provider}" if self.provider else ""
        return f"{self.model}{at}" + ("" if self.lane == REALTIME else f":{self.lane}")


@dataclass(frozen=True, slots=True)
class Quote:
    """A price in force, and which list has it."""

    price: Price
    where: str
    place: int
    """0 for the list that goes first."""
    counts: bool
    """No list that goes before has one."""


@dataclass(frozen=True, slots=True)
class _List:
    where: str
    history: Callable[[str, str], tuple[Price, ...]]
    providers: Callable[[], tuple[str, ...]]


class Prices:
    """All price lists, in the order in which they count. Raises PriceError for a mistake in the user's file."""

    def __init__(self, user_file: Path | None = None, *, own_only: bool = False) -> None:
        own = [] if user_file is None else [(str(user_file), _read(user_file))]
        self._books = own if own_only else [*own, ("promptmill's price files", load_prices())]
        self._lists = [_of_book(where, book) for where, book in self._books]
        if not own_only:
            self._lists.append(_List(_genai.source(), _genai.history, _genai.providers))

    def find(self, provider: str, model: str, at: datetime) -> Price | None:
        """Return the price in force at a moment; None if nobody knows it."""
        return next((quote.price for quote in self.quotes_of(provider, model, at)), None)

    def quotes_of(self, provider: str, model: str, at: datetime) -> Iterator[Quote]:
        """Yield what each list says is in force at a moment; the first one counts."""
        counts = True
        for place, one in enumerate(self._lists):
            found = in_force(one.history(provider, model), at)
            if found is not None:
                yield Quote(_with_lanes(found, provider), one.where, place, counts)
                counts = False

    def during_run(self, provider: str, model: str, at: datetime) -> tuple[Price, ...]:
        """Return the price in force at a moment, then those that come into force while a run may last."""
        now = next(self.quotes_of(provider, model, at), None)
        if now is None:
            return ()
        found = [now.price]
        for day in self._days(provider, model, at, self._lists[: now.place + 1]):
            price = self.find(provider, model, datetime.combine(day, time(), UTC))
            if price is not None and price != found[-1]:
                found.append(price)
        return tuple(found)

    def _days(self, provider: str, model: str, at: datetime, lists: Sequence[_List]) -> list[date]:
        """List the days to come on which a list that goes before, or the one that counts now, has a new price."""
        today = at.astimezone(UTC).date()
        days = {
            price.effective_from
            for one in lists
            for price in one.history(provider, model)
            if price.effective_from is not None and today < price.effective_from <= today + LONGEST_RUN
        }
        return sorted(days)

    def has_any(self, provider: str, model: str) -> bool:
        """Tell whether any list has a price of a model, of whatever day."""
        return any(one.history(provider, model) for one in self._lists)

    def has_hours(self, provider: str, model: str) -> bool:
        """Tell whether any list's price of a model depends on the time of day."""
        return any(price.windows for one in self._lists for price in one.history(provider, model))

    def sellers(self, model: str, at: datetime) -> tuple[str, ...]:
        """Return the providers for which a price of this model is known."""
        names = dict.fromkeys(name for one in self._lists for name in one.providers())
        return tuple(name for name in names if self.find(name, model, at) is not None)

    def quotes(self, model: str | None, provider: str | None, at: datetime) -> list[Quote]:
        """Return every list's price of a model, by everybody who sells it; without one, of what the files have.

        Raises PriceError if nobody's price is known.
        """
        if model is None:
            names = [name for name in self._listed() if provider in (None, name[0])]
        else:
            sellers = self.sellers(model, at) if provider is None else (provider,)
            names = [(seller, model) for seller in sellers]
        found = [quote for seller, name in names for quote in self.quotes_of(seller, name, at)]
        found = found if model is not None else [quote for quote in found if quote.counts]
        if not found:
            what = "any model" if model is None else model
            whose = "nobody's price" if provider is None else f"no price at {provider}"
            near = self.nearest(model, provider)
            raise PriceError(
                f"{whose} of {what} is known for {at.date()}; state one with [price], --price, or a [[price]] in your"
                f" price file{near}"
            )
        return found

    def nearest(self, model: str | None, provider: str | None) -> str:
        """Return `; did you mean ...?` with the nearest name of whatever is not known: the provider, else the model."""
        sellers = dict.fromkeys(name for one in self._lists for name in one.providers())
        if provider is not None and provider not in sellers:
            return did_you_mean(provider, sellers)
        names = dict.fromkeys(name for seller, name in self._listed() if provider in (None, seller))
        return "" if model is None or model in names else did_you_mean(model, names)

    def _listed(self) -> tuple[tuple[str, str], ...]:
        return tuple(
            dict.fromkeys((one.price.provider, one.price.model) for _, book in self._books for one in book.listings)
        )


def find_prices(
    provider: str, model: str, at: datetime, *, stated: Price | None, base_url: str | None, user_file: Path | None
) -> tuple[Price, ...]:
    """Return the prices of a run: the one in force first, then those that may follow; empty if unknown.

    `stated` (--price or [price]) goes first. A list price says nothing about another address: with `base_url` only
    what the user says counts. Raises PriceError.
    """
    if stated is not None:
        return (stated,)
    return Prices(user_file, own_only=base_url is not None).during_run(provider, model, at)


_OWN_MACHINE = "local"


def stale(price: Price, today: date) -> str | None:
    """Say so if nobody has looked at a listed price for long, or nobody says when."""
    if price.provider == _OWN_MACHINE:
        return None  # nobody can raise it
    whose, compare = f"the price of {price.model} at {price.provider}", f"compare it with {price.source}"
    if price.source == _genai.source():
        return _stale_package(whose, today)
    since = price.checked or price.effective_from
    if since is None:
        return f"nobody says when {whose} was checked: {compare}, and write `checked` beside it"
    if (today - since).days <= STALE_DAYS:
        return None
    if price.checked is None:
        return f"{whose} is of {since}, more than {STALE_DAYS} days ago, and nobody says that it was checked: {compare}"
    return f"{whose} was last checked on {since}, more than {STALE_DAYS} days ago: {compare}"


def _stale_package(whose: str, today: date) -> str | None:
    """Judge by the package's newest price: it doesn't say when one was checked, and no data are older than that."""
    newest = _genai.newest_day(today)
    if newest is not None and (today - newest).days <= STALE_DAYS:
        return None
    age = (
        "has no newer price" if newest is None else f"has no price newer than {newest}, more than {STALE_DAYS} days ago"
    )
    return f"{whose} is from {_genai.source()}, which {age}: update the package, and compare with the provider's page"


def _with_lanes(price: Price, provider: str) -> Price:
    rules = {lane: rule for (name, lane), rule in _LANE_RULES.items() if name == provider and not price.sells(lane)}
    found = [(lane, variant) for lane, rule in rules.items() if (variant := rule(price)) is not None]
    return replace(price, lanes=(*price.lanes, *found)) if found else price


def _of_book(where: str, book: PriceBook) -> _List:
    names = tuple(dict.fromkeys(provider for provider, _ in book.names()))
    return _List(where, book.history, lambda: names)


def _read(file: Path) -> PriceBook:
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise PriceError(f"the price file {file} can't be read: {error}") from error
    return PriceBook(parse_prices(text, str(file)))
