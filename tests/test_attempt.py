"""What one exchange means: graded, priced, and what comes next."""

from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from types import SimpleNamespace
from unittest import mock

import pytest

from pipeline import planning
from pipeline.doorman import Limits, Ticket
from pipeline.errors import Pause, WireError
from pipeline.ledger import OpenAnswer
from pipeline.pricing import Price, Variant, Window, cost_usd
from pipeline.providers import find
from pipeline.records import Failure, ModelSpec, Reply, Request, Usage, WireReply
from pipeline.retry import RetryPolicy
from pipeline.runners._connection import Remote
from pipeline.runners.attempt import Again, Done, Exchanger, Halt, judge
from pipeline.schemas import AnswerCheck
from pipeline.suspects import Standing

PRICE = Price("p", "m", input=Decimal("0.25"), output=Decimal(2))
TICKET = Ticket(Request("v1k", ({"role": "user", "content": "hi"},)), Decimal("0.001"), 60, 10, "exact")
CHECK = AnswerCheck({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}})
GOOD = b'{"model": "m-1", "choices": [{"finish_reason": "stop", "message": {"content": "%s"}}], "usage": %s}'
RAN_OUT = (
    b'{"error": {"message": "Could not finish the message because max_tokens or model output limit was reached. Please'
    b' try again with higher max_tokens.", "type": "invalid_request_error", "param": null, "code": null}}'
)
USAGE = b'{"prompt_tokens": 1000, "completion_tokens": 200}'


class Meter:
    """Counts nothing; knows the price."""

    charged = False

    def __init__(self, price):
        self.price = price

    def price_at(self, sent_at):
        return self.price

    def ticket(self, request):
        return TICKET._replace(request=request)


class Wire:
    """Answers with what it was given, bytes or an error."""

    def __init__(self, answer):
        self.answer = answer

    async def post(self, url, headers, body):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self):
        pass


def exchanger(answer=None, *, price=PRICE, check=None, repair=0, attempts=2):
    provider = find("any", base_url="http://127.0.0.1:1/v1", dialect=None, options={})
    return Exchanger(
        run_id=7,
        spec=ModelSpec("any", "m", base_url="http://127.0.0.1:1/v1", max_tokens=50),
        provider=provider,
        connection=Remote("http://127.0.0.1:1/v1", None),
        wire=Wire(answer),
        meter=Meter(price),
        policy=RetryPolicy(attempts=attempts),
        check=check,
        repair=repair,
    )


def http(status, body=b"{}", **headers):
    return WireReply(status, headers, body)


@pytest.mark.parametrize(
    ("answer", "result", "cost"),
    [
        (http(200, GOOD % (b"fine", USAGE)), "ok", "0.00065"),
        (http(200, GOOD % (b"fine", b"null")), "ok", None),
        (http(200, b"not json"), "unavailable", None),
        (http(500), "unavailable", "0"),
        (http(504), "unavailable", None),
        (http(429), "rate_limited", "0"),
        (http(400), "rejected", "0"),
        (http(400, RAN_OUT), "truncated", None),
        (http(200, RAN_OUT.replace(b"null", b"400")), "truncated", None),  # OpenRouter
        (http(400, RAN_OUT[:-1] + b', "usage": %s}' % USAGE), "truncated", "0.00065"),
        (http(500, b'{"error": {}, "usage": %s}' % USAGE), "unavailable", "0.00065"),
        (http(504, b'{"error": {}, "usage": %s}' % USAGE), "unavailable", "0.00065"),
        (http(400, b'{"error": {}, "usage": {"prompt_tokens": 0, "completion_tokens": 0}}'), "rejected", "0"),
        (http(200, GOOD % (b"fine", b'{"prompt_tokens": 0, "completion_tokens": 0}')), "ok", None),
        (http(401), "fatal", "0"),
        (WireError("timeout", "slow", maybe_sent=True), "unavailable", None),
        (WireError("connect", "nobody there", maybe_sent=False), "unavailable", "0"),
    ],
)
async def test_an_exchange_costs_what_the_provider_bills_and_is_unknown_where_it_does_not_say(answer, result, cost):
    attempt, _ = await exchanger(answer).send(TICKET)
    assert attempt.result == result
    assert attempt.computed_usd == (None if cost is None else Decimal(cost))
    assert attempt.reserved_usd == Decimal("0.001")


