"""Prices, and what a request costs: exact decimals, one rounding, never a float.

Prices are US dollars per 1,000,000 tokens. `cost_usd` is what the provider should charge for a usage;
`worst_case_usd` is what a request can cost at most; `total_usd` and `worst_total_usd` add these up over many requests.
The project's prices are the files in `pipeline/prices/`.
"""

from pipeline.pricing._ahead import Share, look_ahead
from pipeline.pricing._cost import COST_UNIT, cost_usd, mean_cost_usd, worst_case_usd
from pipeline.pricing._files import (
    PRICE_KEYS,
    Listing,
    PriceBook,
    in_force,
    load_prices,
    parse_price_option,
    parse_prices,
    price_from_table,
)
from pipeline.pricing._price import COMPONENTS, LANES, REALTIME, Price
from pipeline.pricing._terms import Above, Claim, Rates, Tariff, Variant, Window
from pipeline.pricing._totals import Bulk, Mix, total_usd, worst_total_usd

__all__ = [
    "COMPONENTS",
    "COST_UNIT",
    "LANES",
    "PRICE_KEYS",
    "REALTIME",
    "Above",
    "Bulk",
    "Claim",
    "Listing",
    "Mix",
    "Price",
    "PriceBook",
    "Rates",
    "Share",
    "Tariff",
    "Variant",
    "Window",
    "cost_usd",
    "in_force",
    "load_prices",
    "look_ahead",
    "mean_cost_usd",
    "parse_price_option",
    "parse_prices",
    "price_from_table",
    "total_usd",
    "worst_case_usd",
    "worst_total_usd",
]
