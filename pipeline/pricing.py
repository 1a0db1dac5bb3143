"""Prices, and what a request costs: exact decimals, one rounding, never a float.

Prices are US dollars per 1,000,000 tokens. `cost_usd` is what the provider should charge for a usage;
`worst_case_usd` is what a request can cost at most. The project's prices are the files in `pipeline/prices/`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from pipeline.errors import PriceError, did_you_mean
from pipeline.records import Usage

COMPONENTS = ("input", "output", "cached_input", "cache_write", "reasoning", "per_request")
"""The parts of a price; all per 1M tokens except `per_request`, which is per answered request."""

_COST_UNIT = Decimal("0.000000000001")
# Our own context, so that no setting of the calling thread can round a sum. 60 digits hold any exact result:
# a price has at most 18, a token count that fits a BIGINT 19.
_MONEY = Context(prec=60, rounding=ROUND_HALF_EVEN)
_ONE_MILLION = Decimal(1_000_000)
_ZERO = Decimal(0)
_SAME_AS_BASE = Decimal("NaN")
"""Stands for a component that was not given; `Price` replaces it by the one it defaults to."""

_PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_DECIMAL_PLACES = 12
"""What the ledger's DECIMAL(18,12) holds; the other six digits are before the point."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one provider charges for one model from one day on."""

    provider: str
    model: str
    input: Decimal
    output: Decimal
    cached_input: Decimal = _SAME_AS_BASE
    """Input tokens read from the provider's cache; default: as `input`."""
    cache_write: Decimal = _SAME_AS_BASE
    """Input tokens written to the provider's cache; default: as `input`."""
    reasoning: Decimal = _SAME_AS_BASE
    """Output tokens spent on reasoning; default: as `output`."""
    per_request: Decimal = _ZERO
    """Dollars for each request, beside its tokens. Never inferred from a vendor's page."""
    currency: str = "USD"
    effective_from: date | None = None
    """First UTC day of this price; None: since ever."""
    source: str = ""
    checked: date | None = None
    """The day somebody last compared this price with its source."""
    note: str = ""
    blended: bool = False
    """One figure for input and output, because the vendor's split was not known."""

    def __post_init__(self) -> None:
        """Fill in the defaults, and refuse what no vendor can mean."""
        for name, base in (("cached_input", "input"), ("cache_write", "input"), ("reasoning", "output")):
            if getattr(self, name) is _SAME_AS_BASE:
                object.__setattr__(self, name, getattr(self, base))
        for name in COMPONENTS:
            _check(getattr(self, name), f"{self.provider} {self.model}: {name}")
        if self.currency != "USD":
            raise PriceError(f"{self.provider} {self.model}: currency {self.currency!r}; only USD is supported")

    @property
    def price_id(self) -> str:
        """16 hex digits that name this price by its content: equal prices have equal ids, whenever made."""
        return _price_id(self)

    @property
    def is_free(self) -> bool:
        """Whether no request can ever cost anything."""
        return all(getattr(self, name) == 0 for name in COMPONENTS)

    def as_record(self) -> dict[str, str | None]:
        """For the journal and the ledger: every field as text, with its `price_id`."""
        return {"price_id": self.price_id} | {item.name: _as_text(getattr(self, item.name)) for item in fields(self)}


@lru_cache(maxsize=1024)
def _price_id(price: Price) -> str:
    content = {item.name: _as_text(getattr(price, item.name)) for item in fields(price)}
    for name in COMPONENTS:  # 0.30 and 0.3 are one price
        content[name] = format(_MONEY.normalize(getattr(price, name)), "f")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def _as_text(value: Decimal | date | bool | str | None) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case Decimal():
            return format(value, "f")
        case date():
            return value.isoformat()
        case _:
            return value


def cost_usd(price: Price, usage: Usage) -> Decimal:
    """Price a usage: exact, rounded once (half to even) to 12 decimal places of a dollar.

    A usage that contradicts itself (more cached tokens than input) is charged by its parts, never below zero.
    """
    with localcontext(_MONEY):
        plain_input = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
        plain_output = max(0, usage.output_tokens - usage.reasoning_tokens)
        per_million = (
            plain_input * price.input
            + usage.cached_input_tokens * price.cached_input
            + usage.cache_write_tokens * price.cache_write
            + plain_output * price.output
            + usage.reasoning_tokens * price.reasoning
        )
        return (per_million / _ONE_MILLION + price.per_request).quantize(_COST_UNIT)


def worst_case_usd(price: Price, input_bound: int, max_tokens: int) -> Decimal:
    """Upper bound of one request's cost: every token at its dearest rate, rounded up to 12 places.

    `max_tokens` bounds all output of the request, so a caller that asks for n answers passes n times as many.
    """
    with localcontext(_MONEY):
        dearest_input = max(price.input, price.cached_input, price.cache_write)
        dearest_output = max(price.output, price.reasoning)
        per_million = input_bound * dearest_input + max_tokens * dearest_output
        return (per_million / _ONE_MILLION + price.per_request).quantize(_COST_UNIT, rounding=ROUND_CEILING)


def parse_price_option(text: str, provider: str, model: str) -> Price:
    """Read the value of `--price IN,OUT`, in dollars per 1M tokens."""
    parts = text.split(",")
    if len(parts) != 2:  # noqa: PLR2004 - input and output
        raise PriceError(f"--price {text!r}: give two prices per 1M tokens, input and output, such as 0.03,0.14")
    values = [_component(part.strip(), f"--price {text!r}") for part in parts]
    return Price(provider, model, input=values[0], output=values[1], source="--price")