async def test_an_attempt_is_priced_by_what_was_in_force_when_it_was_sent():
    later = replace(PRICE, input=Decimal(9), effective_from=datetime(2026, 11, 3, tzinfo=UTC).date())
    sender = exchanger(http(200, GOOD % (b"fine", USAGE)))
    model = ModelSpec("any", "m", base_url="http://127.0.0.1:1/v1", max_tokens=50)
    job = SimpleNamespace(model=model, context_window=None)
    meter = planning.Meter(job, PRICE, (later,))
    assert meter.worst_case(1000) == Decimal("0.0091")  # either may be in force
    for sent_at, price in (
        (datetime(2026, 11, 2, 23, 59, 59, tzinfo=UTC), PRICE), (datetime(2026, 11, 3, tzinfo=UTC), later),
    ):  # fmt: skip
        with mock.patch("time.time", return_value=sent_at.timestamp()):
            attempt, _ = await replace(sender, meter=meter).send(TICKET)
        assert (attempt.price_id, attempt.computed_usd) == (price.price_id, cost_usd(price, Usage(1000, 200)))


async def test_an_answer_to_sound_costs_what_the_provider_says_or_nobody_knows():
    usage = (
        b'{"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 60}, "cost": 0.5}'
    )
    sender = exchanger(http(200, GOOD % (b"fine", usage)))
    attempt, _ = await sender.send(TICKET)
    assert (attempt.result, attempt.cost_usd) == ("ok", None)
    assert attempt.odd_usage["prompt_tokens_details"] == {"audio_tokens": 60}
    options = {"billed_cost_path": "usage.cost"}
    provider = find("any", base_url="http://127.0.0.1:1/v1", dialect=None, options=options)
    attempt, _ = await replace(sender, provider=provider).send(TICKET)
    assert attempt.cost_usd == Decimal("0.5")


async def test_reasoning_costs_the_same_wherever_a_usage_tells_it():
    price = Price("p", "m", input=Decimal(1), output=Decimal(10), reasoning=Decimal(2))
    for said in (b'"reasoning_tokens": 480', b'"completion_tokens_details": {"reasoning_tokens": 480}'):
        usage = b'{"prompt_tokens": 100, "completion_tokens": 500, "total_tokens": 600, %s}' % said
        attempt, _ = await exchanger(http(200, GOOD % (b"fine", usage)), price=price).send(TICKET)
        assert attempt.computed_usd == Decimal("0.00126")


@pytest.mark.parametrize(("hour", "factor"), [(5, 1), (6, 3), (11, 3), (12, 1)])
async def test_an_attempt_is_priced_by_the_hour_in_which_it_was_sent(hour, factor):
    price = replace(PRICE, windows=(Window(time(6), time(12), Variant(multiplier=Decimal(3))),))
    sender = exchanger(http(200, GOOD % (b"fine", USAGE)), price=price)
    with mock.patch("time.time", return_value=datetime(2026, 11, 3, hour, tzinfo=UTC).timestamp()):
        attempt, _ = await sender.send(TICKET)
    assert attempt.computed_usd == Decimal("0.00065") * factor


