"""The budget's arithmetic."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.budget import ZERO, Budget, about

dollars = st.decimals(0, 5, places=12, allow_nan=False, allow_infinity=False)


@given(cap=dollars, exchanges=st.lists(st.tuples(dollars, st.fractions(0, 1), st.booleans()), max_size=40))
def test_spent_and_reserved_never_exceed_the_cap_whatever_the_order(cap, exchanges):
    budget, in_flight = Budget(cap), []
    for worst, share, comes_back in exchanges:
        left = budget.left
        granted = budget.reserve(worst)
        assert granted == (worst <= left)
        if granted:
            in_flight.append((worst, share))
        assert budget.spent + sum((w for w, _ in in_flight), ZERO) <= cap
        if comes_back and in_flight:
            reserved, part = in_flight.pop(0)
            budget.settle(reserved, None if part == 1 else (reserved * part.numerator / part.denominator))
        assert budget.left == cap - budget.spent - sum((w for w, _ in in_flight), ZERO)
        assert budget.left >= 0


def test_a_request_that_fits_exactly_is_granted():
    budget = Budget(Decimal("0.30"))
    assert [budget.reserve(Decimal("0.10")) for _ in range(4)] == [True, True, True, False]
    assert budget.left == 0


def test_a_refused_reservation_changes_nothing():
    budget = Budget(Decimal(1))
    assert not budget.reserve(Decimal("1.000000000001"))
    assert budget.left == 1
    assert budget.reserve(Decimal(1))


@pytest.mark.parametrize(
    ("cost", "spent"),
    [(Decimal("0.25"), "0.25"), (ZERO, "0"), (None, "0.75")],
    ids=["known", "free", "unknown counts at its worst case"],
)
def test_settling_replaces_the_reservation_by_the_cost(cost, spent):
    budget = Budget(Decimal(1))
    budget.reserve(Decimal("0.75"))
    assert budget.left == Decimal("0.25")
    budget.settle(Decimal("0.75"), cost)
    assert budget.spent == Decimal(spent)
    assert budget.left == 1 - Decimal(spent)


def test_what_earlier_runs_of_the_plan_spent_counts():
    budget = Budget(Decimal(5), already_spent=Decimal("4.5"))
    assert budget.spent == Decimal("4.5")
    assert not budget.reserve(Decimal("0.6"))
    assert budget.reserve(Decimal("0.5"))


def test_without_a_cap_everything_is_granted_and_the_sums_are_kept():
    budget = Budget()
    assert budget.reserve(Decimal(10**9))
    assert budget.left is None
    budget.settle(Decimal(10**9), Decimal("0.000000000001"))
    assert budget.spent == Decimal("0.000000000001")


def test_dollars_are_exact():
    budget = Budget(Decimal(1))
    for _ in range(1000):
        assert budget.reserve(Decimal("0.001"))
        budget.settle(Decimal("0.001"), Decimal("0.0001"))
    assert budget.spent == Decimal("0.1")


@pytest.mark.parametrize(
    ("amount", "rounding", "text"),
    [
        ("1234.567", ROUND_HALF_EVEN, "$1234.57"),
        ("12.3456", ROUND_HALF_EVEN, "$12.35"),
        ("0.1234567", ROUND_HALF_EVEN, "$0.1235"),
        ("0.00012345", ROUND_HALF_EVEN, "$0.0001234"),
        ("0.00012341", ROUND_CEILING, "$0.0001235"),
        ("0.00012349", ROUND_FLOOR, "$0.0001234"),
        ("0", ROUND_HALF_EVEN, "$0.00"),
    ],
)
def test_a_forecast_has_cents_and_of_small_amounts_four_digits(amount, rounding, text):
    assert about(Decimal(amount), rounding) == text
