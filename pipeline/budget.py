"""The run's one budget: reserve the worst case before a request goes out, settle when its cost is known.

Pure arithmetic, no clock and no I/O. `spent + reserved <= cap` holds after every call as long as no exchange costs more
than was reserved for it (a run that sees one pauses).
"""

from decimal import ROUND_HALF_EVEN, Decimal

ZERO = Decimal(0)
MOST_BUDGET = 10**12
"""Dollars: more is a typing mistake, which would take the cap away."""
FORECAST_DIGITS = 4
_CENT = Decimal("0.01")
_BOOKED = Decimal("0.000000000001")


def dollars(amount: Decimal) -> str:
    """Write an amount for people: all digits that say something, at least two decimals."""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


def as_booked(amount: Decimal) -> Decimal:
    """Give an amount the twelve places of the ledger's column, so that equal amounts are spelled alike in a file."""
    return amount.quantize(_BOOKED)


def about(amount: Decimal, rounding: str = ROUND_HALF_EVEN) -> str:
    """Write a forecast for people: cents, and of small amounts four digits, for the rest of them is noise."""
    if not amount:
        return dollars(amount)
    place = Decimal(1).scaleb(amount.adjusted() - FORECAST_DIGITS + 1)
    return dollars(amount.quantize(min(place, _CENT), rounding=rounding))


class Budget:
    """Dollars of one plan: what earlier runs spent, what this run spent, what is in flight.

    Without a cap every reservation is granted; the sums are kept all the same, because progress shows them.
    """

    def __init__(self, cap: Decimal | None = None, already_spent: Decimal = ZERO) -> None:
        self.cap = cap
        self._spent = already_spent
        self._reserved = ZERO

    @property
    def spent(self) -> Decimal:
        """Settled dollars of the whole plan; exchanges of unknown cost count at their worst case."""
        return self._spent

    @property
    def left(self) -> Decimal | None:
        """What may still be reserved, or None without a cap."""
        return None if self.cap is None else self.cap - self._spent - self._reserved

    def reserve(self, worst_case: Decimal) -> bool:
        """Set `worst_case` dollars aside; False (and nothing changed) if the cap has no room for them."""
        left = self.left
        if left is not None and worst_case > left:
            return False
        self._reserved += worst_case
        return True

    def settle(self, reserved: Decimal, cost: Decimal | None) -> None:
        """Replace a reservation by what the exchange cost; None (unknown) keeps the whole worst case."""
        self._reserved -= reserved
        self._spent += reserved if cost is None else cost