@pytest.mark.parametrize(
    ("said", "billed"),
    [
        (b"0.000058", "0.000058"),
        (b'"0.1"', "0.1"),
        (b"0", "0"),
        (b"1e-13", "0"),
        (b"-1", None),
        (b"1e300", None),
        (b'"much"', None),
        (b"true", None),
        (b"null", None),
        (b'1, "is_byok": true, "cost_details": {"upstream_inference_cost": 0.5}', "1.5"),
        (b'1, "is_byok": true', None),
        (b'1, "is_byok": false, "cost_details": {"upstream_inference_cost": 0.5}', "1"),
    ],
)
async def test_what_the_provider_says_it_billed_goes_before_what_was_computed(said, billed):
    usage = b'{"prompt_tokens": 1000, "completion_tokens": 200, "cost": ' + said + b"}"
    provider = find("any", base_url="http://127.0.0.1:1/v1", dialect=None, options={"billed_cost_path": "usage.cost"})
    sender = exchanger(http(200, GOOD % (b"fine", usage)))
    attempt, _ = await replace(sender, provider=provider).send(TICKET)
    assert attempt.computed_usd == Decimal("0.00065")
    assert attempt.billed_usd == (None if billed is None else Decimal(billed))
    assert attempt.cost_usd == Decimal(billed or "0.00065")
    attempt, _ = await sender.send(TICKET)
    assert attempt.billed_usd is None  # nobody asked to look for it
    attempt, _ = await replace(sender, provider=provider, wire=Wire(http(500, b'{"usage": %s}' % usage))).send(TICKET)
    assert attempt.cost_usd == Decimal(billed or "0.00065")  # an error is booked as it was charged, too


async def test_a_tool_call_is_read_by_the_tools_that_the_job_offers():
    call = b'{"function": {"name": "add", "arguments": "{}"}}'
    body = b'{"choices": [{"finish_reason": "tool_calls", "message": {"content": null, "tool_calls": [%s]}}]}' % call
    sender = exchanger(http(200, body))
    for tools, output in ((1, "{}"), (2, '[{"name":"add","arguments":{}}]')):
        spec = replace(sender.spec, extra={"tools": [{"type": "function"}] * tools})
        attempt, _ = await replace(sender, spec=spec).send(TICKET)
        assert attempt.output == output


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (http(200, GOOD % (b"fine", USAGE)), None),
        (http(200, GOOD % (b"fine", b"null")), None),
        (http(200, b"not json"), None),
        (http(504), None),
        (WireError("timeout", "slow", maybe_sent=True), None),
        (http(429), 0),
        (http(500), 0),
        (http(400), 0),
        (WireError("connect", "nobody there", maybe_sent=False), 0),
    ],
)
async def test_without_a_price_only_what_was_never_billed_has_a_known_cost(answer, cost):
    attempt, _ = await exchanger(answer, price=None).send(TICKET)
    assert attempt.computed_usd == cost


async def test_a_free_model_costs_nothing_even_if_it_does_not_tell_its_usage():
    free = Price("p", "m", input=Decimal(0), output=Decimal(0))
    attempt, _ = await exchanger(http(200, GOOD % (b"fine", b"null")), price=free).send(TICKET)
    assert attempt.computed_usd == 0


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (Reply("fine", "stop", "stop", None), "ok"),
        (Reply("fine", "other", None, None), "ok"),
        (Reply("half", "length", "length", None), "truncated"),
        (Reply(None, "length", "length", None), "truncated"),
        (Reply("", "stop", "stop", None), "invalid"),
        (Reply(None, "stop", "stop", None), "invalid"),
        (Reply("no", "refused", "content_filter", None), "refused"),
    ],
)
def test_only_a_whole_answer_is_a_success(reply, result):
    assert judge(reply, None)[0] == result


@pytest.mark.parametrize(
    ("tokens", "beyond", "error_type"),
    [(96, False, "context_full"), (96, True, "max_tokens"), (990, False, "max_tokens")],
)
def test_what_the_context_cut_off_is_told_of_a_model_that_reasoned_too(tokens, beyond, error_type):
    reply = Reply("half", "length", "length", Usage(4000, tokens), reasoned=True, reasoned_beyond_usage=beyond)
    assert judge(reply, None, 1000)[:2] == ("truncated", error_type)


