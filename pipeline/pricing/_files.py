"""What people write: `--price`, a job's `[price]`, price files; and the prices of a file by name and day."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from pipeline.errors import PriceError, did_you_mean
from pipeline.pricing._price import COMPONENTS, LANES, REALTIME, Price
from pipeline.pricing._terms import DAYS, Above, Claim, Rates, Tariff, Variant, Window, check

_PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_RATES = ("input", "output", "cached_input", "cache_write", "cache_write_5m", "cache_write_1h", "reasoning")
_SUMS = ("per_request", "minimum_charge", "markup")
PRICE_KEYS: dict[str, type] = dict.fromkeys((*COMPONENTS, *_RATES, *_SUMS), str) | {
    "above": list,
    "tier": dict,
    "window": list,
}
"""The terms of a price, as a job's `[price]` and a price file spell them."""


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
    _check_keys(table, PRICE_KEYS, place)
    return Price(provider, model, source=str(where), **_terms(table, place))


@dataclass(frozen=True, slots=True)
class Listing:
    """One entry of a price file: a price and the other names of its model."""

    price: Price
    aliases: tuple[str, ...] = ()


_FACTS = (
    "provider", "model", "aliases", "currency", "effective_from", "source", "checked", "note", "blended",
    "contradiction",
)  # fmt: skip
_LISTING_KEYS = (*_FACTS, *PRICE_KEYS)


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
    claims = _claims(entry.get("contradiction", []), f"{place} contradiction")
    price = Price(**words, **days, **_terms(entry, place), blended=blended, contradictions=claims)
    return Listing(price, tuple(aliases))


def _claims(entries: Any, place: str) -> tuple[Claim, ...]:
    return tuple(_claim(entry, f"{place} {number}") for number, entry in enumerate(_tables(entries, place), 1))


def _claim(entry: Mapping[str, Any], place: str) -> Claim:
    _check_keys(entry, ("says", "input", "output", "per_request"), place)
    says = entry.get("says")
    if not isinstance(says, str) or not says.strip():
        raise PriceError(f'{place}: says is missing; write the source\'s own words, such as "0.085 per call"')
    prices = {name: _component(entry[name], f"{place} {name}") for name in entry if name != "says"}
    if not prices or ("input" in prices) != ("output" in prices):
        raise PriceError(f"{place}: write what {says!r} would charge, as per_request, or as both input and output")
    return Claim(says, **prices)


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
        return in_force(self.history(provider, model), at)

    def history(self, provider: str, model: str) -> tuple[Price, ...]:
        """Every price of a model, newest first."""
        return self._by_name.get((provider, model), ())

    def names(self) -> Iterable[tuple[str, str]]:
        """Every provider and model or alias."""
        return self._by_name.keys()


def in_force(prices: Sequence[Price], at: datetime) -> Price | None:
    """Return the price in force at a moment (its UTC day counts), None before the first one."""
    if at.tzinfo is None:
        raise ValueError("the moment of a price needs a time zone")
    day = at.astimezone(UTC).date()
    return max((price for price in prices if _first_day(price) <= day), key=_first_day, default=None)


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


