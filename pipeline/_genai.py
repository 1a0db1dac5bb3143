"""Prices and context windows of the `genai-prices` package as our own. Its bundled data only, never its updater.

What can't be said exactly in our terms is left out, so that it stays unknown. Always asked by provider and model.
"""

import importlib.metadata
from collections.abc import Iterable, Mapping
from datetime import UTC, date, time
from decimal import Decimal
from functools import lru_cache
from typing import Any

from pipeline.errors import PriceError
from pipeline.pricing import Above, Price, Rates, Tariff, Variant, Window

PACKAGE = "genai-prices"

_RATES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
}
_PER_1000_REQUESTS = "requests_kcount"
_NEVER_USED = frozenset({"web_searches_kcount", "storage_searches_kcount"})
"""Tools of a provider that no request of ours asks for."""
_OTHER_MEDIA = ("image", "audio", "video", "document")
_LANES: Mapping[tuple[tuple[str, str], ...], str] = {
    (("processing", "batch"),): "batch",
    (("service_tier", "flex"),): "flex",
    (("service_tier", "priority"),): "priority",
}
_NOT_SOLD = frozenset({("openai", "gpt-oss-20b"), ("openai", "gpt-oss-120b")})
"""Open models that the package lists under their maker's name, who doesn't sell them."""
_TEXT_ONLY = "for text; images, audio and documents have prices that are not known here"
_EVERY_DAY = "its hours count on every day of the week: the package doesn't know the days on which they don't"


class _Inexact(Exception):
    """What the package says can't be said in our terms."""


def history(provider: str, model: str) -> tuple[Price, ...]:
    """Every price of a model at a provider, newest first; empty if the package has none that we can say exactly."""
    return _history(provider, model)


def providers() -> tuple[str, ...]:
    """Return the ids of the providers that the package knows."""
    return tuple(provider.id for provider in _data())


def context_tokens(provider: str, model: str) -> int | None:
    """Return how many tokens a prompt and its answer may have together, None if the package doesn't say."""
    if (provider, model) in _NOT_SOLD:
        return None
    found = _model(provider, model)
    return None if found is None else found.context_window


def newest_day(until: date) -> date | None:
    """Return the newest day, up to one, on which a price of the package begins: its data are no older than that."""
    return max((day for day in _days() if day <= until), default=None)


def source() -> str:
    """Name the package with its version."""
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


@lru_cache(maxsize=1)
def _days() -> frozenset[date]:
    constraints = [
        found.constraint
        for provider in _data()
        for model in provider.models
        for found in (*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ()))
    ]
    days = (getattr(constraint, "start_date", None) for constraint in constraints)
    return frozenset(day for day in days if isinstance(day, date))


@lru_cache(maxsize=256)
def _history(provider: str, model: str) -> tuple[Price, ...]:
    if (provider, model) in _NOT_SOLD:
        return ()
    found = _model(provider, model)
    if found is None:
        return ()
    try:
        return tuple(
            sorted(_periods(provider, found), key=lambda price: price.effective_from or date.min, reverse=True)
        )
    except (_Inexact, PriceError):
        return ()


def _model(provider: str, model: str) -> Any:
    """Find a model by what the package matches, else by its name without the maker's, if only one has it."""
    models = _models(provider)
    found = next((one for one in models if one.is_match(model)), None)
    if found is None:
        named = [one for one in models if one.id.rpartition("/")[2] == model]
        found = named[0] if len(named) == 1 else None
    return found


def _models(provider: str) -> Iterable[Any]:
    return next((one.models for one in _data() if one.id == provider), ())


def _data() -> list[Any]:
    from genai_prices import data_snapshot  # noqa: PLC0415 -- 0.2 seconds, and only where our own files don't know

    return data_snapshot.get_snapshot().providers


def _periods(provider: str, model: Any) -> Iterable[Price]:
    """One price for each day on which something changes."""
    entries = _entries(model.prices)
    starts = [_start(entry) for entry, _ in entries if not _is_window(entry)]
    if starts != sorted(starts):
        raise _Inexact  # an older price written later would win over a newer one
    variants = _variants(model.price_variants or ())
    for day in sorted({*starts, *(start for start, _, _ in variants if start > starts[0])}):
        yield _price(provider, model.id, day, entries, variants)


def _entries(prices: Any) -> list[tuple[Any, Any]]:
    if not isinstance(prices, list):
        return [(None, prices)]
    entries = [(entry.constraint, entry.prices) for entry in prices]
    if not entries or _is_window(entries[0][0]):
        raise _Inexact
    return entries