@pytest.mark.parametrize("reason", ["MAX_TOKENS", "max_output_tokens", "token_limit", "incomplete", "length: 9"])
def test_every_word_for_the_limit_names_the_limit(reason):
    assert (
        judge(Reply("half", "length", reason, None), None)[1:3] == judge(Reply("", "length", "length", None), None)[1:3]
    )


def test_a_cut_off_answer_is_truncated_even_if_it_fits_the_schema():
    assert judge(Reply('{"n": 1}', "length", "length", None), CHECK)[0] == "truncated"


def step(it, result, ticket=TICKET, **attempt_facts):
    attempt = it._attempt(ticket, result, sent_at=0.0, latency_ms=1.0, status=None)._replace(**attempt_facts)
    return it.next_step(ticket, attempt, result, streak=1, jitter=0.0)


FAILED = Failure("retry", "unavailable", "http_503", "busy", http_status=503)


def test_a_failure_goes_out_again_until_its_attempts_are_used_up():
    it = exchanger(attempts=2)
    again = step(it, FAILED)
    assert isinstance(again, Again)
    assert (again.ticket.attempt, again.ticket.tries, again.ticket.kind) == (2, 1, "retry")
    done = step(it, FAILED, again.ticket)
    assert isinstance(done, Done)
    assert (done.outcome.status, done.outcome.attempts, done.outcome.answer_run) == ("failed", 2, None)


def test_a_row_is_never_failed_for_want_of_a_connection():
    no_connection = FAILED._replace(error_type="connect", message="nobody there", not_sent=True)
    halt = step(exchanger(attempts=1), no_connection)
    assert isinstance(halt, Halt)
    assert "can't be reached: nobody there" in halt.pause.why


def test_a_rate_limit_shuts_the_door_and_uses_up_nothing():
    it = exchanger(attempts=1)
    limited = FAILED._replace(result="rate_limited", closes_door=True, wait_seconds=3.0)
    again = step(it, limited)
    assert isinstance(again, Again)
    assert (again.shuts_door, again.ticket.tries, again.wait_seconds >= 3.0) == (True, 0, True)


LIMITED = FAILED._replace(result="rate_limited", closes_door=True, message="slow down")


def refused(standing, ticket=TICKET, **failure):
    it, result = exchanger(), LIMITED._replace(**failure)
    attempt = it._attempt(ticket, result, sent_at=0.0, latency_ms=1.0, status=429)
    return it.next_step(ticket, attempt, result, streak=1, jitter=0.0, standing=standing)


def test_a_row_that_is_refused_while_others_pass_waits_for_itself():
    again = refused(Standing(refusals=4, apart=True), wait_seconds=1.0)
    assert (again.shuts_door, again.queue, again.wait_seconds) == (False, "apart", 2.0), "longer than the server says"
    assert refused(Standing(refusals=4, apart=True), wait_seconds=30.0).wait_seconds == 30.0
    assert refused(Standing(refusals=2, steps_back=True))[2:] == (True, "second")
    assert refused(Standing(refusals=1, by_chance=True), wait_seconds=5.0)[1:] == (5.0, False, "own")


def test_a_row_that_never_passes_is_rejected_and_told_what_helps():
    done = refused(Standing(refusals=9, suspect=True, given_up="a rate limit refused it 9 times"))
    assert (done.outcome.status, done.outcome.error_type) == ("rejected", "never_passes")
    assert done.outcome.error.startswith("a rate limit refused it 9 times; a quota may be too small for its 60 tokens")
    assert done.outcome.error.endswith("`promptmill retry JOB --status rejected` tries again. It says: slow down")


def test_a_repair_that_never_passes_leaves_the_answer_that_was_to_be_repaired():
    repair = TICKET._replace(attempt=2, kind="repair", answered_attempt=1)
    done = refused(Standing(refusals=9, suspect=True, given_up="a rate limit refused it 9 times"), repair)
    assert (done.outcome.status, done.outcome.answer_attempt) == ("invalid", 1)
    assert done.outcome.error.startswith("the answer doesn't fit, and its repair brought nothing better")
    assert done.outcome.error.endswith("a rate limit refused it 9 times")