def price_from_table(table: Mapping[str, Any], provider: str, model: str, where: object) -> Price:
    """Read a job's `[price]` table; `where` (the job file) is named in errors and kept as the source."""
    place = f"{where}: [price]"
    _check_keys(table, COMPONENTS, place)
    return Price(provider, model, source=str(where), **_components(table, place))


@dataclass(frozen=True, slots=True)
class Listing:
    """One entry of a price file: a price and the other names of its model."""

    price: Price
    aliases: tuple[str, ...] = ()


_PRICE_FIELDS = tuple(item.name for item in fields(Price))
_LISTING_KEYS = (*_PRICE_FIELDS, "aliases")


def parse_prices(text: str, where: str) -> tuple[Listing, ...]:
    """Read a price file (TOML, one `[[price]]` per entry); unknown keys are errors."""
    import tomllib  # noqa: PLC0415 - only needed when prices are looked up

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PriceError(f"{where}: not valid TOML: {error}") from error
    _check_keys(document, ("price",), where)
    entries = document.get("price")
    if not isinstance(entries, list):
        raise PriceError(f"{where}: write each price under its own [[price]] heading")
    return tuple(_listing(entry, f"{where}: [[price]] {number}") for number, entry in enumerate(entries, 1))


def _listing(entry: Any, place: str) -> Listing:
    if not isinstance(entry, dict):
        raise PriceError(f"{place}: expected a table")
    _check_keys(entry, _LISTING_KEYS, place)
    for name in ("provider", "model", "source"):
        if not entry.get(name):
            raise PriceError(f"{place}: {name} is missing")
    words = {name: entry[name] for name in ("provider", "model", "source", "currency", "note") if name in entry}
    aliases = entry.get("aliases", [])
    blended = entry.get("blended", False)
    if not isinstance(aliases, list) or not all(isinstance(value, str) for value in [*words.values(), *aliases]):
        raise PriceError(f"{place}: {', '.join(words)} must be text, and aliases a list of texts")
    if words.get("currency", "USD") != "USD":
        raise PriceError(f"{place}: currency {words['currency']!r}; only USD is supported")
    if not isinstance(blended, bool):
        raise PriceError(f"{place}: blended must be true or false")
    days: dict[str, Any] = {
        name: _day(entry[name], f"{place}: {name}") for name in ("effective_from", "checked") if name in entry
    }
    return Listing(Price(**words, **days, **_components(entry, place), blended=blended), tuple(aliases))


def _day(value: Any, place: str) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise PriceError(f"{place}: write a date without quotes, such as 2026-04-24")
    return value


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by provider and model (never by model alone), each with the day it came into force."""

    listings: tuple[Listing, ...]
    _by_name: Mapping[tuple[str, str], tuple[Price, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index every name, newest first, and refuse two prices for the same name and day."""
        index: dict[tuple[str, str], list[Price]] = {}
        for listing in self.listings:
            for name in (listing.price.model, *listing.aliases):
                index.setdefault((listing.price.provider, name), []).append(listing.price)
        for (provider, name), prices in index.items():
            prices.sort(key=_first_day, reverse=True)
            days = [_first_day(price) for price in prices]
            if len(set(days)) < len(days):
                raise PriceError(f"{provider} {name}: two prices start on the same day; keep one of them")
        object.__setattr__(self, "_by_name", {key: tuple(prices) for key, prices in index.items()})

    def find(self, provider: str, model: str, at: datetime) -> Price | None:
        """Price in force at a moment (its UTC day counts), or None if unknown, which is not the same as free."""
        if at.tzinfo is None:
            raise ValueError("the moment of a price needs a time zone")
        day = at.astimezone(UTC).date()
        return next((price for price in self._by_name.get((provider, model), ()) if _first_day(price) <= day), None)


def _first_day(price: Price) -> date:
    return price.effective_from or date.min


@cache
def load_prices() -> PriceBook:
    """Read the prices that come with this package: every `.toml` file in `pipeline/prices/`."""
    folder = resources.files("pipeline").joinpath("prices")
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name)
    return PriceBook(
        tuple(
            listing
            for file in files
            for listing in parse_prices(file.read_text(encoding="utf-8"), f"pipeline/prices/{file.name}")
        )
    )


def _components(table: Mapping[str, Any], place: str) -> dict[str, Any]:
    for name in ("input", "output"):
        if name not in table:
            raise PriceError(f'{place}: {name} is missing; write dollars per 1M tokens as text, such as "0.03"')
    return {name: _component(table[name], f"{place} {name}") for name in COMPONENTS if name in table}


def _component(value: Any, place: str) -> Decimal:
    """Read one price: a decimal as text, or an exact number."""
    if isinstance(value, float):
        raise PriceError(
            f'{place} = {value!r} is a float, which holds few decimal prices exactly; write it as text: "{value}"'
        )
    if isinstance(value, Decimal) and value.is_finite():
        value = f"{value:f}"
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PriceError(f'{place} = {value!r} is not a price; write dollars per 1M tokens as text, such as "0.03"')
    if not _PLAIN_NUMBER.fullmatch(str(value)):
        raise PriceError(
            f"{place}: {str(value)!r} is not a price; write digits and one point, such as 0.03, not negative"
        )
    return _check(Decimal(value), place)


def _check(value: Decimal, place: str) -> Decimal:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or value < 0:
        raise PriceError(f"{place}: {value} is not a price")
    if value >= _ONE_MILLION:
        raise PriceError(f"{place}: {value} per 1M tokens is a dollar a token or more; prices are per 1,000,000 tokens")
    if -exponent > _DECIMAL_PLACES:
        raise PriceError(f"{place}: {value} has more than {_DECIMAL_PLACES} decimal places")
    return value


def _check_keys(table: Iterable[str], known: Iterable[str], place: str) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known keys: {', '.join(known)}"
            raise PriceError(f"{place}: unknown key {key!r}{hint}")