def _is_window(constraint: Any) -> bool:
    return hasattr(constraint, "start_time")


def _start(constraint: Any) -> date:
    if constraint is None:
        return date.min
    start = constraint.start_date
    if not isinstance(start, date):
        raise _Inexact
    return start


def _variants(variants: Iterable[Any]) -> list[tuple[date, str, Any]]:
    """Return (first day, lane, prices) for each lane that we know; other contexts are never asked for."""
    found = []
    for variant in variants:
        lane = _LANES.get(tuple(sorted(variant.when.items())))
        if lane is not None:
            if _is_window(variant.constraint):
                raise _Inexact
            found.append((_start(variant.constraint), lane, variant.prices))
    return found


def _price(
    provider: str, model: str, day: date, entries: list[tuple[Any, Any]], variants: list[tuple[date, str, Any]]
) -> Price:
    base = max(n for n, (entry, _) in enumerate(entries) if not _is_window(entry) and _start(entry) <= day)
    keys, after = _keys(entries[base][1]), entries[base + 1 :]
    tariff = _tariff(keys)
    # The package lets a later entry win, and here the first window that covers a moment does.
    windows = tuple(_window(entry, found) for entry, found in reversed(after) if _is_window(entry))
    changes: dict[str, dict[str, Any]] = {}
    if not windows:  # else what holds in a lane during those hours is not known
        for start, lane, changed in variants:
            if start <= day:
                changes[lane] = _keys(changed) | changes.get(lane, {})  # an earlier entry wins
    own = {lane: _tariff(keys | changed) for lane, changed in changes.items()}
    # Where only the lane's own prices have no context tiers, what it asks for a larger request is not known.
    lanes = {lane: Variant(tariff=found) for lane, found in own.items() if found.above or not tariff.above}
    notes = [_TEXT_ONLY] if any(_is_other_media(key) for key in keys) else []
    notes += [_EVERY_DAY] if windows else []
    rates = tariff.rates
    return Price(
        provider, model, rates.input, rates.output, rates.cached_input, rates.cache_write, rates.reasoning,
        per_request=_plain(keys[_PER_1000_REQUESTS]).scaleb(-3) if _PER_1000_REQUESTS in keys else Decimal(0),
        effective_from=None if day == date.min else day, source=source(), note="; ".join(notes),
        cache_write_1h=rates.cache_write_1h, above=tariff.above, lanes=tuple(sorted(lanes.items())), windows=windows,
    )  # fmt: skip


def _keys(prices: Any) -> dict[str, Any]:
    found = {key: value for key, value in vars(prices).items() if value is not None and not key.startswith("_")}
    for key in found:
        known = key in _RATES or key in _NEVER_USED or key == _PER_1000_REQUESTS or _is_other_media(key)
        if not known:
            raise _Inexact
    return found


def _is_other_media(key: str) -> bool:
    return any(word in key for word in _OTHER_MEDIA)


def _plain(value: Any) -> Decimal:
    if not isinstance(value, Decimal):
        raise _Inexact
    return value


def _tariff(keys: Mapping[str, Any]) -> Tariff:
    named = {name: keys[key] for key, name in _RATES.items() if key in keys}
    if "input" not in named or "output" not in named:
        raise _Inexact
    limits = sorted({tier.start for value in named.values() for tier in getattr(value, "tiers", ())})
    above = (Above(limit, Rates(**{name: _at(value, limit) for name, value in named.items()})) for limit in limits)
    return Tariff(Rates(**{name: _at(value, None) for name, value in named.items()}), tuple(above))


def _at(value: Any, limit: int | None) -> Decimal:
    """Return the price above `limit` input tokens; None: below all limits."""
    tiers = getattr(value, "tiers", None)
    if tiers is None:
        return _plain(value)
    found = value.base
    for tier in sorted(tiers, key=lambda tier: tier.start):
        if limit is not None and tier.start <= limit:
            found = tier.price
    return _plain(found)


def _window(constraint: Any, prices: Any) -> Window:
    hours = [_utc(clock) for clock in (constraint.start_time, constraint.end_time)]
    return Window(hours[0], hours[1], Variant(tariff=_tariff(_keys(prices))))


def _utc(clock: time) -> time:
    if clock.tzinfo not in (None, UTC):
        raise _Inexact
    return clock.replace(tzinfo=None)