def test_rows_that_nobody_can_judge_halt_the_run():
    assert refused(Standing(hopeless="nothing else is left")) == Halt(
        Pause("rate_limited", "nothing else is left. It says: slow down")
    )


def test_a_rejection_ends_the_row_and_a_dead_quota_halts_the_run():
    rejected = step(exchanger(), FAILED._replace(action="reject", result="rejected"))
    assert isinstance(rejected, Done)
    assert rejected.outcome.status == "rejected"
    refused = step(exchanger(), FAILED._replace(action="reject", result="refused"))
    assert refused.outcome.status == "refused"
    assert step(exchanger(), FAILED._replace(action="pause", result="fatal")) == Halt(Pause("fatal", "busy"))


BAD = Reply('{"n": "x"}', "stop", "stop", Usage(1, 1))


def test_a_repair_is_filed_under_the_rows_key_and_allowed_only_so_often():
    it = exchanger(check=CHECK, repair=1)
    reply = Reply('{"n": "x"}', "stop", "stop", Usage(1, 1))
    again = step(it, reply)
    assert isinstance(again, Again)
    assert (again.ticket.kind, again.ticket.request.key, again.wait_seconds) == ("repair", "v1k", 0.0)
    assert again.ticket.request.messages[-2]["content"] == '{"n": "x"}'
    done = step(it, reply, again.ticket)
    assert done.outcome.status == "invalid"
    assert (done.outcome.answer_run, done.outcome.answer_attempt) == (7, 2), "the invalid answer is kept"


async def test_a_key_that_a_provider_repeats_never_shows_in_a_failure():
    key = "sk-0123456789abcdefghij"
    body = b'{"error": {"message": "Incorrect API key provided: %s", "code": "invalid_api_key"}}' % key.encode()
    it = replace(exchanger(http(401, body)), connection=Remote("http://127.0.0.1:1/v1", key))
    attempt, _ = await it.send(TICKET)
    assert key not in attempt.error


def test_a_repair_that_brings_nothing_leaves_the_answer_that_was_to_be_repaired():
    it = exchanger(check=CHECK, repair=1, attempts=1)
    again = step(it, Reply('{"n": "x"}', "stop", "stop", Usage(1, 1)))
    done = step(it, FAILED, again.ticket)
    assert (done.outcome.status, done.outcome.answer_attempt, done.outcome.attempts) == ("invalid", 1, 2)


def test_a_repair_that_a_stated_limit_never_lets_through_is_not_sent():
    """It is longer than the request that it repairs: a strict server would refuse it for ever."""
    it = replace(exchanger(check=CHECK, repair=1), limits=Limits(tokens_per_minute=60))
    assert isinstance(step(it, BAD), Again), "60 fit"
    it = replace(it, limits=Limits(tokens_per_minute=59))
    done = step(it, BAD)
    assert (done.outcome.status, done.outcome.answer_attempt, done.outcome.error_type) == ("invalid", 1, "schema")
    assert "it can't be repaired: the request needs 60 tokens" in done.outcome.error


@pytest.mark.parametrize(
    "repaired",
    [
        Reply("", "stop", "stop", Usage(1, 0)),
        Reply(" \n", "stop", "stop", Usage(1, 1)),
        Reply(None, "stop", "stop", Usage(1, 0)),
        Reply("I can't help with that.", "refused", "content_filter", Usage(1, 5)),
        Reply('{"n"', "length", "length", Usage(1, 50)),
    ],
    ids=["empty", "blank", "nothing", "refused", "cut off"],
)
def test_a_repair_that_is_worse_leaves_the_answer_that_was_to_be_repaired(repaired):
    it = exchanger(check=CHECK, repair=1)
    outcome = step(it, repaired, step(it, BAD).ticket).outcome
    assert (outcome.status, outcome.answer_attempt, outcome.attempts) == ("invalid", 1, 2)
    assert outcome.error.startswith("the answer doesn't fit, and its repair brought nothing better: the ")