def _terms(table: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Read everything that is charged, as keyword arguments of `Price`."""
    sums = {name: _component(table[name], f"{place} {name}") for name in _SUMS if name in table}
    above = _above(table.get("above", []), place)
    return {
        **_rates(table, place),
        **sums,
        "above": above,
        "lanes": _lanes(table.get("tier", {}), place, tiered=bool(above)),
        "windows": tuple(
            _window(entry, f"{place} window {number}", tiered=bool(above))
            for number, entry in enumerate(_tables(table.get("window", []), f"{place} window"), 1)
        ),
    }


def _rates(table: Mapping[str, Any], place: str) -> dict[str, Decimal]:
    for name in ("input", "output"):
        if name not in table:
            raise PriceError(f'{place}: {name} is missing; write dollars per 1M tokens as text, such as "0.03"')
    if "cache_write" in table and "cache_write_5m" in table:
        raise PriceError(f"{place}: cache_write and cache_write_5m say the same thing; keep one of them")
    found = {name: _component(table[name], f"{place} {name}") for name in _RATES if name in table}
    if "cache_write_5m" in found:
        found["cache_write"] = found.pop("cache_write_5m")
        # A price for five minutes says nothing about an hour, which then costs what other input does.
        found.setdefault("cache_write_1h", found["input"])
    return found


def _tariff(table: Mapping[str, Any], place: str) -> Tariff:
    return Tariff(Rates(**_rates(table, place)), _above(table.get("above", []), place))


def _above(entries: Any, place: str) -> tuple[Above, ...]:
    found = []
    for number, entry in enumerate(_tables(entries, f"{place} above"), 1):
        here = f"{place} above {number}"
        _check_keys(entry, ("input_tokens_over", *_RATES), here)
        over = entry.get("input_tokens_over")
        if type(over) is not int or over < 0:
            raise PriceError(f"{here}: input_tokens_over must be a whole number of tokens, such as 200000")
        found.append(Above(over, Rates(**_rates(entry, here))))
    if len({tier.input_tokens_over for tier in found}) < len(found):
        raise PriceError(f"{place} above: two tiers begin above the same number of tokens; keep one of them")
    return tuple(sorted(found, key=lambda tier: tier.input_tokens_over))


def _tables(entries: Any, place: str) -> list[Mapping[str, Any]]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PriceError(f"{place}: write each entry under a [[...]] heading of its own")
    return entries


def _lanes(table: Any, place: str, *, tiered: bool) -> tuple[tuple[str, Variant], ...]:
    known = [lane for lane in LANES if lane != REALTIME]
    if not isinstance(table, dict) or not all(isinstance(terms, dict) for terms in table.values()):
        raise PriceError(f"{place} tier: write each lane under a heading of its own, such as [price.tier.batch]")
    _check_keys(table, known, f"{place} tier")
    return tuple(
        (lane, _variant(table[lane], (), f"{place} tier.{lane}", tiered=tiered)) for lane in known if lane in table
    )


def _variant(table: Mapping[str, Any], also: tuple[str, ...], place: str, *, tiered: bool) -> Variant:
    if "multiplier" in table:
        _check_keys(table, ("multiplier", *also), f"{place} (with a multiplier)")
        return Variant(_component(table["multiplier"], f"{place} multiplier"))
    _check_keys(table, (*_RATES, "above", *also), place)
    if tiered and "above" not in table:
        raise PriceError(
            f"{place}: the price has context tiers, and these prices of its own have none, so what a larger request"
            " costs is unknown; write its tiers under `above`, or `above = []` if it has none"
        )
    return Variant(tariff=_tariff(table, place))


_WINDOW = ("utc_from", "utc_to", "weekdays")


def _window(table: Mapping[str, Any], place: str, *, tiered: bool) -> Window:
    hours = [table.get(name) for name in ("utc_from", "utc_to")]
    if not all(isinstance(hour, time) for hour in hours) or hours[0] == hours[1]:
        raise PriceError(f"{place}: utc_from and utc_to must be two times without quotes, such as 01:00:00")
    weekdays = table.get("weekdays", list(DAYS))
    if not isinstance(weekdays, list) or not weekdays or not set(map(str, weekdays)) <= set(DAYS):
        raise PriceError(f"{place}: weekdays must be a list of {', '.join(DAYS)}")
    days = tuple(day for day in DAYS if day in weekdays)
    return Window(hours[0], hours[1], _variant(table, _WINDOW, place, tiered=tiered), days)  # type: ignore[arg-type]  # checked above


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
    return check(Decimal(value), place)


def _check_keys(table: Iterable[str], known: Iterable[str], place: str) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known keys: {', '.join(known)}"
            raise PriceError(f"{place}: unknown key {key!r}{hint}")
