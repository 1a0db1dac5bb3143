"""What a usage costs, and what a request can cost at most."""

from datetime import datetime
from decimal import ROUND_CEILING, Decimal, localcontext

from pipeline.pricing._price import REALTIME, Price
from pipeline.pricing._terms import MONEY, ONE, ONE_MILLIONTH, Rates
from pipeline.records import Usage

COST_UNIT = Decimal("0.000000000001")


def cost_usd(price: Price, usage: Usage, *, lane: str = REALTIME, at: datetime | None = None) -> Decimal:
    """Price a usage: exact, rounded once (half to even) to 12 decimal places of a dollar.

    `at` is when the request was sent; without it no time window holds. A usage that contradicts itself (more cached
    tokens than input) is charged by its parts, never below zero. Raises PriceError for a lane of unknown price.
    """
    if price.per_token is not None and lane == REALTIME:
        inputs, outputs, cached, written, reasoning, _, _ = usage
        if not (cached or written or reasoning):
            return MONEY.multiply(inputs * price.per_token[0] + outputs * price.per_token[1], COST_UNIT)
    tariff, multiplier = price.terms_at(lane, at)
    tokens = _dollars_per_million(tariff.rates_for(usage.input_tokens), usage)
    # MONEY's own methods: to make it the thread's context takes longer than the whole sum, which every answer pays for.
    return MONEY.quantize(charged(price, MONEY.multiply(MONEY.multiply(tokens, multiplier), ONE_MILLIONTH)), COST_UNIT)


def mean_cost_usd(price: Price, usage: Usage, output_tokens: float, *, at: datetime | None = None) -> Decimal:
    """Price a usage whose output is an average, such as 1.4 tokens: between the costs of the whole numbers around it.

    `usage.output_tokens` is not looked at. Exact where a cost grows evenly with the output. Raises PriceError.
    """
    whole = int(output_tokens)
    part = Decimal(output_tokens) - whole
    below, above = (cost_usd(price, usage._replace(output_tokens=tokens), at=at) for tokens in (whole, whole + 1))
    with localcontext(MONEY):
        return below + (above - below) * part


def worst_case_usd(price: Price, input_bound: int, max_tokens: int, *, lane: str = REALTIME) -> Decimal:
    """Upper bound of one request's cost: every token at its dearest rate, rounded up to 12 places.

    It holds at any time of day and for every context tier that the request can reach. `max_tokens` bounds all output of
    the request, so a caller that asks for n answers passes n times as many.
    """
    with localcontext(MONEY):
        dearest = max(
            (input_bound * rates.dearest_input + max_tokens * rates.dearest_output) * multiplier
            for tariff, multiplier in price.every_term(lane)
            for rates in tariff.reachable(input_bound)
        )
        return charged(price, dearest * ONE_MILLIONTH).quantize(COST_UNIT, rounding=ROUND_CEILING)


def charged(price: Price, tokens_usd: Decimal) -> Decimal:
    """Add what a request costs beside its tokens; not rounded."""
    if not (price.per_request or price.minimum_charge or price.markup):
        return tokens_usd
    request_usd = max(MONEY.add(tokens_usd, price.per_request), price.minimum_charge)
    return MONEY.multiply(request_usd, MONEY.add(ONE, price.markup))


def _dollars_per_million(rates: Rates, usage: Usage) -> Decimal:
    plain_input = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
    plain_output = max(0, usage.output_tokens - usage.reasoning_tokens)
    cost = MONEY.fma(plain_input, rates.input, MONEY.multiply(plain_output, rates.output))
    if not (usage.cached_input_tokens or usage.cache_write_tokens or usage.reasoning_tokens):
        return cost
    for_an_hour = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
    others = (
        (usage.cached_input_tokens, rates.cached_input),
        (usage.cache_write_tokens - for_an_hour, rates.cache_write),
        (for_an_hour, rates.cache_write_1h),
        (usage.reasoning_tokens, rates.reasoning),
    )
    for tokens, rate in others:
        cost = MONEY.fma(tokens, rate, cost)
    return cost