def test_an_empty_repair_between_two_others_hides_no_answer():
    it = exchanger(check=CHECK, repair=2)
    second = step(it, BAD).ticket
    third = step(it, Reply("", "stop", "stop", Usage(1, 0)), second).ticket
    assert (third.attempt, third.answered_attempt) == (3, 1)
    assert step(it, FAILED._replace(action="reject", result="refused"), third).outcome.answer_attempt == 1
    assert step(it, Reply('{"n": 1}', "stop", "stop", Usage(1, 1)), third).outcome[1:5] == ("ok", 3, 7, 3)


def test_of_several_answers_that_do_not_fit_the_newest_is_kept():
    it = exchanger(check=CHECK, repair=2, attempts=1)
    third = step(it, BAD, step(it, BAD).ticket).ticket
    outcome = step(it, FAILED, third).outcome
    assert (outcome.status, outcome.answer_attempt, outcome.attempts) == ("invalid", 2, 3)


def test_an_answer_of_an_earlier_run_stays_when_its_repairs_bring_nothing():
    it = exchanger(check=CHECK, repair=2, attempts=1)
    first = it.repair_of(TICKET.request, OpenAnswer(3, 1, '{"n": "x"}', "schema", "why", 0))
    second = step(it, Reply("", "stop", "stop", Usage(1, 0)), first).ticket
    outcome = step(it, FAILED, second).outcome
    assert (outcome.answer_run, outcome.answer_attempt) == (3, 1)


def test_an_answer_of_nothing_is_sent_back_as_an_empty_text():
    again = step(exchanger(check=CHECK, repair=1), Reply(None, "stop", "stop", Usage(1, 0)))
    assert again.ticket.request.messages[-2] == {"role": "assistant", "content": ""}


def test_a_first_answer_that_is_empty_gives_way_to_any_repair_with_text():
    it = exchanger(check=CHECK, repair=1)
    second = step(it, Reply("", "stop", "stop", Usage(1, 0))).ticket
    assert step(it, BAD, second).outcome.answer_attempt == 2


@pytest.mark.parametrize(
    ("reason", "says"),
    [("length", "cut off at max_tokens"), ("stop", "nothing but reasoning"), ("repetition", "that repeated itself")],
)
def test_a_cut_off_answer_says_what_the_server_said(reason, says):
    result, _, error, _ = judge(Reply("", "length", reason, None), None)
    assert (result, says in error) == ("truncated", True)


def test_an_answer_behind_its_reasoning_says_what_takes_it_apart():
    result, _, error, _ = judge(Reply('<think>hm</think>{"n": 1}', "stop", "stop", None), CHECK)
    assert (result, "vLLM: --reasoning-parser" in error) == ("invalid", True)
    assert "think" not in judge(Reply("no", "stop", "stop", None), CHECK)[2]


@pytest.mark.parametrize("check", [None, CHECK])
@pytest.mark.parametrize("text", ["<think>", "<think>\nhm", "<think>hm</think>", "<think>a</think><think>b</think> \n"])
def test_an_answer_of_nothing_but_thoughts_is_cut_off(text, check):
    result, error_type, error, _ = judge(Reply(text, "stop", "stop", None), check)
    assert (result, error_type, "nothing but reasoning" in error) == ("truncated", "max_tokens", True)


@pytest.mark.parametrize(
    "text",
    ["<think>hm</think>\n\n17", "It says <think>", " <think>", "<think>a</think>17 </think>", "<think> is a tag"],
)
def test_an_answer_behind_thoughts_or_about_them_is_one(text):
    assert judge(Reply(text, "stop", "stop", None), None)[0] == "ok"


@pytest.mark.parametrize("text", ["", None, "  \n\n", "\t"])
def test_an_answer_of_nothing_but_blanks_is_empty(text):
    assert judge(Reply(text, "stop", "stop", None), None)[:2] == ("invalid", "empty_answer")
