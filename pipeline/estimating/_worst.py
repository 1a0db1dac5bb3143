"""What requests can cost at most: every exchange that one can take, as dear as it can be."""

from collections import Counter
from decimal import Decimal, localcontext
from math import ceil

from pipeline.estimating._outlook import Bill, Outlook
from pipeline.estimating._to_send import EXACT, ToSend, total_usd
from pipeline.planning import Meter
from pipeline.schemas import MOST_SAID

COMPLAINT = 4 * MOST_SAID + 128
"""Input tokens of what a repair says of the answer before, at most: it quotes what is wrong, and a character has up to
four bytes, each a token; the rest is its own words and what the chat's format puts around two messages."""


def worst_inputs(to_send: ToSend, outlook: Outlook) -> Counter[int]:
    """Return the input tokens of every exchange at its worst -> how many have that many.

    Each repair shows the model the answer before, which is max_tokens long. A provider that was seen to bill more than
    was counted does so again.
    """
    billed = Counter[int]()
    for size, requests in to_send.sizes.items():
        billed[ceil(max(outlook.billed_input(size), size * outlook.exchange_ratio))] += requests
    either = (to_send.bounds, billed)
    inputs = max(either, key=lambda sizes: sum(size * requests for size, requests in sizes.items()))
    if not outlook.repair:
        return inputs
    found = Counter[int]()
    for repairs in range(outlook.repair + 1):
        for size, requests in inputs.items():
            found[size + repairs * ((outlook.max_tokens or 0) + COMPLAINT)] += requests
    return found


def ceiling_usd(worst: Counter[int], meter: Meter, outlook: Outlook, bill: Bill | None) -> Decimal | None:
    """Price every exchange at its worst case, retries apart; None if price or max_tokens leave it open.

    A provider that was seen to charge more than the price says does so again; and no interval ends above it.
    """
    usd = total_usd(worst, meter.worst_case)
    if usd is None or meter.charged:  # the price calls free what the provider charges for: it bounds nothing
        return None
    with localcontext(EXACT):
        usd *= max(outlook.billed_factor, Decimal(1))
        return max(usd, Decimal(0) if bill is None else bill.high)
