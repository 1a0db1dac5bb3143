"""What an error says of our own account, key or model: then no row will pass, whatever stands in it.

Most say it with a code. Where a vendor has none, the wording counts: of what an account is told of itself, never of
what one row may have brought, whose text an error may quote.
"""

import re
from http import HTTPStatus
from typing import Literal

from pipeline.providers._said import Said

NO_CREDIT = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_credits",
    "insufficient_balance",
    "payment_required",
    "budget_exceeded",  # LiteLLM's proxy
    "arrearage",  # DashScope, with a 400
    "exceeded_current_quota_error",  # Moonshot, with a 429
)
BAD_KEY = ("invalid_api_key", "authentication_error", "account_deactivated", "api_key_invalid")
BAD_KEY_TYPES = ("permission_error", "permissiondeniederror", "authenticationerror")
NO_MODEL = "model_not_found"
NOT_THERE_TYPES = ("not_found_error", "notfounderror")
_NOT_THERE = (NO_MODEL, *NOT_THERE_TYPES)
_NO_BUDGET = re.compile(r"budget has been exceeded|exceeded.?budget", re.IGNORECASE)
"""LiteLLM's proxy, with a 400 or, later, a 429."""
_SPEND = re.compile(
    rf"credit balance is too low|reached your .{{0,20}}usage limit|spend(ing)? limit|{_NO_BUDGET.pattern}",
    re.IGNORECASE,
)
_BROKE = re.compile(
    r"^\s*(account \S+ is suspended|insufficient balance or no resource package|余额不足"
    r"|your (newly created )?teams?\b[^.]{0,80} (used all available credits|doesn.t have any credits))",
    re.IGNORECASE,
)
"""Fireworks, with a 412; Zhipu (its 1113, in two languages) and xAI, with a 429. What an account is told of itself
stands first: an error of one row may quote its text. Quota, plan and billing mean nothing here: Gemini says them of the
limit of a minute."""
_WRONG_KEY = re.compile(
    r"^\s*(api key (not (valid|found)|expired)|incorrect api key provided"
    r"|(missing|invalid)( or invalid)? authorization header)",
    re.IGNORECASE,
)
"""Gemini and xAI, with a 400."""
_ACCOUNT: dict[int, tuple[re.Pattern[str], ...]] = {
    400: (_SPEND, _WRONG_KEY, _BROKE),
    412: (_BROKE,),
    429: (_NO_BUDGET, _BROKE),
}
"""By status, what says that our own account or key is to blame, and no row."""
BAD_KEY_SAID = re.compile(r"(invalid|incorrect|missing) (api )?key|unauthori[sz]ed", re.IGNORECASE)
NO_FUNDS_SAID = re.compile(r"(insufficient|not enough|out of) (credits?|balance|funds)", re.IGNORECASE)
_KEY_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def blames_account(said: Said, status: int) -> bool:
    """Tell whether the wording says so, where this status is one with which a vendor is known to."""
    return any(words.search(said.own_message) for words in _ACCOUNT.get(status, ()))


def is_broke(said: Said) -> bool:
    """Tell whether a code for a rate limit says that the money is gone: no wait brings any (Zhipu)."""
    return _BROKE.search(said.own_message) is not None


def what_is_wrong(said: Said, status: int, *, success: bool) -> Literal["credit", "key", "fatal"]:
    """Tell what keeps every row from passing: the code says more than the status, and the wording counts last.

    `success`: the status says that all is well, so that the wording is all there is.
    """
    words = {(word or "").lower() for word in (said.code, said.kind)}
    if not words.isdisjoint(NO_CREDIT):
        return "credit"
    if not words.isdisjoint(_NOT_THERE) or said.param == "service_tier":
        return "fatal"
    spent = _SPEND.search(said.message) or NO_FUNDS_SAID.search(said.message) or is_broke(said)
    if status == HTTPStatus.PAYMENT_REQUIRED or spent:
        return "credit"
    if not words.isdisjoint((*BAD_KEY, *BAD_KEY_TYPES)) or status in _KEY_STATUSES:
        return "key"
    wrong = BAD_KEY_SAID.search(said.message) if success else _WRONG_KEY.search(said.own_message)
    return "key" if wrong else "fatal"
