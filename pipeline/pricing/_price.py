"""One price: what one provider charges for one model from one day on."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pipeline.errors import PriceError
from pipeline.pricing._terms import (
    MONEY,
    ONE,
    SAME_AS_BASE,
    ZERO,
    Above,
    Claim,
    Rates,
    Tariff,
    Variant,
    Window,
    check,
    fill_defaults,
    plain,
)

COMPONENTS = ("input", "output", "cached_input", "cache_write", "reasoning", "per_request")
"""The parts of a price; all per 1M tokens except `per_request`, which is per answered request."""
RATES = ("input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning")
REALTIME = "realtime"
LANES = (REALTIME, "batch", "flex", "priority")

_PLACES = 6
"""Decimal places of a rate per 1M tokens whose token costs a whole number of COST_UNITs."""
_CHECKED = (*COMPONENTS, "cache_write_1h", "minimum_charge", "markup")


@dataclass(frozen=True, slots=True)
class Price:
    """What one provider charges for one model from one day on."""

    provider: str
    model: str
    input: Decimal
    output: Decimal
    cached_input: Decimal = SAME_AS_BASE
    """Input tokens read from the provider's cache; default: as `input`."""
    cache_write: Decimal = SAME_AS_BASE
    """Input tokens written to the provider's cache, for five minutes where it has several times; default: `input`."""
    reasoning: Decimal = SAME_AS_BASE
    """Output tokens spent on reasoning; default: as `output`."""
    per_request: Decimal = ZERO
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
    cache_write_1h: Decimal = SAME_AS_BASE
    """Input tokens written to the provider's cache for an hour; default: as `cache_write`."""
    above: tuple[Above, ...] = ()
    """Context tiers."""
    lanes: tuple[tuple[str, Variant], ...] = ()
    """What other lanes than realtime cost; one that is not here has no known price."""
    windows: tuple[Window, ...] = ()
    """Hours at which other prices hold; the first that covers a moment counts."""
    minimum_charge: Decimal = ZERO
    """The least that an answered request costs, before the markup."""
    markup: Decimal = ZERO
    """What a gateway adds to everything, as a share: 0.05 is 5 %."""
    contradictions: tuple[Claim, ...] = ()
    """What else its source says. Nothing is charged by it, so it is not part of the price's id."""
    _tariff: Tariff = field(init=False, repr=False, compare=False)
    """Made once: every answer of a run is priced with it."""
    per_token: tuple[int, int] | None = field(init=False, repr=False, compare=False, default=None)
    """What an input and an output token cost, in COST_UNITs; None where that isn't all there is to a request."""
    _id: str | None = field(init=False, repr=False, compare=False, default=None)
    """Made when it is first asked for: every answer of a run is booked with it."""

    def __post_init__(self) -> None:
        """Fill in the defaults, and refuse what no vendor can mean."""
        fill_defaults(self)
        for name in _CHECKED:
            check(getattr(self, name), f"{self.provider} {self.model}: {name}")
        rates = Rates(self.input, self.output, self.cached_input, self.cache_write, self.cache_write_1h, self.reasoning)
        object.__setattr__(self, "_tariff", Tariff(rates, self.above))
        object.__setattr__(self, "per_token", self._per_token())
        if self.currency != "USD":
            raise PriceError(f"{self.provider} {self.model}: currency {self.currency!r}; only USD is supported")
        own = [window for window in self.windows if window.variant.tariff is not None]
        if own and any(variant.tariff is not None for _, variant in self.lanes):
            raise PriceError(
                f"{self.provider} {self.model}: a lane and a time window both have prices of their own, so what holds"
                " in both is unknown; write one of them as a multiplier"
            )

    def _per_token(self) -> tuple[int, int] | None:
        """Nearly every price is two rates: as whole numbers, they price an answer in a sixth of the time."""
        if self.above or self.lanes or self.windows or self.per_request or self.minimum_charge or self.markup:
            return None
        into, out = MONEY.scaleb(self.input, _PLACES), MONEY.scaleb(self.output, _PLACES)
        return (int(into), int(out)) if into == int(into) and out == int(out) else None

    @property
    def price_id(self) -> str:
        """16 hex digits that name this price by its content: equal prices have equal ids, whenever made."""
        if self._id is None:
            object.__setattr__(self, "_id", _price_id(self))
        return self._id or ""

    @property
    def tariff(self) -> Tariff:
        """The realtime prices outside every time window."""
        return self._tariff

    def sells(self, lane: str) -> bool:
        """Tell whether the price of this lane is known."""
        return lane == REALTIME or lane in dict(self.lanes)

    def terms_at(self, lane: str, at: datetime | None) -> tuple[Tariff, Decimal]:
        """Return what holds in a lane at a moment (None: outside every window), and the factor on it."""
        window = None if at is None else next((found for found in self.windows if found.covers(at)), None)
        return self._terms(lane, None if window is None else window.variant)

    def every_term(self, lane: str) -> Iterator[tuple[Tariff, Decimal]]:
        """Yield what may hold in a lane, whatever the time of day."""
        yield self._terms(lane, None)
        for window in self.windows:
            yield self._terms(lane, window.variant)

    def _terms(self, lane: str, hours: Variant | None) -> tuple[Tariff, Decimal]:
        if hours is None and lane == REALTIME and not self.lanes:
            return self._tariff, ONE
        if not self.sells(lane):
            raise PriceError(f"the price of {self.model} at {self.provider} in the {lane} lane is unknown")
        changes = [hours or Variant(), dict(self.lanes).get(lane, Variant())]
        tariff = next((change.tariff for change in changes if change.tariff is not None), self.tariff)
        return tariff, MONEY.multiply(changes[0].multiplier, changes[1].multiplier)

    def charges(self) -> Iterator["Charge"]:
        """Yield what tokens cost in every lane, at every hour and in every context tier."""
        for lane in (REALTIME, *(name for name, _ in self.lanes)):
            for window in (None, *self.windows):
                tariff, factor = self._terms(lane, None if window is None else window.variant)
                for over, rates in (
                    (None, tariff.rates),
                    *((one.input_tokens_over, one.rates) for one in tariff.above),
                ):
                    dollars = {name: MONEY.multiply(getattr(rates, name), factor) for name in RATES}
                    yield Charge(lane, window, over, dollars)

    @property
    def is_free(self) -> bool:
        """Whether no request can ever cost anything."""
        fixed = self.per_request == 0 and self.minimum_charge == 0
        return fixed and all(rates.dearest_input == 0 == rates.dearest_output for rates in self._every_rate())

    @property
    def output_is_free(self) -> bool:
        """Whether output tokens can never cost anything."""
        return all(rates.dearest_output == 0 for rates in self._every_rate())

    def _every_rate(self) -> Iterator[Rates]:
        variants = [*(window.variant for window in self.windows), *(variant for _, variant in self.lanes)]
        for tariff in (self.tariff, *(variant.tariff for variant in variants)):
            if tariff is not None:
                yield from tariff.every_rate()

    def terms(self) -> dict[str, Any]:
        """Return what goes beyond the components, in the words of a price file; empty for a plain price."""
        found: dict[str, Any] = {}
        if self.cache_write_1h != self.cache_write:
            found["cache_write_1h"] = plain(self.cache_write_1h)
        if self.above:
            found["above"] = self.tariff.as_record()["above"]
        if self.lanes:
            found["tier"] = {lane: variant.as_record() for lane, variant in self.lanes}
        if self.windows:
            found["window"] = [window.as_record() for window in self.windows]
        for name in ("minimum_charge", "markup"):
            if getattr(self, name):
                found[name] = plain(getattr(self, name))
        return found

    def as_record(self) -> dict[str, str | None]:
        """For the journal and the ledger: every field as text, `terms` as JSON, with its `price_id`."""
        terms = self.terms()
        plain_fields = {name: _as_text(getattr(self, name)) for name in _PLAIN}
        return {"price_id": self.price_id, **plain_fields, "terms": json.dumps(terms) if terms else None}


_BEYOND = ("cache_write_1h", "above", "lanes", "windows", "minimum_charge", "markup", "contradictions")
_PLAIN = tuple(item.name for item in fields(Price) if item.init and item.name not in _BEYOND)


@dataclass(frozen=True, slots=True)
class Charge:
    """Dollars per 1M tokens under one condition."""

    lane: str
    window: Window | None
    """None: at all hours that are in no window."""
    input_tokens_over: int | None
    """None: below the lowest context tier."""
    dollars: Mapping[str, Decimal]
    """By the names of RATES."""


def _price_id(price: Price) -> str:
    content: dict[str, Any] = {name: _as_text(getattr(price, name)) for name in _PLAIN}
    for name in COMPONENTS:  # 0.30 and 0.3 are one price
        content[name] = plain(getattr(price, name))
    if terms := price.terms():
        content["terms"] = terms
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
